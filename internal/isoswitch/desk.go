package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// Ledger is the journal as operators search it. It reads a consistent snapshot.
type Ledger interface {
	// Entries returns the reversals that fit q, the oldest first. A record that
	// cannot be read is among them, with why, so that it hides no other.
	Entries(ctx context.Context, q LedgerQuery) ([]Entry, error)
	// Named returns the reversal of this name, or ErrNotFound.
	Named(ctx context.Context, name string) (Entry, error)
}

// LedgerQuery selects reversals; empty members select all.
type LedgerQuery struct {
	State  ReversalState
	Open   bool // not those that are confirmed, closed, or settled with a case
	TID    string
	STAN   string // of the original or of the message that asked
	Date   string // MMDD of the original's DE 7
	Link   string
	Before time.Time // built before
	Limit  int
}

// Entry is a reversal with its original. Where one of them cannot be read, both
// are nil and Err says why.
type Entry struct {
	RID      RID
	Reversal *Reversal
	Txn      *Txn
	Err      error
}

// Desk is what operators see of the queue of reversals and do to it. It
// implements [custody.ReversalDesk] and is safe for concurrent use.
type Desk struct {
	journal Journal
	ledger  Ledger
	clock   func() time.Time
	sw      atomic.Pointer[Switch]
}

// NewDesk returns a desk over the journal. The queue itself is wherever a Switch
// serves; see [Desk.Serves].
func NewDesk(journal Journal, ledger Ledger, clock func() time.Time) *Desk {
	return &Desk{journal: journal, ledger: ledger, clock: clock}
}

// Serves names the switch that is to look at its queue when an operator has
// changed it.
func (d *Desk) Serves(s *Switch) { d.sw.Store(s) }

// Reversals implements [custody.ReversalDesk].
func (d *Desk) Reversals(ctx context.Context, q custody.ReversalQuery) ([]custody.ReversalEntry, error) {
	found, err := d.ledger.Entries(ctx, LedgerQuery{
		State: ReversalState(q.State), Open: q.Open, TID: q.TID, STAN: q.STAN, Date: q.Date,
		Link: q.Upstream, Before: q.Before, Limit: q.Limit,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: reading the queue: %w", custody.ErrUnavailable, err)
	}
	list := make([]custody.ReversalEntry, 0, len(found))
	for _, e := range found {
		list = append(list, e.shown())
	}
	return list, nil
}

// Reversal implements [custody.ReversalDesk].
func (d *Desk) Reversal(ctx context.Context, name string) (custody.ReversalEntry, error) {
	e, err := d.ledger.Named(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return custody.ReversalEntry{}, custody.ErrNoReversal
	case err != nil:
		return custody.ReversalEntry{}, fmt.Errorf("%w: finding the reversal: %w", custody.ErrUnavailable, err)
	}
	return e.shown(), nil
}

// Order implements [custody.ReversalDesk].
func (d *Desk) Order(ctx context.Context, name string, o custody.ReversalOrder) (custody.ReversalEntry, error) {
	e, err := d.ledger.Named(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return custody.ReversalEntry{}, custody.ErrNoReversal
	}
	if err == nil {
		err = d.journal.Update(ctx, func(tx Tx) (err error) {
			if e.Reversal, err = tx.Reversal(e.RID); err != nil {
				return err
			}
			if e.Txn, err = tx.Txn(e.Reversal.OID); err != nil {
				return err
			}
			if err := d.homeless(e.Txn, o); err != nil {
				return err
			}
			return obey(tx, e.Reversal, e.Txn, o, d.clock().UTC())
		})
	}
	switch {
	case errors.Is(err, custody.ErrReversalState):
		return e.shown(), err
	case err != nil:
		return custody.ReversalEntry{}, fmt.Errorf("%w: changing the reversal: %w", custody.ErrUnavailable, err)
	}
	if s := d.sw.Load(); s != nil {
		s.wake()
	}
	return e.shown(), nil
}

// obey does what an operator orders, or refuses it: the rows of section 2.2 that
// name an operator, and those of parking.
func obey(tx Tx, rev *Reversal, t *Txn, o custody.ReversalOrder, now time.Time) error {
	if rev.Case != "" {
		return fmt.Errorf("%w: it was closed with case %s", custody.ErrReversalState, rev.Case)
	}
	given := rev.State == Failed || rev.State == Parked
	waits := rev.State == Queued || rev.State == Sent
	switch {
	case o.Act == custody.RetryReversal && given:
		return tryAgain(tx, rev, t, now)
	case o.Act == custody.RetryReversal && waits:
		rev.Next = now
		return tx.UpdateReversal(rev)
	case o.Act == custody.ParkReversal && waits:
		rev.State, rev.Closed = Parked, now
		return tx.UpdateReversal(rev)
	case o.Act == custody.ReleaseReversal && rev.State == Held:
		return release(tx, rev, t, now)
	case o.Act == custody.RejectReversal && rev.State == Held:
		rev.State, rev.Closed = Closed, now
		if err := tx.UpdateReversal(rev); err != nil {
			return err
		}
		t.State = Approved
		return tx.UpdateTxn(t)
	case o.Act == custody.ResolveReversal && given:
		rev.Case, rev.Resolved = o.Case, now
		if rev.State == Failed {
			return tx.UpdateReversal(rev)
		}
		return fail(tx, rev, t, now)
	}
	return fmt.Errorf("%w: it is %s", custody.ErrReversalState, rev.State)
}

// release lets a reversal that a rule held go on (D-35, R-59). Its time begins now.
func release(tx Tx, rev *Reversal, t *Txn, now time.Time) error {
	rev.State, rev.Next, rev.Renewed = Queued, now, now
	if err := tx.UpdateReversal(rev); err != nil {
		return err
	}
	t.State = ReversalPending
	if err := tx.UpdateTxn(t); err != nil {
		return err
	}
	return giveBack(tx, t)
}

// tryAgain gives a reversal that was given up all its tries and its time again.
// What upstream sees does not change: a message that was sent before is repeated.
func tryAgain(tx Tx, rev *Reversal, t *Txn, now time.Time) error {
	rev.State = Queued
	if rev.Tries > 0 {
		rev.State = Sent
	}
	rev.Granted, rev.Renewed, rev.Declines, rev.Errors = rev.Tries, now, 0, 0
	rev.Next, rev.Closed = now, time.Time{}
	if err := tx.UpdateReversal(rev); err != nil || t.State != ReversalFailed {
		return err
	}
	t.State = ReversalPending
	return tx.UpdateTxn(t)
}

// shown is an entry as operators see it: nothing of a card but what [custody]
// masks.
func (e Entry) shown() custody.ReversalEntry {
	out := custody.ReversalEntry{Name: e.RID.Name(), Unreadable: e.Err != nil}
	if e.Reversal == nil || e.Txn == nil {
		return out
	}
	r, t := e.Reversal, e.Txn
	out.State, out.Original, out.Cause, out.Reason = string(r.State), string(t.State), string(r.Cause), r.Reason
	out.Full, out.Rest = r.Full, r.Rest
	out.MTI, out.TID, out.MID, out.STAN, out.DateTime, out.RRN = t.MTI, t.TID, t.MID, t.STAN, t.Sent, t.RRN
	out.OwnSTAN, out.Upstream, out.UpSTAN = r.STAN, t.Link, r.UpSTAN
	out.Processing, out.Amount, out.Currency, out.Card = t.Processing, t.Amount, t.Currency, t.Card
	out.Tries, out.Declines, out.Errors, out.Next = r.Tries, r.Declines, r.Errors, r.Next
	out.Received, out.Built, out.FirstSent, out.LastSent = t.Received, r.Built, r.FirstSent, r.LastSent
	out.Answered, out.Closed = r.Answered, r.Closed
	out.Answer, out.UpAnswer, out.Late = r.Answer, r.UpAnswer, t.Late
	out.Case, out.Resolved = r.Case, r.Resolved
	return out
}
