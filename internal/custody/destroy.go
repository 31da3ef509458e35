package custody

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// DestroyKey destroys a key at once, without a waiting time: for ceremonies,
// whose custodians stand in for the second person. It returns [ErrDenied] for a
// caller without a quorum, [ErrConflict] for a key that was destroyed,
// [ErrNotDestroyed] for one that is still there afterwards, and the errors of
// [Custody.StartKeyUsage].
func (c *Custody) DestroyKey(ctx context.Context, caller Caller, corr string, ref Ref) (KeyRecord, error) {
	if len(caller.Quorum) < 2 {
		return KeyRecord{}, c.refuse(ctx, caller, corr, OpDeleteKey, fmt.Errorf("%w: keys are destroyed at once by ceremonies alone", ErrDenied))
	}
	c.life.Lock()
	defer c.life.Unlock()
	k, err := c.changing(ctx, caller, corr, OpDeleteKey, ref)
	if err != nil {
		return KeyRecord{}, err
	}
	if k.State == DeleteComplete {
		return KeyRecord{}, present(k)
	}
	approvals, err := c.approved(ctx, caller, corr, OpDeleteKey, keyObject(k), k.Block.Attributes.Usage)
	if err != nil {
		return KeyRecord{}, err
	}
	r := c.changeRecord(caller, corr, audit.KeyDestroy, audit.ChangeKey, keyName(k))
	r.Approvals = approvals
	return c.destroy(ctx, r, k)
}

// destroyDue destroys a key whose waiting time is over.
func (c *Custody) destroyDue(ctx context.Context, k KeyRecord) error {
	r := audit.Record{
		Action: audit.KeyDestroy,
		Actor:  audit.System(),
		HSM:    audit.HSM{Serial: c.serial},
		Change: &audit.Change{Kind: audit.ChangeKey, Object: keyName(k)},
	}
	_, err := c.destroy(ctx, r, k)
	return err
}

// destroy takes the key out of the token, its value out of the store, and then
// looks for both. What is still there is an alarm: the record of the destruction
// says so, and another one of the log is the alarm itself. The caller holds the
// lock of changes.
func (c *Custody) destroy(ctx context.Context, r audit.Record, k KeyRecord) (KeyRecord, error) {
	r.Keys = []audit.Key{keyEntrySec(audit.KeyRoleTarget, k.Block, keyName(k))}
	r.Change.Before = canonical(k)
	var gone KeyRecord
	err := c.intended(ctx, r, func(*audit.Record) (err error) {
		gone, err = c.erase(ctx, k)
		return err
	})
	if errors.Is(err, ErrNotDestroyed) {
		if recorded := c.cameBack(ctx, k); recorded != nil {
			err = errors.Join(err, recorded)
		}
	}
	return gone, err
}

func (c *Custody) erase(ctx context.Context, k KeyRecord) (KeyRecord, error) {
	inToken := c.keeper.Destroy(ctx, k.Block.ID)
	if inToken != nil && !errors.Is(inToken, keys.ErrNotDestroyed) {
		return KeyRecord{}, tokenError("destroying the key", inToken)
	}
	rest, err := c.keeper.Erase(ctx, k.Block)
	if err != nil {
		return KeyRecord{}, tokenError("sealing what is kept of the key", err)
	}
	gone := stopped(k, c.now())
	gone.Block, gone.State, gone.Deleted = rest, DeleteComplete, c.now()
	if err := c.put(ctx, Caller{}, OpDeleteKey, keyEdit{put: []keyPut{{k, gone}}}, nil, gone); err != nil {
		return KeyRecord{}, err
	}
	c.sweeper.scrub = c.book.store.Scrub(ctx) != nil // then it is for the next sweep
	return gone, c.provenGone(ctx, gone, inToken)
}

// provenGone looks for the key again, where it was.
func (c *Custody) provenGone(ctx context.Context, gone KeyRecord, inToken error) error {
	if inToken != nil {
		return tokenError("destroying the key", inToken)
	}
	n, err := c.keeper.Objects(ctx, gone.Block.ID)
	if err != nil {
		return tokenError("looking for the destroyed key", err)
	}
	if n > 0 {
		return fmt.Errorf("%w: the token shows %d objects of it", ErrNotDestroyed, n)
	}
	back, err := c.book.store.Key(ctx, gone.Block.ID)
	if err != nil {
		return storeError("looking for the destroyed key", err)
	}
	if len(back.Block.Wrapped)+len(back.Block.Companion) > 0 || back.State != DeleteComplete || back.Enabled {
		return fmt.Errorf("%w: the database has its value", ErrNotDestroyed)
	}
	return nil
}

// cameBack raises the alarm for a key that was destroyed and is still there.
func (c *Custody) cameBack(ctx context.Context, k KeyRecord) error {
	alarm := audit.Alarm{Code: "key_not_destroyed", Level: audit.LevelCritical}
	c.alarmed(alarm, k.Block.ID, ErrNotDestroyed)
	return c.record(ctx, audit.Record{
		Action:  audit.SysAlarm,
		Outcome: audit.OutcomeError,
		Reason:  audit.ReasonHSMError,
		Actor:   audit.System(),
		Corr:    keyName(k),
		Alarm:   alarm,
	})
}

// alarmed tells the daemon of an alarm that was or will be recorded.
func (c *Custody) alarmed(alarm audit.Alarm, key keys.ID, why error) {
	if c.alarms != nil {
		c.alarms(alarm, key, why)
	}
}
