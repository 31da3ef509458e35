package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// BenchmarkUpdate advances KSN counters, a device to a caller.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := open(b)
			b.SetParallelism(callers)
			var callerNo atomic.Int32
			b.RunParallel(func(pb *testing.PB) {
				device := isoswitch.Device(fmt.Sprintf("%020X", int(callerNo.Add(1))<<24))
				for counter := uint32(1); pb.Next(); counter++ {
					err := db.Update(b.Context(), func(tx isoswitch.Tx) error {
						return tx.Accept(device, counter, isoswitch.Hash{}, time.Unix(1, 0))
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkSale journals a sale and its outcome, as the switch does.
func BenchmarkSale(b *testing.B) {
	db := open(b)
	b.SetParallelism(32)
	var callerNo atomic.Int32
	b.RunParallel(func(pb *testing.PB) {
		caller := int(callerNo.Add(1))
		for counter := uint32(1); pb.Next(); counter++ {
			sale := aTxn(1)
			sale.OID = sha256.Sum256(fmt.Appendf(nil, "%d %d", caller, counter))
			sale.Key = isoswitch.LookupKey(sale.OID)
			sale.RRN = fmt.Sprintf("%06d%06d", caller, counter)
			sale.Approval = fmt.Sprintf("%06d", counter*7919%999983)
			sale.Card.Token = fmt.Sprintf("k1:%d", counter*7919)
			err := db.Update(b.Context(), func(tx isoswitch.Tx) error {
				if _, err := tx.Newest(sale.Key, day()); !errors.Is(err, isoswitch.ErrNotFound) {
					return fmt.Errorf("newest: %v", err)
				}
				return errors.Join(tx.Accept(device(caller), counter, isoswitch.Hash{}, day()), tx.InsertTxn(sale))
			})
			if err != nil {
				b.Error(err)
				return
			}
			sale.State = isoswitch.Approved
			if err := db.Update(b.Context(), func(tx isoswitch.Tx) error { return tx.UpdateTxn(sale) }); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkTerminal looks a terminal up, as every message does.
func BenchmarkTerminal(b *testing.B) {
	db := open(b)
	if err := db.AddTerminal(b.Context(), aTerminal(1)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := db.Terminal(b.Context(), "T0000001"); err != nil {
			b.Fatal(err)
		}
	}
}
