package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestExportListsOutside is L-161: the list of a copy speaks of the files of the
// copy, and leads to no other.
func TestExportListsOutside(t *testing.T) {
	dir := snapshotLog(t)
	for _, name := range []string{manifestName, "wal", "state", "lock", "ops"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cp, err := unverifiedCheckpoint([]byte(filesOf(t, dir)["/sec/checkpoint"]))
	if err != nil {
		t.Fatal(err)
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	list := exportList{
		Format: "tiles", Log: "sec", Origin: cp.Origin, Last: cp.Size - 1, Records: cp.Size, Size: cp.Size,
		Root: base64.StdEncoding.EncodeToString(cp.Root[:]), Files: map[string]string{},
	}
	for name, text := range filesOf(t, filepath.Join(dir, "sec")) {
		list.Files[strings.TrimPrefix(name, "/")] = hash(text)
	}
	verify := func() Report {
		t.Helper()
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "sec", exportName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	if report := verify(); !report.OK() {
		t.Fatalf("a copy as it should be: %v, %v", report.Findings, report.Undecided)
	}
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	list.Files["../outside"] = hash("x")
	if report := verify(); report.Failed != 1 || report.Findings[0].Rule != "L-161" {
		t.Errorf("a list that names a file outside: %v", report.Findings)
	}
}

// TestPipeInACopy is L-42: what is no file, in the place of one, is found and
// holds up nobody.
func TestPipeInACopy(t *testing.T) {
	for _, name := range []string{"sec/vkey", "sec/checkpoint", "sec/tile/entries/000.p/1", "state/sec.next", "manifest.json", "wal/wal-0000000000000001"} {
		t.Run("L-42 "+name, func(t *testing.T) {
			dir := snapshotLog(t)
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{}); err == nil && report.Failed == 0 {
				t.Errorf("a pipe in the place of %s was not found: %+v", name, report)
			}
			if l, err := Open(dir, testSigner(), testOptions()); err == nil {
				if err := l.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestMirrorLies is L-174: a first index that the log does not reach is refused
// at once, however large the log claims to be.
func TestMirrorLies(t *testing.T) {
	_, log := closedLog(t, 450)
	lie, err := signCheckpoint(Checkpoint{Origin: "audit.example/n1/" + november, Size: 1 << 52, Root: Hash{1}}, testSigner())
	if err != nil {
		t.Fatal(err)
	}
	for _, least := range []string{"9007199254740991", "18446744073709551615"} {
		p := &publisher{r: &Reader{log}}
		p.edit = func(log, path string, data []byte) ([]byte, error) {
			if path == manifestName {
				return bytes.Replace(data, []byte(`"log":"`+november+`","min_index":0`), []byte(`"log":"`+november+`","min_index":`+least), 1), nil
			}
			if log == november && path == "checkpoint" {
				return lie, nil
			}
			return data, nil
		}
		if _, err := Mirror(t.Context(), filepath.Join(t.TempDir(), "copy"), p); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "L-174") {
			t.Errorf("first index %s: %v", least, err)
		}
	}
}

// TestPrunedBundle is L-174: the last bundle of a log that was pruned whole is
// pruned, and not damaged.
func TestPrunedBundle(t *testing.T) {
	_, log := closedLog(t, 300)
	fsys := log.snapshot()
	p := pruned(t, fsys, 0)
	s, err := (&Reader{fsys}).Snapshot(november)
	if err != nil {
		t.Fatal(err)
	}
	if s.Size()%tileWidth == 0 {
		t.Fatalf("%d records: the last bundle must not be full", s.Size())
	}
	for n := range bundlesOf(p.Size) {
		if _, err := s.Bundle(n); !errors.Is(err, ErrPruned) {
			t.Errorf("bundle %d: %v, want %v", n, err, ErrPruned)
		}
	}
}

// manifestAtFirst shows an older manifest to whoever reads it first.
type manifestAtFirst struct {
	*simFS
	first *[]byte
}

func (m manifestAtFirst) Open(name string, flag int) (file, error) {
	if text := *m.first; name == manifestName && text != nil {
		*m.first = nil
		return memory{bytes.NewReader(text)}, nil
	}
	return m.simFS.Open(name, flag)
}

// TestMonthBegins is L-42 and L-61(a): a month that a node begins while somebody
// verifies is no unknown file; one that no manifest names is.
func TestMonthBegins(t *testing.T) {
	_, log := closedLog(t, 170)
	m, err := readManifest(log)
	if err != nil {
		t.Fatal(err)
	}
	before := *m
	before.Logs = slices.Clone(m.Logs[:2])
	before.Logs[1].State = stateOpen
	verify := func(fsys *simFS) []string {
		t.Helper()
		text := before.encode()
		report, err := verify(manifestAtFirst{fsys, &text}, "sim", []string{testVkey(t)}, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var rules []string
		for _, f := range report.Findings {
			rules = append(rules, fmt.Sprint(f.Rule, " ", f.Where))
		}
		return rules
	}
	if rules := verify(log); len(rules) > 0 {
		t.Errorf("beside a node that began a month: %v", rules)
	}
	for _, planted := range []string{"state/ops-2031-01.next", "ops/2031-01/checkpoint"} {
		bad := log.snapshot()
		if err := bad.Mkdir(parent(planted)); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(bad, planted, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if rules := verify(bad); len(rules) == 0 {
			t.Errorf("%s was not found", planted)
		}
	}
}

// movingFS lets files be away the first time that they are asked for.
type movingFS struct {
	*simFS
	away map[string]bool
}

func (m movingFS) Open(name string, flag int) (file, error) {
	if m.away[name] {
		delete(m.away, name)
		return nil, notExist("open", name)
	}
	return m.simFS.Open(name, flag)
}

// TestReadWhileSegmentsGo is L-33 and L-45: who reads the write-ahead log while a
// segment is removed, since a checkpoint covers it by now, misses no record.
func TestReadWhileSegmentsGo(t *testing.T) {
	before, log := coveredAtLast(t, &acknowledged{pos: map[string]string{}})
	for name, f := range before.names {
		if strings.HasPrefix(name, "wal/") {
			log.names[name] = f
		}
	}
	scan, err := scanWAL(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if scan.last < scan.oldest+2 {
		t.Fatalf("segments %d to %d; the test needs three", scan.oldest, scan.last)
	}
	month := scan.ops.logName()
	r := &Reader{movingFS{log, map[string]bool{scan.ops.dir() + "/checkpoint": true, segmentName(scan.oldest + 1): true}}}
	next := uint64(0)
	for e, err := range r.Records(month, 0) {
		if err != nil || e.Seq != next {
			t.Fatalf("%s:%d: %+v, %v", month, next, e.Seq, err)
		}
		next++
	}
	if want := mustSize(t, log, month); next != want || want < 600 {
		t.Errorf("read %d of %d records", next, want)
	}
}

// coveredAtLast returns a log before and after its only checkpoint, which its stop
// made.
func coveredAtLast(t *testing.T, acks *acknowledged) (before, after *simFS) {
	t.Helper()
	after = newSimFS()
	o := simOptions(after)
	o.CheckpointInterval = time.Hour
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	produce(l, 2, 300, "m", acks)
	before = after.now()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return before, after
}

// turningFS is one file system until the write-ahead log is listed, and another
// from then on.
type turningFS struct {
	*simFS
	next *simFS
}

func (t *turningFS) ReadDir(name string) ([]string, error) {
	if name == "wal" && t.next != nil {
		t.simFS, t.next = t.next, nil
	}
	return t.simFS.ReadDir(name)
}

// TestReadWhileAllSegmentsGo is L-33 and L-45: what a restarted log has covered
// between the reader's look at the checkpoint and at the write-ahead log, in which
// nothing is left of it, is not missed either.
func TestReadWhileAllSegmentsGo(t *testing.T) {
	acks := &acknowledged{pos: map[string]string{}}
	before, log := coveredAtLast(t, acks)
	for name := range log.names {
		if strings.HasPrefix(name, "wal/") {
			delete(log.names, name)
		}
	}
	turning := func() *turningFS { return &turningFS{before.now(), log} }
	checkAcks(t, turning(), acks)
	month := months(t, log)[0]
	want := mustSize(t, log, month)
	t.Run("Size", func(t *testing.T) {
		covered, durable, err := (&Reader{turning()}).Size(month)
		if err != nil || covered != want || durable != want {
			t.Errorf("covered %d, durable %d, %v; want %d", covered, durable, err, want)
		}
	})
	t.Run("Tails", func(t *testing.T) {
		fsys := turning()
		r := &Reader{fsys}
		snap, err := r.Snapshot(month)
		if err != nil {
			t.Fatal(err)
		}
		tails, err := r.Tails([]*Snapshot{snap})
		if got := snap.Size() + uint64(len(tails[month])); err != nil || got != want {
			t.Errorf("snapshot and tail have %d records, %v; want %d", got, err, want)
		}
	})
}

// months are the logs of ops, in order.
func months(t *testing.T, fsys fileSystem) []string {
	t.Helper()
	logs, err := (&Reader{fsys}).Logs()
	if err != nil || len(logs) < 2 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	return logs[1:]
}
