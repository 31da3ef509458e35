package custody

import (
	"context"
	"time"
)

// KeyDetail is a key with what its life knows of it: more than the API of AWS
// has room for.
type KeyDetail struct {
	KeyRecord
	Use       KeyUse
	NotBefore time.Time // zero: none
	NotAfter  time.Time
	MaxUses   uint64      // 0: no limit
	Older     []KeyRecord // the versions before this one, the newest first
	Newer     *KeyRecord  // the version that took its place
}

// AllTags are a key's tags with those of its policy.
func (k KeyRecord) AllTags() map[string]string { return allTags(k) }

// KeyDetail returns the key that ref names, its counter, limits and versions. It
// returns [ErrDenied], [ErrNoKey], [ErrKeyUse] for a policy that cannot be read,
// or [ErrUnavailable].
func (c *Custody) KeyDetail(ctx context.Context, caller Caller, corr string, ref Ref) (KeyDetail, error) {
	k, err := c.book.permit(ctx, caller.Client, OpGetKey, ref)
	if err != nil {
		return KeyDetail{}, c.refuse(ctx, caller, corr, OpGetKey, err)
	}
	l, err := limitsOf(k)
	if err != nil {
		return KeyDetail{}, err
	}
	d := KeyDetail{KeyRecord: k, MaxUses: l.most, NotBefore: instant(l.notBefore), NotAfter: instant(l.notAfter)}
	if d.Use, err = c.usage.snapshot(ctx, k.Block.ID); err != nil {
		return KeyDetail{}, err
	}
	for id := k.Life.Predecessor; id != "" && len(d.Older) < mostVersions; {
		older, err := c.book.find(ctx, Ref{ID: id})
		if err != nil {
			return KeyDetail{}, err
		}
		d.Older, id = append(d.Older, older), older.Life.Predecessor
	}
	if k.Life.Successor != "" {
		newer, err := c.book.find(ctx, Ref{ID: k.Life.Successor})
		if err != nil {
			return KeyDetail{}, err
		}
		d.Newer = &newer
	}
	return d, nil
}

func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
