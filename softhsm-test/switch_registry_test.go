package softhsmtest_test

import (
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
)

// TestSwitchRegistry is what the registry says of a terminal, as the switch has it.
func TestSwitchRegistry(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	t.Run("D-02 a suspended terminal gets 58 until it is resumed", h.refusesSuspended)
	t.Run("D-02 a terminal with a master key is not served yet", h.refusesMasterKeys)
	t.Run("a terminal's own limit is below that of the switch", h.limitsTerminal)
}

// set changes what is registered of a terminal.
func (h *house) set(tid string, change func(*custody.Terminal)) {
	h.t.Helper()
	must(h.t, h.db.ChangeRegistry(h.t.Context(), func(ch custody.TerminalChange) error {
		t, err := ch.Terminal(tid)
		if err != nil {
			return err
		}
		change(&t)
		return ch.SetTerminal(t)
	}))
}

func (h *house) refusesSuspended(t *testing.T) {
	p := h.pos(0)
	sale, answer := p.sell(1200)
	for _, status := range []custody.TerminalStatus{custody.Suspended, custody.Retired} {
		h.set("T0000001", func(t *custody.Terminal) { t.Status = status })
		sent, err := p.Sale(1200, visa, nil)
		wantCode(t, p.ask(sent, err), "58")
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "58")
	}
	h.set("T0000001", func(t *custody.Terminal) { t.Status = custody.InService })
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
}

func (h *house) refusesMasterKeys(t *testing.T) {
	p := h.pos(2)
	h.set("T0000003", func(t *custody.Terminal) {
		*t = custody.Terminal{
			TID: t.TID, MID: t.MID, Scheme: custody.SchemeMaster, Profile: "unionpay", MACBytes: 8, Status: custody.InService,
			Master: keys.ID("0123456789abcdef0123456789abcdef"),
		}
	})
	sent, err := p.Sale(1200, visa, nil)
	must(t, err)
	wantCode(t, p.parsed(sent.Raw), "58")
}

func (h *house) limitsTerminal(t *testing.T) {
	p := h.pos(3)
	h.set("T0000100", func(t *custody.Terminal) { t.Most = 1500 })
	sent, err := p.Sale(1501, visa, nil)
	wantCode(t, p.ask(sent, err), "61")
	p.sell(1500)
}
