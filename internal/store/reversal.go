package store

import (
	"fmt"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

const reversalColumns = `SELECT rid, oid, cause, full, rest, mti, stan, tid, ksn, raw, built, up_stan, up_sent,
	answer, rrn, approval, content, state, reason, tries, declines, errors, next, first_sent, last_sent,
	answered, up_answer, closed FROM reversal `

func readReversal(r scanner) (*isoswitch.Reversal, error) {
	v := new(isoswitch.Reversal)
	err := r.Scan(digest{(*[32]byte)(&v.RID)}, digest{(*[32]byte)(&v.OID)}, &v.Cause, &v.Full, &v.Rest, &v.MTI, &v.STAN,
		&v.TID, &v.KSN, digest{(*[32]byte)(&v.Raw)}, instant{&v.Built}, &v.UpSTAN, &v.UpSent,
		&v.Answer, &v.RRN, &v.Approval, digest{(*[32]byte)(&v.Content)}, &v.State, &v.Reason,
		&v.Tries, &v.Declines, &v.Errors, instant{&v.Next}, instant{&v.FirstSent}, instant{&v.LastSent},
		instant{&v.Answered}, &v.UpAnswer, instant{&v.Closed})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Reversal implements [isoswitch.Tx].
func (t *tx) Reversal(rid isoswitch.RID) (*isoswitch.Reversal, error) {
	return readReversal(t.query(reversalColumns+"WHERE rid = ?", rid[:]))
}

// InsertReversal implements [isoswitch.Tx]. It returns [ErrRule] when more than
// the amount of the original would be reversed (I-2).
func (t *tx) InsertReversal(v *isoswitch.Reversal) error {
	err := t.insert(`INSERT INTO reversal (rid, oid, cause, full, rest, mti, stan, tid, ksn, raw, built, up_stan, up_sent,
		answer, rrn, approval, content, state, reason, tries, declines, errors, next, first_sent, last_sent,
		answered, up_answer, closed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		v.RID[:], v.OID[:], string(v.Cause), v.Full, v.Rest, v.MTI, v.STAN, v.TID, v.KSN, orNull(v.Raw), nanos(v.Built),
		v.UpSTAN, v.UpSent, v.Answer, v.RRN, v.Approval, orNull(v.Content), string(v.State), v.Reason,
		v.Tries, v.Declines, v.Errors, nanos(v.Next), nanos(v.FirstSent), nanos(v.LastSent),
		nanos(v.Answered), v.UpAnswer, nanos(v.Closed))
	if err != nil {
		return fmt.Errorf("store: insert reversal %x: %w", v.RID[:8], err)
	}
	return nil
}

// UpdateReversal implements [isoswitch.Tx].
func (t *tx) UpdateReversal(v *isoswitch.Reversal) error {
	err := t.change(`UPDATE reversal SET answer = ?, rrn = ?, approval = ?, content = ?, state = ?, reason = ?,
		tries = ?, declines = ?, errors = ?, next = ?, first_sent = ?, last_sent = ?, answered = ?,
		up_answer = ?, closed = ? WHERE rid = ?`,
		v.Answer, v.RRN, v.Approval, orNull(v.Content), string(v.State), v.Reason,
		v.Tries, v.Declines, v.Errors, nanos(v.Next), nanos(v.FirstSent), nanos(v.LastSent), nanos(v.Answered),
		v.UpAnswer, nanos(v.Closed), v.RID[:])
	if err != nil {
		return fmt.Errorf("store: update reversal %x: %w", v.RID[:8], err)
	}
	return nil
}

// Due implements [isoswitch.Tx].
func (t *tx) Due(at time.Time, limit int) ([]*isoswitch.Reversal, error) {
	if t.s == nil {
		return nil, errEnded
	}
	return collect(t.s, readReversal, reversalColumns+
		"WHERE state IN ('QUEUED', 'SENT') AND next <= ? ORDER BY next, seq LIMIT ?", nanos(at), max(limit, 0))
}

// NextDue implements [isoswitch.Tx].
func (t *tx) NextDue() (time.Time, error) {
	var next time.Time
	err := t.query("SELECT next FROM reversal WHERE state IN ('QUEUED', 'SENT') ORDER BY next LIMIT 1").
		Scan(instant{&next})
	return next, err
}

// OpenBefore implements [isoswitch.Tx].
func (t *tx) OpenBefore(oid isoswitch.OID, built time.Time) (bool, error) {
	var open bool
	err := t.query("SELECT EXISTS (SELECT 1 FROM reversal WHERE oid = ? AND built < ? AND state IN ('QUEUED', 'SENT'))",
		oid[:], nanos(built)).Scan(&open)
	return open, err
}
