package softhsmtest_test

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchFront is what a client meets that was written from the dialect's
// page alone.
func TestSwitchFront(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	t.Run("R-08 W-03 a hundred copies of a reversal in one write", h.answersAHundred)
	t.Run("D-07 W-16 a repeat keeps the reference of the approval", h.keepsReference)
	t.Run("R-44 D-15 a refused repeat keeps the reference too", h.keepsReferenceRefused)
	t.Run("A-14.T2 W-18 an answer that fits no answer is a security event", h.ignoresMisfits)
}

// answersAHundred sends a byte-equal reversal a hundred times without reading.
func (h *house) answersAHundred(t *testing.T) {
	p := h.pos(0)
	sale, answer := p.sell(2400)
	reversal, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	const copies = 100
	for range copies {
		must(t, p.link.Send(reversal.Raw))
	}
	for range copies {
		raw, err := p.link.Receive()
		must(t, err)
		m, err := p.Answer(reversal, raw)
		must(t, err)
		wantCode(t, m, "00")
		if m.Text(37) != answer.Text(37) || m.Text(38) != answer.Text(38) {
			t.Error("an answer has another reference or approval code")
		}
	}
	h.awaitReversed(sale)
}

func (h *house) keepsReference(t *testing.T) {
	p := h.pos(1)
	sale, first := p.sell(2402)
	again, err := p.Sale(2402, visa, func(b *iso8583.Builder) {
		b.Copy(sale.Message, 7, 11, 12, 13).Set(37, "OTHERRRN0001")
	})
	must(t, err)
	repeated := p.ask(again, nil)
	wantCode(t, repeated, "00")
	if repeated.Text(37) != first.Text(37) {
		t.Errorf("the repeat got another reference than the approval")
	}
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, repeated, nil), "00")
}

// keepsReferenceRefused repeats a sale that upstream never answered: 94 with the
// reference by which its reversal can name it.
func (h *house) keepsReferenceRefused(t *testing.T) {
	p := h.pos(1)
	p.Terminal = h.advance(1, 100)
	sale, unanswered := p.sell(2499) // the issuer is silent
	wantCode(t, unanswered, "68")
	h.awaitReversed(sale)
	again, err := p.Sale(2499, visa, func(b *iso8583.Builder) { b.Copy(sale.Message, 7, 11, 12, 13) })
	must(t, err)
	repeated := p.ask(again, nil)
	wantCode(t, repeated, "94")
	if repeated.Text(37) != unanswered.Text(37) {
		t.Error("the refusal has another reference than the sale")
	}
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, repeated, nil), "00") // D-19
}

// ignoresMisfits sends the fields of a sale under the MTI of an answer.
func (h *house) ignoresMisfits(t *testing.T) {
	p := h.pos(0)
	sale, err := p.Sale(2404, visa, nil)
	must(t, err)
	events := func() int {
		return len(h.records(func(r record) bool { return r.Reason == "unexpected_response" && r.ISO.Alert == "security" }))
	}
	before := events()
	must(t, p.link.Send(append([]byte("0210"), sale.Raw[4:]...)))
	eventually(t, "the answer is recorded", func() bool { return events() == before+1 })
}

func declinedIsTriedSoon(t *testing.T) {
	const patience = 4 * time.Second
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' {
			return [][]byte{b.approve(m)}
		}
		return [][]byte{b.seal(m.Answer("96"))}
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream, c.Timers.Switch = patience, patience+time.Second
	})
	p := h.pos(0)
	sale, answer := p.sell(1000)
	start := time.Now()
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	eventually(t, "the reversal is given up", func() bool { return h.find(sale).State == isoswitch.ReversalFailed })
	if took := time.Since(start); took > patience {
		t.Errorf("%d tries took %v, as if upstream were silent", len(b.reversals()), took)
	}
}
