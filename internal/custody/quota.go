package custody

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Quotas bound what is stored. Zero members are no limit.
type Quotas struct {
	Keys    int // not counting those that are deleted
	Aliases int
}

// CountStore counts what quotas bound.
type CountStore interface {
	// CountKeys returns how many keys there are, but those that are deleted.
	CountKeys(ctx context.Context) (int, error)
	CountAliases(ctx context.Context) (int, error)
}

// quota holds the quotas. Who adds counts and adds under its mutex, so that two
// cannot both be the last.
type quota struct {
	mu  sync.Mutex
	now atomic.Pointer[Quotas]
}

func newQuota(q Quotas) (*quota, error) {
	all := new(quota)
	return all, all.set(q)
}

func (q *quota) set(to Quotas) error {
	if to.Keys < 0 || to.Aliases < 0 {
		return fmt.Errorf("custody: quotas of %d keys and %d aliases: want positive numbers, or 0 for no limit", to.Keys, to.Aliases)
	}
	q.now.Store(&to)
	return nil
}

// SetQuotas exchanges the quotas. What is beyond a new one stays. It changes
// nothing when it returns an error.
func (c *Custody) SetQuotas(q Quotas) error { return c.quota.set(q) }

// The refusals by a quota. Each is an [ErrQuota].
var (
	errKeyQuota   = fmt.Errorf("%w: the configured number of keys is in use", ErrQuota)
	errAliasQuota = fmt.Errorf("%w: the configured number of aliases is in use", ErrQuota)
)

// room refuses a request for a new key before anything is done for it.
func (c *Custody) room(ctx context.Context) error {
	most := c.quota.now.Load().Keys
	if most == 0 {
		return nil
	}
	n, err := c.book.store.CountKeys(ctx)
	switch {
	case err != nil:
		return storeError("counting the keys", err)
	case n >= most:
		return errKeyQuota
	}
	return nil
}

// withinQuota stores a new key with its aliases by add, unless that were one too many.
func (c *Custody) withinQuota(ctx context.Context, aliases []string, add func() error) error {
	if *c.quota.now.Load() == (Quotas{}) {
		return add()
	}
	c.quota.mu.Lock()
	defer c.quota.mu.Unlock()
	if err := c.room(ctx); err != nil {
		return err
	}
	for _, name := range aliases {
		if err := c.aliasRoom(ctx, name); err != nil {
			return err
		}
	}
	return add()
}

// aliasWithinQuota is withinQuota for an alias alone.
func (c *Custody) aliasWithinQuota(ctx context.Context, name string, add func() error) error {
	if c.quota.now.Load().Aliases == 0 {
		return add()
	}
	c.quota.mu.Lock()
	defer c.quota.mu.Unlock()
	if err := c.aliasRoom(ctx, name); err != nil {
		return err
	}
	return add()
}

// aliasRoom refuses a name that is new and one too many.
func (c *Custody) aliasRoom(ctx context.Context, name string) error {
	most := c.quota.now.Load().Aliases
	if most == 0 {
		return nil
	}
	n, err := c.book.store.CountAliases(ctx)
	if err != nil {
		return storeError("counting the aliases", err)
	}
	if n < most {
		return nil
	}
	if _, err := c.book.store.Alias(ctx, name); errors.Is(err, ErrNoAlias) {
		return errAliasQuota
	} else if err != nil {
		return storeError("finding the alias", err)
	}
	return nil
}
