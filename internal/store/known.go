package store

import (
	"sync"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

const (
	// knownFor is how long a terminal that was read is known: so long somebody's
	// change of the file by other means than keyd stays unseen, and without effect.
	knownFor  = time.Second
	mostKnown = 1 << 16 // terminals
)

// known are the terminals that were read a moment ago and compared with the
// register: every message asks for one, and most ask for the same again. They are
// forgotten after a while and with each change of the register. It is safe for
// concurrent use.
type known struct {
	mu    sync.Mutex
	tree  *tree
	since time.Time
	byTID map[string]isoswitch.Terminal
}

// terminal gives what is known of a terminal while the register holds t.
func (k *known) terminal(t *tree, now time.Time, tid string) (isoswitch.Terminal, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tree != t || now.Sub(k.since) >= knownFor || now.Before(k.since) {
		return isoswitch.Terminal{}, false
	}
	is, found := k.byTID[tid]
	return is, found
}

// keep notes a terminal that was read while the register held t.
func (k *known) keep(t *tree, now time.Time, is isoswitch.Terminal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tree != t || now.Sub(k.since) >= knownFor || now.Before(k.since) || len(k.byTID) >= mostKnown {
		k.tree, k.since, k.byTID = t, now, make(map[string]isoswitch.Terminal, len(k.byTID))
	}
	k.byTID[is.TID] = is
}

// settled gives the tree of the register, or nil while a change is under way: then
// rows of two trees are right.
func (r *register) settled() *tree {
	if r == nil {
		return nil
	}
	now := r.current.Load()
	if r.pending.Load() != nil {
		return nil
	}
	return now
}
