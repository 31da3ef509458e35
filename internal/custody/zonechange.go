package custody

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// ChangeZoneKey asks for a new value of a zone key that a host sends.
type ChangeZoneKey struct {
	Key   Ref    // the zone key in place, by its alias
	KEK   Ref    // the key-encryption key that was agreed with the host
	Block string // the new value: a TR-31 key block under KEK
	Check keys.KCV
	// Number of the change: it grows from change to change of one key, so that no
	// recorded one is taken twice.
	Number  uint64
	Overlap time.Duration // for which the old value verifies and deciphers
}

// ChangedZoneKey are the two versions after a change.
type ChangedZoneKey struct {
	Old, New KeyRecord
	// Again: this very change was made before, and nothing was changed now.
	Again bool
}

// ChangeZoneKey takes a value in and puts it in the place of a zone key, with one
// commit: the same usage, algorithm, mode and exportability, whatever the block
// says of the last, the next version, the same aliases, policy and tags. The old one verifies and deciphers until the overlap is over.
// What was made durable is the change whole: after a crash there is either the
// old key or the new one with its number. The same change once more changes
// nothing.
//
// Only the switch may, and only for the key-encryption key that its
// configuration names; see decision 0044 for why no second person is asked.
//
// It returns [ErrDenied], [ErrNoKey], [ErrNoWrappingKey], [ErrKeyState],
// [ErrKeyUse] for a value of another usage, algorithm or mode, [ErrKeyBlock] for
// whatever opening the block reveals and for another check value, [ErrRepeated]
// for a number that is not above that of the key in place, [ErrRequest],
// [ErrConflict], [ErrCustody] or [ErrUnavailable].
func (c *Custody) ChangeZoneKey(ctx context.Context, caller Caller, corr string, q ChangeZoneKey) (ChangedZoneKey, error) {
	if c.zones != nil {
		c = c.zones
	}
	if err := c.exchanging(); err != nil {
		return ChangedZoneKey{}, err
	}
	if q.Overlap < 0 || q.Overlap > MostOverlap || q.Number == 0 {
		return ChangedZoneKey{}, fmt.Errorf("%w: an overlap is 0 to %d days, a number above 0", ErrRequest, MostOverlap/(24*time.Hour))
	}
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.changing(ctx, caller, corr, OpChangeZoneKey, q.Key)
	if err != nil {
		return ChangedZoneKey{}, err
	}
	if changeMark(old) == q.mark() && old.Block.Check.Equal(q.Check) {
		return ChangedZoneKey{New: old, Again: true}, nil
	}
	in := &zoneChange{c: c, q: q, old: old, corr: corr, caller: caller}
	if in.id, err = newID(); err != nil {
		return ChangedZoneKey{}, err
	}
	if err := c.room(ctx); err != nil {
		return ChangedZoneKey{}, err
	}
	if err := c.intended(ctx, in.record(), func(r *audit.Record) error { return in.run(ctx, r) }); err != nil {
		return ChangedZoneKey{}, err
	}
	c.keeper.Forget(old.Block.ID)
	return in.done, nil
}

// zoneChange is a change at work.
type zoneChange struct {
	c      *Custody
	q      ChangeZoneKey
	caller Caller
	corr   string
	old    KeyRecord
	id     keys.ID // of the new version
	done   ChangedZoneKey
}

// record is that of the value that comes in. That of the replacement is within.
func (z *zoneChange) record() audit.Record {
	r := z.c.changeRecord(z.caller, z.corr, audit.KeyImport, audit.ChangeKey, string(z.id))
	r.Keys = []audit.Key{
		{Role: audit.KeyRoleTarget, ID: string(z.id), Version: int(z.old.Block.Version) + 1, Usage: string(z.old.Block.Attributes.Usage)},
		keyEntrySec(audit.KeyRoleParent, z.old.Block, keyName(z.old)),
	}
	return r
}

// run checks all that can be before the value is in the process, opens the block,
// compares its check value, and makes the change.
func (z *zoneChange) run(ctx context.Context, r *audit.Record) error {
	if err := z.admissible(); err != nil {
		return err
	}
	kek, err := z.c.wrappingKey(ctx, z.caller, OpChangeZoneKey, z.q.KEK, keys.ModeDecrypt)
	if err != nil {
		return err
	}
	r.Keys = append(r.Keys, keyEntrySec(audit.KeyRoleKEK, kek.Block, keyName(kek)))
	block, err := z.parse(kek)
	if err != nil {
		return err
	}
	r.Keys[0].Header = z.q.Block[:16]
	if err := z.c.use(ctx, kek, taking); err != nil {
		return err
	}
	next, err := z.open(ctx, block, kek, r)
	if err != nil {
		return err
	}
	return z.c.intended(ctx, z.rotation(next), func(r *audit.Record) error { return z.replace(ctx, r, next) })
}

// admissible refuses a change that was made before, or of a key that cannot be
// replaced.
func (z *zoneChange) admissible() error {
	if number := changeNumber(z.old); z.q.Number <= number {
		return fmt.Errorf("%w: change %d of the zone key, and the key in place is that of change %d", ErrRepeated, z.q.Number, number)
	}
	if err := rotatable(z.old); err != nil {
		return err
	}
	if tokenOnly(z.old) {
		return fmt.Errorf("%w: a key out of a key block passes through the process", ErrCustody)
	}
	return nil
}

// parse reads the block and refuses by what its header says openly.
func (z *zoneChange) parse(kek KeyRecord) (*tr31.Block, error) {
	block, err := tr31.Parse(z.q.Block)
	if err != nil {
		return nil, blockError(err)
	}
	if err := z.c.acceptable(block, kek); err != nil {
		return nil, err
	}
	a := z.old.Block.Attributes
	if block.Usage != a.Usage || block.Algorithm != a.Algorithm.TR31() || block.Mode != a.Mode {
		return nil, fmt.Errorf("%w: the key block has another usage, algorithm or mode of use than the zone key", ErrKeyUse)
	}
	return block, nil
}

// open takes the value in under the template of the next version.
func (z *zoneChange) open(ctx context.Context, block *tr31.Block, kek KeyRecord, r *audit.Record) (KeyRecord, error) {
	retained, err := keep(&block.Header)
	if err != nil {
		return KeyRecord{}, err
	}
	in, err := z.c.open(ctx, block, kek, retained)
	if err != nil {
		return KeyRecord{}, err
	}
	template, err := z.template(in)
	if err != nil {
		return KeyRecord{}, err
	}
	sealed, inProcess, err := in.put(template)
	if err != nil {
		return KeyRecord{}, broughtIn(err)
	}
	r.Custody = custodyClass(inProcess)
	if !sealed.Check.Equal(z.q.Check) {
		return KeyRecord{}, fmt.Errorf("%w: %w", ErrKeyBlock, errCheckValue)
	}
	if sealed.Attributes.Algorithm != z.old.Block.Attributes.Algorithm {
		return KeyRecord{}, fmt.Errorf("%w: the key has another length than the zone key", ErrKeyUse)
	}
	next := z.c.newRecord(template, z.old.Tags, true)
	next.Block = sealed
	r.Keys[0].KCV, r.Keys[0].Algo = sealed.Check.String(), algo(sealed.Attributes.Algorithm)
	return next, nil
}

// template is the next version before it has a value. The number of the change is
// part of its policy, and so of its block.
func (z *zoneChange) template(in opened) (keys.Block, error) {
	policy, err := inherited(z.old, KeyRecord{}, z.c.now())
	if err != nil {
		return keys.Block{}, err
	}
	retain(policy, in.kept)
	policy[keptChange] = z.q.mark()
	a := z.old.Block.Attributes // of the host's block not its exportability: the key in place says who may have it
	a.Algorithm = in.attributes.Algorithm
	block, _, err := z.c.template(a, z.old.Block.CheckBy, nil, keys.External)
	block.ID, block.Version, block.Policy = z.id, z.old.Block.Version+1, policy
	return block, err
}

func (z *zoneChange) rotation(next KeyRecord) audit.Record {
	r := z.c.keyRecord(z.caller, z.corr, audit.KeyRotate, OpChangeZoneKey, z.old)
	r.Keys = []audit.Key{
		keyEntrySec(audit.KeyRoleParent, z.old.Block, keyName(z.old)),
		keyEntrySec(audit.KeyRoleTarget, next.Block, keyName(next)),
	}
	return r
}

// replace makes the two versions durable together, and lets the aliases point to
// the new one.
func (z *zoneChange) replace(ctx context.Context, r *audit.Record, next KeyRecord) error {
	now := z.c.now()
	gone := z.old
	gone.Life.Successor, gone.Life.Retires = next.Block.ID, now.Add(z.q.Overlap)
	if z.q.Overlap == 0 {
		gone = stopped(gone, now)
	}
	next.Life.Predecessor = z.old.Block.ID
	edit := keyEdit{put: []keyPut{{KeyRecord{}, next}, {z.old, gone}}}
	for _, name := range z.old.Aliases {
		edit.set = append(edit.set, Alias{Name: name, Key: next.Block.ID})
	}
	next.Aliases, gone.Aliases = z.old.Aliases, nil
	r.Change.After = canonical(next)
	if err := z.c.put(ctx, z.caller, OpChangeZoneKey, edit, nil, next); err != nil {
		return err
	}
	z.done = ChangedZoneKey{Old: gone, New: next}
	return nil
}

// mark is what the new version keeps of its change: the number, and by which
// block it came.
func (q *ChangeZoneKey) mark() string {
	sum := sha256.Sum256([]byte(q.Block))
	return fmt.Sprintf("%d:%x", q.Number, sum[:8])
}

// changeMark is that of a key in place, "" where no change brought it.
func changeMark(k KeyRecord) string { return k.Block.Policy[keptChange] }

// changeNumber is the number of the last change of a zone key, 0 where there was
// none.
func changeNumber(k KeyRecord) uint64 {
	digits, _, _ := strings.Cut(changeMark(k), ":")
	n, _ := strconv.ParseUint(digits, 10, 64) // keyd wrote it, under the MAC of the block
	return n
}

// markOwed is the mark that a key must take over with the name of another one, ""
// where it has a number as high.
func (c *Custody) markOwed(ctx context.Context, old Alias, next KeyRecord) (string, error) {
	if old.Key == "" || next.Block == nil || old.Key == next.Block.ID {
		return "", nil
	}
	before, err := c.book.store.Key(ctx, old.Key)
	if err != nil {
		return "", storeError("finding the key that had the name", err)
	}
	if before.Block == nil || changeNumber(before) <= changeNumber(next) {
		return "", nil
	}
	return changeMark(before), nil
}
