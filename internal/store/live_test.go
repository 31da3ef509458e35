package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"keyd.dev/keyd/internal/isoswitch"
)

// TestTransitions: the database lets an original go from state to state as
// section 2.2 of the reversals has it, and in no other way.
func TestTransitions(t *testing.T) {
	db := open(t)
	n := byte(0)
	for _, from := range isoswitch.States() {
		for _, to := range isoswitch.States() {
			n++
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				o := aTxn(n)
				o.OID, o.State, o.RefersTo = hash(n), from, isoswitch.OID{}
				update(t, db, func(tx isoswitch.Tx) error { return tx.InsertTxn(o) })
				o.State = to
				err := db.Update(context.Background(), func(tx isoswitch.Tx) error { return tx.UpdateTxn(o) })
				if may := isoswitch.MayBecome(from, to); may != (err == nil) || err != nil && !errors.Is(err, ErrRule) {
					t.Errorf("got %v, may it: %v", err, may)
				}
			})
		}
	}
}

// TestLive: at most one transaction at a time voids, completes or refunds another.
func TestLive(t *testing.T) {
	db := open(t)
	sale := aTxn(1)
	sale.RefersTo = isoswitch.OID{}
	void := func(n byte) *isoswitch.Txn {
		v := aTxn(n)
		v.RefersTo = sale.OID
		return v
	}
	update(t, db, func(tx isoswitch.Tx) error { return errors.Join(tx.InsertTxn(sale), tx.InsertTxn(void(10))) })
	live := func() (oid isoswitch.OID) {
		view(t, db, func(tx isoswitch.Tx) error {
			found, err := tx.Live(sale.OID)
			if err == nil {
				oid = found.OID
			}
			if errors.Is(err, isoswitch.ErrNotFound) {
				return nil
			}
			return err
		})
		return oid
	}
	if live() != hash(10) {
		t.Error("the void is not found")
	}
	err := db.Update(t.Context(), func(tx isoswitch.Tx) error { return tx.InsertTxn(void(20)) })
	if !errors.Is(err, isoswitch.ErrExists) {
		t.Errorf("a second void beside the first: %v, want ErrExists", err)
	}
	update(t, db, func(tx isoswitch.Tx) error {
		first := void(10)
		first.State = isoswitch.ReversalPending
		return tx.UpdateTxn(first)
	})
	if live() != hash(10) {
		t.Error("a void whose reversal is not confirmed is not live")
	}
	update(t, db, func(tx isoswitch.Tx) error {
		first := void(10)
		first.State = isoswitch.Reversed
		return tx.UpdateTxn(first)
	})
	if live() != (isoswitch.OID{}) {
		t.Error("a void that was reversed is live")
	}
	update(t, db, func(tx isoswitch.Tx) error { return tx.InsertTxn(void(20)) })
	if live() != hash(20) {
		t.Error("the second void is not found")
	}
}

// TestLiveStates: what has voided, completed or refunded an original does so in
// each state but those in which it came to nothing. The query and the index that
// forbids a second one beside it say the same.
func TestLiveStates(t *testing.T) {
	live := map[isoswitch.State]bool{
		isoswitch.Received: true, isoswitch.Forwarded: true, isoswitch.Approved: true, isoswitch.Unknown: true,
		isoswitch.ReversalPending: true, isoswitch.ReversalFailed: true, isoswitch.ReversalHeld: true,
		isoswitch.Voided: true, isoswitch.Completed: true, isoswitch.Tombstone: true,
		isoswitch.Declined: false, isoswitch.Reversed: false, isoswitch.ReversedUnknown: false, isoswitch.LocalVoid: false,
	}
	for _, state := range isoswitch.States() {
		t.Run(string(state), func(t *testing.T) {
			want, listed := live[state]
			if !listed {
				t.Fatal("nobody said whether such a one is live")
			}
			db := open(t)
			first, second := aTxn(1), aTxn(100)
			first.State, first.RefersTo = state, hash(200)
			second.RefersTo = hash(200)
			update(t, db, func(tx isoswitch.Tx) error { return tx.InsertTxn(first) })
			view(t, db, func(tx isoswitch.Tx) error {
				_, err := tx.Live(hash(200))
				if want != (err == nil) || err != nil && !errors.Is(err, isoswitch.ErrNotFound) {
					t.Errorf("looking for it gave %v, want it live: %v", err, want)
				}
				return nil
			})
			err := db.Update(t.Context(), func(tx isoswitch.Tx) error { return tx.InsertTxn(second) })
			if want != errors.Is(err, isoswitch.ErrExists) || !want && err != nil {
				t.Errorf("a second one beside it gave %v, want the first live: %v", err, want)
			}
		})
	}
}
