package custody

import (
	"fmt"
	"sync"
	"time"

	"keyd.dev/keyd/keys"
)

const (
	defaultPerMinute = 50
	defaultPerHour   = 500
	mostCounted      = 1 << 16
)

// refusals counts the PIN blocks refused for a client under an incoming key.
// Past the minute's limit the client must wait; past the hour's the key takes
// no more PIN blocks of that client until the process is started again.
type refusals struct {
	limit Malformed
	clock func() time.Time

	mu     sync.Mutex
	counts map[refusalKey]*refusalCount
}

type refusalKey struct {
	client string
	key    keys.ID
}

type refusalCount struct {
	minute, hour   time.Time // starts of the windows
	inMinute, inHr int
	stopped        bool
}

func newRefusals(limit Malformed, clock func() time.Time) *refusals {
	return &refusals{limit: limit.complete(), clock: clock, counts: make(map[refusalKey]*refusalCount)}
}

func (m Malformed) complete() Malformed {
	if m.PerMinute <= 0 {
		m.PerMinute = defaultPerMinute
	}
	if m.PerHour <= 0 {
		m.PerHour = max(defaultPerHour, m.PerMinute)
	}
	return m
}

// setLimit exchanges the limits. What was counted stays, and a stop stays a stop.
func (r *refusals) setLimit(limit Malformed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = limit.complete()
}

// allow returns ErrTooMany when the client has used up its tries under the key.
func (r *refusals) allow(client string, key keys.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.counts[refusalKey{client, key}]
	if !ok {
		return nil
	}
	r.turn(n)
	if n.stopped {
		return fmt.Errorf("%w: PIN use of the key is stopped for this client", ErrTooMany)
	}
	if n.inMinute >= r.limit.PerMinute {
		return fmt.Errorf("%w: wait a minute", ErrTooMany)
	}
	return nil
}

// count adds a refused block and reports whether the key is now stopped for the client.
func (r *refusals) count(client string, key keys.ID) (stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := refusalKey{client, key}
	n, ok := r.counts[k]
	if !ok {
		if len(r.counts) >= mostCounted {
			r.sweep()
		}
		n = &refusalCount{}
		r.counts[k] = n
	}
	r.turn(n)
	n.inMinute++
	n.inHr++
	if n.inHr >= r.limit.PerHour && !n.stopped {
		n.stopped = true
		return true
	}
	return false
}

// turn starts new windows when the old ones are over.
func (r *refusals) turn(n *refusalCount) {
	now := r.clock()
	if now.Sub(n.minute) >= time.Minute || now.Before(n.minute) {
		n.minute, n.inMinute = now, 0
	}
	if now.Sub(n.hour) >= time.Hour || now.Before(n.hour) {
		n.hour, n.inHr = now, 0
	}
}

// sweep forgets counts whose hour is over; a stop is never forgotten.
func (r *refusals) sweep() {
	now := r.clock()
	for k, n := range r.counts {
		if !n.stopped && now.Sub(n.hour) >= time.Hour {
			delete(r.counts, k)
		}
	}
}
