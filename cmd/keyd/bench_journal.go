package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/internal/store"
)

// benchJournalCmd measures what a large journal costs: the start of the daemon,
// and a sale.
type benchJournalCmd struct {
	Rows     []int         `help:"Originals in the journal, one size after the other, rising." default:"10000,1000000" placeholder:"N"`
	Pending  int           `help:"Reversals that wait to be sent at each start." default:"10000"`
	Duration time.Duration `help:"How long sales are measured at each size." default:"10s"`
	Dir      string        `help:"Folder for the daemon, made and kept; a temporary one otherwise." type:"path"`
	JSON     bool          `help:"Print JSON lines." name:"json"`
}

// laden is what was measured at one size.
type laden struct {
	Rows     int           `json:"rows"`
	Pending  int           `json:"pending"`
	Database float64       `json:"database_mb"`
	Start    time.Duration `json:"start_ns"` // until it is ready
	Read     float64       `json:"start_read_mb"`
	Sales    float64       `json:"sales_per_second"`
	P50      time.Duration `json:"sale_p50_ns"`
	P99      time.Duration `json:"sale_p99_ns"`
	CPU      float64       `json:"sale_daemon_cpu_us"`
	Resident float64       `json:"resident_mb"`
	Load     string        `json:"load"`
}

// Run makes a node of its own and measures it at each size.
func (c *benchJournalCmd) Run(p *program) error {
	last := 0
	for _, rows := range c.Rows {
		if rows <= last || rows > 20_000_000 {
			return usageError("want rising numbers of --rows, up to 20000000")
		}
		last = rows
	}
	if last == 0 || c.Pending < 0 || c.Pending >= c.Rows[0] || c.Duration < 100*time.Millisecond {
		return usageError("want --rows, fewer --pending than these, and a --duration of 100ms or more")
	}
	dir, clean, err := trialDir(c.Dir)
	if err != nil {
		return err
	}
	defer clean()
	b := &journalBench{benchJournalCmd: c, p: p, dir: dir}
	if err := b.prepare(); err != nil {
		return fmt.Errorf("making a node: %w", err)
	}
	for _, rows := range c.Rows {
		found, err := b.measure(rows)
		if err != nil {
			return fmt.Errorf("with %d originals: %w", rows, err)
		}
		if err := b.print(found); err != nil {
			return err
		}
	}
	return nil
}

type journalBench struct {
	*benchJournalCmd
	p         *program
	dir       string
	terminals []*sim.Terminal // their counters go on from start to start
	made      int             // originals that were filled in
}

// prepare makes the node and has it journal a first sale, whose likeness the rest
// of the journal is.
func (b *journalBench) prepare() error {
	t, err := startTrial(b.p, b.dir)
	if err != nil {
		return err
	}
	defer t.stop()
	for _, fixed := range t.dev.Terminals[3:] {
		if fixed.BDK == "" {
			continue
		}
		terminal, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: t.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
		if err != nil {
			return err
		}
		b.terminals = append(b.terminals, terminal)
	}
	w, err := b.seller(t)(0)
	if err != nil {
		return err
	}
	defer w.end()
	return w.op()
}

// seller makes workers that sell, each with its terminal.
func (b *journalBench) seller(t *trial) func(n int) (worker, error) {
	return func(n int) (worker, error) {
		config, err := devTLS(t.dev, "terminal")
		if err != nil {
			return worker{}, err
		}
		link, err := sim.Dial(b.p.ctx, t.dev.SwitchAddr, config, 30*time.Second)
		if err != nil {
			return worker{}, err
		}
		return worker{op: func() error { return oneSale(b.terminals[n], link) }, end: link.Close}, nil
	}
}

func (b *journalBench) measure(rows int) (laden, error) {
	found := laden{Rows: rows, Pending: b.Pending, Load: loadAverage()}
	if err := b.fill(rows); err != nil {
		return found, fmt.Errorf("filling the journal: %w", err)
	}
	t, err := b.start(&found)
	if err != nil {
		return found, err
	}
	defer t.stop()
	if err := b.sent(t); err != nil {
		return found, err
	}
	f := load("sales", len(b.terminals), b.Duration, t.daemon.Process.Pid, b.seller(t))
	if f.Failed > 0 {
		return found, fmt.Errorf("%d sales failed", f.Failed)
	}
	found.Sales, found.P50, found.P99, found.CPU = f.PerSecond, f.P50, f.P99, f.ServerCPU
	found.Resident = residentMB(t.daemon.Process.Pid)
	found.Database = sizeMB(b.database() + "*")
	return found, nil
}

// start starts the daemon and measures how long it takes until it is ready, and
// what it has read until then. Its issuer comes behind it, since its address may
// be another one at each start.
func (b *journalBench) start(found *laden) (*trial, error) {
	began := time.Now()
	t, err := launchTrial(b.p, b.dir)
	if err != nil {
		return nil, err
	}
	if err := t.await(t.serves); err != nil {
		t.stop()
		return nil, err
	}
	found.Start, found.Read = time.Since(began), readMB(t.daemon.Process.Pid)
	if err := t.startIssuer(); err != nil {
		t.stop()
		return nil, err
	}
	if err := t.await(t.ready); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// mostSending bounds how long the queue may take until it is empty.
const mostSending = 5 * time.Minute

// sent waits until the issuer has every reversal that waited: sales are measured
// by themselves.
func (b *journalBench) sent(t *trial) error {
	db, err := store.Open(b.p.ctx, store.Config{Path: b.database(), Purpose: store.Visit})
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(b.p.ctx, mostSending)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		backlog, err := db.Backlog(ctx)
		if err != nil || backlog.Reversals == 0 {
			return err
		}
		select {
		case <-tick.C:
		case err := <-t.ended:
			t.ended <- err
			return fmt.Errorf("keyd dev ended (%w):\n%s", err, t.output)
		case <-ctx.Done():
			return fmt.Errorf("%d reversals still wait: %w", backlog.Reversals, ctx.Err())
		}
	}
}

// serves asks the daemon whether it is ready, but for its link.
func (t *trial) serves() error {
	resp, err := http.Get("http://" + t.dev.OpsAddr + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errNotYet
	}
	return nil
}

func (b *journalBench) database() string { return filepath.Join(b.dir, "dev", "keyd.db") }

// readMB is what a process has read by calls, in megabytes. proc(5).
func readMB(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte("rchar: ")); ok {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			if err != nil {
				return 0
			}
			return n / (1 << 20)
		}
	}
	return 0
}

// fillPage is how many originals a transaction of the filling has.
const fillPage = 500

// fill brings the journal to so many originals and the queue to b.Pending
// reversals, by the node's own store, so that each row has its MAC.
func (b *journalBench) fill(rows int) error {
	cfg, err := loadConfig(filepath.Join(b.dir, "dev", "keyd.toml"))
	if err != nil {
		return err
	}
	n, err := openNode(b.p.ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), newMetrics())
	if err != nil {
		return err
	}
	return errors.Join(b.fillNode(n, rows), n.close(b.p.ctx))
}

func (b *journalBench) fillNode(n *node, rows int) error {
	like, there, queued, err := inJournal(b.p.ctx, n.db)
	if err != nil {
		return err
	}
	bar := newProgress(b.p.stderr, "originals", rows)
	defer bar.end()
	pending := b.Pending - queued
	for there < rows {
		page := min(fillPage, rows-there)
		err := n.db.Update(b.p.ctx, func(tx isoswitch.Tx) error {
			for range page {
				if err := b.insert(tx, like, pending > 0); err != nil {
					return err
				}
				pending--
			}
			return nil
		})
		if err != nil {
			return err
		}
		there += page
		bar.at(there)
	}
	return nil
}

// insert adds an original like another, of a later time, approved or with its
// reversal in the queue.
func (b *journalBench) insert(tx isoswitch.Tx, like *isoswitch.Txn, reverse bool) error {
	b.made++
	t := *like
	name := func(kind string) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, b.made)) }
	t.Received = time.Now().UTC().Add(-time.Hour)
	t.OID, t.Key, t.Content, t.Raw = name("oid"), name("key"), name("content"), name("raw")
	t.TID, t.STAN = fmt.Sprintf("J%07d", b.made%50_000), fmt.Sprintf("%06d", b.made%1_000_000)
	t.RRN, t.Approval = fmt.Sprintf("9%011d", b.made), fmt.Sprintf("%06d", b.made*7919%1_000_000)
	t.Card = custody.Card{Sealed: like.Card.Sealed, Token: fmt.Sprintf("k1:%x", name("card"))[:25]}
	t.UpSTAN = t.STAN
	if reverse {
		t.State = isoswitch.ReversalPending
	}
	if err := tx.InsertTxn(&t); err != nil || !reverse {
		return err
	}
	return tx.InsertReversal(&isoswitch.Reversal{
		RID: name("rid"), OID: t.OID, Cause: isoswitch.ByTimeout, Full: true, TID: t.TID, Built: t.Received,
		UpSTAN: fmt.Sprintf("%06d", (b.made+500_000)%1_000_000), UpSent: t.UpSent, Link: t.Link,
		State: isoswitch.Queued, Reason: "68", Next: time.Now().UTC(),
	})
}

// errEnough ends a reading early.
var errEnough = errors.New("enough was read")

// inJournal returns the first original, and how many originals and open reversals
// there are.
func inJournal(ctx context.Context, db *store.DB) (first *isoswitch.Txn, originals, queued int, err error) {
	err = db.Export(ctx, store.ExportQuery{},
		func(c store.ExportCount) error { originals = int(c.Originals); return nil },
		func(e store.Exported) error { first = e.Txn; return errEnough })
	if !errors.Is(err, errEnough) {
		return nil, 0, 0, fmt.Errorf("reading the first original: %w", err)
	}
	backlog, err := db.Backlog(ctx)
	return first, originals, backlog.Reversals, err
}

func (b *journalBench) print(f laden) error {
	if b.JSON {
		return json.NewEncoder(b.p.stdout).Encode(f)
	}
	_, err := fmt.Fprintf(b.p.stdout, "%d originals, %d reversals waiting, %.0f MB: ready after %v with %.0f MB read; %.0f sales a second, p50 %v, p99 %v, %.0f us of the daemon's processor time each; resident %.0f MB; load before %s\n",
		f.Rows, f.Pending, f.Database, f.Start.Round(time.Millisecond), f.Read, f.Sales, f.P50.Round(10*time.Microsecond), f.P99.Round(10*time.Microsecond), f.CPU, f.Resident, f.Load)
	return err
}
