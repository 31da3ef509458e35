package siem

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
)

func fileTarget(t testing.TB, path string) *File {
	t.Helper()
	f, err := NewFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFileSink: L-160, L-163: while a log is written, a file gets every record of
// both logs, over the end of a month, and the checkpoints with which a reader of
// the file alone proves that none is missing; a stop and a start go on where it
// was; the last records of a stop are there too.
func TestFileSink(t *testing.T) {
	l := newTestLog(t)
	path := filepath.Join(t.TempDir(), "out.log")
	e := l.export(fileTarget(t, path), nil)
	l.write(audit.Ops, 700)
	l.now.Store(int64(35 * 24 * time.Hour)) // another month
	l.write(audit.Ops, 300)
	l.write(audit.Sec, 20)
	eventually(t, "all of it is in the file", func() bool { s := l.sizes(); return len(s) == 3 && l.holds(path, s) })
	l.close()
	e.Drain()
	<-e.done
	if !l.holds(path, l.sizes()) {
		t.Error("the records of the stop are not in the file")
	}
	text, _ := os.ReadFile(path)
	if n := bytes.Count(text, []byte(" log.close ")); n != 3 {
		t.Errorf("%d log.close in the file, want 3", n)
	}

	l.open()
	l.export(fileTarget(t, path), nil)
	l.write(audit.Sec, 10)
	eventually(t, "the new ones are there too", func() bool { return l.holds(path, l.sizes()) })
	text, _ = os.ReadFile(path)
	logs, torn, err := Check(bytes.NewReader(text), nil)
	if err != nil || torn > 0 {
		t.Fatal(torn, err)
	}
	for _, r := range logs {
		if r.Again > 0 {
			t.Errorf("%s: %d records came again, although everything was on the disk", r.Log, r.Again)
		}
	}
}

// TestFileSinkIsKilled: L-160: an exporter that is broken off at any moment, with
// half a line behind it, leaves no gap.
func TestFileSinkIsKilled(t *testing.T) {
	l := newTestLog(t)
	path := filepath.Join(t.TempDir(), "out.log")
	for range 6 {
		e := l.export(fileTarget(t, path), nil)
		l.write(audit.Ops, 500)
		e.kill()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`<110>1 2026-11-22T01:02:03.000004Z n1 keyd - x [keyd@32473] {"action":"half`); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	l.export(fileTarget(t, path), nil)
	eventually(t, "all of it is in the file", func() bool { return l.holds(path, l.sizes()) })
}

// TestFileSinkIsMoved: L-161: a file that is moved away is followed by a new one,
// and together they have everything.
func TestFileSinkIsMoved(t *testing.T) {
	l := newTestLog(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "out.log")
	l.export(fileTarget(t, path), nil)
	whole := func() string {
		var all []byte
		for _, name := range []string{"1", "2", "3", "out.log"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			all = append(all, text...)
		}
		to := filepath.Join(t.TempDir(), "all")
		if err := os.WriteFile(to, all, 0o600); err != nil {
			t.Fatal(err)
		}
		return to
	}
	for _, name := range []string{"1", "2", "3"} {
		l.write(audit.Ops, 300)
		eventually(t, "there is a file", func() bool { _, err := os.Stat(path); return err == nil })
		if err := os.Rename(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	l.write(audit.Ops, 300)
	eventually(t, "the files have all of it", func() bool { return l.holds(whole(), l.sizes()) })
}

// TestFileSinkFails: L-138, L-164: a file that cannot be written is alarmed and
// recorded with its beginning, and its end when it can be again; nothing else
// notices, and nothing is missing afterwards.
func TestFileSinkFails(t *testing.T) {
	l := newTestLog(t)
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "out.log")
	e := l.export(fileTarget(t, path), func(c *Config) { c.Grace, c.LagLimit = 10*time.Millisecond, time.Second })
	l.write(audit.Ops, 100)
	eventually(t, "the failure is alarmed", func() bool { return e.seen("sink_failed") == 1 })
	eventually(t, "the lag is alarmed", func() bool { return e.seen("sink_lagging") == 1 })
	s := e.Status()
	if s.Up || s.Since.IsZero() || s.Cause == "" || s.Lag < time.Second || s.Records < 100 || s.Failures == 0 {
		t.Errorf("status of a sink that fails: %+v", s)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is alarmed", func() bool { return e.seen("sink_resumed") == 1 })
	eventually(t, "all of it is in the file", func() bool { return l.holds(path, l.sizes()) })

	corrs := func() map[string]int {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte(" log.sink ")) {
				_, rest, _ := bytes.Cut(line, []byte(`"corr":"`))
				id, _, _ := bytes.Cut(rest, []byte(`"`))
				n[string(id)]++
			}
		}
		return n
	}
	want := "sink.siem-a." + s.Since.UTC().Format("20060102T150405Z")
	eventually(t, "failed, lagging and resumed stand in the log with one beginning", func() bool { n := corrs(); return len(n) == 1 && n[want] == 3 })
}
