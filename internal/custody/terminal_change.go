package custody

import (
	"context"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// mostReason bounds the text beside a status.
const mostReason = 200

// ChangeTerminal asks for a terminal to be changed. Members with their zero value
// leave things as they are.
type ChangeTerminal struct {
	TID    string
	Status TerminalStatus
	Reason string // needed with a status other than in service
	Most   *int64 // minor units; 0 is no limit
}

// ChangeTerminal suspends, resumes or retires a terminal, or changes its limit.
// The switch sees it with the next message. A retired terminal stays so, and its
// working keys are stopped. It returns [ErrDenied], [ErrRequest],
// [ErrNoTerminal], [ErrConflict] for a terminal that is retired, or
// [ErrUnavailable].
func (c *Custody) ChangeTerminal(ctx context.Context, caller Caller, corr string, q ChangeTerminal) (Terminal, error) {
	r, err := c.registry(ctx, caller, corr, OpChangeTerminal)
	if err != nil {
		return Terminal{}, err
	}
	if err := q.check(); err != nil {
		return Terminal{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	ticket, err := c.log.Reserve(ctx, audit.Sec, 1)
	if err != nil {
		return Terminal{}, fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	var before, after Terminal
	var stop []keyPut
	failed := r.store.ChangeRegistry(ctx, func(change TerminalChange) (err error) {
		if before, err = change.Terminal(q.TID); err != nil {
			return err
		}
		if after, err = c.changed(before, q); err != nil {
			return err
		}
		if after.Status == Retired {
			if stop, err = c.stopKeys(change, before); err != nil {
				return err
			}
		}
		return change.SetTerminal(after)
	})
	if failed != nil {
		failed = storeError("changing the terminal", failed)
	}
	action := audit.TerminalChange
	if q.Status == "" {
		action = audit.LimitChange
	}
	record := c.changeRecord(caller, corr, action, audit.ChangeTerminal, terminalObject(q.TID))
	describe(&record, failed)
	if before.TID != "" {
		record.Change.Before = hashOfTerminal(before)
	}
	if failed == nil {
		record.Change.After = hashOfTerminal(after)
	}
	if _, err := ticket.Append(record); err != nil {
		return Terminal{}, errors.Join(fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err), failed)
	}
	if failed != nil {
		return Terminal{}, failed
	}
	c.letGo(stop)
	return after, nil
}

func (q ChangeTerminal) check() error {
	switch {
	case q.Status == "" && q.Most == nil:
		return fmt.Errorf("%w: nothing to change", ErrRequest)
	case q.Status != "" && q.Status != InService && q.Status != Suspended && q.Status != Retired:
		return fmt.Errorf("%w: a status is %q, %q or %q", ErrRequest, InService, Suspended, Retired)
	case q.Status != "" && q.Status != InService && q.Reason == "":
		return fmt.Errorf("%w: why the terminal is %s must be said", ErrRequest, q.Status)
	case len(q.Reason) > mostReason || q.Reason != "" && !printableText(q.Reason, len(q.Reason)):
		return fmt.Errorf("%w: a reason is at most %d printable ASCII characters", ErrRequest, mostReason)
	case q.Most != nil && *q.Most < 0:
		return fmt.Errorf("%w: a largest amount is not negative", ErrRequest)
	}
	return nil
}

// changed is the terminal after the change.
func (c *Custody) changed(t Terminal, q ChangeTerminal) (Terminal, error) {
	if t.Status == Retired {
		return t, fmt.Errorf("%w: the terminal is retired, for good", ErrConflict)
	}
	if q.Status != "" && (q.Status != t.Status || q.Reason != t.Reason) {
		t.Status, t.Reason, t.Since = q.Status, q.Reason, c.clock().UTC()
	}
	if q.Most != nil {
		t.Most = *q.Most
	}
	return t, nil
}

// stopKeys stops the working keys of a terminal that is retired. Its master key
// may be a key with a name of its own, which is for others to stop.
func (c *Custody) stopKeys(change TerminalChange, t Terminal) ([]keyPut, error) {
	var stop []keyPut
	for _, set := range []TerminalKeys{t.Keys, t.Previous} {
		for _, id := range set.ids() {
			old, err := change.Key(id)
			if err != nil {
				return nil, err
			}
			k := stopped(old, c.clock().UTC())
			if err := change.SetKey(k); err != nil {
				return nil, err
			}
			stop = append(stop, keyPut{old, k})
		}
	}
	return stop, nil
}

// ids are the keys of a set, those that there are.
func (s TerminalKeys) ids() []keys.ID {
	var all []keys.ID
	for _, id := range []keys.ID{s.PIN, s.MAC, s.Data} {
		if id != "" {
			all = append(all, id)
		}
	}
	return all
}

// letGo forgets what was known of changed keys, and takes their objects out of
// the token.
func (c *Custody) letGo(puts []keyPut) {
	if len(puts) == 0 {
		return
	}
	c.book.forget(keyEdit{put: puts})
	for _, put := range puts {
		if put.old.Block != nil {
			c.forget(put.old.Block.ID)
		}
	}
}
