package store

import (
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

func readTxn(r scanner) (*isoswitch.Txn, error) {
	t := new(isoswitch.Txn)
	err := r.Scan(nil, digest{(*[32]byte)(&t.OID)}, digest{(*[32]byte)(&t.Key)}, &t.Link, instant{&t.Received}, &t.MTI,
		&t.Card.Sealed, &t.Card.Token, &t.Processing, &t.Amount, &t.Sent, &t.STAN, &t.Time, &t.Date,
		&t.Entry, &t.Condition, &t.Acquirer, &t.TID, &t.MID, &t.Currency, &t.EMV, &t.KSN, &t.MACKey,
		digest{(*[32]byte)(&t.Content)}, digest{(*[32]byte)(&t.Raw)}, &t.UpSTAN, &t.UpSent, &t.Profile, &t.UpAcquirer,
		&t.State, &t.RRN, &t.Approval, &t.Answer, &t.Late, &t.IssuerDE55, &t.ReverseOnCompletion, &t.BatchClosed,
		&t.Refunded, &t.ReversedAmount, digest{(*[32]byte)(&t.RefersTo)}, instant{&t.Finished})
	if err != nil {
		return nil, err
	}
	t.Card.Sealed = none(t.Card.Sealed)
	return t, nil
}

// txnReceived are the values of txnTable's columns that are written once, but for seq.
func txnReceived(n *isoswitch.Txn) []any {
	return []any{n.OID[:], n.Key[:], n.Link, nanos(n.Received), n.MTI, notNull(n.Card.Sealed), n.Card.Token, n.Processing,
		n.Amount, n.Sent, n.STAN, n.Time, n.Date, n.Entry, n.Condition, n.Acquirer, n.TID, n.MID, n.Currency,
		none(n.EMV), n.KSN, string(n.MACKey), n.Content[:], n.Raw[:], n.UpSTAN, n.UpSent, n.Profile, n.UpAcquirer}
}

// txnOutcome are the values of those that change.
func txnOutcome(n *isoswitch.Txn) []any {
	return []any{string(n.State), n.RRN, n.Approval, n.Answer, n.Late, none(n.IssuerDE55),
		n.ReverseOnCompletion, n.BatchClosed, n.Refunded, n.ReversedAmount, orNull(n.RefersTo), nanos(n.Finished)}
}

// Newest implements [isoswitch.Tx]. The sign before the parameter has no effect on
// the answer: without it SQLite plans the statement anew for each value that it
// is compared with (TestPreparedOnce).
func (t *tx) Newest(key isoswitch.LookupKey, since time.Time) (*isoswitch.Txn, error) {
	return oneSealed(t, txnTable, readTxn, `WHERE substr(lookup, 1, 8) = +? AND lookup = +? AND received >= ?
		ORDER BY received DESC, seq DESC LIMIT 1`, key[:8], key[:], nanos(since))
}

// Txn implements [isoswitch.Tx].
func (t *tx) Txn(oid isoswitch.OID) (*isoswitch.Txn, error) {
	if known, is := t.sale(oid); is {
		return known, nil
	}
	return oneSealed(t, txnTable, readTxn, "WHERE oid = ?", oid[:])
}

// InsertTxn implements [isoswitch.Tx]. It returns [ErrRule] for DE 55 with track
// data in it.
func (t *tx) InsertTxn(n *isoswitch.Txn) error {
	err := checkEMV(n.EMV)
	if err == nil {
		err = t.insertSealed(txnTable, append(txnReceived(n), txnOutcome(n)...), n.OID[:])
	}
	if err == nil {
		t.s.memory.inserted(&t.s.guard, n)
	}
	if err != nil {
		return fmt.Errorf("store: insert original %x: %w", n.OID[:8], err)
	}
	return nil
}

// UpdateTxn implements [isoswitch.Tx].
func (t *tx) UpdateTxn(n *isoswitch.Txn) error {
	if err := t.updateSealed(txnTable, n.OID, txnOutcome(n)); err != nil {
		return fmt.Errorf("store: update original %x: %w", n.OID[:8], err)
	}
	t.s.memory.updated(n.OID)
	return nil
}

// Unfinished implements [isoswitch.Tx]. Rows that keyd did not write are left
// out, and told.
func (t *tx) Unfinished(after isoswitch.OID, limit int) ([]*isoswitch.Txn, error) {
	return manySealed(t, txnTable, readTxn, limit, "WHERE state IN ('RECEIVED', 'FORWARDED') AND oid > ? ORDER BY oid", after[:])
}

// Foreign implements [isoswitch.Tx].
func (t *tx) Foreign(q isoswitch.ForeignQuery) (bool, error) {
	for _, fit := range []struct {
		asked bool
		query string
		args  []any
	}{
		{q.RRN != "", inEachSpan("rrn <> ''", "rrn = ?3"), []any{q.RRN}},
		{q.Approval != "", inEachSpan("approval <> ''", "approval = ?3"), []any{q.Approval}},
		{q.PANToken != "", inEachSpan("pan_token <> ''", "substr(pan_token, -8) = substr(?3, -8) AND pan_token = ?3 AND amount = ?4"),
			[]any{q.PANToken, q.Amount}},
	} {
		if !fit.asked {
			continue
		}
		var one int
		err := t.query(fit.query, append([]any{nanos(q.Since), q.TID}, fit.args...)...).Scan(&one)
		if !errors.Is(err, isoswitch.ErrNotFound) {
			return err == nil, err
		}
	}
	return false, nil
}

// inEachSpan looks for an original of another terminal than ?2 that was received
// at ?1 or later, in each span of the index with this condition that has any.
func inEachSpan(there, fits string) string {
	return `WITH RECURSIVE span (n) AS (
			SELECT (SELECT received >> 38 FROM txn WHERE received >> 38 >= ?1 >> 38 AND ` + there + ` ORDER BY received >> 38 LIMIT 1)
			UNION ALL
			SELECT (SELECT received >> 38 FROM txn WHERE received >> 38 > n AND ` + there + ` ORDER BY received >> 38 LIMIT 1)
				FROM span WHERE n IS NOT NULL)
		SELECT 1 FROM span CROSS JOIN txn WHERE received >> 38 = n AND ` + there + ` AND ` + fits + `
			AND received >= ?1 AND tid <> ?2 AND state <> 'TOMBSTONE' LIMIT 1`
}
