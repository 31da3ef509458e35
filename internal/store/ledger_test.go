package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

// TestLedger: reversals are found by state, age, terminal, numbers and
// upstream, and one that cannot be read hides no other.
func TestLedger(t *testing.T) {
	db := open(t)
	x, y, z := original(t, db, 10), original(t, db, 100), original(t, db, 150)
	revs := []*isoswitch.Reversal{inQueue(20, x.OID), inQueue(120, y.OID), inQueue(160, z.OID)}
	revs[0].Built = day().Add(-time.Hour)
	revs[1].State, revs[1].Closed, revs[1].TID, revs[1].STAN = isoswitch.Failed, day(), "T0000002", "000777"
	revs[2].State, revs[2].Closed = isoswitch.Confirmed, day()
	update(t, db, func(tx isoswitch.Tx) error {
		return errors.Join(tx.InsertReversal(revs[0]), tx.InsertReversal(revs[1]), tx.InsertReversal(revs[2]))
	})
	names := func(list []isoswitch.Entry) (all []string) {
		for _, e := range list {
			all = append(all, e.RID.Name())
		}
		return all
	}
	a, b, c := revs[0].RID.Name(), revs[1].RID.Name(), revs[2].RID.Name()
	for _, tt := range []struct {
		name string
		q    isoswitch.LedgerQuery
		want []string
	}{
		{"all", isoswitch.LedgerQuery{Limit: 9}, []string{a, b, c}},
		{"the oldest first", isoswitch.LedgerQuery{Limit: 1}, []string{a}},
		{"open ones", isoswitch.LedgerQuery{Open: true, Limit: 9}, []string{a, b}},
		{"by state", isoswitch.LedgerQuery{State: isoswitch.Failed, Limit: 9}, []string{b}},
		{"by age", isoswitch.LedgerQuery{Before: day().Add(-time.Minute), Limit: 9}, []string{a}},
		{"by terminal", isoswitch.LedgerQuery{TID: "T0000001", Limit: 9}, []string{a, c}},
		{"R-15 by the STAN of the sale", isoswitch.LedgerQuery{TID: "T0000002", STAN: y.STAN, Limit: 9}, []string{b}},
		{"R-15 by the STAN of the reversal", isoswitch.LedgerQuery{TID: "T0000002", STAN: "000777", Limit: 9}, []string{b}},
		{"R-15 by date", isoswitch.LedgerQuery{TID: "T0000001", Date: "1122", Limit: 9}, []string{a, c}},
		{"R-15 by another date", isoswitch.LedgerQuery{TID: "T0000001", Date: "1123", Limit: 9}, nil},
		{"by upstream", isoswitch.LedgerQuery{Link: "issuer", Limit: 9}, []string{a, b, c}},
		{"by another upstream", isoswitch.LedgerQuery{Link: "other", Limit: 9}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := db.Entries(t.Context(), tt.q)
			must(t, err)
			if diff := cmp.Diff(tt.want, names(got)); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("by name, whole", func(t *testing.T) {
		got, err := db.Named(t.Context(), b)
		must(t, err)
		if diff := cmp.Diff(revs[1], got.Reversal); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
		if got.Txn == nil || got.Txn.OID != y.OID {
			t.Error("without its original")
		}
		for _, name := range []string{"", "k", a[:23] + "a", a + "k"} {
			if _, err := db.Named(t.Context(), name); !errors.Is(err, isoswitch.ErrNotFound) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
	t.Run("A-02 a case stays", func(t *testing.T) {
		r := *revs[1]
		r.Case, r.Resolved, r.Granted, r.Renewed = "C-1", day(), 0, day()
		update(t, db, func(tx isoswitch.Tx) error { return tx.UpdateReversal(&r) })
		got, err := db.Named(t.Context(), b)
		must(t, err)
		if diff := cmp.Diff(&r, got.Reversal); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
		if open, err := db.Entries(t.Context(), isoswitch.LedgerQuery{Open: true, Limit: 9}); err != nil || len(open) != 1 {
			t.Errorf("%d open, %v", len(open), err)
		}
		for name, change := range map[string]func(*isoswitch.Reversal){
			"another case": func(r *isoswitch.Reversal) { r.Case = "C-2" },
			"sent again":   func(r *isoswitch.Reversal) { r.State = isoswitch.Sent },
			"another time": func(r *isoswitch.Reversal) { r.Resolved = day().Add(time.Hour) },
		} {
			err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
				r, err := tx.Reversal(revs[1].RID)
				if err == nil {
					change(r)
					err = tx.UpdateReversal(r)
				}
				return err
			})
			if !errors.Is(err, ErrRule) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("A-23.T2 due, but for some terminals", func(t *testing.T) {
		view(t, db, func(tx isoswitch.Tx) error {
			for except, want := range map[string]int{"": 1, "T0000001": 0, "T0000009": 1} {
				due, err := tx.Due("issuer", day().Add(time.Hour), 10, []string{except})
				if err != nil || len(due) != want {
					t.Errorf("without %q: %d due, %v", except, len(due), err)
				}
			}
			return nil
		})
	})
	t.Run("R-16 depth by upstream and state", func(t *testing.T) {
		b, err := db.Backlog(t.Context())
		must(t, err)
		want := []Queue{{Upstream: "issuer", State: "QUEUED", Reversals: 1, Oldest: day().Add(-time.Hour)}}
		if diff := cmp.Diff(want, b.Queues); diff != "" {
			t.Errorf("depth (-want +got):\n%s", diff)
		}
	})
}
