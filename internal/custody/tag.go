package custody

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// MostTags is how many tags a key may have, those of its policy with them.
const MostTags = 200

// TagKey sets tags of a key. Those that begin with keyd: are its policy and are
// sealed with its block anew; to change them needs a second person. It returns
// [ErrDenied], [ErrNoKey], [ErrRequest] for a policy that keyd does not know or
// honour, [ErrConflict] for a key that is or will be deleted, [ErrApproval],
// [ErrRepeated] or [ErrUnavailable]. Sections 9 and 11.6 of the API.
func (c *Custody) TagKey(ctx context.Context, caller Caller, corr string, id keys.ID, tags map[string]string, once *Repeat) error {
	return c.retag(ctx, caller, corr, OpTagResource, id, once, func(all map[string]string) []string {
		var changed []string
		for name, value := range tags {
			if was, ok := all[name]; !ok || was != value {
				changed = append(changed, name)
			}
			all[name] = value
		}
		return changed
	})
}

// UntagKey takes tags of these names away; a key need not have them. Errors are
// those of [Custody.TagKey].
func (c *Custody) UntagKey(ctx context.Context, caller Caller, corr string, id keys.ID, names []string, once *Repeat) error {
	return c.retag(ctx, caller, corr, OpUntagResource, id, once, func(all map[string]string) []string {
		var changed []string
		for _, name := range names {
			if _, ok := all[name]; ok {
				changed = append(changed, name)
			}
			delete(all, name)
		}
		return changed
	})
}

// Tags returns the tags of a key, those of its policy with them. It returns
// [ErrDenied], [ErrNoKey] or [ErrUnavailable].
func (c *Custody) Tags(ctx context.Context, caller Caller, corr string, id keys.ID) (map[string]string, error) {
	k, err := c.book.permit(ctx, caller.Client, OpListTags, Ref{ID: id})
	if err != nil {
		return nil, c.refuse(ctx, caller, corr, OpListTags, err)
	}
	return allTags(k), nil
}

func (c *Custody) retag(ctx context.Context, caller Caller, corr string, op Operation, id keys.ID, once *Repeat,
	change func(map[string]string) []string) error {
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.changing(ctx, caller, corr, op, Ref{ID: id})
	if err != nil {
		return err
	}
	if err := present(old); err != nil {
		return err
	}
	all := allTags(old)
	changed := change(all)
	if len(all) > MostTags {
		return fmt.Errorf("%w: a key has at most %d tags", ErrRequest, MostTags)
	}
	policy, rest, err := splitTags(all, c.lists.Load().legacyPIN)
	if err == nil {
		err = suits(policy, old.Block.Attributes)
	}
	if err != nil {
		return err
	}
	retain(policy, old.Block.Policy)
	var approvals []audit.Approval
	sealed := changesPolicy(changed)
	if sealed {
		if approvals, err = c.approved(ctx, caller, corr, op, keyObject(old)); err != nil {
			return err
		}
	}
	r := c.keyRecord(caller, corr, audit.KeyAttr, op, old)
	r.Approvals = approvals
	k := old
	err = c.intended(ctx, r, func(r *audit.Record) error {
		k.Tags = rest
		if sealed {
			if k.Block, err = c.keeper.Renew(ctx, old.Block, old.Block.Version, policy); err != nil {
				return tokenError("sealing the policy", err)
			}
		}
		r.Change.After = canonical(k)
		return c.put(ctx, caller, op, keyEdit{put: []keyPut{{old, k}}}, once, k)
	})
	if err != nil {
		return err
	}
	if sealed {
		c.keeper.Forget(id) // its objects are those of the old policy
	}
	return nil
}

func changesPolicy(names []string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, tagPrefix) {
			return true
		}
	}
	return false
}

// moved asks for a second person where a name is taken off a key. Whoever could
// do so alone could put a key that he knows in the place of a zone PIN key, and
// would not need to use any. A name without a key is given to one freely.
func (c *Custody) moved(ctx context.Context, caller Caller, corr string, op Operation, old, alias Alias) ([]audit.Approval, error) {
	if old.Key == "" || old.Key == alias.Key {
		return nil, nil
	}
	return c.approved(ctx, caller, corr, op, old.Name)
}

// UpdateAlias points an alias to another key, or to none. The other key keeps the
// number of the last change by a host, see [Custody.ChangeZoneKey], so that none
// before can be brought again. Naming a key is
// allowed to whoever may use one of its names already. It returns [ErrDenied],
// [ErrNoAlias], [ErrNoKey], [ErrConflict] for a key that was destroyed,
// [ErrApproval] for a name that points to another key, [ErrRepeated] or
// [ErrUnavailable].
func (c *Custody) UpdateAlias(ctx context.Context, caller Caller, corr string, alias Alias, once *Repeat) (Alias, error) {
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.named(ctx, caller, corr, OpUpdateAlias, alias.Name)
	if err != nil {
		return Alias{}, err
	}
	var k KeyRecord
	if alias.Key != "" {
		if k, err = c.book.store.Key(ctx, alias.Key); err != nil {
			return Alias{}, storeError("finding the key", err)
		}
		if len(k.Aliases) > 0 && !caller.mayUse(k.Aliases) {
			return Alias{}, c.refuse(ctx, caller, corr, OpUpdateAlias, fmt.Errorf("%w: not this key", ErrDenied))
		}
		if k.State == DeleteComplete {
			return Alias{}, present(k)
		}
	}
	approvals, err := c.moved(ctx, caller, corr, OpUpdateAlias, old, alias)
	if err != nil {
		return Alias{}, err
	}
	r := c.aliasRecord(caller, corr, old, alias, k)
	r.Approvals = approvals
	err = c.intended(ctx, r, func(*audit.Record) error {
		defer c.forgetKey(old.Key)
		return c.renamed(ctx, caller, corr, old, alias, k, once)
	})
	if err != nil {
		return Alias{}, err
	}
	return alias, nil
}

// renamed makes the change of an alias durable. The key that gets the name keeps
// the number of the zone key that had it, see [Custody.ChangeZoneKey].
func (c *Custody) renamed(ctx context.Context, caller Caller, corr string, old, alias Alias, k KeyRecord, once *Repeat) error {
	edit := keyEdit{set: []Alias{alias}}
	mark, err := c.markOwed(ctx, old, k)
	if err != nil {
		return err
	}
	if mark == "" {
		return c.put(ctx, caller, OpUpdateAlias, edit, once, k)
	}
	return c.intended(ctx, c.keyRecord(caller, corr, audit.KeyAttr, OpUpdateAlias, k), func(r *audit.Record) error {
		marked := k
		policy := maps.Clone(k.Block.Policy)
		if policy == nil {
			policy = make(map[string]string)
		}
		policy[keptChange] = mark
		if marked.Block, err = c.keeper.Renew(ctx, k.Block, k.Block.Version, policy); err != nil {
			return tokenError("sealing the number of the last change", err)
		}
		r.Change.After = canonical(marked)
		edit.put = []keyPut{{k, marked}}
		defer c.keeper.Forget(k.Block.ID) // its objects are those of the old policy
		return c.put(ctx, caller, OpUpdateAlias, edit, once, marked)
	})
}

// DeleteAlias takes a name away; its key stays. It returns [ErrDenied],
// [ErrNoAlias], [ErrApproval], [ErrRepeated] or [ErrUnavailable].
func (c *Custody) DeleteAlias(ctx context.Context, caller Caller, corr, name string, once *Repeat) error {
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.named(ctx, caller, corr, OpDeleteAlias, name)
	if err != nil {
		return err
	}
	approvals, err := c.moved(ctx, caller, corr, OpDeleteAlias, old, Alias{})
	if err != nil {
		return err
	}
	r := c.aliasRecord(caller, corr, old, Alias{Name: name}, KeyRecord{})
	r.Approvals = approvals
	return c.intended(ctx, r, func(*audit.Record) error {
		defer c.forgetKey(old.Key)
		return c.put(ctx, caller, OpDeleteAlias, keyEdit{drop: []string{name}}, once, KeyRecord{})
	})
}

// AliasQuery selects aliases for a listing.
type AliasQuery struct {
	After string  // "" from the start
	Key   keys.ID // "" for those of all keys and of none
	Limit int
}

// Aliases lists the aliases that the caller may use, in the order of their
// names. It returns [ErrDenied], [ErrNoKey] for a key that is not there, or
// [ErrUnavailable].
func (c *Custody) Aliases(ctx context.Context, caller Caller, corr string, q AliasQuery) ([]Alias, error) {
	if !caller.may(OpListAliases) {
		return nil, c.refuse(ctx, caller, corr, OpListAliases, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpListAliases))
	}
	if q.Key != "" {
		if _, err := c.book.permit(ctx, caller.Client, OpListAliases, Ref{ID: q.Key}); err != nil {
			return nil, c.refuse(ctx, caller, corr, OpListAliases, err)
		}
	}
	var list []Alias
	for {
		page, err := c.book.store.Aliases(ctx, q)
		if err != nil {
			return nil, storeError("listing aliases", err)
		}
		for _, alias := range page {
			if caller.mayUse([]string{alias.Name}) {
				list = append(list, alias)
			}
			if len(list) == q.Limit {
				return list, nil
			}
		}
		if len(page) < q.Limit {
			return list, nil
		}
		q.After = page[len(page)-1].Name
	}
}

// named returns an alias that the caller may change.
func (c *Custody) named(ctx context.Context, caller Caller, corr string, op Operation, name string) (Alias, error) {
	if !caller.may(op) || !caller.mayUse([]string{name}) {
		return Alias{}, c.refuse(ctx, caller, corr, op, fmt.Errorf("%w: not this alias", ErrDenied))
	}
	if c.keeper == nil {
		return Alias{}, fmt.Errorf("%w: this process changes no keys", ErrUnavailable)
	}
	alias, err := c.book.store.Alias(ctx, name)
	if err != nil {
		return Alias{}, storeError("finding the alias", err)
	}
	return alias, nil
}

func (c *Custody) aliasRecord(caller Caller, corr string, old, alias Alias, k KeyRecord) audit.Record {
	r := c.changeRecord(caller, corr, audit.KeyAttr, audit.ChangeKey, alias.Name)
	r.Keys = aliased(alias, k)
	r.Change.Before, r.Change.After = aliasDigest(old), aliasDigest(alias)
	return r
}

// forgetKey drops a key that has lost a name.
func (c *Custody) forgetKey(id keys.ID) {
	if id != "" {
		c.book.forget(keyEdit{set: []Alias{{Key: id}}})
	}
}

// aliasDigest is what the log has of an alias: the digest of the key's id that
// it points to, zero for none.
func aliasDigest(a Alias) audit.Hash {
	if a.Key == "" {
		return audit.Hash{}
	}
	return sha256.Sum256([]byte(a.Key))
}
