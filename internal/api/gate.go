package api

import (
	"context"
	"sync"
	"time"
)

// gate lets so many requests at a time go to the token. Beyond that they wait in
// queues, one for each client, and the queues take turns: who sends a hundred
// requests at once waits for most of them, and who sends one gets the next turn
// (decision 0031). It is safe for concurrent use. Where nobody waits, coming
// and going are a few instructions under a mutex, without an allocation and
// without a timer.
type gate struct {
	pick func(*share) *queue // the gate's queue of a client

	mu      sync.Mutex
	width   int // requests in at a time
	each    int // of these, those of one client
	in      int
	waiting int
	first   *queue // a ring of the queues that are not empty: whose turn is next
	last    *queue
}

// queue is a client's at a gate. Its members are the gate's mutex's.
type queue struct {
	in      int // requests that are in
	first   *ticket
	last    *ticket
	next    *queue
	queuing bool // in the ring
}

// ticket is one request that waits.
type ticket struct {
	turn chan struct{} // holds one when it may go in
	left bool          // it waits no more
	next *ticket
}

func (g *gate) resize(width int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.width, g.each = width, width
	g.call()
}

func (g *gate) waits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// enter waits for the request's turn, at most for wait. It reports false when
// none came, and the context's error when the caller is gone. Who entered must
// leave.
func (g *gate) enter(ctx context.Context, s *share, wait time.Duration) (bool, error) {
	q := g.pick(s)
	g.mu.Lock()
	if g.waiting == 0 && g.in < g.width && q.in < g.each {
		g.in++
		q.in++
		g.mu.Unlock()
		return true, nil
	}
	t := &ticket{turn: make(chan struct{}, 1)}
	g.line(q, t)
	g.call() // others may wait for their own share alone
	g.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.turn:
		return true, nil
	case <-timer.C:
		return !g.quit(t), nil
	case <-ctx.Done():
		if g.quit(t) {
			return false, ctx.Err()
		}
		return true, nil
	}
}

// leave gives the place to whose turn it is.
func (g *gate) leave(s *share) {
	q := g.pick(s)
	g.mu.Lock()
	g.in--
	q.in--
	if g.waiting > 0 {
		g.call()
	}
	g.mu.Unlock()
}

// quit takes a ticket back; it reports false when its turn has come meanwhile.
func (g *gate) quit(t *ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.turn:
		return false
	default:
	}
	t.left = true // it is taken out of its queue when its turn comes
	g.waiting--
	return true
}

// line puts a ticket at the end of its client's queue. The caller holds the mutex.
func (g *gate) line(q *queue, t *ticket) {
	g.waiting++
	if q.last == nil {
		q.first = t
	} else {
		q.last.next = t
	}
	q.last = t
	if !q.queuing {
		g.rejoin(q)
	}
}

// rejoin puts a queue at the end of the ring. The caller holds the mutex.
func (g *gate) rejoin(q *queue) {
	q.queuing, q.next = true, nil
	if g.last == nil {
		g.first = q
	} else {
		g.last.next = q
	}
	g.last = q
}

// call lets in whoever has a turn, one of each queue after the other. The caller
// holds the mutex.
func (g *gate) call() {
	var stop *queue // the first queue that could not go: all that follow were asked
	for g.in < g.width && g.first != nil && g.first != stop {
		q := g.first
		if g.first = q.next; g.first == nil {
			g.last = nil
		}
		q.queuing, q.next = false, nil
		q.skip()
		switch {
		case q.first == nil:
			continue
		case q.in >= g.each:
			if stop == nil {
				stop = q
			}
		default:
			g.in++
			q.in++
			g.waiting--
			q.first.turn <- struct{}{}
			q.first = q.first.next
			q.skip()
			stop = nil
		}
		if q.first != nil {
			g.rejoin(q)
		}
	}
}

// skip drops the tickets at the front that wait no more.
func (q *queue) skip() {
	for q.first != nil && q.first.left {
		q.first = q.first.next
	}
	if q.first == nil {
		q.last = nil
	}
}
