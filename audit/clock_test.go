package audit

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestClock is L-195: sys.time for each step of the wall clock of half a second
// and more, with its size and sign, and for synchronisation lost and regained.
func TestClock(t *testing.T) { synctest.Test(t, testClock) }

func testClock(t *testing.T) {
	fsys := newSimFS()
	raised := &alarms{}
	var offset atomic.Int64
	var synced atomic.Bool
	synced.Store(true)
	o := simOptions(fsys)
	o.CheckpointInterval, o.Alarm = time.Second, raised.raise
	o.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	o.TimeQuality = func() (bool, int64) { return synced.Load(), 17 }
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, c := range []struct {
		name   string
		change func()
		want   []string // of the record; none is written where nil
		alarm  string
	}{
		{"forward", func() { offset.Add(int64(time.Second)) }, []string{`"step":{"wall_us":1000000}`, `"sync":true`}, "clock_step"},
		{"back", func() { offset.Add(-int64(90 * time.Minute)) }, []string{`"step":{"wall_us":-5400000000}`}, "clock_step"},
		{"half a second", func() { offset.Add(int64(500 * time.Millisecond)) }, []string{`"step":{"wall_us":500000}`}, "clock_step"},
		{"less than that", func() { offset.Add(int64(499 * time.Millisecond)) }, nil, ""},
		{"less than that, back", func() { offset.Add(-int64(499 * time.Millisecond)) }, nil, ""},
		{"synchronisation lost", func() { synced.Store(false) }, []string{`"step":{"wall_us":0}`, `"sync":false`}, "clock_unsynchronised"},
		{"still lost", func() {}, nil, ""},
		{"regained", func() { synced.Store(true) }, []string{`"step":{"wall_us":0}`, `"err_us":17`, `"sync":true`}, "clock_synchronised"},
		{"lost in a step", func() { synced.Store(false); offset.Add(int64(-time.Hour)) }, []string{`"step":{"wall_us":-3600000000}`, `"sync":false`}, "clock_step"},
	} {
		c.change()
		time.Sleep(3 * watchInterval)
		found := recordsOf(t, fsys, "sec", SysTime)
		if n := len(found) - seen; c.want == nil && n != 0 || c.want != nil && n != 1 {
			t.Fatalf("L-195 %s: %d records of sys.time", c.name, n)
		}
		seen = len(found)
		for _, want := range c.want {
			if !strings.Contains(found[seen-1], want) {
				t.Errorf("L-195 %s: %s has no %s", c.name, found[seen-1], want)
			}
		}
		if c.want != nil && (!raised.has(c.alarm) || !strings.Contains(found[seen-1], `"code":"`+c.alarm+`"`)) {
			t.Errorf("L-195 %s: no alarm %s: %v, %s", c.name, c.alarm, raised.all(), found[seen-1])
		}
	}
	if _, err := appendOne(l, Ops, benchRecord()); err != nil {
		t.Errorf("the log does not go on: %v", err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", err, report.Findings)
	}
}

// recordsOf returns the records of an action.
func recordsOf(t testing.TB, fsys fileSystem, log string, a Action) (found []string) {
	t.Helper()
	for e, err := range (&Reader{fsys}).Records(log, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if hasAction(e.Raw, a) {
			found = append(found, string(e.Raw))
		}
	}
	return found
}
