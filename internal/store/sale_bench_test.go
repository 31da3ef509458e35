package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// saleTerminals is how many terminals the sales of the benchmarks come from.
const saleTerminals = 1000

// saleOf is the n-th sale of a journal as the switch makes them: of a time that
// rises, with names that are digests.
func saleOf(n int) *isoswitch.Txn {
	digest := func(kind string) [32]byte { return sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n)) }
	card, token, approval := digest("card"), digest("token"), digest("approval")
	at := day().Add(time.Duration(n) * 500 * time.Microsecond)
	sent := at.Format("0102150405")
	t := &isoswitch.Txn{
		OID: digest("oid"), Key: digest("key"), Link: "issuer", Received: at, MTI: "0200",
		Card:       custody.Card{Sealed: card[:29], Token: "k1:" + hex.EncodeToString(token[:16])},
		Processing: "000000", Amount: int64(100 + n%9973), Sent: sent, STAN: fmt.Sprintf("%06d", n%1_000_000), Time: sent[4:], Date: sent[:4],
		Entry: "051", Condition: "00", TID: fmt.Sprintf("T%07d", 1+n%saleTerminals), MID: "M00000000000001", Currency: "978",
		KSN: fmt.Sprintf("FFFF%09X0%06X", n%saleTerminals, 1+n/saleTerminals), MACKey: keyID(1), Content: digest("content"), Raw: digest("raw"),
		UpSTAN: fmt.Sprintf("%06d", n%1_000_000), UpSent: sent,
		State: isoswitch.Forwarded, RRN: fmt.Sprintf("532%09d", n),
	}
	t.Approval = fmt.Sprintf("%06d", (uint32(approval[0])<<16|uint32(approval[1])<<8|uint32(approval[2]))%1_000_000)
	return t
}

// acceptSale is the switch's first transaction of a sale.
func acceptSale(ctx context.Context, db *DB, sale *isoswitch.Txn, counter uint32) error {
	approval := sale.Approval
	sale.Approval = ""
	defer func() { sale.Approval = approval }()
	return db.Update(ctx, func(tx isoswitch.Tx) error {
		from := isoswitch.Device(sale.KSN[:14] + "000000")
		if last, err := tx.LastCounter(from); err != nil || last >= counter {
			return fmt.Errorf("counter %d after %d, %w", counter, last, err)
		}
		if err := tx.Advance(from, counter, sale.Received); err != nil {
			return err
		}
		if _, err := tx.Newest(sale.Key, sale.Received.Add(-7*24*time.Hour)); !errors.Is(err, isoswitch.ErrNotFound) {
			return fmt.Errorf("newest: %w", err)
		}
		return tx.InsertTxn(sale)
	})
}

// settleSale is its second.
func settleSale(ctx context.Context, db *DB, oid isoswitch.OID, approval string, at time.Time) error {
	return db.Update(ctx, func(tx isoswitch.Tx) error {
		t, err := tx.Txn(oid)
		if err != nil {
			return err
		}
		t.State, t.Answer, t.Approval, t.Finished = isoswitch.Approved, "00", approval, at
		return tx.UpdateTxn(t)
	})
}

// fillSales brings the journal to so many sales.
func fillSales(tb testing.TB, db *DB, sales int) {
	const page = 500
	for first := 0; first < sales; first += page {
		update(tb, db, func(tx isoswitch.Tx) error {
			for n := first; n < min(first+page, sales); n++ {
				s := saleOf(n)
				s.State, s.Answer, s.Finished = isoswitch.Approved, "00", s.Received
				if err := tx.InsertTxn(s); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// BenchmarkSale is all that the switch asks of the store for a sale: the
// terminal, the sale, its outcome. The journal holds so many sales already;
// KEYD_BENCH_ROWS names another number.
func BenchmarkSale(b *testing.B) {
	sizes := []int{10_000}
	if text := os.Getenv("KEYD_BENCH_ROWS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		sizes = []int{n}
	}
	for _, rows := range sizes {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			db := open(b)
			for n := range saleTerminals {
				t := aTerminal(1)
				t.TID, t.Device = fmt.Sprintf("T%07d", 1+n), isoswitch.Device(fmt.Sprintf("FFFF%09X0000000", n))
				if n%100 == 0 { // the others are read in the same way
					if err := db.AddTerminal(b.Context(), t); err != nil {
						b.Fatal(err)
					}
				}
			}
			fillSales(b, db, rows)
			benchSales(b, db, rows)
		})
	}
}

func benchSales(b *testing.B, db *DB, from int) {
	var callers, sales atomic.Int64
	sales.Store(int64(from))
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	spent := newMeter(b)
	b.RunParallel(func(pb *testing.PB) {
		caller := int(callers.Add(1))
		tid := fmt.Sprintf("T%07d", 1+caller*100%saleTerminals)
		for counter := uint32(1 + from/saleTerminals); pb.Next(); counter++ {
			sale := saleOf(int(sales.Add(1)))
			spent.tick(b)
			sale.KSN = fmt.Sprintf("FFFF%09X0%06X", caller, counter)
			if _, err := db.Terminal(b.Context(), tid); err != nil {
				b.Error(err)
				return
			}
			if err := acceptSale(b.Context(), db, sale, counter); err != nil {
				b.Error(err)
				return
			}
			if err := settleSale(b.Context(), db, sale.OID, sale.Approval, sale.Received); err != nil {
				b.Error(err)
				return
			}
		}
	})
	spent.report(b)
}

// meter measures the processor time of operations, also by the window: on a
// machine that has other work the best of many short ones says more than the mean.
type meter struct {
	mu      sync.Mutex
	ticks   int
	first   time.Duration
	last    time.Duration
	windows []time.Duration
}

const window = 500 // operations

func newMeter(tb testing.TB) *meter {
	now := processorTime(tb)
	return &meter{first: now, last: now}
}

func (m *meter) tick(tb testing.TB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ticks++; m.ticks%window == 0 {
		now := processorTime(tb)
		m.windows = append(m.windows, now-m.last)
		m.last = now
	}
}

func (m *meter) report(b *testing.B) {
	b.ReportMetric(float64(processorTime(b)-m.first)/float64(b.N), "cpu-ns/op")
	if len(m.windows) > 0 {
		slices.Sort(m.windows)
		b.ReportMetric(float64(m.windows[0])/window, "best-cpu-ns/op")
		b.ReportMetric(float64(m.windows[len(m.windows)/4])/window, "quarter-cpu-ns/op")
	}
}

// processorTime is what this process has used up.
func processorTime(tb testing.TB) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
