package custody

import (
	"context"
	"fmt"
	"maps"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// MostOverlap is the longest time for which a replaced key goes on, and
// DefaultOverlap that of the command line.
const (
	MostOverlap    = 90 * 24 * time.Hour
	DefaultOverlap = 7 * 24 * time.Hour
)

// RotateKey asks for a new version of a key.
type RotateKey struct {
	Key Ref
	// Successor names a key that came from elsewhere and takes the place; where
	// it is empty a new value is made.
	Successor Ref
	Overlap   time.Duration // for which the old version verifies and deciphers; 0 none
	Once      *Repeat       // Render is given the new version
}

// Rotated are the two versions after a rotation.
type Rotated struct{ Old, New KeyRecord }

// RotateKey puts a new version in the place of a key: of the same attributes,
// policy and tags, with the next version, and all aliases point to it. The old
// one verifies and deciphers until the overlap is over, and makes nothing any
// more. A cryptoperiod begins anew with its old length.
//
// It returns [ErrDenied], [ErrNoKey], [ErrRequest], [ErrApproval],
// [ErrConflict] for a key that was replaced already, is or will be deleted, or
// cannot be replaced, [ErrRepeated] or [ErrUnavailable].
func (c *Custody) RotateKey(ctx context.Context, caller Caller, corr string, q RotateKey) (Rotated, error) {
	if q.Overlap < 0 || q.Overlap > MostOverlap {
		return Rotated{}, fmt.Errorf("%w: an overlap is 0 to %d days", ErrRequest, MostOverlap/(24*time.Hour))
	}
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.changing(ctx, caller, corr, OpRotateKey, q.Key)
	if err != nil {
		return Rotated{}, err
	}
	if err := rotatable(old); err != nil {
		return Rotated{}, err
	}
	next, err := c.successor(ctx, caller, corr, q.Successor, old)
	if err != nil {
		return Rotated{}, err
	}
	if q.Successor == (Ref{}) {
		if err := c.room(ctx); err != nil {
			return Rotated{}, err
		}
	}
	usages := []keys.Usage{old.Block.Attributes.Usage}
	if q.Successor != (Ref{}) {
		usages = nil // a value that somebody outside knows takes over the names: see [Custody.moved]
	}
	approvals, err := c.approved(ctx, caller, corr, OpRotateKey, keyObject(old), usages...)
	if err != nil {
		return Rotated{}, err
	}
	r := c.keyRecord(caller, corr, audit.KeyRotate, OpRotateKey, old)
	r.Approvals = approvals
	var done Rotated
	err = c.intended(ctx, r, func(r *audit.Record) (err error) {
		done, err = c.replace(ctx, caller, r, old, next, q)
		return err
	})
	if err != nil {
		return Rotated{}, err
	}
	c.keeper.Forget(old.Block.ID)
	return done, nil
}

func rotatable(k KeyRecord) error {
	if err := present(k); err != nil {
		return err
	}
	switch {
	case k.Life.Successor != "":
		return fmt.Errorf("%w: another version took its place already", ErrConflict)
	case len(k.Aliases) == 0:
		return fmt.Errorf("%w: the key has no alias, by which its next version would be found; a terminal's keys are changed with the terminal", ErrConflict)
	case !replaceable(k.Block.Attributes.Usage):
		return fmt.Errorf("%w: terminals in the field go on to need their base derivation key; make another one under an alias of its own and move the terminals to it", ErrConflict)
	}
	return nil
}

// successor returns the key that is to take the place, as it is stored; of a key
// that is to be made, the template of its block and no state.
func (c *Custody) successor(ctx context.Context, caller Caller, corr string, ref Ref, old KeyRecord) (KeyRecord, error) {
	if ref == (Ref{}) {
		template, tags, err := c.template(old.Block.Attributes, old.Block.CheckBy, allTags(old), keys.Generated)
		return KeyRecord{Block: &template, Tags: tags}, err
	}
	next, err := c.changing(ctx, caller, corr, OpRotateKey, ref)
	if err != nil {
		return KeyRecord{}, err
	}
	if err := present(next); err != nil {
		return KeyRecord{}, err
	}
	a, b := old.Block.Attributes, next.Block.Attributes
	switch {
	case next.Block.ID == old.Block.ID:
		return KeyRecord{}, fmt.Errorf("%w: a key does not take its own place", ErrRequest)
	case a.Usage != b.Usage || a.Algorithm != b.Algorithm || a.Mode != b.Mode:
		return KeyRecord{}, fmt.Errorf("%w: the successor has another usage, algorithm or mode", ErrRequest)
	case next.Life != Life{}:
		return KeyRecord{}, fmt.Errorf("%w: the successor is a version of a key itself", ErrConflict)
	case len(next.Aliases) > 0:
		return KeyRecord{}, fmt.Errorf("%w: the successor is in use under an alias of its own", ErrConflict)
	}
	return next, nil
}

// replace makes the two versions and stores them together.
func (c *Custody) replace(ctx context.Context, caller Caller, r *audit.Record, old, next KeyRecord, q RotateKey) (Rotated, error) {
	now := c.now()
	before := next
	policy, err := inherited(old, next, now)
	if err != nil {
		return Rotated{}, err
	}
	version := old.Block.Version + 1
	if next.State == "" {
		before = KeyRecord{}
		template := *next.Block
		template.Version, template.Policy = version, policy
		block, inProcess, err := c.maker.Generate(ctx, template)
		if err != nil {
			return Rotated{}, tokenError("generating a key", err)
		}
		next, r.Custody = c.newRecord(*block, next.Tags, false), custodyClass(inProcess)
		next.Block = block
	} else {
		if next.Block, err = c.keeper.Renew(ctx, next.Block, version, policy); err != nil {
			return Rotated{}, tokenError("sealing the new version", err)
		}
		next.Tags = merged(old.Tags, next.Tags)
	}
	if !next.Enabled {
		next.Enabled, next.UsageStart, next.UsageStop = true, now, time.Time{}
	}
	next.Life.Predecessor = old.Block.ID
	gone := old
	gone.Life.Successor, gone.Life.Retires = next.Block.ID, now.Add(q.Overlap)
	if q.Overlap == 0 {
		gone = stopped(gone, now)
	}
	edit := keyEdit{put: []keyPut{{before, next}, {old, gone}}}
	for _, name := range old.Aliases {
		edit.set = append(edit.set, Alias{Name: name, Key: next.Block.ID})
	}
	r.Keys = []audit.Key{
		keyEntrySec(audit.KeyRoleParent, old.Block, keyName(old)),
		keyEntrySec(audit.KeyRoleTarget, next.Block, keyName(next)),
	}
	next.Aliases, gone.Aliases = old.Aliases, nil
	r.Change.After = canonical(next)
	if before.Block == nil {
		edit.put[0].new.Aliases = nil // they are there, and point elsewhere until this commit
	}
	if err := c.put(ctx, caller, OpRotateKey, edit, q.Once, next); err != nil {
		return Rotated{}, err
	}
	if before.Block != nil {
		c.keeper.Forget(next.Block.ID)
	}
	return Rotated{Old: gone, New: next}, nil
}

// inherited is the policy of a new version: that of the old one, over which a
// successor's own goes. The cryptoperiod begins now.
func inherited(old, next KeyRecord, now time.Time) (map[string]string, error) {
	policy := maps.Clone(old.Block.Policy)
	if policy == nil {
		policy = make(map[string]string)
	}
	delete(policy, TagNotBefore)
	maps.DeleteFunc(policy, keptTag) // was said of the old value
	if mark := changeMark(old); mark != "" {
		policy[keptChange] = mark // or a recorded change could be brought again
	}
	if until, ok := policy[TagNotAfter]; ok {
		end, err := parseInstant(until)
		if err != nil {
			return nil, fmt.Errorf("%w: its policy has an unreadable time", ErrKeyUse)
		}
		begin := time.UnixMilli(old.Block.CreatedMs)
		if from, err := parseInstant(old.Block.Policy[TagNotBefore]); err == nil {
			begin = from
		}
		policy[TagNotAfter] = now.Add(max(0, end.Sub(begin))).UTC().Format(time.RFC3339)
	}
	if next.State != "" {
		maps.Copy(policy, next.Block.Policy)
	}
	if err := checkPeriod(policy); err != nil {
		return nil, err
	}
	return policy, nil
}

// merged are the tags of two versions; those of the new one go over the old.
func merged(old, own map[string]string) map[string]string {
	if len(old) == 0 {
		return own
	}
	all := maps.Clone(old)
	maps.Copy(all, own)
	return all
}

// allTags are a key's tags with those of its policy, but for what a key block
// said of it, which no caller sets.
func allTags(k KeyRecord) map[string]string {
	all := make(map[string]string, len(k.Tags)+len(k.Block.Policy))
	maps.Copy(all, k.Tags)
	maps.Copy(all, k.Block.Policy)
	maps.DeleteFunc(all, keptTag)
	return all
}
