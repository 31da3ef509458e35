package softhsmtest_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// BenchmarkSwitchSale makes sales with PIN from fifty terminals at once, on ten
// connections, through the whole switch.
func BenchmarkSwitchSale(b *testing.B) {
	h, _ := newScripted(b, func(k *bank, m *iso8583.Message) [][]byte { return [][]byte{k.approve(m)} }, func(c *isoswitch.Config) {
		c.Timers.Upstream, c.Timers.Switch, c.Timers.Terminal = 20*time.Second, 25*time.Second, time.Minute
	})
	const terminals, perTerminal = 50, 2
	var all []*sim.Terminal
	for n := range terminals {
		tid, ksn := fmt.Sprintf("L0000%03d", n), fmt.Sprintf("FFFF98765520%02X000001", n)
		must(b, h.db.AddTerminal(b.Context(), isoswitch.Terminal{
			TID: tid, MID: "M00000000000100", Scheme: isoswitch.TDESDUKPT, BDK: "alias/dev/bdk-tdes",
			Device: tdesDevice(b, ksn), MACBytes: 8,
		}))
		term, err := sim.NewTerminal(sim.TerminalConfig{TID: tid, MID: "M00000000000100", BDK: testKeys()["alias/dev/bdk-tdes"], KSN: ksn}, 0)
		must(b, err)
		all = append(all, term)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var approved atomic.Int64
	var work sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for _, term := range all {
		link := h.dial("terminal")
		work.Go(func() {
			for left.Add(-perTerminal) > -perTerminal {
				for range perTerminal {
					sale, err := term.Sale(1000, visa, nil)
					if err == nil {
						err = link.Send(sale.Raw)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
				for range perTerminal {
					raw, err := link.Receive()
					if err != nil {
						b.Error(err)
						return
					}
					m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
					if err != nil || m.Text(39) != "00" {
						b.Errorf("answer %v: %v", m, err)
						return
					}
					approved.Add(1)
				}
			}
		})
	}
	work.Wait()
	b.StopTimer()
	b.ReportMetric(float64(approved.Load())/time.Since(start).Seconds(), "sales/s")
}
