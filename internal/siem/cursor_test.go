package siem

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
)

// TestCursor: L-160: a cursor comes back as it was kept, and one of another sink
// or in parts is refused.
func TestCursor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	want := cursor{"sec": {"audit.example/n1/sec", 7, 5}, "ops-2026-11": {"audit.example/n1/ops-2026-11", 900, 900}}
	if err := want.save(path, "a", "sink.a.1"); err != nil {
		t.Fatal(err)
	}
	got, trouble, err := loadCursor(path, "a")
	if diff := cmp.Diff(want, got); diff != "" || err != nil || trouble != "sink.a.1" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, _, err := loadCursor(path, "b"); !errors.Is(err, ErrFormat) {
		t.Errorf("cursor of another sink: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) - 1 {
		if _, _, err := parseCursor(text[:n], "a"); err == nil && n < len(text)-2 {
			t.Errorf("a cursor cut at %d is taken", n)
		}
	}
	if got, _, err := loadCursor(path+".none", "a"); err != nil || len(got) != 0 {
		t.Errorf("a sink without a cursor: %v, %v", got, err)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add([]byte(`{"format":"keyd-sink-1","sink":"a","logs":{"sec":{"origin":"o","next":1,"told":1}}}`))
	f.Fuzz(func(t *testing.T, text []byte) { _, _, _ = parseCursor(text, "a") })
}

// TestMarks: marks are as coarse as they may be, the newest is exact, and none
// says more than what was sent before it.
func TestMarks(t *testing.T) {
	var m marks
	at := func(n uint64) cursor { return cursor{"sec": {Next: n}} }
	for i := uint64(1); i <= 10_000; i++ {
		m.add(i*1000, at(i))
	}
	if n := len(m.all); n > 10_000*1000/markEvery+2 {
		t.Errorf("%d marks", n)
	}
	for _, offset := range []uint64{0, 999, 1000, 64_000, 5_000_000, 10_000_000, 11_000_000} {
		c, ok := m.upTo(offset)
		if ok && c["sec"].Next > offset/1000 {
			t.Errorf("%d bytes stand for %d records", offset, c["sec"].Next)
		}
		if offset >= 1_000_000 && c["sec"].Next+2*markEvery/1000 < min(offset/1000, 10_000) {
			t.Errorf("%d bytes stand for %d records only", offset, c["sec"].Next)
		}
	}
	if c, _ := m.upTo(10_000_000); c["sec"].Next != 10_000 {
		t.Errorf("the newest mark is %d", c["sec"].Next)
	}
	if c, ok := m.drop(5_000_000); !ok || c["sec"].Next > 5000 {
		t.Errorf("dropped up to %v", c)
	}
	if c, ok := m.upTo(5_000_000); !ok || c["sec"].Next > 5000 || len(m.all) > 100 {
		t.Errorf("after the drop %v, %d marks", c, len(m.all))
	}
}

// TestDamagedCursor: L-160: a sink whose cursor is damaged begins at the
// beginning: everything comes again, and nothing is missing.
func TestDamagedCursor(t *testing.T) {
	l := newTestLog(t)
	path := filepath.Join(t.TempDir(), "out.log")
	e := l.export(fileTarget(t, path), nil)
	l.write(audit.Sec, 50)
	eventually(t, "all of it is in the file", func() bool { return l.holds(path, l.sizes()) })
	e.kill()
	if err := os.WriteFile(e.cfg.Cursor, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.export(fileTarget(t, path), nil)
	eventually(t, "everything came again", func() bool {
		text, _ := os.ReadFile(path)
		logs, _, err := Check(bytes.NewReader(text), nil)
		return err == nil && len(logs) == 1 && logs[0].Again >= 50 && logs[0].Whole()
	})
}

// TestRewind: a receiver gets everything once more from a record on; a place that
// is not there, or in front, is refused, and so is a log that it does not have.
func TestRewind(t *testing.T) {
	l := newTestLog(t)
	path := filepath.Join(t.TempDir(), "out.log")
	e := l.export(fileTarget(t, path), func(c *Config) { c.Logs = func(log string) bool { return log == "sec" } })
	l.write(audit.Sec, 50)
	l.write(audit.Ops, 5)
	eventually(t, "all of it is in the file", func() bool { return l.holds(path, map[string]uint64{"sec": l.sizes()["sec"]}) })
	for _, c := range []struct {
		log  string
		next uint64
	}{{"sec", 1 << 40}, {"ops-2026-11", 0}, {"ops-1999-01", 0}, {"nothing", 0}} {
		if err := e.Rewind(t.Context(), c.log, c.next); err == nil {
			t.Errorf("%s:%d is taken", c.log, c.next)
		}
	}
	if err := e.Rewind(t.Context(), "sec", 10); err != nil {
		t.Fatal(err)
	}
	eventually(t, "records came again", func() bool {
		text, _ := os.ReadFile(path)
		logs, _, err := Check(bytes.NewReader(text), nil)
		return err == nil && len(logs) == 1 && logs[0].Again >= 40
	})
	text, _ := os.ReadFile(path)
	if n := strings.Count(string(text), `log="sec" seq="9" `); n != 1 {
		t.Errorf("sec:9 came %d times", n)
	}
}

// TestCheckFindsDamage: L-163: what a receiver lost or somebody changed there is
// found by seqs and roots.
func TestCheckFindsDamage(t *testing.T) {
	l := newTestLog(t)
	path := filepath.Join(t.TempDir(), "out.log")
	l.export(fileTarget(t, path), nil)
	l.write(audit.Sec, 300)
	eventually(t, "all of it is in the file", func() bool { return l.holds(path, l.sizes()) })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	at := func(word string) int {
		for i, line := range lines {
			if bytes.Contains(line, []byte(word)) {
				return i
			}
		}
		t.Fatalf("no line with %s", word)
		return 0
	}
	middle, last := at(`seq="100" `), len(lines)-1
	for name, change := range map[string]func(lines [][]byte) [][]byte{
		"a record is missing": func(ls [][]byte) [][]byte { return append(ls[:middle], ls[middle+1:]...) },
		"one byte of a record": func(ls [][]byte) [][]byte {
			ls[middle] = bytes.Replace(ls[middle], []byte(`"id":"anna"`), []byte(`"id":"otto"`), 1)
			return ls
		},
		"a record twice, once changed": func(ls [][]byte) [][]byte {
			return append(ls, bytes.Replace(ls[middle], []byte(`"id":"anna"`), []byte(`"id":"otto"`), 1))
		},
		"the newest records": func(ls [][]byte) [][]byte {
			var kept [][]byte
			for _, line := range ls {
				if !bytes.Contains(line, []byte(`"corr":"t.29`)) {
					kept = append(kept, line)
				}
			}
			return kept
		},
		"a checkpoint's root": func(ls [][]byte) [][]byte {
			for i := last; i >= 0; i-- {
				if _, note, ok := bytes.Cut(ls[i], []byte(`{"checkpoint":"audit.example/n1/sec\n`)); ok {
					size, _, _ := bytes.Cut(note, []byte(`\n`))
					ls[i] = bytes.Replace(ls[i], append(size, '\\'), append([]byte("1"), '\\'), 1)
					return ls
				}
			}
			return nil
		},
	} {
		changed := change(cloneLines(lines))
		logs, _, err := Check(bytes.NewReader(bytes.Join(changed, []byte("\n"))), []string{l.vkey()})
		if err != nil {
			t.Fatal(err)
		}
		if len(logs) != 1 || logs[0].Damage() == 0 || logs[0].Whole() {
			t.Errorf("%s is not found: %+v", name, logs)
		}
	}
}

func cloneLines(lines [][]byte) [][]byte {
	var all [][]byte
	for _, line := range lines {
		all = append(all, bytes.Clone(line))
	}
	return all
}

// FuzzCheck: nothing that a receiver keeps brings the check down.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("<110>1 - n1 keyd - checkpoint [keyd@1 log=\"sec\"] \ufeff{\"checkpoint\":\"x\",\"log\":\"sec\"}\n{\"seq\":1}\n"))
	for _, record := range records(f)[:3] {
		f.Add(append(record, '\n'))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, _, err := Check(bytes.NewReader(text), nil); err != nil {
			t.Error(err)
		}
	})
}
