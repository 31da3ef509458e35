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
		digest{(*[32]byte)(&t.Content)}, digest{(*[32]byte)(&t.Raw)}, &t.UpSTAN, &t.UpSent,
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
		none(n.EMV), n.KSN, string(n.MACKey), n.Content[:], n.Raw[:], n.UpSTAN, n.UpSent}
}

// txnOutcome are the values of those that change.
func txnOutcome(n *isoswitch.Txn) []any {
	return []any{string(n.State), n.RRN, n.Approval, n.Answer, n.Late, none(n.IssuerDE55),
		n.ReverseOnCompletion, n.BatchClosed, n.Refunded, n.ReversedAmount, orNull(n.RefersTo), nanos(n.Finished)}
}

// Newest implements [isoswitch.Tx].
func (t *tx) Newest(key isoswitch.LookupKey, since time.Time) (*isoswitch.Txn, error) {
	return oneSealed(t, txnTable, readTxn, "WHERE lookup = ? AND received >= ? ORDER BY received DESC, seq DESC LIMIT 1",
		key[:], nanos(since))
}

// Txn implements [isoswitch.Tx].
func (t *tx) Txn(oid isoswitch.OID) (*isoswitch.Txn, error) {
	return oneSealed(t, txnTable, readTxn, "WHERE oid = ?", oid[:])
}

// InsertTxn implements [isoswitch.Tx]. It returns [ErrRule] for DE 55 with track
// data in it.
func (t *tx) InsertTxn(n *isoswitch.Txn) error {
	err := checkEMV(n.EMV)
	if err == nil {
		err = t.insertSealed(txnTable, append(txnReceived(n), txnOutcome(n)...), n.OID[:])
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
		{q.RRN != "", "SELECT 1 FROM txn WHERE rrn = ? AND rrn <> ''", []any{q.RRN}},
		{q.Approval != "", "SELECT 1 FROM txn WHERE approval = ? AND approval <> ''", []any{q.Approval}},
		{q.PANToken != "", "SELECT 1 FROM txn WHERE pan_token = ? AND amount = ? AND pan_token <> ''",
			[]any{q.PANToken, q.Amount}},
	} {
		if !fit.asked {
			continue
		}
		var one int
		err := t.query(fit.query+" AND received >= ? AND tid <> ? AND state <> 'TOMBSTONE' LIMIT 1",
			append(fit.args, nanos(q.Since), q.TID)...).Scan(&one)
		if !errors.Is(err, isoswitch.ErrNotFound) {
			return err == nil, err
		}
	}
	return false, nil
}
