package store

import (
	"fmt"
	"math"
	"slices"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

func readReversal(r scanner) (*isoswitch.Reversal, error) {
	v := new(isoswitch.Reversal)
	err := r.Scan(nil, digest{(*[32]byte)(&v.RID)}, digest{(*[32]byte)(&v.OID)}, &v.Cause, &v.Full, &v.Rest, &v.MTI, &v.STAN,
		&v.TID, &v.KSN, digest{(*[32]byte)(&v.Raw)}, instant{&v.Built}, &v.UpSTAN, &v.UpSent, &v.Link,
		&v.Answer, &v.RRN, &v.Approval, digest{(*[32]byte)(&v.Content)}, &v.State, &v.Reason,
		&v.Tries, &v.Declines, &v.Errors, instant{&v.Next}, instant{&v.FirstSent}, instant{&v.LastSent},
		instant{&v.Answered}, &v.UpAnswer, instant{&v.Closed},
		&v.Granted, instant{&v.Renewed}, &v.Case, instant{&v.Resolved})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// reversalTaken are the values of reversalTable's columns that are written once,
// but for seq.
func reversalTaken(v *isoswitch.Reversal) []any {
	return []any{v.RID[:], v.OID[:], string(v.Cause), v.Full, v.Rest, v.MTI, v.STAN, v.TID, v.KSN, orNull(v.Raw), nanos(v.Built),
		v.UpSTAN, v.UpSent, v.Link}
}

// reversalOutcome are the values of those that change.
func reversalOutcome(v *isoswitch.Reversal) []any {
	return []any{v.Answer, v.RRN, v.Approval, orNull(v.Content), string(v.State), v.Reason,
		v.Tries, v.Declines, v.Errors, nanos(v.Next), nanos(v.FirstSent), nanos(v.LastSent), nanos(v.Answered),
		v.UpAnswer, nanos(v.Closed), v.Granted, nanos(v.Renewed), v.Case, nanos(v.Resolved)}
}

// Reversal implements [isoswitch.Tx].
func (t *tx) Reversal(rid isoswitch.RID) (*isoswitch.Reversal, error) {
	return oneSealed(t, reversalTable, readReversal, "WHERE rid = ?", rid[:])
}

// InsertReversal implements [isoswitch.Tx]. It returns [ErrRule] when more than
// the amount of the original would be reversed (I-2).
func (t *tx) InsertReversal(v *isoswitch.Reversal) error {
	if err := t.insertSealed(reversalTable, append(reversalTaken(v), reversalOutcome(v)...), v.RID[:]); err != nil {
		return fmt.Errorf("store: insert reversal %x: %w", v.RID[:8], err)
	}
	return nil
}

// UpdateReversal implements [isoswitch.Tx].
func (t *tx) UpdateReversal(v *isoswitch.Reversal) error {
	if err := t.updateSealed(reversalTable, v.RID, reversalOutcome(v)); err != nil {
		return fmt.Errorf("store: update reversal %x: %w", v.RID[:8], err)
	}
	return nil
}

// OpenBefore implements [isoswitch.Tx].
func (t *tx) OpenBefore(oid isoswitch.OID, built time.Time) (bool, error) {
	before, err := manySealed(t, reversalTable, readReversal, math.MaxInt, "WHERE oid = ? AND built < ?", oid[:], nanos(built))
	return slices.ContainsFunc(before, func(v *isoswitch.Reversal) bool {
		return v.State == isoswitch.Queued || v.State == isoswitch.Sent
	}), err
}
