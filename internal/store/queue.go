package store

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// Each upstream has a queue of its own: the reversals that name it. One of before
// the schema that has the name belongs to the upstream of its original; these are
// asked for by themselves, and once they are gone the asking costs nothing. The
// sign before a parameter keeps SQLite from planning anew, as in [tx.Newest].
const (
	queueOf       = "WHERE state IN ('QUEUED', 'SENT') AND link = +? "
	queueOfBefore = "WHERE state IN ('QUEUED', 'SENT') AND link = '' AND (SELECT link FROM txn WHERE txn.oid = reversal.oid) = +? "
	inTurn        = "ORDER BY next, seq"
)

// Due implements [isoswitch.Tx]. Rows that keyd did not write are left out, and
// told: they hinder no other.
func (t *tx) Due(upstream string, at time.Time, limit int, except []string) ([]*isoswitch.Reversal, error) {
	tids, err := json.Marshal(append([]string{}, except...))
	if err != nil {
		return nil, err
	}
	var due []*isoswitch.Reversal
	for _, whose := range []string{queueOf, queueOfBefore} {
		some, err := manySealed(t, reversalTable, readReversal, limit, whose+
			"AND next <= ? AND tid NOT IN (SELECT value FROM json_each(?)) "+inTurn, upstream, nanos(at), string(tids))
		if err != nil {
			return nil, err
		}
		due = append(due, some...)
	}
	slices.SortStableFunc(due, func(a, b *isoswitch.Reversal) int { return a.Next.Compare(b.Next) })
	return due[:min(limit, len(due))], nil
}

// NextDue implements [isoswitch.Tx], with the same rows left out.
func (t *tx) NextDue(upstream string) (time.Time, error) {
	var first []*isoswitch.Reversal
	for _, whose := range []string{queueOf, queueOfBefore} {
		one, err := manySealed(t, reversalTable, readReversal, 1, whose+inTurn, upstream)
		if err != nil {
			return time.Time{}, err
		}
		first = append(first, one...)
	}
	if len(first) == 0 {
		return time.Time{}, isoswitch.ErrNotFound
	}
	return slices.MinFunc(first, func(a, b *isoswitch.Reversal) int { return a.Next.Compare(b.Next) }).Next, nil
}

// Strays implements [isoswitch.Tx]. It counts rows without comparing their MACs,
// by the original's own name of its upstream.
func (t *tx) Strays(upstreams []string) ([]isoswitch.Stray, error) {
	if t.s == nil {
		return nil, errEnded
	}
	known, err := json.Marshal(append([]string{}, upstreams...))
	if err != nil {
		return nil, err
	}
	strays, err := collect(t.s, func(r scanner) (o isoswitch.Stray, err error) {
		return o, r.Scan(&o.Upstream, &o.Originals, &o.Reversals)
	}, `SELECT link, sum(originals), sum(reversals) FROM (
			SELECT link, 1 AS originals, 0 AS reversals FROM txn WHERE state IN ('RECEIVED', 'FORWARDED')
			UNION ALL
			SELECT CASE WHEN r.link <> '' THEN r.link ELSE (SELECT t.link FROM txn t WHERE t.oid = r.oid) END, 0, 1 FROM reversal r
				WHERE r.state NOT IN ('CONFIRMED', 'CLOSED') AND r.case_id = '' AND r.state NOT IN ('FAILED', 'PARKED'))
		WHERE link NOT IN (SELECT value FROM json_each(?)) GROUP BY link`, string(known))
	slices.SortFunc(strays, func(a, b isoswitch.Stray) int { return cmp.Compare(a.Upstream, b.Upstream) })
	return strays, err
}
