package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// ExportQuery says what of the journal is exported; empty members are all of it.
type ExportQuery struct {
	Since, Until time.Time // received, or built, at Since or later and before Until
	TID          string
}

// ExportCount is how many records fit a query, and what is missing from the
// journal as a whole: the numbers of its records rise by one. What is missing
// behind the last record is known of what was written since the start.
type ExportCount struct {
	Originals, Reversals int64
	Missing              int64
}

// Exported is a record of the journal: one of Txn and Reversal, or Err where it is
// not what keyd wrote.
type Exported struct {
	Seq      int64
	Txn      *isoswitch.Txn
	Reversal *isoswitch.Reversal
	Err      error
}

// Export gives the records that fit q to each, originals first, in the order of
// their numbers, after begin was given how many there are. All of it is of one
// snapshot, and each record was compared with its MAC; one that differs is told
// like any other. An error of begin or each ends it. It takes a reader from those
// who sell for as long as it lasts: a second one beside it is [ErrExporting].
func (db *DB) Export(ctx context.Context, q ExportQuery, begin func(ExportCount) error, each func(Exported) error) error {
	if db.register == nil {
		return ErrVisitor
	}
	if !db.exporting.TryLock() {
		return ErrExporting
	}
	defer db.exporting.Unlock()
	// What was committed before the snapshot began is in it.
	least := map[*sealed]int64{}
	for _, table := range []*sealed{txnTable, reversalTable} {
		least[table] = db.waters.of(sealID(table, ""))
	}
	return db.view(ctx, func(s *session) error {
		count, err := s.exportCount(q, least)
		if err == nil {
			err = begin(count)
		}
		if err != nil {
			return err
		}
		give := func(one Exported, err error) (more bool, _ error) {
			if wrong, is := tampered(err); is {
				db.tellTampered(wrong)
				one, err = Exported{Seq: s.guard.number, Err: wrong}, nil
			}
			if err == nil {
				one.Seq = s.guard.number
				err = each(one)
			}
			if err == nil {
				err = ctx.Err()
			}
			return true, err
		}
		where, args := q.where("received")
		err = s.each(txnTable.selects()+where+"ORDER BY seq", args, func(r scanner) (bool, error) {
			t, err := readTxn(s.guard.of(txnTable, r))
			return give(Exported{Txn: t}, err)
		})
		if err != nil {
			return fmt.Errorf("store: export originals: %w", err)
		}
		where, args = q.where("built")
		err = s.each(reversalTable.selects()+where+"ORDER BY seq", args, func(r scanner) (bool, error) {
			v, err := readReversal(s.guard.of(reversalTable, r))
			return give(Exported{Reversal: v}, err)
		})
		if err != nil {
			return fmt.Errorf("store: export reversals: %w", err)
		}
		return nil
	})
}

// where is the condition of a query over the column that says when.
func (q ExportQuery) where(when string) (string, []any) {
	all, args := []string{}, []any{}
	if !q.Since.IsZero() {
		all, args = append(all, when+" >= ?"), append(args, nanos(q.Since))
	}
	if !q.Until.IsZero() {
		all, args = append(all, when+" < ?"), append(args, nanos(q.Until))
	}
	if q.TID != "" {
		all, args = append(all, "tid = ?"), append(args, q.TID)
	}
	if len(all) == 0 {
		return "", nil
	}
	return "WHERE " + strings.Join(all, " AND ") + " ", args
}

// exportCount counts. least are the highest numbers that were committed before.
func (s *session) exportCount(q ExportQuery, least map[*sealed]int64) (c ExportCount, err error) {
	for _, of := range []struct {
		table *sealed
		when  string
		fit   *int64
	}{{txnTable, "received", &c.Originals}, {reversalTable, "built", &c.Reversals}} {
		where, args := q.where(of.when)
		if err := s.query("SELECT count(*) FROM "+of.table.name+" "+where, args...).Scan(of.fit); err != nil {
			return c, fmt.Errorf("store: count what is exported: %w", err)
		}
		var last, there int64
		err := s.query("SELECT ifnull(max(seq), 0), count(*) FROM "+of.table.name).Scan(&last, &there)
		if err != nil {
			return c, fmt.Errorf("store: count what is exported: %w", err)
		}
		c.Missing += max(last, least[of.table]) - there
	}
	return c, nil
}
