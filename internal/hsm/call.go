package hsm

import (
	"fmt"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// call is one request to a worker. The worker sees only memory of the call's
// own, so that a caller who gave up may do with its arguments what it likes.
type call struct {
	name  string    // for errors
	asked time.Time // when a session was first wanted
	until time.Time // the deadline

	do func(*session) error // or, when nil, the one-part operation below

	operation operation
	mech      uint
	on        pair // of one key, or of a key and its companion
	iv        []byte
	in        []byte
	out       []byte // as long as the answer: of both keys, one behind the other
	n         int    // bytes of out

	alone  bool // it shares its call with nobody
	shared bool // it did
	// While it waits, under the mutex of its queue; then the worker's.
	turn     uint64 // the how-manieth call of its queue it is
	joined   []*call
	gathered int // bytes of all

	worker *worker // who took it
	err    error
	state  atomic.Uint32
	done   chan struct{}
	timer  *time.Timer
}

// The states of a call. A worker takes it; then it is left as finished by the
// worker or as abandoned by the caller, whoever comes first.
const (
	waiting uint32 = iota
	taken
	finished
	abandoned
)

// worker is a session at work.
type worker struct {
	s       *session
	began   time.Time   // when it took its call
	in, out []byte      // of a call that several share
	struck  atomic.Bool // off: a call of it was abandoned, and another took its place
}

// newCall returns a call whose deadline begins now.
func (t *Token) newCall(name string, deadline time.Duration) *call {
	until := time.Now().Add(deadline) // before the timer: what it ends is late
	c, ok := t.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1), timer: time.NewTimer(deadline)}
	} else {
		c.timer.Reset(deadline)
	}
	c.name, c.until = name, until
	return c
}

// free puts the call away for the next one. An abandoned call still belongs to
// the worker that is stuck in it.
func (t *Token) free(c *call) {
	c.timer.Stop()
	if c.state.Load() == abandoned {
		return
	}
	secret.Clear(c.in, c.out[:cap(c.out)])
	c.do, c.err, c.worker, c.alone, c.shared = nil, nil, nil, false, false
	c.iv, c.in, c.out = c.iv[:0], c.in[:0], c.out[:0]
	t.calls.Put(c)
}

// give hands c to a worker of the queue and waits for its end, for that of the
// epoch, or for the deadline.
func (e *epoch) give(c *call, q *queue) error {
	c.asked, c.shared = time.Now(), false
	e.t.stats.waiting.Add(1)
	if !q.add(c) {
		e.t.stats.waiting.Add(-1)
		return errStale
	}
	select {
	case <-c.done:
		return c.err
	case <-c.timer.C:
	}
	switch {
	case q.withdraw(c):
		e.t.stats.waiting.Add(-1)
		e.t.stats.late.Add(1)
		return fmt.Errorf("hsm: %s: no session was free before the deadline: %w", c.name, keys.ErrUnavailable)
	case !c.state.CompareAndSwap(taken, abandoned):
		<-c.done
		return c.err
	case c.worker.struck.CompareAndSwap(false, true):
		e.abandon(q)
	}
	return fmt.Errorf("hsm: %s: the module did not answer before the deadline: %w", c.name, keys.ErrUnavailable)
}

// perform gives the queue's worker something to do in its session.
func (e *epoch) perform(c *call, q *queue, do func(*session) error) error {
	c.do = do
	err := e.give(c, q)
	if c.state.Load() != abandoned { // else it is the worker's
		c.do = nil
	}
	return err
}

// sharedFailure reports whether the call failed together with others, and is
// worth doing alone in the time that is left.
func (c *call) sharedFailure() bool {
	return c.state.Load() == finished && c.shared && !c.alone && !c.late(time.Now())
}

// late reports whether the deadline has passed.
func (c *call) late(now time.Time) bool { return !now.Before(c.until) }

// given notes who took the call.
func (c *call) given(w *worker) {
	c.worker = w
	c.state.Store(taken)
}

// answer tells the caller what became of its call. It reports false where nobody
// waits for it any more.
func (c *call) answer(was uint32, err error) bool {
	c.err = err
	if !c.state.CompareAndSwap(was, finished) {
		secret.Clear(c.in, c.out)
		return false
	}
	c.done <- struct{}{}
	return true
}

// work serves the queue until it is closed. A worker whose call was abandoned
// meanwhile has been replaced, and leaves.
func (e *epoch) work(q *queue, w *worker) {
	for {
		c := q.take(w)
		if c == nil {
			e.leave(w.s)
			return
		}
		if !c.settle(e.timed(c, q, w)) {
			w.s.close()
			e.t.unstick()
			return
		}
	}
}

// settle answers all who share the call, the head last: what it knows of the
// others is gone with it. It reports false where a caller has given up.
func (c *call) settle(err error) bool {
	all := true
	for _, other := range c.joined {
		other.shared = true
		all = other.answer(taken, err) && all
	}
	c.shared = len(c.joined) > 0
	clear(c.joined)
	c.joined, c.gathered = c.joined[:0], 0
	return c.answer(taken, err) && all
}

// leave ends a worker. At the end of its epoch the session is closed later: the
// login lives as long as there is one.
func (e *epoch) leave(s *session) {
	e.mu.Lock()
	if e.ended {
		e.left = append(e.left, s)
	} else {
		s.close()
	}
	e.mu.Unlock()
	e.workers.Done()
}

// spawn starts a worker with a session of its own; it reports whether the
// epoch still takes any.
func (e *epoch) spawn(q *queue, s *session) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return false
	}
	e.queues[q] = struct{}{}
	e.workers.Add(1)
	go e.work(q, &worker{s: s})
	return true
}

// finish ends a queue that had one purpose, and with it its worker.
func (e *epoch) finish(q *queue) {
	e.mu.Lock()
	delete(e.queues, q)
	e.mu.Unlock()
	q.close()
}

// abandon strikes a stuck worker off and puts another in its place.
func (e *epoch) abandon(q *queue) {
	e.t.stats.abandoned.Add(1)
	e.t.stuck.Add(1)
	switch q {
	case e.queue:
		e.spawn(q, e.newSession(0))
		e.t.suspect(e, errStuck)
	case e.keeping:
		e.adrift.Store(true)
		e.t.suspect(e, errStuck)
	}
	e.workers.Done()
}
