package store

import (
	"errors"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/isoswitch"
)

// TestPreparedOnce: what a message asks of the journal is prepared once a session,
// not again for other values: that took longer than the asking.
func TestPreparedOnce(t *testing.T) {
	db := open(t)
	work := func(n byte) {
		other := func(oid isoswitch.OID) *isoswitch.Reversal {
			r := aReversal(n+40, oid)
			r.Built = day().Add(time.Duration(n) * time.Second)
			return r
		}
		absent := func(err error) error {
			if errors.Is(err, isoswitch.ErrNotFound) {
				return nil
			}
			return err
		}
		at := day().Add(time.Duration(n) * time.Minute)
		update(t, db, func(tx isoswitch.Tx) error {
			sale := aTxn(n)
			sale.RefersTo = isoswitch.OID{}
			return errors.Join(
				tx.InsertTxn(sale), tx.UpdateTxn(sale), tx.InsertReversal(other(hash(n))), tx.UpdateReversal(other(hash(n))),
				tx.Accept(device(int(n)), uint32(n), hash(n), at), tx.Accept(device(int(n)), uint32(n)+1, hash(n), at),
				tx.Advance(device(int(n)), uint32(n)+2, at),
				func() error { _, err := tx.LastCounter(device(int(n))); return err }(),
				func() error { _, err := tx.AcceptedUnder(device(int(n)), uint32(n)); return err }(),
				func() error { _, err := tx.Newest(hash(n+1), at.Add(-time.Hour)); return absent(err) }(),
				func() error { _, err := tx.Newest(hash(n+9), at); return absent(err) }(),
				func() error { _, err := tx.Txn(hash(n)); return err }(),
				func() error { _, err := tx.Live(hash(n + 3)); return absent(err) }(),
				func() error { _, err := tx.Reversal(hash(n + 40)); return err }(),
				func() error { _, err := tx.Due("issuer", at, 1, nil); return err }(),
				func() error { _, err := tx.OpenBefore(hash(n), at); return err }(),
				func() error { _, err := tx.NextDue("issuer"); return err }(),
				func() error { _, err := tx.Reserve("stan", uint64(n)); return err }(),
			)
		})
	}
	work(1)
	prepared := 0
	// SQLite asks the authorizer while it prepares, and at no other time.
	db.writer.session.lite.RegisterAuthorizer(func(int, string, string, string) int {
		prepared++
		return sqlite3.SQLITE_OK
	})
	work(2) // once more: an authorizer lets go of what was prepared
	prepared = 0
	work(3)
	if prepared != 0 {
		t.Errorf("statements were prepared again: the authorizer was asked %d times", prepared)
	}
}
