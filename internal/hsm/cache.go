package hsm

import (
	"container/list"
	"sync"

	"keyd.dev/keyd/keys"
)

// cacheKey names a cached key: by the MAC of its block, which no two blocks
// share, by what its object may do where that is not what [abilities] says,
// and for a derived key by what it was derived with.
type cacheKey struct {
	mac  [16]byte
	can  keys.Ability
	as   keys.Spec
	n    int
	data [mostDerivation]byte
}

// mostDerivation is the most derivation data of a cached key: two AES blocks
// are the most that a key of any algorithm but HMAC takes, four that of HMAC.
const mostDerivation = 64

// cache holds the loaded keys, the least recently used of which makes room for
// a new one. An object is destroyed once it is out of the cache and nobody
// uses it. Fewer objects than keys stand in the token where a module needs much
// memory for each: a key without one was verified, and is unwrapped anew.
type cache struct {
	room    int // for keys
	objects int // of which so many stand in the token

	mu       sync.Mutex
	byKey    map[cacheKey]*entry
	recent   *list.List // of *entry, the most recent first
	standing *list.List // of *entry, those whose objects may stand, likewise; empty where all may

	hits, misses, evictions uint64
}

type entry struct {
	key    cacheKey
	block  *keys.Block // as it was when the entry was made
	object *object

	// ready closes when the object stands, or err says why it does not.
	ready chan struct{}
	err   error

	// Under the cache's mutex.
	place *list.Element // nil once it is out of the cache
	stand *list.Element // in standing
	users int
}

// can is what the object of a stored key may do.
func (e *entry) can() keys.Ability {
	if e.key.can != 0 {
		return e.key.can
	}
	return abilities(e.block)
}

func newCache(room int) *cache {
	return &cache{room: room, objects: room, byKey: make(map[cacheKey]*entry), recent: list.New(), standing: list.New()}
}

// mostIdle bounds the search for an object that nobody uses.
const mostIdle = 16

// crowd notes that the object of e is to stand, and takes those out of their
// entries that make room for it: the ones that were used the longest ago, and
// not now. They are the caller's to discard.
func (c *cache) crowd(e *entry) (idle []*placed) {
	if c.objects >= c.room {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case e.place == nil: // evicted meanwhile
		return nil
	case e.stand != nil:
		c.standing.MoveToFront(e.stand)
		return nil
	}
	e.stand = c.standing.PushFront(e)
	at := c.standing.Back()
	for range mostIdle {
		if c.standing.Len() <= c.objects || at == nil {
			break
		}
		old, before := at.Value.(*entry), at.Prev()
		if old.users == 0 && old.object != nil {
			c.standing.Remove(at)
			old.stand = nil
			if p := old.object.at.Swap(nil); p != nil {
				idle = append(idle, p)
			}
		}
		at = before
	}
	return idle
}

// take returns the entry of key for one more user, and whether it is new: then
// the caller must see to it that ready closes, and whoever does that is a user
// too, so that an entry evicted meanwhile is not destroyed while it is made. Evicted entries without users
// come back to be destroyed.
func (c *cache) take(key cacheKey, b *keys.Block) (e *entry, fresh bool, doomed []*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.byKey[key]; e != nil {
		c.hits++
		e.users++
		c.recent.MoveToFront(e.place)
		return e, false, nil
	}
	c.misses++
	e = &entry{key: key, block: cloneBlock(b), ready: make(chan struct{}), users: 2}
	e.place = c.recent.PushFront(e)
	c.byKey[key] = e
	for c.recent.Len() > c.room {
		c.evictions++
		if old := c.drop(c.recent.Back().Value.(*entry)); old != nil {
			doomed = append(doomed, old)
		}
	}
	return e, true, doomed
}

// release takes a user off e and returns e if it is to be destroyed.
func (c *cache) release(e *entry) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	if e.users == 0 && e.place == nil {
		return e
	}
	return nil
}

// drop takes e out of the cache and returns it if nobody uses it. The caller
// holds the mutex.
func (c *cache) drop(e *entry) *entry {
	if e.place == nil {
		return nil
	}
	c.recent.Remove(e.place)
	e.place = nil
	if e.stand != nil {
		c.standing.Remove(e.stand)
		e.stand = nil
	}
	delete(c.byKey, e.key)
	if e.users == 0 {
		return e
	}
	return nil
}

// remove takes an entry that did not come to stand out of the cache.
func (c *cache) remove(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(e)
}

// forget takes every entry of the key id out and returns those to be destroyed.
func (c *cache) forget(id keys.ID) (doomed []*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.byKey {
		if e.block.ID != id {
			continue
		}
		if old := c.drop(e); old != nil {
			doomed = append(doomed, old)
		}
	}
	return doomed
}

// counts returns hits, misses, evictions and the number of entries.
func (c *cache) counts() (hits, misses, evictions, held uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hits, c.misses, c.evictions, uint64(c.recent.Len())
}
