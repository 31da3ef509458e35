package isoswitch

import "sync"

// locks are the lock-outs of all open connections. It is safe for concurrent use.
type locks struct {
	mu  sync.Mutex
	all map[*lockout]struct{}
}

// open adds that of a connection.
func (l *locks) open(of *lockout) *lockout {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[*lockout]struct{})
	}
	l.all[of] = struct{}{}
	return of
}

// close takes it out.
func (l *locks) close(of *lockout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, of)
}

// Locked returns on how many open connections the TID is locked.
func (s *Switch) Locked(tid string) (n int) {
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	for of := range s.locks.all {
		if of.locked(tid) {
			n++
		}
	}
	return n
}

// Unlock lets the TID be heard again on all open connections, and returns on how
// many it was locked (A-11.T2); its quarantine is over too. The caller has
// recorded who wants it so.
func (s *Switch) Unlock(tid string) (n int) {
	s.suspects.drop(tid)
	s.renewed.drop(tid)
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	for of := range s.locks.all {
		if of.locked(tid) {
			n++
		}
		of.clear(tid)
	}
	return n
}
