package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

// TestUpgradeToSpans makes a database by the schema before the rules without
// lists and the indexes by spans of time, with originals, and opens it.
func TestUpgradeToSpans(t *testing.T) {
	const before = 13
	states := isoswitch.States()
	from := newHouse(t)
	update(t, from.db, func(tx isoswitch.Tx) error {
		var errs []error
		for n, state := range states {
			sale := aTxn(byte(100 + n))
			sale.State, sale.RefersTo, sale.Received = state, isoswitch.OID{}, day().Add(-time.Duration(n)*time.Hour)
			sale.TID, sale.RRN, sale.Approval = fmt.Sprintf("T00001%02d", n), fmt.Sprintf("5326080001%02d", n), fmt.Sprintf("B%05d", n)
			sale.Card.Token = fmt.Sprintf("k1:of-before-%02d", n)
			errs = append(errs, tx.InsertTxn(sale))
		}
		return errors.Join(errs...)
	})
	path := filepath.Join(t.TempDir(), "keyd.db")
	if err := Restore(t.Context(), path, before, func(RowSink) error { return nil }); err != nil {
		t.Fatal(err)
	}
	old := breakTo(t, path)
	old.do("ATTACH DATABASE ? AS source", from.path)
	for _, table := range []*sealed{txnTable, reversalTable} {
		list := strings.Join(table.names(), ", ")
		old.do("INSERT INTO " + table.name + " (" + list + ") SELECT " + list + " FROM source." + table.name)
	}
	old.do("DETACH DATABASE source")
	if got := old.get("PRAGMA user_version"); got != int64(before) {
		t.Fatalf("the database is of schema %v", got)
	}

	h := &house{path: path, db: openAdopted(t, path)}
	if diff := cmp.Diff(schemaOf(t, open(t)), schemaOf(t, h.db)); diff != "" {
		t.Errorf("the schema, new against upgraded (-want +got):\n%s", diff)
	}
	if found := h.patrol(t); found.Wrong > 0 {
		t.Errorf("the patrol found %+v", found)
	}
	if err := h.db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	for n, state := range states {
		t.Run(string(state), func(t *testing.T) { wantOfBefore(t, h.db, byte(n), state) })
	}
}

// wantOfBefore wants that an original of before is found by each of its indexes,
// and goes to the states that it may go to.
func wantOfBefore(t *testing.T, db *DB, n byte, state isoswitch.State) {
	t.Helper()
	view(t, db, func(tx isoswitch.Tx) error {
		found, err := tx.Newest(hash(101+n), time.Time{})
		if err != nil || found.OID != hash(100+n) || found.State != state {
			t.Errorf("by its key: %v", err)
		}
		for _, q := range []isoswitch.ForeignQuery{
			{RRN: fmt.Sprintf("5326080001%02d", n)}, {Approval: fmt.Sprintf("B%05d", n)},
			{PANToken: fmt.Sprintf("k1:of-before-%02d", n), Amount: 1000},
		} {
			q.TID, q.Since = "T0000009", day().Add(-7*24*time.Hour)
			if is, err := tx.Foreign(q); err != nil || is != (state != isoswitch.Tombstone) {
				t.Errorf("%+v: %v, %v", q, is, err)
			}
		}
		return nil
	})
	given := errors.New("given up")
	for _, to := range isoswitch.States() {
		err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
			sale, err := tx.Txn(hash(100 + n))
			if err == nil {
				sale.State = to
				err = tx.UpdateTxn(sale)
			}
			if err == nil {
				return given
			}
			return err
		})
		if may := isoswitch.MayBecome(state, to); may != errors.Is(err, given) || !may && !errors.Is(err, ErrRule) {
			t.Errorf("to %s: %v, may it: %v", to, err, may)
		}
	}
}

// schemaOf returns the tables, indexes and triggers of a database.
func schemaOf(t *testing.T, db *DB) (all []string) {
	t.Helper()
	err := db.view(t.Context(), func(s *session) (err error) {
		text := func(r scanner) (sql string, err error) { err = r.Scan(&sql); return sql, err }
		all, err = collect(s, text, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}
