package isoswitch

import (
	"sync"
	"time"
)

// lockout counts the absent and wrong MACs of each TID on one connection. It
// never reaches further: who comes by another connection is not locked by what
// a stranger sends here. W-19.
type lockout struct {
	policy func() Lockout
	clock  func() time.Time

	mu     sync.Mutex
	count  map[string]*failures
	failed failures // of all TIDs
	proven bool     // a message with a valid MAC has come
}

type failures struct {
	since  time.Time
	n      int
	locked bool
}

func newLockout(policy func() Lockout, clock func() time.Time) *lockout {
	return &lockout{policy: policy, clock: clock, count: map[string]*failures{}}
}

// locked reports whether messages of the TID are refused unseen.
func (l *lockout) locked(tid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.count[tid]
	return ok && f.locked
}

// fail counts a failure and reports whether the TID is locked by just this one.
func (l *lockout) fail(tid string) (locked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if now.Sub(l.failed.since) > l.policy().Window {
		l.failed = failures{since: now}
	}
	l.failed.n++
	f, ok := l.count[tid]
	if !ok {
		f = &failures{since: now}
		l.count[tid] = f
	}
	if !f.locked && now.Sub(f.since) > l.policy().Window {
		*f = failures{since: now}
	}
	f.n++
	if f.locked || f.n < l.policy().Failures {
		return false
	}
	f.locked = true
	return true
}

// prove notes that a message with a valid MAC has come.
func (l *lockout) prove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proven = true
}

// suspect reports whether nothing good has come by the connection yet, or too
// much that was bad.
func (l *lockout) suspect() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.proven || l.failed.n >= l.policy().Failures
}

// clear forgets the failures of the TID, after a sign-on with a valid MAC.
func (l *lockout) clear(tid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.count, tid)
}

// floods counts the lock-outs behind each client certificate. A certificate
// with many is slowed down, not locked: on those of its connections that sent no
// good message yet, or bad ones, each frame waits, so that a forger who has the
// certificate of a gateway does not slow its honest terminals (W-19). It is safe
// for concurrent use.
type floods struct {
	policy func() Lockout
	clock  func() time.Time

	mu    sync.Mutex
	certs map[string]*failures
}

func newFloods(policy func() Lockout, clock func() time.Time) *floods {
	return &floods{policy: policy, clock: clock, certs: map[string]*failures{}}
}

// count adds a lock-out and reports whether the certificate is slow from now on.
func (f *floods) count(cert string) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock()
	c, ok := f.certs[cert]
	if !ok || now.Sub(c.since) > f.policy().Window {
		c = &failures{since: now}
		f.certs[cert] = c
	}
	c.n++
	first = !c.locked && c.n >= f.policy().Flood
	c.locked = c.locked || first
	return first
}

// delay is how long a frame of the certificate waits.
func (f *floods) delay(cert string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.certs[cert]
	if !ok {
		return 0
	}
	if f.clock().Sub(c.since) > f.policy().Window {
		delete(f.certs, cert)
		return 0
	}
	if !c.locked {
		return 0
	}
	return f.policy().Slow
}
