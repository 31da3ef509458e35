package softhsmtest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
)

// TestSwitchOvertaken is D-30 against an upstream that meets the reversal before
// the sale, as it may where they come over two links.
func TestSwitchOvertaken(t *testing.T) {
	t.Run("D-30 the sale arrives after its reversal", func(t *testing.T) {
		var arrived atomic.Bool
		h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			switch {
			case m.MTI().Class() != '4':
				return nil
			case !arrived.Load():
				return [][]byte{b.seal(m.Answer("25"))}
			}
			return [][]byte{b.approve(m)}
		}, func(c *isoswitch.Config) { c.Timers.Upstream = 200 * time.Millisecond; c.Timers.Stray = time.Minute })
		p := h.pos(0)
		sale, answer := p.sell(1000)
		wantCode(t, answer, "68")
		eventually(t, "upstream has said 25 more than once", func() bool { return len(b.reversals()) > 2 })
		if got := h.find(sale).State; got != isoswitch.ReversalPending {
			t.Fatalf("the sale is %s while it may arrive", got)
		}
		arrived.Store(true)
		b.write(b.approve(b.received(iso8583.FinancialRequest)[0]))
		eventually(t, "the sale is reversed", func() bool { return h.find(sale).State == isoswitch.Reversed })
		eventually(t, "the late approval is kept", func() bool { return h.find(sale).Late == "00 A1B2C3" })
		for n, m := range b.reversals() {
			if want := iso8583.MTI("0421"); n > 0 && m.MTI() != want || n == 0 && m.MTI() != "0420" {
				t.Errorf("message %d is a %s", n, m.MTI())
			}
		}
	})
	t.Run("D-30 the sale never arrives", func(t *testing.T) {
		h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			if m.MTI().Class() != '4' {
				return nil
			}
			return [][]byte{b.seal(m.Answer("25"))}
		}, func(c *isoswitch.Config) { c.Timers.Upstream, c.Timers.Stray = 200*time.Millisecond, time.Second })
		p := h.pos(0)
		sale, answer := p.sell(1000)
		wantCode(t, answer, "68")
		eventually(t, "T_stray is over", func() bool { return h.find(sale).State == isoswitch.ReversedUnknown })
		eventually(t, "the end is recorded", func() bool {
			return len(h.records(func(r record) bool { return r.Action == "reversal.close" && r.ISO.Rule == "D-30" })) == 1
		})
		if early := h.records(func(r record) bool {
			return r.Action == "reversal.answer" && r.ISO.Rule == "D-30" && r.Outcome == "refused"
		}); len(early) == 0 {
			t.Error("no record of a 25 that was not the last word")
		}
	})
	t.Run("D-30 approved after the last 25", func(t *testing.T) {
		h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			if m.MTI().Class() != '4' {
				return nil
			}
			return [][]byte{b.seal(m.Answer("25"))}
		}, func(c *isoswitch.Config) { c.Timers.Upstream, c.Timers.Stray = 200*time.Millisecond, time.Minute })
		p := h.pos(0)
		sale, answer := p.sell(1000)
		wantCode(t, answer, "68")
		eventually(t, "upstream has said 25", func() bool { return len(b.reversals()) > 0 })
		c := h.config() // a shorter T_stray, while the answer to the sale is awaited for the longer one
		c.Timers.Stray = 300 * time.Millisecond
		must(t, h.sw.Renew(isoswitch.Settings{Limits: c.Limits, Timers: c.Timers, Retry: c.Retry, Lockout: c.Lockout, Routes: c.Routes}))
		eventually(t, "the 25 is the last word", func() bool { return h.find(sale).State == isoswitch.ReversedUnknown })
		b.write(b.approve(b.received(iso8583.FinancialRequest)[0]))
		eventually(t, "the debit that stands is told", func() bool {
			return len(h.records(func(r record) bool {
				return r.Action == "reversal.fail" && r.ISO.Rule == "D-30" && r.ISO.Alert == "security" && r.ISO.DE39 == "00"
			})) == 1
		})
		if got := h.find(sale); got.Late != "00 A1B2C3" || got.State != isoswitch.ReversedUnknown {
			t.Errorf("the journal says %s, late %q", got.State, got.Late)
		}
	})
}
