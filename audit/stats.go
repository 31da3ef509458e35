package audit

import (
	"sync/atomic"
	"time"
)

// Stats says how far the log is, for metrics. Counts are since Open, records of
// both logs together.
type Stats struct {
	Durable  uint64 // records that were made durable
	Unsigned uint64 // of these, those that no checkpoint covers yet
	Unmerged uint64 // and those that are in no tree yet
	Reserved int    // records that callers have room for and that are not durable yet
	Room     int    // the most of these
	// UnsignedAge is that of the oldest durable record that no checkpoint covers.
	UnsignedAge time.Duration
	// Checkpoint is the age of the newest checkpoint; before the first one, of
	// the open log.
	Checkpoint time.Duration
	DiskFree   int64 // bytes
	DiskTotal  int64 // bytes; 0 when the disk does not say
}

// progress counts records on their way; the writer and the integrator add.
type progress struct {
	durable, merged, signed atomic.Uint64
	published               atomic.Int64 // when, in nanoseconds after the log was opened
}

// Stats returns how far the log is.
func (l *Log) Stats() Stats {
	p := &l.tiles.progress
	signed, merged := p.signed.Load(), p.merged.Load() // before what they lag behind
	s := Stats{Durable: p.durable.Load(), Room: queueSize}
	s.Unsigned, s.Unmerged = s.Durable-signed, s.Durable-merged
	s.Checkpoint = time.Since(l.started) - time.Duration(p.published.Load())
	l.slots.mu.Lock()
	s.Reserved = l.slots.used
	l.slots.mu.Unlock()
	l.tiles.mu.Lock()
	since := l.tiles.unsigned
	l.tiles.mu.Unlock()
	if !since.IsZero() {
		s.UnsignedAge = time.Since(since)
	}
	if free, total, err := l.fsys.Free(); err == nil {
		s.DiskFree, s.DiskTotal = free, total
	}
	return s
}

// covered notes that checkpoints cover the first n records.
func (g *integrator) covered(n uint64) {
	g.progress.signed.Store(n)
	g.progress.published.Store(int64(time.Since(g.opened)))
}
