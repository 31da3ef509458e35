package custody

import (
	"context"
	"crypto/sha256"
	"hash"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// rewrapBatch is how many blocks are moved in one session and one commit;
// rewrapSlice how long one call goes on.
const (
	rewrapBatch = 500
	rewrapSlice = 2 * time.Second
)

// Rewrapping says how far the keys have been moved to the newest local master key.
type Rewrapping struct {
	Generation uint32   // the newest
	Total      int      // key blocks
	Done       int      // of them, those under the newest
	Moved      int      // by this call
	Refused    []Broken // those that this call could not move
}

// Broken is a key whose block cannot be moved.
type Broken struct {
	ID  keys.ID
	Why error
}

// RewrapKeys moves key blocks to the newest local master key, for about two
// seconds, and says how far that is; it is called until all are done, by anyone
// and at any time: the blocks themselves say what is left to do. The keys stay in
// use. A block that is not genuine is left, named, and does not hold up the
// others. It returns [ErrDenied] or [ErrUnavailable].
func (c *Custody) RewrapKeys(ctx context.Context, caller Caller, corr string) (Rewrapping, error) {
	if err := c.mayLMK(ctx, caller, corr, OpRewrapKeys); err != nil {
		return Rewrapping{}, err
	}
	c.rewrapping.Lock()
	defer c.rewrapping.Unlock()
	newest, err := c.newestLMK(ctx)
	if err != nil {
		return Rewrapping{}, err
	}
	p := Rewrapping{Generation: newest.Generation}
	if err := c.countRewrapped(ctx, &p); err != nil || p.Done == p.Total {
		return p, err
	}
	r := c.lmkRecord(caller, corr, audit.KeyRotate, newest, audit.KeyRoleKEK)
	r.Custody = audit.CustodyToken
	err = c.intended(ctx, r, func(r *audit.Record) error {
		before, after := digest{sha256.New()}, digest{sha256.New()}
		err := c.rewrap(ctx, &p, func(change BlockChange) {
			before.add(change.Old)
			after.add(change.New)
		})
		r.Change = &audit.Change{Kind: audit.ChangeKey, Object: lmkObject(newest.Generation), Before: before.sum(), After: after.sum()}
		return err
	})
	if err != nil {
		return Rewrapping{}, err
	}
	return p, c.countRewrapped(ctx, &p)
}

func (c *Custody) countRewrapped(ctx context.Context, p *Rewrapping) error {
	counts, err := c.lmkStore.CountByLMK(ctx)
	if err != nil {
		return storeError("counting keys", err)
	}
	p.Total, p.Done = 0, counts[p.Generation]
	for _, n := range counts {
		p.Total += n
	}
	return nil
}

// rewrap moves blocks until the slice is over or none is left.
func (c *Custody) rewrap(ctx context.Context, p *Rewrapping, moved func(BlockChange)) error {
	counts, err := c.lmkStore.CountByLMK(ctx)
	if err != nil {
		return storeError("counting keys", err)
	}
	over := time.Now().Add(rewrapSlice)
	for generation := range counts {
		if generation == p.Generation {
			continue
		}
		for after := keys.ID(""); time.Now().Before(over); {
			blocks, err := c.lmkStore.BlocksUnder(ctx, generation, after, rewrapBatch)
			if err != nil {
				return storeError("listing keys", err)
			}
			if len(blocks) == 0 {
				break
			}
			after = blocks[len(blocks)-1].ID
			if err := c.rewrapSome(ctx, p, blocks, moved); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Custody) rewrapSome(ctx context.Context, p *Rewrapping, blocks []*keys.Block, moved func(BlockChange)) error {
	done, err := c.masters.RewrapAll(ctx, blocks)
	if err != nil {
		return tokenError("re-wrapping keys", err)
	}
	wanted := make([]BlockChange, 0, len(blocks))
	for i, old := range blocks {
		if done[i].Err != nil {
			p.Refused = append(p.Refused, Broken{old.ID, tokenError("re-wrapping the key", done[i].Err)})
			continue
		}
		wanted = append(wanted, BlockChange{Old: old, New: done[i].Block})
	}
	c.life.Lock() // so that a change of a key does not see its block replaced on the way
	changes, err := c.lmkStore.ReplaceBlocks(ctx, wanted)
	c.life.Unlock()
	if err != nil {
		return storeError("storing re-wrapped keys", err)
	}
	p.Moved += len(changes)
	old := make([]*keys.Block, 0, len(changes))
	for _, change := range changes {
		moved(change)
		old = append(old, change.Old)
	}
	c.book.drop(old)
	c.masters.Outdate(old)
	return nil
}

// drop takes the records with these blocks out of the book.
func (b *book) drop(blocks []*keys.Block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	for _, old := range blocks {
		delete(b.records, old.ID)
	}
}

// digest is SHA-256 over the ids and MACs of blocks, so that the record of a
// re-wrapping says of which keys without a list of them.
type digest struct{ hash.Hash }

func (d digest) add(b *keys.Block) {
	d.Write([]byte(b.ID))
	d.Write(b.MAC[:])
}

func (d digest) sum() [32]byte { return [32]byte(d.Sum(nil)) }
