package report

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
)

var (
	update = flag.Bool("update", false, "write the golden files anew")
	newLog = flag.Bool("newlog", false, "write the log anew that the golden files are of")
)

// kept is the folder of a log that was written once: a log of the day has other
// roots, and its heartbeats fall where they will.
var kept = filepath.Join("testdata", "log")

// signer is the key of the specification's vectors, bytes 00 to 1f.
func signer() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

type tokener struct{}

func (tokener) Token(label string, data []byte) (string, error) {
	h := sha256.Sum256(append([]byte(label), data...))
	return fmt.Sprintf("k1:%022x", h[:11]), nil
}

// story writes a log, at times of its own.
type story struct {
	t   *testing.T
	dir string
	log *audit.Log
	n   byte

	mu   sync.Mutex
	now  time.Time
	sync bool
}

func newStory(t *testing.T, at string) *story {
	t.Helper()
	s := &story{t: t, dir: t.TempDir(), sync: true}
	s.at(at)
	s.open()
	return s
}

func (s *story) open() {
	s.t.Helper()
	log, err := audit.Open(s.dir, signer(), audit.Options{
		Site: "example", Node: "n1", Build: "1.0.0+g1", SegmentSize: 8 << 20, Tokener: tokener{}, TimeSource: "ntp:pool-a",
		Clock:       func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.now },
		TimeQuality: func() (bool, int64) { s.mu.Lock(); defer s.mu.Unlock(); return s.sync, 412 },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.log = log
}

// at sets the clock.
func (s *story) at(stamp string) {
	s.t.Helper()
	at, err := time.Parse("2006-01-02 15:04:05", stamp)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = at
}

// tell appends records, each with an id that is known.
func (s *story) tell(all ...audit.Record) {
	s.t.Helper()
	for _, r := range all {
		if r.ID.IsZero() {
			r.ID = s.id()
		}
		if r.Actor.ID == "" {
			r.Actor = audit.System()
		}
		ticket, err := s.log.Reserve(context.Background(), r.Action.Log(), 1)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := ticket.Append(r); err != nil {
			s.t.Fatal(err)
		}
		ticket.Release()
	}
}

func (s *story) id() audit.UUID {
	s.n++
	return audit.UUID{0x01, 0xa2, 0, 0, 0, 0, 0x70, 0, 0x80, 15: s.n}
}

func (s *story) end() {
	s.t.Helper()
	if err := s.log.Close(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// source verifies the log and opens it.
func (s *story) source() Source {
	s.t.Helper()
	return sourceOf(s.t, s.dir)
}

func sourceOf(t *testing.T, dir string) Source {
	t.Helper()
	var keys []string
	r, err := audit.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	names, err := r.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		v, err := audit.Vkey("audit.example/n1/"+name, signer().Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, v)
	}
	found, err := audit.Verify(dir, keys, audit.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return Source{Reader: r, Found: found}
}

func operator(name string) audit.Actor {
	return audit.Actor{ID: name, Kind: audit.ActorOperator, Authn: audit.AuthnCard, Roles: []string{"admin"}}
}

var (
	client   = audit.Actor{ID: "pos-link-7", Kind: audit.ActorSwitch, Authn: audit.AuthnMTLS}
	src      = audit.Source{Addr: "10.9.0.41:40112", Conn: "c-17"}
	theToken = audit.HSM{Serial: "A1B2C3D4"}
)

func target(id string, version int) []audit.Key {
	return []audit.Key{{Role: audit.KeyRoleTarget, ID: id, Version: version, KCV: "9F2A11", Usage: "M6", Algo: audit.AlgoAES128}}
}

// threeDays is a log in which the day in the middle has something of each kind.
func threeDays(t *testing.T) *story {
	t.Helper()
	s := newStory(t, "2026-11-20 08:00:00")
	s.tell(audit.Record{Action: audit.SysStart, Outcome: audit.OutcomeOK})
	s.tell(refusedReversal("T0000001", audit.ReasonMACInvalid))
	s.at("2026-11-20 08:01:00")
	s.tell(audit.Record{Action: audit.SysStop, Outcome: audit.OutcomeOK})
	s.end()
	s.at("2026-11-21 09:00:00")
	s.open()
	s.tell(audit.Record{Action: audit.SysStart, Outcome: audit.OutcomeOK},
		audit.Record{Action: audit.ConfigLoad, Outcome: audit.OutcomeOK, Change: &audit.Change{Kind: audit.ChangeConfig, Object: "config"}})
	s.keys()
	s.at("2026-11-21 09:02:00")
	s.traffic()
	s.at("2026-11-21 09:03:00")
	s.people()
	s.at("2026-11-21 09:05:00")
	s.mu.Lock()
	s.sync = false
	s.mu.Unlock()
	time.Sleep(2 * time.Second) // the log looks at the clock once a second
	s.tell(audit.Record{Action: audit.SysTime, Outcome: audit.OutcomeOK, Step: &audit.ClockStep{Wall: -700 * time.Millisecond}, Alarm: audit.Alarm{Code: "clock_step", Level: audit.LevelWarn}},
		audit.Record{Action: audit.SysStart, Outcome: audit.OutcomeOK})
	s.at("2026-11-22 07:00:00")
	s.tell(refusedReversal("T0000009", audit.ReasonMACMissing))
	s.end()
	return s
}

func (s *story) keys() {
	begun := s.id()
	approve := audit.Record{Action: audit.AdminApprove, Outcome: audit.OutcomeOK, Actor: operator("raj"), ID: s.id(),
		Change: &audit.Change{Kind: audit.ChangeKey, Object: "CreateKey/ref1/a-new-key"}}
	s.tell(audit.Record{Action: audit.AdminRequest, Outcome: audit.OutcomeOK, Actor: operator("anna"), Change: &audit.Change{Kind: audit.ChangeKey, Object: "CreateKey/ref1/a-new-key"}}, approve)
	consent := []audit.Approval{{ID: "raj", At: s.now, Ref: approve.ID}}
	change := &audit.Change{Kind: audit.ChangeKey, Object: "key1/alias/shop/mac"}
	s.tell(audit.Record{Action: audit.KeyCreate, Phase: audit.PhaseIntent, ID: begun, Actor: operator("anna"), Src: src, Keys: target("key1", 1), HSM: theToken, Change: change, Approvals: consent},
		audit.Record{Action: audit.KeyCreate, Outcome: audit.OutcomeOK, Ref: begun, Actor: operator("anna"), Src: src, Keys: target("key1", 1), HSM: theToken, Change: change, Approvals: consent})
	rotate, both := s.id(), append(target("key1", 1), target("key2", 2)...)
	both[0].Role = audit.KeyRoleIn
	s.tell(audit.Record{Action: audit.KeyRotate, Phase: audit.PhaseIntent, ID: rotate, Actor: operator("anna"), Keys: both, HSM: theToken, Change: &audit.Change{Kind: audit.ChangeKey, Object: "key1"}},
		audit.Record{Action: audit.KeyRotate, Outcome: audit.OutcomeOK, Ref: rotate, Actor: operator("anna"), Keys: both, HSM: theToken, Change: &audit.Change{Kind: audit.ChangeKey, Object: "key1"}})
	s.tell(audit.Record{Action: audit.KeyExport, Phase: audit.PhaseIntent, Actor: operator("<b>anna</b>"), Keys: target("key2", 2), HSM: theToken, Change: &audit.Change{Kind: audit.ChangeKey, Object: "key2"}})
}

func (s *story) traffic() {
	for range 3 {
		s.tell(audit.Record{Action: audit.MACVerify, Outcome: audit.OutcomeOK, Actor: client, Src: src, HSM: theToken,
			Keys: []audit.Key{{Role: audit.KeyRoleMAC, ID: "key1", Version: 1}}, MAC: audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictOK}})
	}
	s.tell(refusedReversal("T0000001", audit.ReasonMACInvalid), refusedReversal("T0000001", audit.ReasonMACInvalid), refusedReversal("T0000002", audit.ReasonKSNReplay))
	by := []audit.CountBy{{Reason: audit.ReasonMACInvalid, N: 700}, {Reason: audit.ReasonLocked, N: 42}}
	count := &audit.Count{N: 742, Peer: "pos-link-7", From: s.now, To: s.now.Add(100 * time.Millisecond), By: by}
	s.tell(audit.Record{Action: audit.RefuseAggregate, Outcome: audit.OutcomeRefused, Reason: audit.ReasonMACInvalid, Actor: client, Count: count},
		audit.Record{Action: audit.ReversalSummary, Outcome: audit.OutcomeRefused, Reason: audit.ReasonMACInvalid,
			Count: &audit.Count{N: 703, Peer: "pos-link-7", From: s.now, To: s.now.Add(time.Minute), By: []audit.CountBy{{Reason: audit.ReasonMACInvalid, N: 702}, {Reason: audit.ReasonKSNReplay, N: 1}}}})
}

func (s *story) people() {
	s.tell(audit.Record{Action: audit.AuthAccept, Outcome: audit.OutcomeOK, Actor: client, Src: src},
		audit.Record{Action: audit.AuthDeny, Outcome: audit.OutcomeRefused, Reason: audit.ReasonRoleDenied, Actor: operator("mallory"), Src: src, Change: &audit.Change{Kind: audit.ChangeKey, Object: "ExportKey"}},
		audit.Record{Action: audit.LogRead, Outcome: audit.OutcomeOK, Actor: audit.Actor{ID: "lee", Kind: audit.ActorAuditor, Authn: audit.AuthnMTLS, Roles: []string{"auditor"}},
			Query: &audit.Query{Cmd: audit.QueryFind, Filter: "key=alias/shop/mac <script>alert(1)</script>", Rows: 14}},
		audit.Record{Action: audit.PeerChange, Outcome: audit.OutcomeOK, Actor: operator("anna"), Change: &audit.Change{Kind: audit.ChangePeer, Object: "peer/pos-link-7"}},
		audit.Record{Action: audit.SysAlarm, Outcome: audit.OutcomeOK, Alarm: audit.Alarm{Code: "lockout_flood", Level: audit.LevelCritical}})
}

func refusedReversal(tid string, why audit.Reason) audit.Record {
	return audit.Record{
		Action: audit.ReversalRefuse, Outcome: audit.OutcomeRefused, Reason: why, Actor: client, Src: src,
		ISO: audit.ISO{MTI: "0400", STAN: "000302", Terminal: audit.Registered(tid), Merchant: audit.Registered("850100082410020"), DE39: "A0", Rule: "D-04", Alert: audit.AlertSecurity},
		MAC: audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictBad},
	}
}

// keptLog opens the log that is kept; with -newlog it is written first, as a copy
// for an auditor has it: tiles, checkpoints, keys.
func keptLog(t *testing.T) Source {
	t.Helper()
	if *newLog {
		s := threeDays(t)
		if err := os.RemoveAll(kept); err != nil {
			t.Fatal(err)
		}
		for _, log := range []string{"sec", "ops"} {
			if err := os.CopyFS(filepath.Join(kept, log), os.DirFS(filepath.Join(s.dir, log))); err != nil {
				t.Fatal(err)
			}
		}
		*newLog = false
	}
	src := sourceOf(t, kept)
	if !src.Found.OK() {
		t.Fatal(src.Found.Findings)
	}
	return src
}

func mustMake(t *testing.T, src Source, args Args) *Document {
	t.Helper()
	d, err := Make(t.Context(), src, args)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func written(t *testing.T, d *Document, f Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// day is the one that has something of each kind.
func day() (from, to time.Time) {
	return time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
}

func dayArgs(kind Kind, subject string) Args {
	a := Args{Kind: kind, Subject: subject}
	a.From, a.To = day()
	return a
}

// TestGolden (L-180, L-199): each report in each format, byte for byte.
func TestGolden(t *testing.T) {
	src := keptLog(t)
	tests := []struct {
		name string
		args Args
	}{
		{"daily", dayArgs(Daily, "")},
		{"key", Args{Kind: Key, Subject: "alias/shop/mac"}},
		{"refusals", dayArgs(Refusals, "")},
		{"access", dayArgs(Access, "")},
		{"time", Args{Kind: Clock}},
	}
	for _, tt := range tests {
		for _, f := range []Format{Text, CSV, JSON, HTML} {
			t.Run(tt.name+"."+string(f), func(t *testing.T) {
				got := written(t, mustMake(t, src, tt.args), f)
				if again := written(t, mustMake(t, src, tt.args), f); again != got {
					t.Error("the same log gave another report")
				}
				file := filepath.Join("testdata", tt.name+"."+string(f))
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s differs (-want +got); -update writes it anew:\n%s", file, diff)
				}
			})
		}
	}
}

// section returns a section's rows by its title, or fails.
func section(t *testing.T, d *Document, title string) []Row {
	t.Helper()
	i := slices.IndexFunc(d.Sections, func(s Section) bool { return s.Title == title })
	if i < 0 {
		t.Fatalf("no section %q", title)
	}
	return d.Sections[i].Rows
}

// TestL180EveryFigureNamesItsRecords: the records behind each row of the table of
// all records are those of the log, and the sums are right.
func TestL180EveryFigureNamesItsRecords(t *testing.T) {
	src := keptLog(t)
	d := mustMake(t, src, dayArgs(Daily, ""))
	from, to := day()
	want := map[string]int64{}
	for _, name := range []string{"sec", "ops-2026-11"} {
		for e, err := range src.Reader.Records(name, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if at := timeOf(e.Raw); at >= stamp(from) && at < stamp(to) {
				r, err := parse(e)
				if err != nil {
					t.Fatal(err)
				}
				want[r.Action]++
			}
		}
	}
	got := map[string]int64{}
	for _, row := range section(t, d, "All records by action and outcome") {
		got[row.Cells[0]] = row.Refs.N()
		for _, l := range row.Refs.logs {
			for _, run := range l.runs {
				for seq := run.first; seq <= run.last; seq++ {
					raw, err := src.Reader.Get(l.log, seq)
					if err != nil || !strings.HasPrefix(string(raw), `{"action":"`+row.Cells[0]+`"`) {
						t.Errorf("%s names %s:%d, which is another record (%v)", row.Cells[0], l.log, seq, err)
					}
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records by action (-log +report):\n%s", diff)
	}
	for _, s := range d.Sections {
		for _, row := range s.Rows {
			if row.Refs.N() == 0 {
				t.Errorf("%s: %q names no record", s.Title, row.Cells)
			}
		}
	}
}

// TestL81ExactRefusals: the numbers of summaries and shared records are added up,
// and what has no record of its own is told.
func TestL81ExactRefusals(t *testing.T) {
	d := mustMake(t, keptLog(t), dayArgs(Refusals, ""))
	var got [][]string
	for _, row := range section(t, d, "Refused reversals by client, exactly") {
		got = append(got, row.Cells)
	}
	want := [][]string{{"pos-link-7", "ksn_replay", "1", "1", "0"}, {"pos-link-7", "mac_invalid", "702", "2", "700"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestDailyEye: what a person must look at is on top, and critical before the rest.
func TestDailyEye(t *testing.T) {
	d := mustMake(t, keptLog(t), dayArgs(Daily, ""))
	rows := section(t, d, "What needs a person's eye")
	var said []string
	for _, r := range rows {
		said = append(said, r.Level+": "+r.Cells[0])
	}
	for _, want := range []string{
		"critical: .*cut off", "critical: .*beginning and no end", "critical: .*Critical alarms", "critical: .*attacker",
		"warn: .*clock stepped", "warn: .*refused at the door", "warn: .*without a second person", "warn: .*not synchronised",
	} {
		if !slices.ContainsFunc(said, regexp.MustCompile(want).MatchString) {
			t.Errorf("nothing says %q in %q", want, said)
		}
	}
	if !slices.IsSortedFunc(rows, func(a, b Row) int { return strings.Compare(a.Level, b.Level) }) {
		t.Errorf("critical is not before warn: %q", said)
	}
	if d.Sections[0].Title != "What needs a person's eye" {
		t.Error("it is not on top")
	}
}

// TestRangeIsWhole: a range is found by halves, at its very edges and in a log whose
// clock went back.
func TestRangeIsWhole(t *testing.T) {
	s := newStory(t, "2026-11-20 08:00:00")
	s.tell(audit.Record{Action: audit.SysStart, Outcome: audit.OutcomeOK})
	for hour := range 30 {
		s.at(fmt.Sprintf("2026-11-20 %02d:30:00", hour%24))
		if hour >= 24 {
			s.at(fmt.Sprintf("2026-11-21 %02d:30:00", hour%24))
		}
		if hour == 20 { // two hours back, and on
			s.at("2026-11-20 17:59:59")
		}
		s.tell(audit.Record{Action: audit.SysAlarm, Outcome: audit.OutcomeOK, Alarm: audit.Alarm{Code: "test", Level: audit.LevelWarn}})
		for range 20 {
			s.tell(refusedReversal("T0000001", audit.ReasonMACInvalid))
		}
	}
	s.end()
	source := s.source()
	for _, r := range [][2]string{{"2026-11-20 17:00:00", "2026-11-20 18:00:00"}, {"2026-11-20 18:30:00", "2026-11-20 19:30:00"}, {"2026-11-21 00:00:00", "2026-11-22 00:00:00"}, {"2026-11-19 00:00:00", "2026-11-20 00:30:00"}} {
		t.Run(r[0], func(t *testing.T) {
			from, _ := time.Parse("2006-01-02 15:04:05", r[0])
			to, _ := time.Parse("2006-01-02 15:04:05", r[1])
			want := int64(0)
			for e, err := range source.Reader.Records("ops-2026-11", 0) {
				if err != nil {
					t.Fatal(err)
				}
				if at := timeOf(e.Raw); at >= stamp(from) && at < stamp(to) {
					want++
				}
			}
			d := mustMake(t, source, Args{Kind: Daily, From: from, To: to})
			got := int64(0)
			for _, l := range d.Logs {
				if l.Log == "ops-2026-11" {
					got = l.Records
				}
			}
			if got != want {
				t.Errorf("%d records, the log has %d", got, want)
			}
		})
	}
}

// TestDamaged: a report over a log that does not verify says so on top, in every
// format.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	bundles, err := filepath.Glob(filepath.Join(dir, "sec", "tile", "entries", "000.p", "*"))
	if err != nil || len(bundles) == 0 {
		t.Fatal(err)
	}
	for _, file := range bundles {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.Replace(text, []byte("anna"), []byte("emma"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := mustMake(t, sourceOf(t, dir), dayArgs(Daily, ""))
	for _, f := range []Format{Text, CSV, JSON, HTML} {
		text := written(t, d, f)
		want := "NOT VERIFIED"
		if f == JSON {
			want = `"verified": false`
		}
		if at := strings.Index(text, want); at < 0 || f == Text && at > 200 {
			t.Errorf("%s does not say %q on top", f, want)
		}
	}
}

// TestHTMLIsInert: nothing of a record is markup, nothing is loaded, nothing runs.
func TestHTMLIsInert(t *testing.T) {
	text := written(t, mustMake(t, keptLog(t), dayArgs(Access, "")), HTML)
	for _, bad := range []string{"<script", "http://", "https://", "src=", "@import", "<link", "onload", "<b>anna"} {
		if strings.Contains(strings.ReplaceAll(text, "http-equiv", ""), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(text, "&lt;script&gt;alert(1)") {
		t.Error("what a record says is not on the page")
	}
}

// TestCSV: a rectangle that a program reads, and no cell that a spreadsheet runs.
func TestCSV(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(written(t, mustMake(t, keptLog(t), dayArgs(Daily, "")), CSV))).ReadAll()
	if err != nil || len(rows) < 30 {
		t.Fatal(len(rows), err)
	}
	for _, cell := range []struct{ in, want string }{{"=1+1", "'=1+1"}, {"+a", "'+a"}, {"@x", "'@x"}, {"-700000", "-700000"}, {"-x", "'-x"}, {"plain", "plain"}} {
		if got := inert(cell.in); got != cell.want {
			t.Errorf("%q became %q, want %q", cell.in, got, cell.want)
		}
	}
}

// TestNothing: what the log does not have, and what cannot be asked.
func TestNothing(t *testing.T) {
	source := keptLog(t)
	from, to := day()
	tests := []struct {
		name string
		args Args
		want error
	}{
		{"no such key", Args{Kind: Key, Subject: "alias/no/such"}, ErrNothing},
		{"no key", Args{Kind: Key, Subject: "NO KEY"}, ErrArgs},
		{"no such ceremony", Args{Kind: Ceremony, Subject: "cer-1"}, ErrNothing},
		{"no ceremony named", Args{Kind: Ceremony}, ErrArgs},
		{"no such report", Args{Kind: "weekly"}, ErrArgs},
		{"ends before it begins", Args{Kind: Daily, From: to, To: from}, ErrArgs},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Make(t.Context(), source, tt.args); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	if err := new(Document).Write(&bytes.Buffer{}, "pdf"); !errors.Is(err, ErrArgs) {
		t.Errorf("a format that there is not: %v", err)
	}
}

// TestRefs: runs, their bounds, and both together.
func TestRefs(t *testing.T) {
	var r Refs
	for _, seq := range []uint64{3, 4, 5, 9} {
		r.add("sec", seq)
	}
	r.add("ops-2026-11", 1)
	if got := r.String(); got != "sec:3..5,9 ops-2026-11:1" {
		t.Error(got)
	}
	var many Refs
	for i := range uint64(3000) {
		many.add("sec", 2*i)
	}
	if got := many.String(); got != "sec:0,2,4,…,5998 (3000 records)" {
		t.Error(got)
	}
	both := joined(r, many)
	if both.N() != r.N()+many.N() {
		t.Errorf("%d records of %d and %d", both.N(), r.N(), many.N())
	}
	text, err := json.Marshal(r)
	if err != nil || string(text) != `[{"log":"sec","n":4,"runs":[[3,5],[9,9]],"last":9},{"log":"ops-2026-11","n":1,"runs":[[1,1]],"last":1}]` {
		t.Error(string(text), err)
	}
}
