package custody

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
)

// BatchClosing closes what a terminal has sold up to a moment, or all terminals
// have: from then on its terminal can neither reverse nor void it (D-25).
type BatchClosing struct {
	TID    string // empty: of all terminals
	Before time.Time
}

// object is what the log calls it.
func (q BatchClosing) object() string {
	of := "all"
	if q.TID != "" {
		of = q.TID
	}
	return "batch/" + of + "/" + q.Before.UTC().Format("20060102T150405.000Z")
}

// CloseBatch closes batches once that is in the log, and returns up to when they
// are closed now: a moment that never goes back. Where it fails after all, a second
// record says so. It returns
// [ErrDenied], [ErrRequest] for a moment that has not come, [ErrNoTerminal] or
// [ErrUnavailable].
func (c *Custody) CloseBatch(ctx context.Context, caller Caller, corr string, q BatchClosing) (until time.Time, err error) {
	if !caller.may(OpCloseBatch) {
		return until, c.refuse(ctx, caller, corr, OpCloseBatch, notTheirs(OpCloseBatch))
	}
	if q.Before = q.Before.UTC().Truncate(time.Millisecond); q.Before.After(c.clock()) {
		return until, fmt.Errorf("%w: batches are closed up to a moment that has come", ErrRequest)
	}
	if c.reversals == nil {
		return until, fmt.Errorf("%w: no journal", ErrUnavailable)
	}
	if q.TID != "" && c.terminals != nil {
		if _, err := c.terminals.store.Registered(ctx, q.TID); errors.Is(err, ErrNoTerminal) {
			return until, fmt.Errorf("%w %s", ErrNoTerminal, q.TID)
		} else if err != nil {
			return until, storeError("finding the terminal", err)
		}
	}
	r := c.changeRecord(caller, corr, audit.TerminalChange, audit.ChangeTerminal, q.object())
	describe(&r, nil)
	if err := c.record(ctx, r); err != nil {
		return until, err
	}
	if until, err = c.reversals.CloseBatch(ctx, q); err != nil {
		describe(&r, err)
		err = errors.Join(err, c.record(ctx, r))
	}
	return until, err
}
