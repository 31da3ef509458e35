package main

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/logindex"
)

// benchFindCmd measures how long `keyd audit find` takes in a large log.
type benchFindCmd struct {
	Records int    `help:"Records in the log." default:"1000000" placeholder:"N"`
	Finds   int    `help:"Searches of each kind, each for something else." default:"20" placeholder:"N"`
	Dir     string `help:"Folder for the log, made and kept; a temporary one otherwise." type:"path" placeholder:"DIR"`
	Again   bool   `help:"Search the log that an earlier run left in --dir; its index is made again."`
	Check   bool   `help:"End with status 1 where a search takes a second or more."`
	JSON    bool   `help:"Print JSON lines." name:"json"`
}

// findTime is how long one kind of search took.
type findTime struct {
	Kind    string        `json:"kind"`
	Finds   int           `json:"finds"`
	Records int           `json:"records"` // found by the middle one
	P50     time.Duration `json:"p50_ns"`
	Max     time.Duration `json:"max_ns"`
}

// findSetup is what was made before.
type findSetup struct {
	Records        uint64        `json:"records"`
	Written        time.Duration `json:"written_ns"`
	Indexed        time.Duration `json:"indexed_ns"`
	IndexProcessor time.Duration `json:"indexed_processor_ns"`
	IndexBytes     float64       `json:"index_bytes_per_record"`
	Processors     int           `json:"processors"`
}

// mostFindTime is the hold of the search over ten million records.
const mostFindTime = time.Second

// Run makes a log and its index, and searches it.
func (c *benchFindCmd) Run(p *program) error {
	if c.Records < 1000 || c.Records > 100_000_000 || c.Finds < 1 || c.Again && c.Dir == "" {
		return usageError("want 1000 to 100000000 --records, one or more --finds, and with --again a --dir")
	}
	dir := c.Dir
	if !c.Again {
		made, clean, err := trialDir(c.Dir)
		if err != nil {
			return err
		}
		defer clean()
		dir = made
	}
	b := &findBench{benchFindCmd: c, p: p, dir: dir}
	if err := b.prepare(p.ctx); err != nil {
		return err
	}
	return b.measure(p.ctx)
}

type findBench struct {
	*benchFindCmd
	p     *program
	dir   string
	setup findSetup
}

// prepare writes the log, with the encoder, the writer and the checkpoints of a
// node, and indexes it.
func (b *findBench) prepare(ctx context.Context) error {
	begun := time.Now()
	if !b.Again {
		if err := b.write(ctx); err != nil {
			return fmt.Errorf("writing a log: %w", err)
		}
	}
	b.setup.Written = time.Since(begun)
	s, err := openSearch(b.dir, filepath.Join(b.dir, "index"), "")
	if err != nil {
		return err
	}
	begun = time.Now()
	spent := cpuNow(0).own
	for _, snap := range s.snaps {
		if _, err := s.index.Update(ctx, snap, logindex.Update{Again: true, Workers: runtime.GOMAXPROCS(0)}); err != nil {
			return errors.Join(err, s.close())
		}
		b.setup.Records += snap.Size()
	}
	b.setup.Indexed, b.setup.IndexProcessor = time.Since(begun), cpuNow(0).own-spent
	b.setup.Processors = runtime.GOMAXPROCS(0)
	bytes, err := folderBytes(filepath.Join(b.dir, "index"))
	if err != nil {
		return errors.Join(err, s.close())
	}
	b.setup.IndexBytes = float64(bytes) / float64(b.setup.Records)
	return s.close()
}

// folderBytes is the size of the files below a folder.
func folderBytes(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// benchTokener stands for the token's: a key of its own, in this process.
type benchTokener []byte

func (k benchTokener) Token(label string, data []byte) (string, error) {
	h := hmac.New(sha256.New, k)
	h.Write([]byte(label + "\x00"))
	h.Write(data)
	return "k1:" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16]), nil
}

// A sale leaves that many records.
const recordsOfSale = 4

func (b *findBench) write(ctx context.Context) (err error) {
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	log, err := audit.Open(b.dir, signer, audit.Options{
		Site: "bench.example", Node: "n1", Build: thisBuild().name(), Tokener: benchTokener("keyd bench find, no secret key."),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close(ctx)) }()
	if err := appendCeremony(ctx, log); err != nil {
		return err
	}
	const writers, salesAtOnce = 32, 16
	var (
		next   atomic.Int64
		group  sync.WaitGroup
		failed = make(chan error, writers)
	)
	for range writers {
		group.Go(func() {
			for {
				first := int(next.Add(salesAtOnce)) - salesAtOnce
				if first*recordsOfSale >= b.Records {
					return
				}
				if err := appendSales(ctx, log, first, salesAtOnce); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}

// appendCeremony writes a few records of sec.
func appendCeremony(ctx context.Context, log *audit.Log) error {
	ticket, err := log.Reserve(ctx, audit.Sec, 2)
	if err != nil {
		return err
	}
	defer ticket.Release()
	step := func(action audit.Action, step audit.Step, custodian string) audit.Record {
		return audit.Record{
			Action: action, Outcome: audit.OutcomeOK, Actor: audit.Actor{ID: custodian, Kind: audit.ActorCustodian, Authn: audit.AuthnCard},
			Cer: &audit.Cer{ID: "cer-2026-017", Step: step, M: 2, N: 3, Purpose: "Load a key for a measurement", Custodian: custodian},
		}
	}
	_, err = ticket.Append(step(audit.CeremonyOpen, audit.StepOpen, "custodian-a"), step(audit.CeremonyJoin, audit.StepJoin, "custodian-b"))
	return err
}

// appendSales writes the records of some sales at 4,000 terminals with 300,000
// cards; one sale in fifty is reversed, and one of these reversals refused.
func appendSales(ctx context.Context, log *audit.Log, first, n int) error {
	ticket, err := log.Reserve(ctx, audit.Ops, n*recordsOfSale)
	if err != nil {
		return err
	}
	defer ticket.Release()
	records := make([]audit.Record, 0, n*recordsOfSale)
	for i := first; i < first+n; i++ {
		pan, err := log.PAN(fmt.Appendf(nil, "622424%010d", i*7919%300_000))
		if err != nil {
			return err
		}
		records = append(records, saleRecords(i, pan)...)
	}
	_, err = ticket.Append(records...)
	return err
}

// benchKey names a key as the store does.
func benchKey(name string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", name, n))
	return hex.EncodeToString(sum[:16])
}

// saleRecords are those of sale i.
func saleRecords(i int, pan audit.PAN) []audit.Record {
	terminal, amount := i*31%4000, int64(100+i%90_000)
	like := audit.Record{
		Outcome: audit.OutcomeOK, Corr: fmt.Sprintf("8583.c-%d.%06d", terminal%97, i), Actor: audit.Actor{ID: fmt.Sprintf("pos-link-%d", terminal%8), Kind: audit.ActorSwitch},
		Src: audit.Source{Addr: fmt.Sprintf("10.9.%d.%d:40112", terminal%8, terminal%250), Conn: fmt.Sprintf("c-%d", terminal%97)},
		PAN: pan, Duration: 812 * time.Microsecond,
		ISO: audit.ISO{
			MTI: "0200", STAN: fmt.Sprintf("%06d", i/4000%999_999+1), RRN: fmt.Sprintf("%012d", i), Proc: "000000", Amount: &amount, Currency: "156",
			Terminal: audit.Registered(fmt.Sprintf("9%07d", terminal)), Merchant: audit.Registered(fmt.Sprintf("8501000%08d", terminal/10)),
		},
	}
	mac := like
	mac.Action, mac.KSN, mac.Mech, mac.Custody = audit.MACVerify, fmt.Sprintf("FFFF98%06X%08X", terminal, i), "CKM_DES3_ECB", audit.CustodyToken
	mac.HSM = audit.HSM{Serial: "A1B2C3D4"}
	mac.Keys = []audit.Key{{Role: audit.KeyRoleMAC, ID: benchKey("tak", terminal), Version: 1, KCV: "5BB5C7"}}
	mac.MAC = audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictOK}
	pin := mac
	pin.Action, pin.MAC, pin.PIN = audit.PINTranslate, audit.MAC{}, audit.PIN{FormatIn: audit.PINISO0, FormatOut: audit.PINISO0}
	pin.Keys = []audit.Key{{Role: audit.KeyRoleBDK, ID: benchKey("bdk", 0), Version: 2, KCV: "08D7B4"}, {Role: audit.KeyRoleOut, ID: benchKey("zpk", terminal%3), Version: 4, KCV: "9F2A11"}}
	accept, last := like, like
	accept.Action = audit.SaleAccept
	last.Action, last.ISO.DE39 = audit.SaleAnswer, "00"
	if i%50 == 0 {
		last.Action = audit.ReversalAccept
		last.ISO.MTI, last.ISO.STAN, last.ISO.Orig = "0400", fmt.Sprintf("%06d", (i/4000+500_000)%999_999+1), audit.Orig{MTI: "0200", STAN: like.ISO.STAN}
		if i%2500 == 0 {
			last.Action, last.Outcome, last.Reason, last.ISO.DE39 = audit.ReversalRefuse, audit.OutcomeRefused, audit.ReasonMACInvalid, "A0"
			last.MAC = audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictBad}
		}
	}
	return []audit.Record{mac, pin, accept, last}
}

// measure searches for what sample records say.
func (b *findBench) measure(ctx context.Context) error {
	samples, err := b.samples()
	if err != nil {
		return err
	}
	if err := b.print(nil); err != nil {
		return err
	}
	slow := false
	for _, kind := range findKinds() {
		f := findTime{Kind: kind.name, Finds: len(samples)}
		var times []time.Duration
		var rows []int
		for _, sample := range samples {
			begun := time.Now()
			n, err := b.find(ctx, kind.ask(sample))
			if err != nil {
				return fmt.Errorf("finding by %s: %w", kind.name, err)
			}
			times, rows = append(times, time.Since(begun)), append(rows, n)
		}
		slices.Sort(times)
		slices.Sort(rows)
		f.P50, f.Max, f.Records = times[len(times)/2], times[len(times)-1], rows[len(rows)/2]
		slow = slow || f.Max >= mostFindTime
		if err := b.print(&f); err != nil {
			return err
		}
	}
	if b.Check && slow {
		return fmt.Errorf("a search took %v or more", mostFindTime)
	}
	return nil
}

// find is one search, as the command does it: from opening the log on.
func (b *findBench) find(ctx context.Context, c auditFindCmd) (n int, err error) {
	c.Limit = 1000
	q, err := c.query(time.Now())
	if err != nil {
		return 0, err
	}
	s, err := openSearch(b.dir, filepath.Join(b.dir, "index"), "")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	report := &findReport{}
	if c.Key != "" {
		report, err = c.story(ctx, s, q)
	} else {
		report, err = c.plain(ctx, s, q)
	}
	if err != nil {
		return 0, err
	}
	return report.read, nil
}

// samples are records from all over the log, oldest to newest.
func (b *findBench) samples() (all []*found, err error) {
	s, err := openSearch(b.dir, filepath.Join(b.dir, "index"), audit.Ops.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	snap := s.snaps[len(s.snaps)-1]
	for i := range b.Finds {
		// The records between are as good: take the first one of the place that says all.
		for seq := snap.Size() * uint64(i) / uint64(b.Finds); seq < snap.Size(); seq++ {
			raw, err := s.reader.Get(snap.Log(), seq)
			if err != nil {
				return nil, err
			}
			r := &found{listed: listed{raw: raw}}
			if err := json.Unmarshal(raw, r); err != nil {
				return nil, err
			}
			if len(r.Keys) == 1 && r.KSN != "" && r.ISO.STAN != "" {
				all = append(all, r)
				break
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the log in %s has no records of sales", b.dir)
	}
	return all, nil
}

type findKind struct {
	name string
	ask  func(r *found) auditFindCmd
}

// findKinds are the kinds of search that are measured.
func findKinds() []findKind {
	return []findKind{
		{"request", func(r *found) auditFindCmd { return auditFindCmd{Correlation: r.Corr} }},
		{"rrn", func(r *found) auditFindCmd { return auditFindCmd{RRN: r.ISO.RRN} }},
		{"ksn", func(r *found) auditFindCmd { return auditFindCmd{KSN: r.KSN} }},
		{"hash", func(r *found) auditFindCmd {
			leaf := audit.LeafHash(r.raw)
			return auditFindCmd{Hash: hex.EncodeToString(leaf[:])}
		}},
		{"terminal and stan", func(r *found) auditFindCmd { return auditFindCmd{Term: r.ISO.Term, STAN: r.ISO.STAN} }},
		{"card", func(r *found) auditFindCmd { return auditFindCmd{PANToken: r.PANToken} }},
		{"terminal", func(r *found) auditFindCmd { return auditFindCmd{Term: r.ISO.Term} }},
		{"merchant", func(r *found) auditFindCmd { return auditFindCmd{Merchant: r.ISO.Merchant} }},
		{"stan", func(r *found) auditFindCmd { return auditFindCmd{STAN: r.ISO.STAN} }},
		{"key of a terminal", func(r *found) auditFindCmd { return auditFindCmd{Key: r.Keys[0].ID} }},
		{"key of all", func(*found) auditFindCmd { return auditFindCmd{Key: benchKey("bdk", 0)} }},
		{"custodian", func(*found) auditFindCmd { return auditFindCmd{Custodian: "custodian-b"} }},
		{"ceremony", func(*found) auditFindCmd { return auditFindCmd{Ceremony: "cer-2026-017"} }},
		{"refused reversals", func(*found) auditFindCmd { return auditFindCmd{Action: "reversal.refuse", Outcome: "refused"} }},
		{"reason", func(*found) auditFindCmd { return auditFindCmd{Reason: "mac_invalid"} }},
		{"action, until", func(r *found) auditFindCmd { return auditFindCmd{Action: "sale.*", Until: r.Time} }},
		{"time", func(r *found) auditFindCmd {
			return auditFindCmd{Since: r.Time, Until: after(r.Time, 10*time.Millisecond)}
		}},
		{"client, outcome", func(r *found) auditFindCmd { return auditFindCmd{Client: r.Actor.ID, Outcome: "refused"} }},
		{"nothing there", func(*found) auditFindCmd { return auditFindCmd{Term: "NOSUCH00"} }},
	}
}

// after is a time of a record and something.
func after(moment string, d time.Duration) string {
	t, err := time.Parse(recordTime, moment)
	if err != nil {
		return moment
	}
	return t.Add(d).Format(time.RFC3339Nano)
}

// print shows a row, or what was made.
func (b *findBench) print(f *findTime) error {
	if b.JSON {
		var row any = b.setup
		if f != nil {
			row = f
		}
		return json.NewEncoder(b.p.stdout).Encode(row)
	}
	if f == nil {
		m := b.setup
		_, err := fmt.Fprintf(b.p.stdout, "%d records, written in %.1f s; indexed in %.1f s by %d processors (%.1f s of processor time), %.1f bytes of index a record\n%-20s %8s %8s %10s %10s\n",
			m.Records, m.Written.Seconds(), m.Indexed.Seconds(), m.Processors, m.IndexProcessor.Seconds(), m.IndexBytes, "FIND BY", "SEARCHES", "RECORDS", "P50 MS", "MAX MS")
		return err
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	_, err := fmt.Fprintf(b.p.stdout, "%-20s %8d %8d %10.1f %10.1f\n", f.Kind, f.Finds, f.Records, ms(f.P50), ms(f.Max))
	return err
}
