package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// closedLog makes a log of two months and two lives that ended in order. It
// returns the state after the first life, too.
func closedLog(t *testing.T, perLife int) (older, log *simFS) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { older, log = makeClosedLog(t, perLife) })
	return older, log
}

func makeClosedLog(t *testing.T, perLife int) (older, log *simFS) {
	fsys := newSimFS()
	at := time.Date(2026, 11, 30, 23, 59, 58, 0, time.UTC)
	for life := range 2 {
		o := simOptions(fsys)
		o.Clock = func() time.Time { return at }
		o.CheckpointInterval = 20 * time.Millisecond
		l, err := Open("sim", testSigner(), o)
		if err != nil {
			t.Fatal(err)
		}
		produce(l, 2, perLife, fmt.Sprint(life), &acknowledged{pos: map[string]string{}})
		intent := Record{Action: KeyCreate, Phase: PhaseIntent, Actor: System(), Keys: []Key{{Role: KeyRoleTarget, ID: "zpk/x", Version: 1}}, Change: &Change{Kind: ChangeKey, Object: "zpk/x"}}
		ticket, err := l.Reserve(context.Background(), Sec, 2)
		if err != nil {
			t.Fatal(err)
		}
		pos, err := ticket.Append(intent)
		if err != nil {
			t.Fatal(err)
		}
		outcome := intent
		outcome.Phase, outcome.Outcome, outcome.Ref = PhaseOutcome, OutcomeOK, pos[0].ID
		if _, err := ticket.Append(outcome); err != nil {
			t.Fatal(err)
		}
		ticket.Release()
		if life == 0 {
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			older = fsys.snapshot()
			at = at.Add(time.Hour)
			continue
		}
		waitRotated(t, fsys)
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return older, fsys
}

// waitRotated waits until sec says that November ended.
func waitRotated(t testing.TB, fsys *simFS) {
	t.Helper()
	for range 50 {
		for e, err := range (&Reader{fsys}).Records("sec", 0) {
			if err != nil {
				t.Fatal(err)
			}
			if hasAction(e.Raw, LogRotate) {
				return
			}
		}
		time.Sleep(time.Second)
	}
	t.Fatal("November was not closed")
}

// found reports whether verify finds something, and whether Open refuses.
func found(t testing.TB, fsys *simFS) (byVerify, byOpen bool, findings []Finding) {
	t.Helper()
	report, err := verify(fsys.snapshot(), "sim", []string{testVkey(t)}, VerifyOptions{})
	byVerify = err != nil || !report.OK()
	o := simOptions(fsys.snapshot())
	o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		return byVerify, true, report.Findings
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return byVerify, false, report.Findings
}

// noticed reports whether verify finds something or else Open refuses.
func noticed(t testing.TB, fsys *simFS) bool {
	t.Helper()
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		return true
	}
	_, refused, _ := found(t, fsys)
	return refused
}

// partialOf returns the newest partial tile below a directory.
func partialOf(t testing.TB, s *simFS, dir string) string {
	t.Helper()
	width := 0
	for _, name := range s.files() {
		if rest, ok := strings.CutPrefix(name, dir); ok {
			n, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatal(err)
			}
			width = max(width, n)
		}
	}
	return dir + strconv.Itoa(width)
}

func (s *simFS) files() []string {
	var names []string
	for n, f := range s.names {
		if f != nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// TestTamperEveryFile is L-193: a changed, missing or added byte in any file
// is found, in those too that are for information only.
func TestTamperEveryFile(t *testing.T) {
	_, log := closedLog(t, 170)
	if v, o, findings := found(t, log); v || o {
		t.Fatalf("the log is good, but: %v, %v, %v", v, o, findings)
	}
	partials := 0
	for _, name := range log.files() {
		if strings.Contains(name, ".p/") {
			partials++
		}
		if name == "lock" || strings.Contains(name, ".p/") && partials > effort(t, 30, 1000) {
			continue
		}
		t.Run("L-193 "+name, func(t *testing.T) {
			t.Parallel()
			r := prng(len(name))
			data := log.names[name].data
			places := []int{0, len(data) - 1}
			for range effort(t, 6, 50) {
				places = append(places, int(r.below(uint64(len(data)))))
			}
			if strings.HasPrefix(name, "wal/") {
				for range effort(t, 4, 100) {
					places = append(places, int(r.below(headerSize)), int(r.below(4096)))
				}
			}
			for _, at := range places {
				bad := log.snapshot()
				if err := bad.flip(name, at); err != nil {
					t.Fatal(err)
				}
				if !noticed(t, bad) {
					t.Errorf("byte %d of %d changed: not found", at, len(data))
				}
			}
			changes := map[string]func(f *simFile){
				"cut by one":    func(f *simFile) { f.data = slices.Clone(f.data[:len(f.data)-1]) },
				"cut to half":   func(f *simFile) { f.data = slices.Clone(f.data[:len(f.data)/2]) },
				"emptied":       func(f *simFile) { f.data = nil },
				"one byte more": func(f *simFile) { f.data = append(slices.Clone(f.data), 'x') },
			}
			for what, change := range changes {
				bad := log.snapshot()
				change(bad.names[name])
				if !noticed(t, bad) {
					t.Errorf("%s: not found", what)
				}
			}
		})
	}
}

// TestTamperMatrix is L-193 with the rule that must be named.
func TestTamperMatrix(t *testing.T) {
	older, log := closedLog(t, 170)
	const nov, dec = "ops/2026-11", "ops/2026-12"
	replace := func(name string, change func([]byte) []byte) func(*testing.T, *simFS) {
		return func(t *testing.T, s *simFS) {
			f := s.names[name]
			if f == nil {
				t.Fatalf("no file %s", name)
			}
			f.data = change(slices.Clone(f.data))
		}
	}
	remove := func(name string) func(*testing.T, *simFS) {
		return func(t *testing.T, s *simFS) {
			if s.names[name] == nil {
				t.Fatalf("no file %s", name)
			}
			delete(s.names, name)
		}
	}
	signAgain := func(change func(*Checkpoint)) func([]byte) []byte {
		return func(msg []byte) []byte {
			c, err := unverifiedCheckpoint(msg)
			if err != nil {
				t.Fatal(err)
			}
			change(&c)
			if msg, err = signCheckpoint(c, testSigner()); err != nil {
				t.Fatal(err)
			}
			return msg
		}
	}
	add := func(name, text string) func(*testing.T, *simFS) {
		return func(_ *testing.T, s *simFS) { s.names[name] = &simFile{data: []byte(text)} }
	}
	lines := func(i int, with string) func([]byte) []byte {
		return func(msg []byte) []byte {
			l := strings.Split(string(msg), "\n")
			l[i] = with
			return []byte(strings.Join(l, "\n"))
		}
	}
	last := log.names["wal/"+lastSegment(t, log)]
	tests := []struct {
		name   string
		change func(*testing.T, *simFS)
		rule   string // that verify names
		open   bool   // Open refuses too
	}{
		{"R-57 full bundle changed", replace(nov+"/tile/entries/000", flipAt(100)), "L-141", false},
		{"full bundle cut short", replace(nov+"/tile/entries/000", func(b []byte) []byte { return b[:len(b)-10] }), "L-141", false},
		{"full bundle with a surplus entry", replace(nov+"/tile/entries/000", func(b []byte) []byte { return appendEntry(b, []byte("{}")) }), "L-141", false},
		{"full bundle missing", remove(nov + "/tile/entries/000"), "L-141", false},
		{"R-57 entries of a bundle swapped", replace(nov+"/tile/entries/000", swapEntries), "L-141", false},
		{"A-02.T3 R-57 a record deleted", replace(nov+"/tile/entries/000", dropEntry), "L-141", false},
		{"level-0 tile changed", replace(nov+"/tile/0/000", flipAt(40)), "L-141", false},
		{"level-0 tile missing", remove(nov + "/tile/0/000"), "L-141", false},
		{"level-1 tile changed", replace(nov+"/tile/1/000.p/1", flipAt(31)), "L-141", true},
		{"partial bundle changed", replace(partialOf(t, log, nov+"/tile/entries/001.p/"), flipAt(9)), "L-141", false},
		{"size changed", replace(nov+"/checkpoint", lines(1, "7")), "L-61(c)", true},
		{"root changed", replace(nov+"/checkpoint", lines(2, base64.StdEncoding.EncodeToString(make([]byte, 32)))), "L-61(c)", true},
		{"origin changed", replace(nov+"/checkpoint", lines(0, "audit.example/n2/ops-2026-11")), "L-61(c)", true},
		{"signed again at a smaller size", replace(nov+"/checkpoint", signAgain(func(c *Checkpoint) { c.Size-- })), "", true},
		{"signed again with another root", replace(nov+"/checkpoint", signAgain(func(c *Checkpoint) { c.Root[0] ^= 1 })), "", true},
		{"checkpoint missing", remove(nov + "/checkpoint"), "L-61(c)", true},
		{"checkpoint of the other month", func(t *testing.T, s *simFS) { s.names[nov+"/checkpoint"] = s.names[dec+"/checkpoint"] }, "L-61(c)", true},
		{"R-57 last record cut off the write-ahead log", replace("wal/"+lastSegment(t, log), cutLastFrame), "L-61(e)", true},
		{"frame changed", replace("wal/"+lastSegment(t, log), flipAt(headerSize+frameHeader+20)), "L-28", true},
		{"segment header changed", replace("wal/"+lastSegment(t, log), flipAt(20)), "L-28", true},
		{"segment missing", remove("wal/" + lastSegment(t, log)), "L-28", true},
		{"bytes behind the last frame", replace("wal/"+lastSegment(t, log), flipAt(len(last.data)-1)), "L-30", false},
		{"note changed", replace("state/ops-2026-12.next", lines(1, "1")), "L-61(f)", true},
		{"note missing", remove("state/ops-2026-12.next"), "L-61(f)", true},
		{"note from the future", replace("state/ops-2026-12.next", lines(1, "9999")), "L-61(f)", true},
		{"manifest of another log", replace("manifest.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`wal_id":"`), []byte(`wal_id":"`), 1)[:len(b)-10]
		}), "", true},
		{"month not listed", replace("manifest.json", dropLastLog), "L-61(a)", true},
		{"older copy of ops alone", restore(older, nov+"/", "state/ops-2026-11"), "", true},
		{"older copy of sec alone", restore(older, "sec/", "state/sec"), "", true},
		{"older copy of the write-ahead log alone", restore(older, "wal/"), "", true},
		{"older copy of all but ops", restore(older, "sec/", "state/sec", "wal/", "manifest.json"), "", true},
		{"unknown file in a log", func(_ *testing.T, s *simFS) { s.names[nov+"/tile/0/001.x"] = &simFile{data: []byte("x")} }, "L-43", false},
		{"unknown file beside the logs", add("notes.txt", "x"), "L-42", false},
		{"unknown file in state", add("state/ops-2027-01.next", "x"), "L-42", false},
		{"unknown file beside the months", add("ops/2027", "x"), "L-61(a)", true},
		{"unknown file in the write-ahead log", add("wal/wal-1", "x"), "L-23", true},
		{"unknown temporary file", add(nov+"/tile/0/1.tmp", "x"), "L-43", false},
		{"something in the lock", add("lock", "x"), "L-42", false},
		{"a mark of a failure that says something else", add(poisonMarker, "the write-ahead log failed!\n"), "L-42", false},
		{"evidence of a torn segment changed", add("wal/wal-0000000000000002.torn-00000000", "x"), "L-30", false},
		{"key for convenience changed", replace(nov+"/vkey", flipAt(40)), "L-42", false},
		{"key for convenience of another log", func(t *testing.T, s *simFS) { s.names[nov+"/vkey"] = s.names[dec+"/vkey"] }, "L-42", false},
		{"key as PEM changed", replace(nov+"/pub.pem", flipAt(40)), "L-42", false},
		{"pruned without a record", replace("manifest.json", func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"log":"ops-2026-11","min_index":0`), []byte(`"log":"ops-2026-11","min_index":256`), 1)
		}), "L-174", false},
	}
	for _, tt := range tests {
		t.Run("L-193 "+tt.name, func(t *testing.T) {
			bad := log.snapshot()
			tt.change(t, bad)
			byVerify, byOpen, findings := found(t, bad)
			if !byVerify {
				t.Error("verify did not find it")
			}
			named := slices.ContainsFunc(findings, func(f Finding) bool { return f.Rule == tt.rule })
			if tt.rule != "" && !named {
				t.Errorf("verify did not name %s: %v", tt.rule, findings)
			}
			if first := fmt.Sprintf("ops-2026-11:%d", deletedEntry); strings.HasPrefix(tt.name, "A-02.T3") && findings[0].Where != first {
				t.Errorf("the first that verify names is %v, want %s", findings[0], first)
			}
			if byOpen != tt.open {
				t.Errorf("Open refused = %v, want %v", byOpen, tt.open)
			}
		})
	}
	t.Run("L-62 older copy of everything", func(t *testing.T) {
		// Nothing inside of the directory can tell; an earlier checkpoint that
		// somebody kept does.
		c, err := unverifiedCheckpoint(log.names["sec/checkpoint"].data)
		if err != nil {
			t.Fatal(err)
		}
		report, err := verify(older, "sim", []string{testVkey(t)}, VerifyOptions{Since: []Earlier{{Log: "sec", Size: c.Size, Root: c.Root}}})
		if err != nil || report.OK() {
			t.Errorf("report = %+v, %v", report, err)
		}
		old, err := unverifiedCheckpoint(older.names["sec/checkpoint"].data)
		if err != nil {
			t.Fatal(err)
		}
		report, err = verify(log, "sim", []string{testVkey(t)}, VerifyOptions{Since: []Earlier{{Log: "sec", Size: old.Size, Root: old.Root}}})
		if err != nil || !report.OK() {
			t.Errorf("L-01 b: report = %+v, %v", report, err)
		}
		old.Root[0] ^= 1
		report, err = verify(log, "sim", []string{testVkey(t)}, VerifyOptions{Since: []Earlier{{Log: "sec", Size: old.Size, Root: old.Root}}})
		if err != nil || report.OK() {
			t.Errorf("L-01 b: another history: report = %+v, %v", report, err)
		}
	})
}

func flipAt(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= 1
		return b
	}
}

// dropEntry takes one record out; those behind it move up, and a copy of the last
// fills the bundle.
func dropEntry(b []byte) []byte {
	entries, err := splitBundle(b, tileWidth)
	if err != nil {
		panic(err)
	}
	entries = append(slices.Delete(entries, deletedEntry, deletedEntry+1), entries[len(entries)-1])
	var out []byte
	for _, e := range entries {
		out = appendEntry(out, e)
	}
	return out
}

const deletedEntry = 7

func swapEntries(b []byte) []byte {
	entries, err := splitBundle(b, tileWidth)
	if err != nil {
		panic(err)
	}
	entries[3], entries[4] = entries[4], entries[3]
	var out []byte
	for _, e := range entries {
		out = appendEntry(out, e)
	}
	return out
}

func lastSegment(t testing.TB, s *simFS) string {
	t.Helper()
	scan, err := scanWAL(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(segmentName(scan.last), "wal/")
}

// cutLastFrame zeroes the last frame of a segment.
func cutLastFrame(b []byte) []byte {
	at, size := headerSize, 0
	for {
		_, n, ok, err := parseFrame(b[at+size:])
		if err != nil {
			panic(err)
		}
		if !ok {
			clear(b[at : at+size])
			return b
		}
		at, size = at+size, n
	}
}

func dropLastLog(b []byte) []byte {
	m, err := parseManifest(b)
	if err != nil {
		panic(err)
	}
	m.Logs = m.Logs[:len(m.Logs)-1]
	m.Logs[len(m.Logs)-1].State = stateOpen
	return m.encode()
}

// restore puts the files of an older copy back in place of the newer ones.
func restore(older *simFS, prefixes ...string) func(*testing.T, *simFS) {
	return func(_ *testing.T, s *simFS) {
		old := older.snapshot()
		for _, p := range prefixes {
			for n, f := range s.names {
				if f != nil && strings.HasPrefix(n, p) {
					delete(s.names, n)
				}
			}
			for n, f := range old.names {
				if strings.HasPrefix(n, p) {
					s.names[n] = f
				}
			}
		}
	}
}

// TestSecondProcess is L-195: the directory is held alone, until Close.
func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, testSigner(), testOptions()); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open = %v, want %v", err, ErrLocked)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, testSigner(), testOptions()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}
