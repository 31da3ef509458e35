package isoswitch

import "sync"

// claims are the originals that the queue is at: one goroutine each, so that
// different originals never wait for each other, and of one terminal no more
// than its share, so that a flood of one leaves room for the others. It is
// safe for concurrent use.
type claims struct {
	mu    sync.Mutex
	of    map[OID]string // the terminal
	count map[string]int // by terminal
}

func newClaims() *claims { return &claims{of: map[OID]string{}, count: map[string]int{}} }

// claim takes an original. It is false when it is taken, or when its terminal
// has its share; then full is true.
func (c *claims) claim(oid OID, tid string, share int) (ok, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.of[oid]; taken {
		return false, false
	}
	if c.count[tid] >= share {
		return false, true
	}
	c.of[oid] = tid
	c.count[tid]++
	return true, false
}

func (c *claims) release(oid OID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tid, taken := c.of[oid]
	if !taken {
		return
	}
	delete(c.of, oid)
	if c.count[tid]--; c.count[tid] == 0 {
		delete(c.count, tid)
	}
}

// taken returns how many originals are claimed, and the terminals that have
// their share.
func (c *claims) taken(share int) (n int, full []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tid, count := range c.count {
		if count >= share {
			full = append(full, tid)
		}
	}
	return len(c.of), full
}
