package siem

import (
	"slices"
	"sync"
	"time"
)

// mostNotes is how many published checkpoints of a log a [Feed] remembers, one
// hour and more of them at one in four seconds.
const mostNotes = 1024

// mostLogs is of how many logs it remembers them: sec, and the months of ops
// around a change.
const mostLogs = 4

// Feed hands published checkpoints to exporters. It is safe for concurrent use;
// the zero value is not ready, see [NewFeed].
//
// It remembers the newest ones of each log. An exporter that was away for longer
// takes the next one that is remembered, which proves all that the forgotten ones
// did.
type Feed struct {
	mu    sync.Mutex
	notes map[string][]published // by log, by size
	order []string               // of logs, as they appeared
	wakes []chan struct{}
}

// published is a checkpoint with the moment at which it was published.
type published struct {
	origin string
	size   uint64
	note   []byte
	at     time.Time
}

// NewFeed returns a Feed without checkpoints.
func NewFeed() *Feed { return &Feed{notes: make(map[string][]published)} }

// Published takes a checkpoint. It does not block and keeps a copy; what is no
// checkpoint it passes over, since exporters read the files too.
func (f *Feed) Published(log string, note []byte) {
	origin, size, _, err := parseNote(note)
	if err != nil {
		return
	}
	p := published{origin, size, slices.Clone(note), time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.notes[log]; !known {
		f.order = append(f.order, log)
		f.forget()
	}
	ring := append(f.notes[log], p)
	f.notes[log] = ring[max(0, len(ring)-mostNotes):]
	for _, wake := range f.wakes {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// forget lets the oldest month go.
func (f *Feed) forget() {
	if len(f.order) <= mostLogs {
		return
	}
	oldest := slices.IndexFunc(f.order, func(log string) bool { return log != "sec" })
	delete(f.notes, f.order[oldest])
	f.order = slices.Delete(f.order, oldest, oldest+1)
}

// after returns the first remembered checkpoint of a log with a size above one.
func (f *Feed) after(log, origin string, size uint64) (published, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.notes[log] {
		if p.size > size && p.origin == origin {
			return p, true
		}
	}
	return published{}, false
}

// wake returns what is signalled at each checkpoint.
func (f *Feed) wake() <-chan struct{} {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakes = append(f.wakes, c)
	return c
}
