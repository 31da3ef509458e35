package custody

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// The bounds of what one client's denials may write (L-14).
const (
	denialRate   = 50                     // in a second, with a record each
	denialBurst  = 500                    // at once: who tries every operation once is seen with each
	denialWindow = 100 * time.Millisecond // of those that share one

	mostDenied  = 4096             // who are counted apart; the rest are "others"
	denialQuiet = 10 * time.Second // after which a client may write all at once again: burst is ten seconds' rate
)

// rate is how many records of their own there may be.
type rate struct{ second, burst float64 }

// denials keeps a client that is denied or refused again and again from filling
// the log: above 50 in a second, after the first 500, those of a tenth of a second
// share one record, with their exact number, and their answers wait until it is
// durable. Nothing is dropped. Answers that waited go at the pace at which what
// they answer came: all at once, hundreds would stand before others' answers.
type denials struct {
	write func(context.Context, audit.Record) error
	clock func() time.Time

	mu      sync.Mutex
	clients map[string]*denied
}

// denied is what one client was denied.
type denied struct {
	name    string
	left    float64 // records of their own
	at      time.Time
	sharing *shared
}

// shared is one record of many denials.
type shared struct {
	count audit.Count
	by    map[audit.Reason]int64
	done  chan struct{} // closed when it is durable, or cannot be
	ended time.Time     // when done was closed
	err   error
}

// share is a denial's part of a shared record.
type share struct {
	of    *shared
	after time.Duration // after the window's first denial
}

func newDenials(write func(context.Context, audit.Record) error, clock func() time.Time) *denials {
	return &denials{write: write, clock: clock, clients: make(map[string]*denied)}
}

// record makes a denial durable, alone or with others.
func (d *denials) record(ctx context.Context, r audit.Record) error {
	s := d.take(r, rate{denialRate, denialBurst})
	if s == nil {
		return d.write(ctx, r)
	}
	return s.wait()
}

// take returns nil for a denial that may have a record of its own, which it uses
// up, and else its share of the one that has counted it.
func (d *denials) take(r audit.Record, most rate) *share {
	d.mu.Lock()
	defer d.mu.Unlock()
	one, now := d.refill(r.Actor.ID, most)
	if one.left >= 1 {
		one.left--
		return nil
	}
	return d.share(one, r, now)
}

// join is take, but uses no record of its own up.
func (d *denials) join(r audit.Record, most rate) *share {
	d.mu.Lock()
	defer d.mu.Unlock()
	one, now := d.refill(r.Actor.ID, most)
	if one.left >= 1 {
		return nil
	}
	return d.share(one, r, now)
}

// refill gives the client the records that it may have by now. The caller holds
// the mutex.
func (d *denials) refill(client string, most rate) (*denied, time.Time) {
	now := d.clock()
	one := d.clients[client]
	if one == nil && len(d.clients) >= mostDenied {
		maps.DeleteFunc(d.clients, func(_ string, c *denied) bool { return c.sharing == nil && now.Sub(c.at) >= denialQuiet })
		if len(d.clients) >= mostDenied {
			client = "others"
			one = d.clients[client]
		}
	}
	if one == nil {
		one = &denied{name: client, left: most.burst, at: now}
		d.clients[client] = one
	}
	if passed := now.Sub(one.at); passed > 0 {
		one.left, one.at = min(most.burst, one.left+passed.Seconds()*most.second), now
	}
	return one, now
}

// share counts a denial in the client's open window. The caller holds the mutex.
func (d *denials) share(one *denied, r audit.Record, now time.Time) *share {
	s := one.sharing
	if s == nil {
		s = &shared{count: audit.Count{Peer: one.name, From: now}, by: make(map[audit.Reason]int64), done: make(chan struct{})}
		one.sharing = s
		time.AfterFunc(denialWindow, func() { d.end(one, s, r) })
	}
	s.count.N++
	s.by[r.Reason]++
	// A clock that was set must not hold an answer for longer than a window.
	return &share{s, min(max(now.Sub(s.count.From), 0), denialWindow)}
}

// wait returns when the record is durable, or cannot be, and it is the answer's
// turn. It knows no context: what was denied is recorded all the same.
func (s *share) wait() error {
	<-s.of.done
	if s.of.err == nil {
		time.Sleep(time.Until(s.of.ended.Add(s.after)))
	}
	return s.of.err
}

// end writes the record of a window. r is the first of its denials.
func (d *denials) end(one *denied, s *shared, r audit.Record) {
	d.mu.Lock()
	one.sharing = nil
	d.mu.Unlock()
	s.count.To = d.clock()
	for why, n := range s.by {
		s.count.By = append(s.count.By, audit.CountBy{Reason: why, N: n})
	}
	slices.SortFunc(s.count.By, func(a, b audit.CountBy) int { return cmp.Compare(a.Reason, b.Reason) })
	s.err = d.write(context.Background(), audit.Record{
		Action:  audit.RefuseAggregate,
		Outcome: audit.OutcomeRefused,
		Reason:  s.count.By[0].Reason,
		Actor:   audit.Actor{ID: one.name, Kind: r.Actor.Kind},
		Src:     r.Src,
		Count:   &s.count,
	})
	s.ended = time.Now()
	close(s.done)
}
