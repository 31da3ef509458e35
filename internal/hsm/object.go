package hsm

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// object is one or two key objects in the token that belong together: a key
// and its companion. It knows how to come into being, and does so again by
// itself in each new epoch.
type object struct {
	t *Token
	// build makes the handles in e; it may use c for calls in e.
	build func(c *call, e *epoch) (pair, error)
	// lent objects are the token's own, found and not made: never destroyed here.
	lent bool
	// id is that of the stored key that the object holds or comes from: its
	// CKA_ID, by which it is looked for after it was destroyed. "" for others.
	id keys.ID

	at     atomic.Pointer[placed]
	mu     sync.Mutex // held while building
	closed bool
}

// pair is the handle of a key and that of its companion, 0 for none.
type pair [2]pkcs11.ObjectHandle

// placed is where an object is in one epoch.
type placed struct {
	epoch   *epoch
	handles pair
}

// in returns the handles in e; it builds the object there on first use.
func (o *object) in(c *call, e *epoch) (pair, error) {
	if at := o.at.Load(); at != nil && at.epoch == e {
		return at.handles, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return pair{}, fmt.Errorf("hsm: %s: the key was given back: %w", c.name, keys.ErrUnavailable)
	}
	if at := o.at.Load(); at != nil && at.epoch == e {
		return at.handles, nil
	}
	if _, dead := o.t.dead.Load(o.id); dead {
		return pair{}, fmt.Errorf("hsm: %s: %w: the key was destroyed", c.name, keys.ErrNoKey)
	}
	handles, err := o.build(c, e)
	if err != nil {
		return pair{}, err
	}
	o.at.Store(&placed{e, handles})
	return handles, nil
}

// destroy takes the object out of the token. Nobody may be using it.
func (o *object) destroy() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	at := o.at.Swap(nil)
	if at == nil || o.lent {
		return
	}
	o.t.discard(at)
}

// discard destroys what stands in the token and is nobody's any more.
func (t *Token) discard(at *placed) {
	c := t.newCall("C_DestroyObject", t.cfg.Deadline)
	defer t.free(c)
	// Of an object that cannot be destroyed, the end of its epoch takes care.
	_ = at.epoch.perform(c, at.epoch.keeping, func(s *session) error { return s.destroy(at.handles) })
	t.stats.destroyed.Add(1)
}

func (s *session) destroy(handles pair) error {
	var first error
	for _, h := range handles {
		if h == 0 {
			continue
		}
		if err := s.mod.DestroyObject(s.handle, h); err != nil && first == nil {
			first = err
		}
	}
	return first
}
