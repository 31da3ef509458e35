package softhsmtest_test

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitch runs the switch over a real token, database, log and TLS.
func TestSwitch(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	t.Run("W-07 a sale with PIN, TDES DUKPT", func(t *testing.T) { saleIsApproved(t, h, 0, 1000) })
	t.Run("W-07 a sale with PIN, AES DUKPT", func(t *testing.T) { saleIsApproved(t, h, 1, 2000) })
	t.Run("D-21 D-07 a reversal takes effect once", func(t *testing.T) { reversedOnce(t, h) })
}

func saleIsApproved(t *testing.T, h *house, n int, amount int64) {
	p := h.pos(n)
	sale, answer := p.sell(amount)
	wantCode(t, answer, "00")
	if answer.MTI() != "0210" || answer.Text(37) == "" || answer.Text(38) == "" {
		t.Errorf("the answer is %v with RRN %q and approval %q", answer, answer.Text(37), answer.Text(38))
	}
	if e := h.booked(sale); e == nil || e.PIN != "right" {
		t.Errorf("the issuer has %+v, want the right PIN", e)
	}
}

func reversedOnce(t *testing.T, h *house) {
	p := h.pos(2)
	sale, answer := p.sell(3000)
	first := p.undo(iso8583.ReversalRequest, sale, answer, nil)
	wantCode(t, first, "00")
	h.awaitReversed(sale)
	for _, mti := range []iso8583.MTI{iso8583.ReversalRepeat, iso8583.ReversalRequest, iso8583.ReversalAdvice, iso8583.ReversalAdviceRepeat} {
		again := p.undo(mti, sale, answer, nil)
		if got, want := again.Text(39)+again.Text(37)+again.Text(38), first.Text(39)+first.Text(37)+first.Text(38); got != want {
			t.Errorf("%s got %q, want the stored answer %q", mti, got, want)
		}
	}
	time.Sleep(50 * time.Millisecond)
	h.awaitReversed(sale)
}
