package audit

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestSyncFSFails is L-195 and L-135: a failed syncfs may have marked dirty pages
// clean, so that the next one says yes to tiles that are on no disk. What it was
// for is written anew before a checkpoint covers it, and a crash after that loses
// nothing.
func TestSyncFSFails(t *testing.T) {
	for name, months := range map[string]bool{"one month": false, "over the end of a month": true} {
		inBubble(t, "L-195 syncfs: "+name, func(t *testing.T) {
			fsys := newSimFS()
			raised := &alarms{}
			o := simOptions(fsys)
			o.CheckpointInterval, o.Alarm = time.Second, raised.raise
			var later atomic.Int64
			o.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			l, err := Open("sim", testSigner(), o)
			if err != nil {
				t.Fatal(err)
			}
			acks := &acknowledged{pos: map[string]string{}}
			produce(l, 3, 150, "before", acks)
			time.Sleep(3 * time.Second)
			if months {
				later.Store(int64(31 * 24 * time.Hour))
				produce(l, 1, 3, "turn", acks)
				time.Sleep(3 * time.Second)
			}
			broken := errno(fsys, "syncfs", syscall.EIO)
			produce(l, 3, 300, "while", acks)
			time.Sleep(signAlarmAfter + 3*time.Second)
			if !raised.has("checkpoint_failed") {
				t.Errorf("L-138: no alarm: %v", raised.all())
			}
			produce(l, 3, 100, "still", acks)
			broken.Store(false)
			time.Sleep(5 * time.Second)
			if s := l.Stats(); s.Unsigned != 0 {
				t.Errorf("after the fault: %+v", s)
			}
			cut := fsys.now()
			r := prng(5)
			for state := range 20 {
				afterCrash(t, cut.crash(&r), acks, &r, state)
			}
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Errorf("%v, %v", err, report.Findings)
			}
		})
	}
}

// errno lets calls of one kind fail until it is told to stop.
func errno(fsys *simFS, op string, cause error) *atomic.Bool {
	broken := new(atomic.Bool)
	broken.Store(true)
	fsys.mu.Lock()
	defer fsys.mu.Unlock()
	fsys.fault = func(o, _ string) error {
		if o == op && broken.Load() {
			return cause
		}
		return nil
	}
	return broken
}
