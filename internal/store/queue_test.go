package store

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

// ownReversalOf is a reversal in the queue of an upstream.
func ownReversalOf(sale *isoswitch.Txn, next time.Time) *isoswitch.Reversal {
	rev := aReversal(0, sale.OID)
	rev.RID, rev.Link, rev.Next, rev.State = isoswitch.RID(sale.OID), sale.Link, next, isoswitch.Queued
	return rev
}

func soldTo(n byte, upstream string, state isoswitch.State) *isoswitch.Txn {
	sale := aTxn(n)
	sale.Link, sale.State, sale.RefersTo, sale.ReversedAmount = upstream, state, isoswitch.OID{}, 0
	return sale
}

// TestQueues: each upstream has a queue of its own.
func TestQueues(t *testing.T) {
	db := open(t)
	update(t, db, func(tx isoswitch.Tx) error {
		var errs []error
		for n, upstream := range []string{"a", "b", "a"} {
			sale := soldTo(byte(10*n+1), upstream, isoswitch.ReversalPending)
			errs = append(errs, tx.InsertTxn(sale), tx.InsertReversal(ownReversalOf(sale, day().Add(time.Duration(n)*time.Minute))))
		}
		return errors.Join(errs...)
	})
	wantDue(t, db, "a", hash(1), hash(21))
	wantDue(t, db, "b", hash(11))
	wantDue(t, db, "c")
	view(t, db, func(tx isoswitch.Tx) error {
		if next, err := tx.NextDue("b"); err != nil || !next.Equal(day().Add(time.Minute)) {
			t.Errorf("next for b: %v, %v", next, err)
		}
		if _, err := tx.NextDue("c"); !errors.Is(err, isoswitch.ErrNotFound) {
			t.Errorf("next for c: %v", err)
		}
		return nil
	})
	for query, upstream := range map[string]string{queueOf: "a", queueOfBefore: "a"} {
		if plan := planOf(t, db, "SELECT seq FROM reversal "+query+"AND next <= 9 ORDER BY next, seq", upstream); !strings.Contains(plan, "reversal_due (link=?") {
			t.Errorf("a queue is not found by its index: %s", plan)
		}
	}
}

// planOf is how SQLite answers a query.
func planOf(t *testing.T, db *DB, query string, args ...any) (plan string) {
	t.Helper()
	err := db.read(t.Context(), func(s *session) error {
		lines, err := collect(s, func(r scanner) (line string, err error) {
			var id, parent, unused int64
			return line, r.Scan(&id, &parent, &unused, &line)
		}, "EXPLAIN QUERY PLAN "+query, args...)
		plan = strings.Join(lines, "; ")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func wantDue(t *testing.T, db *DB, upstream string, want ...isoswitch.Hash) {
	t.Helper()
	view(t, db, func(tx isoswitch.Tx) error {
		due, err := tx.Due(upstream, day().Add(time.Hour), 10, nil)
		var got []isoswitch.Hash
		for _, rev := range due {
			got = append(got, isoswitch.Hash(rev.RID))
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("due for %s (-want +got):\n%s%v", upstream, diff, err)
		}
		return nil
	})
}

// TestStrays: what is owed to an upstream that is configured no more.
func TestStrays(t *testing.T) {
	db := open(t)
	states := []isoswitch.ReversalState{
		isoswitch.Waiting, isoswitch.Queued, isoswitch.Sent, isoswitch.Held,
		isoswitch.Parked, isoswitch.Failed, isoswitch.Confirmed, isoswitch.Closed,
	}
	update(t, db, func(tx isoswitch.Tx) error {
		err := tx.InsertTxn(soldTo(200, "old", isoswitch.Forwarded))
		for n, state := range states {
			sale := soldTo(byte(10*n+1), "old", isoswitch.Approved)
			rev := ownReversalOf(sale, day())
			rev.State = state
			err = errors.Join(err, tx.InsertTxn(sale), tx.InsertReversal(rev))
		}
		return errors.Join(err, tx.InsertTxn(soldTo(210, "new", isoswitch.Forwarded)))
	})
	for _, c := range []struct {
		name  string
		known []string
		want  []isoswitch.Stray
	}{
		{"both are configured", []string{"old", "new"}, nil},
		{"old is gone", []string{"new"}, []isoswitch.Stray{{Upstream: "old", Originals: 1, Reversals: 4}}},
		{"both are gone", nil, []isoswitch.Stray{{Upstream: "new", Originals: 1}, {Upstream: "old", Originals: 1, Reversals: 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			view(t, db, func(tx isoswitch.Tx) error {
				got, err := tx.Strays(c.known)
				if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
					t.Errorf("(-want +got):\n%s%v", diff, err)
				}
				return nil
			})
		})
	}
}

// TestUpgradeToQueues makes a database by the schema before, with a reversal that
// does not name its upstream, and opens it.
func TestUpgradeToQueues(t *testing.T) {
	const before = 12
	from := newHouse(t)
	update(t, from.db, func(tx isoswitch.Tx) error {
		sale := soldTo(91, "a", isoswitch.ReversalPending)
		sale.UpAcquirer = ""
		rev := ownReversalOf(sale, day())
		rev.Link = ""
		return errors.Join(tx.InsertTxn(sale), tx.InsertReversal(rev))
	})
	path := filepath.Join(t.TempDir(), "keyd.db")
	if err := Restore(t.Context(), path, before, func(RowSink) error { return nil }); err != nil {
		t.Fatal(err)
	}
	old := breakTo(t, path)
	old.do("ATTACH DATABASE ? AS source", from.path)
	for _, table := range []*sealed{txnTable, reversalTable} {
		names := slices.DeleteFunc(table.names(), func(name string) bool {
			return name == "up_acquirer" || table == reversalTable && name == "link"
		})
		list := strings.Join(names, ", ")
		old.do("INSERT INTO " + table.name + " (" + list + ") SELECT " + list + " FROM source." + table.name + " WHERE seq = (SELECT max(seq) FROM source." + table.name + ")")
	}
	old.do("DETACH DATABASE source")
	db := openAdopted(t, path)
	wantDue(t, db, "a", hash(91))
	wantDue(t, db, "b")
	update(t, db, func(tx isoswitch.Tx) error {
		rev, err := tx.Reversal(hash32(91))
		if err == nil {
			rev.State, rev.Closed = isoswitch.Confirmed, day()
			err = tx.UpdateReversal(rev)
		}
		return err
	})
	wantDue(t, db, "a")
}

func hash32(n byte) isoswitch.RID { return isoswitch.RID(hash(n)) }
