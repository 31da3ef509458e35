package custody

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// mostSwept bounds how many keys one query of a sweep takes.
const mostSwept = 256

// The pauses between tries to destroy a key that could not be destroyed.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// sweeper remembers what failed, so that it is tried again with growing pauses.
// The lock of changes guards it.
type sweeper struct {
	next map[keys.ID]time.Time
	wait map[keys.ID]time.Duration
	// scrub: the log of the store may hold what was erased, by a process that
	// died too early, or because readers kept it.
	scrub bool
}

func newSweeper() *sweeper {
	return &sweeper{next: make(map[keys.ID]time.Time), wait: make(map[keys.ID]time.Duration), scrub: true}
}

// Sweep does what the clock asks for: it destroys keys whose waiting time is
// over and the key pairs of expired import tokens, stops replaced keys whose
// overlap is over, announces cryptoperiods that come to their end, and once a
// minute makes the counters of keys durable. The daemon calls it every few
// seconds. A sweep that comes late changes nothing in what keys may do, since
// each use looks at the clock itself. One caller at a time.
func (c *Custody) Sweep(ctx context.Context) error {
	if c.keeper == nil {
		return fmt.Errorf("%w: this process changes no keys", ErrUnavailable)
	}
	return errors.Join(c.usage.flush(ctx, false), c.sweepDue(ctx), c.sweepTimed(ctx), c.sweepTokens(ctx))
}

// Close makes the counters of keys exact. Nothing may use keys any more.
func (c *Custody) Close(ctx context.Context) error { return c.usage.flush(ctx, true) }

func (c *Custody) sweepDue(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	var failed []error
	if c.sweeper.scrub {
		err := c.book.store.Scrub(ctx)
		if c.sweeper.scrub = err != nil; err != nil {
			failed = append(failed, storeError("overwriting what was erased", err))
		}
	}
	due, err := c.book.store.DueKeys(ctx, c.clock(), mostSwept)
	if err != nil {
		return errors.Join(append(failed, storeError("looking for keys to destroy", err))...)
	}
	for _, k := range due {
		if c.clock().Before(c.sweeper.next[k.Block.ID]) {
			continue
		}
		err := c.destroyDue(ctx, k)
		c.sweeper.tried(k.Block.ID, c.clock(), err)
		if err != nil {
			failed = append(failed, fmt.Errorf("destroying key %s: %w", k.Block.ID, err))
		}
	}
	return errors.Join(failed...)
}

// tried notes how a try went.
func (s *sweeper) tried(id keys.ID, now time.Time, err error) {
	if err == nil {
		delete(s.next, id)
		delete(s.wait, id)
		return
	}
	s.wait[id] = min(max(2*s.wait[id], firstRetry), lastRetry)
	s.next[id] = now.Add(s.wait[id])
}

func (c *Custody) sweepTimed(ctx context.Context) error {
	var failed []error
	var near KeyLimits
	after := keys.ID("")
	for {
		page, err := c.book.store.TimedKeys(ctx, after, mostSwept)
		if err != nil {
			return errors.Join(append(failed, storeError("looking for keys whose time ends", err))...)
		}
		for _, k := range page {
			if err := c.sweepKey(ctx, k, &near); err != nil {
				failed = append(failed, fmt.Errorf("key %s: %w", k.Block.ID, err))
			}
		}
		if len(page) < mostSwept {
			break
		}
		after = page[len(page)-1].Block.ID
	}
	failed = append(failed, c.addUses(ctx, &near))
	c.limited.Store(&near)
	return errors.Join(failed...)
}

// sweepKey stops a replaced key whose overlap is over, and announces what is
// reached of a cryptoperiod.
func (c *Custody) sweepKey(ctx context.Context, k KeyRecord, near *KeyLimits) error {
	m, err := c.usage.of(ctx, k)
	if err != nil {
		return err
	}
	now := c.clock()
	l := m.limits.Load()
	near.addPeriod(l, now)
	if k.Life.Successor != "" && !now.Before(k.Life.Retires) {
		return c.retire(ctx, k.Block.ID)
	}
	reached := int64(0)
	for _, w := range l.warnTimes {
		if now.UnixNano() >= w {
			reached = w
		}
	}
	if l.notAfter != 0 && now.UnixNano() >= l.notAfter {
		reached = l.notAfter
	}
	if reached == 0 {
		return nil
	}
	return c.announceTime(ctx, k, m, reached)
}

// retire stops a key whose overlap is over.
func (c *Custody) retire(ctx context.Context, id keys.ID) error {
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.book.store.Key(ctx, id)
	if err != nil {
		return storeError("finding the key", err)
	}
	if !old.Enabled {
		return nil
	}
	k := stopped(old, c.now())
	r := audit.Record{
		Action: audit.KeySuspend,
		Actor:  audit.System(),
		HSM:    audit.HSM{Serial: c.serial},
		Keys:   []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))},
		Change: &audit.Change{Kind: audit.ChangeKey, Object: keyName(k), Before: canonical(old), After: canonical(k)},
	}
	err = c.intended(ctx, r, func(r *audit.Record) error {
		r.Reason = audit.ReasonKeyExpired
		return c.put(ctx, Caller{}, OpStopKeyUsage, keyEdit{put: []keyPut{{old, k}}}, nil, k)
	})
	if err == nil {
		c.keeper.Forget(id)
	}
	return err
}
