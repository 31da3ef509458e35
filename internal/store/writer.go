package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
)

const (
	mostQueued  = 8192 // jobs; beyond that the store is overloaded and says so
	mostInBatch = 256  // jobs of one commit, so that none waits long for the others
)

// job is a function waiting for the writer.
type job struct {
	fn      func(*session) error
	journal bool          // fn changes the journal, by its methods alone
	turn    atomic.Uint32 // waiting, then begun or withdrawn
	done    chan struct{} // closed when the outcome is known
	err     error
	// panicked is what fn panicked with, for the goroutine that it belongs to.
	panicked any
}

const (
	waiting uint32 = iota
	begun
	withdrawn
)

// queue holds the jobs that arrive while the batch before them is committed.
type queue struct {
	mu     sync.Mutex
	jobs   []*job
	closed bool
	wake   chan struct{} // holds one; filled when there is something to look at
}

func (q *queue) add(j *job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case len(q.jobs) >= mostQueued:
		return fmt.Errorf("%w: %d changes are waiting to be written", custody.ErrUnavailable, len(q.jobs))
	}
	q.jobs = append(q.jobs, j)
	q.signal()
	return nil
}

// take returns the jobs that wait, at most so many, and gives none only when
// the queue is closed and empty.
func (q *queue) take(most int) []*job {
	q.gather(most)
	for {
		q.mu.Lock()
		n := min(len(q.jobs), most)
		batch := q.jobs[:n:n]
		if q.jobs = q.jobs[n:]; len(q.jobs) == 0 {
			q.jobs = nil
		}
		closed := q.closed
		q.mu.Unlock()
		if n > 0 || closed {
			return batch
		}
		<-q.wake
	}
}

// gather lets those run who are about to add a job, for as long as any does:
// jobs of one commit share the pages that they change. Where nobody else wants the
// processors it takes no time.
func (q *queue) gather(most int) {
	for before := 0; ; {
		q.mu.Lock()
		n := len(q.jobs)
		q.mu.Unlock()
		if n == before || n >= most {
			return
		}
		before = n
		runtime.Gosched()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// writer is the one goroutine that changes the database.
type writer struct {
	session *session
	copier  *copier
	queue   queue
	told    func(took time.Duration, changes int) // of each commit
	ended   chan struct{}
	pending int                   // jobs since the last copy of the log
	scrub   atomic.Bool           // the log holds what is to be overwritten
	last    atomic.Pointer[error] // of the last batch; nil when it was committed
	broken  atomic.Pointer[error] // set for good when the file cannot be trusted
}

func newWriter(s *session, c *copier, told func(took time.Duration, changes int)) *writer {
	w := &writer{session: s, copier: c, told: told, ended: make(chan struct{})}
	w.queue.wake = make(chan struct{}, 1)
	go w.loop()
	return w
}

// update hands fn to the writer and waits for its outcome. When ctx ends before
// fn has begun, fn is withdrawn.
func (w *writer) update(ctx context.Context, fn func(*session) error) error {
	return w.do(ctx, &job{fn: fn, done: make(chan struct{})})
}

func (w *writer) do(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.queue.add(j); err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.turn.CompareAndSwap(waiting, withdrawn) {
			return ctx.Err()
		}
		<-j.done
	}
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

func (w *writer) loop() {
	defer close(w.ended)
	for {
		batch := w.queue.take(mostInBatch)
		if len(batch) == 0 {
			return
		}
		start := time.Now()
		w.outcome(batch, w.commit(batch))
		w.told(time.Since(start), len(batch))
		w.checkpoint(len(batch))
	}
}

// commit runs the batch in one transaction. Its error is that of all.
func (w *writer) commit(batch []*job) error {
	if broken := w.broken.Load(); broken != nil {
		return *broken
	}
	if err := w.session.begin(true); err != nil {
		return fmt.Errorf("store: begin: %w", err)
	}
	if err := w.session.memory.refresh(w.session); err != nil {
		return errors.Join(fmt.Errorf("store: begin: %w", err), w.session.end(true))
	}
	for _, j := range batch {
		if !j.turn.CompareAndSwap(waiting, begun) {
			continue
		}
		w.run(j)
		if w.session.lost != nil {
			break
		}
	}
	if err := w.session.end(false); err != nil {
		w.session.memory.forget()
		return fmt.Errorf("store: commit, nothing was changed: %w", err)
	}
	return nil
}

// run runs one job in a savepoint of its own.
func (w *writer) run(j *job) {
	s := w.session
	if j.err = s.run("SAVEPOINT job"); j.err != nil {
		s.lose(j.err)
		return
	}
	j.call(s)
	if s.lost != nil {
		return
	}
	if j.err != nil || j.panicked != nil || !j.journal {
		s.memory.forget()
	}
	if j.err != nil || j.panicked != nil {
		if _, err := s.exec("ROLLBACK TO job"); err != nil {
			s.lose(err)
			return
		}
	}
	if err := s.run("RELEASE job"); err != nil {
		s.lose(err)
	}
}

// call keeps a panic for the caller's goroutine: the writer serves others too.
func (j *job) call(s *session) {
	defer func() { j.panicked = recover() }()
	j.err = j.fn(s)
}

// outcome tells the batch how it went. A job that failed by itself keeps its
// own error.
func (w *writer) outcome(batch []*job, err error) {
	if err != nil {
		if fatal(err) {
			final := fmt.Errorf("%w; look at the disk, then start again", err)
			w.broken.CompareAndSwap(nil, &final)
		}
		w.last.Store(&err)
	} else {
		w.last.Store(nil)
	}
	for _, j := range batch {
		if j.err == nil {
			j.err = err
		}
		close(j.done)
	}
}

// ready gives the reason why the last batch was not committed, if one is left:
// with a reason it first tries to write, since the reason may have gone.
func (w *writer) ready(ctx context.Context) error {
	if broken := w.broken.Load(); broken != nil {
		return *broken
	}
	if w.last.Load() == nil {
		return nil
	}
	return w.update(ctx, func(s *session) error {
		_, err := s.exec("UPDATE probe SET n = n + 1")
		return err
	})
}

func (w *writer) close() error {
	w.queue.close()
	<-w.ended
	return errors.Join(w.copier.close(), w.session.close())
}

// lose marks the transaction as given up.
func (s *session) lose(err error) {
	if s.lost == nil {
		s.lost = errors.Join(errors.New("the transaction was given up"), err)
	}
}
