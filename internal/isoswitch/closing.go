package isoswitch

import (
	"context"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// Batches are closed up to a moment: what a terminal sold before is in batches that
// are settled, so that it can be neither reversed nor voided there any more (D-25).
// Up to when, a counter of the journal says for each terminal, and one for all; a
// counter only rises, and one row is enough however much was sold.
const closedAll = "closed"

// The counters count milliseconds from here: the journal adds all counters up, and
// those of millions of terminals must not come to more than a row can hold.
func closedEpoch() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }

func closedAt(count uint64) time.Time {
	return closedEpoch().Add(time.Duration(count) * time.Millisecond)
}

func closedOf(tid string) string { return closedAll + "/" + tid }

// CloseBatch implements [custody.ReversalDesk].
func (d *Desk) CloseBatch(ctx context.Context, q custody.BatchClosing) (until time.Time, err error) {
	name := closedAll
	if q.TID != "" {
		name = closedOf(q.TID)
	}
	err = d.journal.Update(ctx, func(tx Tx) error {
		now, err := tx.Reserved(name)
		if err != nil {
			return err
		}
		want := uint64(max(0, q.Before.Sub(closedEpoch()).Milliseconds()))
		until = closedAt(max(now, want))
		if want > now {
			_, err = tx.Reserve(name, want-now)
		}
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: closing batches: %w", custody.ErrUnavailable, err)
	}
	return until, nil
}

// closeBatch marks an original that is in a closed batch.
func closeBatch(tx Tx, t *Txn) error {
	for _, name := range []string{closedOf(t.TID), closedAll} {
		until, err := tx.Reserved(name)
		if err != nil {
			return fmt.Errorf("reading which batches are closed: %w", err)
		}
		t.BatchClosed = t.BatchClosed || t.Received.Before(closedAt(until))
	}
	return nil
}
