package store

import (
	"context"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/isoswitch"
)

// Entries implements [isoswitch.Ledger].
func (db *DB) Entries(ctx context.Context, q isoswitch.LedgerQuery) ([]isoswitch.Entry, error) {
	where, args := ledgerWhere(q)
	return db.entries(ctx, where+" ORDER BY r.built, r.seq LIMIT ?", append(args, max(q.Limit, 0))...)
}

// Named implements [isoswitch.Ledger].
func (db *DB) Named(ctx context.Context, name string) (isoswitch.Entry, error) {
	least, greatest, ok := isoswitch.ParseName(name)
	if !ok {
		return isoswitch.Entry{}, isoswitch.ErrNotFound
	}
	found, err := db.entries(ctx, "r.rid BETWEEN ? AND ?", least[:], greatest[:])
	switch {
	case err != nil:
		return isoswitch.Entry{}, err
	case len(found) == 0:
		return isoswitch.Entry{}, isoswitch.ErrNotFound
	case len(found) > 1:
		return isoswitch.Entry{}, fmt.Errorf("%w: two reversals of one name", ErrCorrupt)
	}
	return found[0], nil
}

// ledgerWhere is the condition of a query over reversal r and txn t.
func ledgerWhere(q isoswitch.LedgerQuery) (string, []any) {
	var all []string
	var args []any
	add := func(given bool, condition string, values ...any) {
		if given {
			all, args = append(all, condition), append(args, values...)
		}
	}
	add(q.Open, "r.state NOT IN ('CONFIRMED', 'CLOSED') AND r.case_id = ''")
	add(q.State != "", "r.state = ?", string(q.State))
	add(q.TID != "", "r.tid = ?", q.TID)
	add(q.STAN != "", "(t.stan = ? OR r.stan = ?)", q.STAN, q.STAN)
	add(q.Date != "", "substr(t.sent, 1, 4) = ?", q.Date)
	add(q.Link != "", "t.link = ?", q.Link)
	add(!q.Before.IsZero(), "r.built < ?", nanos(q.Before))
	if len(all) == 0 {
		return "1", nil
	}
	return strings.Join(all, " AND "), args
}

// entries finds the records first and then reads each by itself: one that cannot
// be read hides no other.
func (db *DB) entries(ctx context.Context, where string, args ...any) ([]isoswitch.Entry, error) {
	var rids []isoswitch.RID
	err := db.view(ctx, func(s *session) (err error) {
		rids, err = collect(s, func(r scanner) (rid isoswitch.RID, err error) {
			err = r.Scan(digest{(*[32]byte)(&rid)})
			return rid, err
		}, "SELECT r.rid FROM reversal r JOIN txn t ON t.oid = r.oid WHERE "+where, args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: search the reversals: %w", err)
	}
	list := make([]isoswitch.Entry, 0, len(rids))
	err = db.View(ctx, func(tx isoswitch.Tx) error {
		for _, rid := range rids {
			e := isoswitch.Entry{RID: rid}
			if e.Reversal, e.Err = tx.Reversal(rid); e.Err == nil {
				e.Txn, e.Err = tx.Txn(e.Reversal.OID) // as the row says under its MAC
			}
			if e.Err != nil {
				e.Reversal, e.Txn = nil, nil
			}
			list = append(list, e)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("store: read the reversals: %w", err)
	}
	return list, nil
}
