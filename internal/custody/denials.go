package custody

import (
	"context"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// The bounds of what one client's denials may write (L-14).
const (
	denialRate   = 50                     // in a second, with a record each
	denialBurst  = 500                    // at once: who tries every operation once is seen with each
	denialWindow = 100 * time.Millisecond // of those that share one
)

// denials keeps a client that is denied again and again from filling the log:
// above 50 in a second, after the first 500, those of a tenth of a second share
// one record, with their exact number, and their answers wait until it is
// durable. Nothing is dropped.
type denials struct {
	write func(context.Context, audit.Record) error
	clock func() time.Time

	mu      sync.Mutex
	clients map[string]*denied
}

// denied is what one client was denied.
type denied struct {
	left    float64 // records of their own
	at      time.Time
	sharing *shared
}

// shared is one record of many denials.
type shared struct {
	count audit.Count
	done  chan struct{} // closed when it is durable, or cannot be
	err   error
}

func newDenials(write func(context.Context, audit.Record) error, clock func() time.Time) *denials {
	return &denials{write: write, clock: clock, clients: make(map[string]*denied)}
}

// record makes a denial durable, alone or with others.
func (d *denials) record(ctx context.Context, r audit.Record) error {
	now := d.clock()
	d.mu.Lock()
	one := d.clients[r.Actor.ID]
	if one == nil {
		one = &denied{left: denialBurst, at: now}
		d.clients[r.Actor.ID] = one // names of the configuration, and "unknown"
	}
	if passed := now.Sub(one.at); passed > 0 {
		one.left, one.at = min(denialBurst, one.left+passed.Seconds()*denialRate), now
	}
	if one.left >= 1 {
		one.left--
		d.mu.Unlock()
		return d.write(ctx, r)
	}
	s := one.sharing
	if s == nil {
		s = &shared{count: audit.Count{Peer: r.Actor.ID, From: now}, done: make(chan struct{})}
		one.sharing = s
		time.AfterFunc(denialWindow, func() { d.end(one, s, r) })
	}
	s.count.N++
	d.mu.Unlock()
	<-s.done // not the caller's context: what was denied is recorded all the same
	return s.err
}

// end writes the record of a window. r is the first of its denials.
func (d *denials) end(one *denied, s *shared, r audit.Record) {
	d.mu.Lock()
	one.sharing = nil
	d.mu.Unlock()
	s.count.To = d.clock()
	s.count.By = []audit.CountBy{{Reason: r.Reason, N: s.count.N}}
	s.err = d.write(context.Background(), audit.Record{
		Action:  audit.RefuseAggregate,
		Outcome: audit.OutcomeRefused,
		Reason:  r.Reason,
		Actor:   audit.Actor{ID: r.Actor.ID, Kind: r.Actor.Kind},
		Src:     r.Src,
		Count:   &s.count,
	})
	close(s.done)
}
