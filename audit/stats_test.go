package audit

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestStats is L-138: what operators see of the records' way to the disk and to
// a checkpoint, first while checkpoints cannot be published, then when they can.
func TestStats(t *testing.T) {
	fsys := newSimFS()
	o := simOptions(fsys)
	o.CheckpointInterval = 100 * time.Millisecond
	var flushes, synced atomic.Int64
	o.Synced = func(took time.Duration, records int) {
		if took < 0 {
			t.Errorf("a flush took %v", took)
		}
		flushes.Add(1)
		synced.Add(int64(records))
	}
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	fsys.mu.Lock()
	fsys.fault = func(_, name string) error {
		if strings.Contains(name, "checkpoint") {
			return errors.New("no checkpoint today")
		}
		return nil
	}
	fsys.mu.Unlock()
	before := l.Stats()
	const records = 7
	for range records {
		if _, err := appendOne(l, Ops, benchRecord()); err != nil {
			t.Fatal(err)
		}
	}
	s := l.Stats()
	if n := s.Durable - before.Durable; n < records || s.Unsigned < records || s.UnsignedAge <= 0 {
		t.Errorf("%d records durable, %d unsigned for %v; want at least %d", n, s.Unsigned, s.UnsignedAge, records)
	}
	// The watch may add records of its own at any time.
	eventually(t, "each flush is told with its records", func() bool {
		return flushes.Load() > 0 && synced.Load() == int64(l.Stats().Durable)
	})
	eventually(t, "every record in a tree", func() bool { return l.Stats().Unmerged == 0 })
	ticket, err := l.Reserve(t.Context(), Ops, 3)
	if err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Reserved != 3 || s.Room != queueSize {
		t.Errorf("%d of %d reserved, want 3 of %d", s.Reserved, s.Room, queueSize)
	}
	ticket.Release()
	fsys.mu.Lock()
	fsys.fault = nil
	fsys.mu.Unlock()
	eventually(t, "a checkpoint over everything", func() bool {
		s := l.Stats()
		return s.Unsigned == 0 && s.UnsignedAge == 0 && s.Checkpoint < time.Second
	})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
