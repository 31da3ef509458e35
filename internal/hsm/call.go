package hsm

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// call is one request to a worker. The worker sees only memory of the call's
// own, so that a caller who gave up may do with its arguments what it likes.
type call struct {
	name  string    // for errors
	asked time.Time // when a session was first wanted

	do func(*session) error // or, when nil, the one-part operation below

	operation operation
	mech      uint
	key       pkcs11.ObjectHandle
	iv        []byte
	in        []byte
	out       []byte
	n         int // bytes of out

	err   error
	state atomic.Uint32
	done  chan struct{}
	timer *time.Timer
}

// The states of a call. It is left as finished by the worker or as abandoned
// by the caller, whoever comes first.
const (
	waiting uint32 = iota
	finished
	abandoned
)

// newCall returns a call whose deadline begins now.
func (t *Token) newCall(name string, deadline time.Duration) *call {
	c, ok := t.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1), timer: time.NewTimer(deadline)}
	} else {
		c.timer.Reset(deadline)
	}
	c.name = name
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
	c.do, c.err = nil, nil
	c.iv, c.in, c.out = c.iv[:0], c.in[:0], c.out[:0]
	t.calls.Put(c)
}

// give hands c to a worker of the queue and waits for its end, for that of the
// epoch, or for the deadline.
func (e *epoch) give(c *call, queue chan *call) error {
	c.state.Store(waiting)
	e.t.stats.calls.Add(1)
	if err := e.hand(c, queue); err != nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-c.timer.C:
	}
	if !c.state.CompareAndSwap(waiting, abandoned) {
		<-c.done
		return c.err
	}
	e.abandon(queue)
	return fmt.Errorf("hsm: %s: the module did not answer before the deadline: %w", c.name, keys.ErrUnavailable)
}

// hand waits for a worker of the queue that takes c.
func (e *epoch) hand(c *call, queue chan *call) error {
	c.asked = time.Now()
	e.t.stats.waiting.Add(1)
	defer e.t.stats.waiting.Add(-1)
	select {
	case queue <- c:
		return nil
	case <-e.quit:
		return errStale
	case <-c.timer.C:
		e.t.stats.late.Add(1)
		return fmt.Errorf("hsm: %s: no session was free before the deadline: %w", c.name, keys.ErrUnavailable)
	}
}

// perform gives the queue's worker something to do in its session.
func (e *epoch) perform(c *call, queue chan *call, do func(*session) error) error {
	c.do = do
	err := e.give(c, queue)
	if c.state.Load() != abandoned { // else it is the worker's
		c.do = nil
	}
	return err
}

// work serves the queue until the epoch ends or the queue is closed. A worker
// whose call was abandoned meanwhile has been replaced, and leaves.
func (e *epoch) work(queue chan *call, s *session) {
	for {
		var c *call
		var more bool
		select {
		case <-e.quit:
			e.leave(s)
			return
		case c, more = <-queue:
		}
		if !more {
			s.close()
			e.workers.Done()
			return
		}
		c.err = e.timed(c, queue, s)
		if !c.state.CompareAndSwap(waiting, finished) {
			s.close()
			e.t.unstick()
			return
		}
		c.done <- struct{}{}
	}
}

// leave ends a worker at the end of its epoch, which closes the session later:
// the login lives as long as there is one.
func (e *epoch) leave(s *session) {
	e.mu.Lock()
	e.left = append(e.left, s)
	e.mu.Unlock()
	e.workers.Done()
}

// spawn starts a worker with a session of its own; it reports whether the
// epoch still takes any.
func (e *epoch) spawn(queue chan *call, s *session) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return false
	}
	e.workers.Add(1)
	go e.work(queue, s)
	return true
}

// abandon strikes a stuck worker off and puts another in its place.
func (e *epoch) abandon(queue chan *call) {
	e.t.stats.abandoned.Add(1)
	e.t.stuck.Add(1)
	switch queue {
	case e.queue:
		e.spawn(queue, e.newSession(0))
		e.t.suspect(e, errStuck)
	case e.keeping:
		e.adrift.Store(true)
		e.t.suspect(e, errStuck)
	}
	e.workers.Done()
}
