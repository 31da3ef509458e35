package hsm

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"time"
)

// queue is the calls that wait for one of some workers, in the order in which
// they came. Where it gathers, a use of a key that enciphers or deciphers blocks
// one by one joins the call that waits for the same with the same key (decision
// 0028). What finds a worker free goes at once and alone.
type queue struct {
	gathers bool

	mu     sync.Mutex
	more   sync.Cond
	turns  uint64              // calls that came
	heads  []*call             // by their turns
	open   map[gathering]*call // of heads: those that others can join
	closed bool
}

func newQueue(gathers bool) *queue {
	q := &queue{gathers: gathers, open: make(map[gathering]*call)}
	q.more.L = &q.mu
	return q
}

// add puts a call into the queue. It reports whether the queue still takes any.
func (q *queue) add(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	c.state.Store(waiting)
	c.joined, c.gathered = c.joined[:0], 0
	q.turns++
	c.turn = q.turns
	if q.join(c) {
		return true
	}
	q.heads = append(q.heads, c)
	q.more.Signal()
	return true
}

// join adds a call to one that waits, or lets others join it. The caller holds
// the mutex.
func (q *queue) join(c *call) bool {
	if !q.gathers || !c.joins() {
		return false
	}
	key := c.gathering()
	head := q.open[key]
	if head == nil || head.gathered+len(c.in) > mostGathered {
		q.open[key], c.gathered = c, len(c.in)
		return false
	}
	head.joined = append(head.joined, c)
	head.gathered += len(c.in)
	return true
}

// take waits for the next call, and gives it and those that have joined it to a
// worker. It returns nil once the queue is closed. Calls whose deadline has
// passed it leaves out: their callers are about to find that out.
func (q *queue) take(w *worker) *call {
	q.mu.Lock()
	defer q.mu.Unlock()
	for yielded := false; !q.closed; {
		if len(q.heads) == 0 {
			q.more.Wait()
			continue
		}
		if !yielded && q.heads[0].gathered > 0 {
			// Who could run now may be about to join. Without this the scheduler
			// runs a worker right behind the first caller, before all others.
			yielded = true
			q.mu.Unlock()
			runtime.Gosched()
			q.mu.Lock()
			continue
		}
		w.began = time.Now()
		if q.heads[0].late(w.began) {
			q.behead(0)
			continue
		}
		return q.next(w)
	}
	return nil
}

// next gives the first call to a worker. The caller holds the mutex.
func (q *queue) next(w *worker) *call {
	c := q.heads[0]
	q.heads = slices.Delete(q.heads, 0, 1)
	q.shut(c)
	c.joined = slices.DeleteFunc(c.joined, func(other *call) bool { return other.late(w.began) })
	c.given(w)
	for _, other := range c.joined {
		other.given(w)
	}
	return c
}

// shut lets nobody join a call any more. The caller holds the mutex.
func (q *queue) shut(c *call) {
	if c.gathered > 0 && q.open[c.gathering()] == c {
		delete(q.open, c.gathering())
	}
}

// withdraw takes a call back whose caller waits no longer. It reports whether no
// worker had it yet.
func (q *queue) withdraw(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.state.Load() != waiting {
		return false
	}
	for i, head := range q.heads {
		if head == c {
			q.behead(i)
			return true
		}
		if at := slices.Index(head.joined, c); at >= 0 {
			head.joined = slices.Delete(head.joined, at, at+1)
			head.gathered -= len(c.in)
			return true
		}
	}
	return true
}

// behead takes a head out; the first that joined it becomes the head of the
// others, where its own turn is: before it may be some that came sooner. The
// caller holds the mutex.
func (q *queue) behead(i int) {
	c := q.heads[i]
	q.heads = slices.Delete(q.heads, i, i+1)
	if len(c.joined) == 0 {
		q.shut(c)
		c.gathered = 0
		return
	}
	next := c.joined[0]
	next.joined = append(next.joined[:0], c.joined[1:]...)
	next.gathered = c.gathered - len(c.in)
	if q.open[c.gathering()] == c {
		q.open[c.gathering()] = next
	}
	at, _ := slices.BinarySearchFunc(q.heads, next, func(a, b *call) int { return cmp.Compare(a.turn, b.turn) })
	q.heads = slices.Insert(q.heads, at, next)
	c.joined, c.gathered = c.joined[:0], 0
}

// close ends the queue: who waits in it is told that the session of its key has
// ended, and the workers leave.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	for _, c := range q.heads {
		for _, other := range c.joined {
			other.answer(waiting, errStale)
		}
		clear(c.joined)
		c.joined, c.gathered = c.joined[:0], 0
		c.answer(waiting, errStale)
	}
	q.heads, q.open = nil, nil
	q.more.Broadcast()
}
