package store

import (
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
