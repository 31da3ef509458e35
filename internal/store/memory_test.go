package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// accepted inserts an original and takes a counter for it.
func accepted(t *testing.T, db *DB, n byte) *isoswitch.Txn {
	t.Helper()
	one := aTxn(n)
	update(t, db, func(tx isoswitch.Tx) error {
		if err := tx.Accept("FFFF9876543210E0", uint32(n), hash(n), day()); err != nil {
			return err
		}
		return tx.InsertTxn(one)
	})
	return one
}

// settled reads the original again and writes its outcome.
func settled(db *DB, oid isoswitch.OID) (read isoswitch.Txn, err error) {
	err = db.Update(context.Background(), func(tx isoswitch.Tx) error {
		there, err := tx.Txn(oid)
		if err != nil {
			return err
		}
		read = *there
		there.State, there.Approval = isoswitch.Approved, "B54321"
		return tx.UpdateTxn(there)
	})
	return read, err
}

// TestRememberedIsWhatIsStored: what the writer remembers of an original is what
// its row says, and what is written by it is a row that keyd wrote.
func TestRememberedIsWhatIsStored(t *testing.T) {
	db := open(t)
	one := accepted(t, db, 1)
	if got := len(db.writer.session.memory.sales); got != 1 {
		t.Fatalf("%d originals are remembered, want 1", got)
	}
	one.EMV[0] = 0xFF // the message's buffer is used for the next
	read, err := settled(db, one.OID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*aTxn(1), read); diff != "" {
		t.Errorf("remembered (-inserted +read):\n%s", diff)
	}
	if got := len(db.writer.session.memory.sales); got != 0 {
		t.Errorf("%d originals are remembered after their outcome", got)
	}
	want := aTxn(1)
	want.State, want.Approval = isoswitch.Approved, "B54321"
	err = db.View(t.Context(), func(tx isoswitch.Tx) error {
		there, err := tx.Txn(one.OID)
		if err == nil && cmp.Diff(want, there) != "" {
			t.Errorf("stored (-want +got):\n%s", cmp.Diff(want, there))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestR50RememberedIsForgotten: what somebody else wrote, and what was undone, is
// read from the database again.
func TestR50RememberedIsForgotten(t *testing.T) {
	const device = "FFFF9876543210E0"
	for name, c := range map[string]struct {
		between func(t *testing.T, path string, db *DB)
		want    error
	}{
		"an amount was changed": {func(t *testing.T, path string, _ *DB) {
			breakInto(t, path).do("UPDATE txn SET amount = 1")
		}, custody.ErrTampered},
		"the row was removed": {func(t *testing.T, path string, _ *DB) {
			breakInto(t, path).do("DELETE FROM txn")
		}, isoswitch.ErrNotFound},
		"a job without the journal's methods": {func(t *testing.T, _ string, db *DB) {
			if err := db.update(t.Context(), func(s *session) error { return s.run("DELETE FROM txn") }); err == nil {
				t.Error("an original was removed past the triggers")
			}
		}, nil},
		"a job was undone": {func(t *testing.T, _ string, db *DB) {
			no := errors.New("no")
			err := db.Update(t.Context(), func(tx isoswitch.Tx) error {
				if err := tx.Accept(device, 9, hash(9), day()); err != nil {
					return err
				}
				if err := tx.InsertTxn(aTxn(9)); err != nil {
					return err
				}
				return no
			})
			if !errors.Is(err, no) {
				t.Error(err)
			}
			if _, err := settled(db, hash(9)); !errors.Is(err, isoswitch.ErrNotFound) {
				t.Errorf("an original that was never committed is read: %v", err)
			}
			accepted(t, db, 2) // its counter and its row's number are free
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyd.db")
			db := openAt(t, path, Serve)
			one := accepted(t, db, 1)
			c.between(t, path, db)
			if _, err := settled(db, one.OID); !errors.Is(err, c.want) {
				t.Errorf("settling gave %v, want %v", err, c.want)
			}
		})
	}
}

// TestR50RememberedCounter: a counter that somebody set back is found in spite of
// what is remembered.
func TestR50RememberedCounter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	db := openAt(t, path, Serve)
	accepted(t, db, 5)
	if got := db.writer.session.memory.counters["FFFF9876543210E0"]; got != 5 {
		t.Fatalf("counter %d is remembered, want 5", got)
	}
	breakInto(t, path).do("UPDATE ksn SET counter = 4")
	err := db.Update(t.Context(), func(tx isoswitch.Tx) error { return tx.Accept("FFFF9876543210E0", 6, hash(6), day()) })
	if !errors.Is(err, custody.ErrTampered) {
		t.Errorf("a counter was taken behind one that was set back: %v", err)
	}
}
