package custody

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// Keeper changes what is sealed with a key, and ends it. *hsm.Manager is one.
// Its errors wrap the sentinels of package keys.
type Keeper interface {
	// Renew seals a block anew, with another version and policy.
	Renew(ctx context.Context, old *keys.Block, version uint32, policy map[string]string) (*keys.Block, error)
	// Erase seals what remains of a block without its value.
	Erase(ctx context.Context, old *keys.Block) (*keys.Block, error)
	// Forget takes the key's objects out of the token as soon as nobody uses them.
	Forget(id keys.ID)
	// Destroy takes them out for good and looks for them: [keys.ErrNotDestroyed].
	Destroy(ctx context.Context, id keys.ID) error
	// Objects is how many of them the token shows.
	Objects(ctx context.Context, id keys.ID) (int, error)
}

// keyEdit is what changes of keys and aliases in one commit.
type keyEdit struct {
	put  []keyPut
	set  []Alias  // aliases that are there and get another key; Key "" for none
	drop []string // aliases that go
}

// keyPut is one key before and after a change. The block of old is nil for a new one.
type keyPut struct{ old, new KeyRecord }

// make notes the changes. It returns [ErrConflict] when a key is not as it was
// when the change was decided.
func (e keyEdit) make(change KeyChange) error {
	for _, put := range e.put {
		if put.old.Block == nil {
			if err := change.AddKey(put.new); err != nil {
				return err
			}
			continue
		}
		now, err := change.Key(put.old.Block.ID)
		if err != nil {
			return err
		}
		if canonical(now) != canonical(put.old) {
			return fmt.Errorf("%w: the key was changed meanwhile; try again", ErrConflict)
		}
		if err := change.SetKey(put.new); err != nil {
			return err
		}
	}
	for _, alias := range e.set {
		if _, err := change.Alias(alias.Name); err != nil {
			return err
		}
		if err := change.SetAlias(alias); err != nil {
			return err
		}
	}
	for _, name := range e.drop {
		if err := change.DropAlias(name); err != nil {
			return err
		}
	}
	return nil
}

// LifeStore is what the life of keys needs of the store beside the rest.
type LifeStore interface {
	UsageStore
	// Aliases returns up to q.Limit aliases in the order of their names.
	Aliases(ctx context.Context, q AliasQuery) ([]Alias, error)
	// DueKeys returns up to limit keys whose waiting time ended at now.
	DueKeys(ctx context.Context, now time.Time, limit int) ([]KeyRecord, error)
	// TimedKeys returns up to limit enabled keys after the id whose policy names
	// a time at which their use ends, in the order of their ids.
	TimedKeys(ctx context.Context, after keys.ID, limit int) ([]KeyRecord, error)
	// Scrub overwrites what earlier commits have left of erased values.
	Scrub(ctx context.Context) error
}

// KeyStep asks for a step in the life of a key.
type KeyStep struct {
	Key  Ref
	Once *Repeat
}

// Bounds of the time that a key waits for its destruction, in days.
const (
	LeastDeleteDays   = 3
	MostDeleteDays    = 180
	DefaultDeleteDays = 7
)

// StartKeyUsage lets a key be used again. It returns [ErrDenied], [ErrNoKey],
// [ErrConflict] for a key that is or will be deleted or was replaced,
// [ErrRepeated] or [ErrUnavailable]. Section 8.3 of the API.
func (c *Custody) StartKeyUsage(ctx context.Context, caller Caller, corr string, q KeyStep) (KeyRecord, error) {
	return c.step(ctx, caller, corr, OpStartKeyUsage, q, func(k KeyRecord, now time.Time) (KeyRecord, audit.Action, error) {
		action := audit.KeyResume
		if k.UsageStart.IsZero() {
			action = audit.KeyActivate
		}
		if err := present(k); err != nil {
			return k, 0, err
		}
		if k.Life.Successor != "" && !now.Before(k.Life.Retires) {
			return k, 0, fmt.Errorf("%w: another version took its place", ErrConflict)
		}
		if !k.Enabled {
			k.Enabled, k.UsageStart, k.UsageStop = true, now, time.Time{}
		}
		return k, action, nil
	})
}

// StopKeyUsage ends the use of a key at once, until it is started again: no
// operation that begins after the return uses it. Errors are those of
// [Custody.StartKeyUsage].
func (c *Custody) StopKeyUsage(ctx context.Context, caller Caller, corr string, q KeyStep) (KeyRecord, error) {
	return c.step(ctx, caller, corr, OpStopKeyUsage, q, func(k KeyRecord, now time.Time) (KeyRecord, audit.Action, error) {
		if err := present(k); err != nil {
			return k, 0, err
		}
		return stopped(k, now), audit.KeySuspend, nil
	})
}

// DeleteKey stops a key at once and has it destroyed after so many days, 0 for
// the default. Until then it can be restored. It returns [ErrRequest] for a
// number of days out of bounds, [ErrApproval], and the errors of
// [Custody.StartKeyUsage].
func (c *Custody) DeleteKey(ctx context.Context, caller Caller, corr string, q KeyStep, days int) (KeyRecord, error) {
	if days == 0 {
		days = DefaultDeleteDays
	}
	if days < LeastDeleteDays || days > MostDeleteDays {
		return KeyRecord{}, fmt.Errorf("%w: a key waits %d to %d days for its destruction", ErrRequest, LeastDeleteDays, MostDeleteDays)
	}
	return c.step(ctx, caller, corr, OpDeleteKey, q, func(k KeyRecord, now time.Time) (KeyRecord, audit.Action, error) {
		if err := present(k); err != nil {
			return k, 0, err
		}
		k = stopped(k, now)
		k.State, k.DeletePending = DeletePending, now.AddDate(0, 0, days)
		return k, audit.KeySuspend, nil
	})
}

// RestoreKey takes a deletion back. The key stays stopped: to use it again is a
// decision of its own. It returns [ErrConflict] for a key that does not wait for
// its destruction, [ErrApproval], and the errors of [Custody.StartKeyUsage].
func (c *Custody) RestoreKey(ctx context.Context, caller Caller, corr string, q KeyStep) (KeyRecord, error) {
	return c.step(ctx, caller, corr, OpRestoreKey, q, func(k KeyRecord, _ time.Time) (KeyRecord, audit.Action, error) {
		if k.State != DeletePending {
			return k, 0, fmt.Errorf("%w: the key does not wait for its destruction", ErrConflict)
		}
		k.State, k.DeletePending = CreateComplete, time.Time{}
		return k, audit.KeyRestore, nil
	})
}

// stopped is the key with its use ended.
func stopped(k KeyRecord, now time.Time) KeyRecord {
	if k.Enabled {
		k.Enabled, k.UsageStop = false, now
	}
	return k
}

// present refuses a key that is or will be deleted.
func present(k KeyRecord) error {
	switch k.State {
	case CreateComplete:
		return nil
	case DeletePending:
		return fmt.Errorf("%w: the key waits for its destruction", ErrConflict)
	case DeleteComplete:
		return fmt.Errorf("%w: the key was destroyed", ErrConflict)
	}
	return fmt.Errorf("%w: the key is not made yet", ErrConflict)
}

// step finds the key, has it changed, and makes the change durable. Changes of
// keys come one after the other, so that each begins with what the last one left.
func (c *Custody) step(ctx context.Context, caller Caller, corr string, op Operation, q KeyStep,
	change func(KeyRecord, time.Time) (KeyRecord, audit.Action, error)) (KeyRecord, error) {
	c.life.Lock()
	defer c.life.Unlock()
	old, err := c.changing(ctx, caller, corr, op, q.Key)
	if err != nil {
		return KeyRecord{}, err
	}
	k, action, err := change(old, c.now())
	if err != nil {
		return KeyRecord{}, err
	}
	var approvals []audit.Approval
	if op == OpDeleteKey || op == OpRestoreKey {
		approvals, err = c.approved(ctx, caller, corr, op, keyObject(old), old.Block.Attributes.Usage)
		if err != nil {
			return KeyRecord{}, err
		}
	}
	r := c.keyRecord(caller, corr, action, op, old)
	r.Approvals, r.Change.After = approvals, canonical(k)
	err = c.intended(ctx, r, func(*audit.Record) error {
		return c.put(ctx, caller, op, keyEdit{put: []keyPut{{old, k}}}, q.Once, k)
	})
	if err != nil {
		return KeyRecord{}, err
	}
	if !k.Enabled {
		c.keeper.Forget(k.Block.ID)
	}
	return k, nil
}

// changing returns the key that ref names as it is stored now, for a caller that
// may do op with it. The caller holds the lock of changes.
func (c *Custody) changing(ctx context.Context, caller Caller, corr string, op Operation, ref Ref) (KeyRecord, error) {
	if c.keeper == nil {
		return KeyRecord{}, fmt.Errorf("%w: this process changes no keys", ErrUnavailable)
	}
	known, err := c.book.permit(ctx, caller.Client, op, ref)
	if err != nil {
		return KeyRecord{}, c.refuse(ctx, caller, corr, op, err)
	}
	k, err := c.book.store.Key(ctx, known.Block.ID)
	if err != nil {
		return KeyRecord{}, storeError("finding the key", err)
	}
	return k, nil
}

// put makes a change durable, and forgets what was known of what it changes.
func (c *Custody) put(ctx context.Context, caller Caller, op Operation, change keyEdit, repeat *Repeat, answered KeyRecord) error {
	stored, err := c.once(caller, op, repeat, answered)
	if err != nil {
		return err
	}
	defer c.book.forget(change)
	if err := c.book.store.ChangeKeys(ctx, stored, change.make); err != nil {
		return storeError("storing the change", err)
	}
	return nil
}

// keyRecord is the record of a change of a key. The object is the key's id, with
// the operation where the action does not tell it.
func (c *Custody) keyRecord(caller Caller, corr string, action audit.Action, op Operation, k KeyRecord) audit.Record {
	object := keyName(k)
	if op == OpDeleteKey {
		object += "/" + string(op)
	}
	r := c.changeRecord(caller, corr, action, audit.ChangeKey, object)
	r.Keys = []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))}
	r.Change.Before = canonical(k)
	return r
}

// keyObject is what an approver reads of a key. It is the same in the repeat of
// a request.
func keyObject(k KeyRecord) string {
	const most = 120
	name := "key " + keyName(k)
	if len(k.Aliases) > 0 && len(k.Aliases[0]) <= most {
		name = k.Aliases[0] + " (" + keyName(k) + ")"
	}
	return name
}

// canonical is the digest of a key's record in one form: what the log has of it
// before and after a change.
func canonical(k KeyRecord) audit.Hash {
	b := k.Block
	aliases := slices.Sorted(slices.Values(k.Aliases))
	text, _ := json.Marshal(struct { // maps are written sorted; nothing here can fail
		ID                                            keys.ID
		Version                                       uint32
		MAC                                           string
		State                                         KeyState
		Enabled                                       bool
		UsageStart, UsageStop, DeletePending, Deleted int64
		Policy, Tags                                  map[string]string
		Aliases                                       []string
		Life                                          Life
	}{
		b.ID, b.Version, hex.EncodeToString(b.MAC[:]), k.State, k.Enabled,
		nanos(k.UsageStart), nanos(k.UsageStop), nanos(k.DeletePending), nanos(k.Deleted), b.Policy, k.Tags, aliases, k.Life,
	})
	return sha256.Sum256(text)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// now is the time of a change, in the milliseconds that answers have.
func (c *Custody) now() time.Time { return c.clock().UTC().Truncate(time.Millisecond) }
