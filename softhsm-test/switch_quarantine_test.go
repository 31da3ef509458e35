package softhsmtest_test

import (
	"strings"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestQuarantine is R-23: so many reversals in an hour make a terminal suspect. Its
// pending reversals go on; its sales do what the configuration says.
func TestQuarantine(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		c.Limits.Quarantine = isoswitch.Quarantine{After: 2, Action: isoswitch.QuarantineBlock}
	})
	alerts := func() int {
		return len(h.records(func(r record) bool { return r.Action == "reversal.accept" && r.ISO.Alert == "fraud" }))
	}
	p, other := h.pos(0), h.pos(2)
	t.Run("R-23 block: a sale gets 58, a reversal of before goes on", func(t *testing.T) {
		pending, answer := p.sell(9000)
		for n := range 2 {
			sale, answer := p.sell(int64(9002 + 2*n))
			wantCode(t, answer, "00")
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
			if got := alerts(); got != n {
				t.Errorf("%d alerts after %d reversals", got, n+1)
			}
		}
		refused, code := p.sell(9010)
		wantCode(t, code, "58")
		if h.booked(refused) != nil {
			t.Error("the sale of a suspect terminal went upstream")
		}
		wantCode(t, p.undo(iso8583.ReversalRequest, pending, answer, nil), "00")
		h.awaitReversed(pending)
		if got := alerts(); got != 2 {
			t.Errorf("%d alerts, want 2", got)
		}
		_, code = other.sell(9012)
		wantCode(t, code, "00")
		h.sw.Unlock("T0000001")
		_, code = p.sell(9014)
		wantCode(t, code, "00")
	})
	t.Run("R-23 sign_in: a sale gets 63 until the terminal signs on with its keys", func(t *testing.T) {
		h.renew(t, func(l *isoswitch.Limits) { l.Quarantine.Action = isoswitch.QuarantineSignIn })
		for n := range 2 {
			sale, answer := p.sell(int64(9020 + 2*n))
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		}
		_, answer := p.sell(9030)
		wantCode(t, answer, "63")
		wantCode(t, p.ask(p.Network("001")), "00")
		_, answer = p.sell(9032)
		wantCode(t, answer, "00")
	})
	t.Run("R-23 alert: sales go on", func(t *testing.T) {
		h.renew(t, func(l *isoswitch.Limits) { l.Quarantine.Action = isoswitch.QuarantineAlert })
		before := alerts()
		for n := range 3 {
			sale, answer := p.sell(int64(9040 + 2*n))
			wantCode(t, answer, "00")
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		}
		if got := alerts() - before; got != 2 {
			t.Errorf("%d alerts for three reversals, want 2", got)
		}
	})
}

// TestQuarantineOfMasterKey is R-23 for a terminal that signs in without a MAC:
// anybody can do that. The quarantine ends with the first message under the keys
// that were given out.
func TestQuarantineOfMasterKey(t *testing.T) {
	h := newMasterHouse(t, 0)
	h.renew(t, func(l *isoswitch.Limits) {
		l.Quarantine = isoswitch.Quarantine{After: 2, Action: isoswitch.QuarantineSignIn}
	})
	u := h.terminal()
	u.signIn("003")
	for n := range 2 {
		sale := u.sealed(u.sale(int64(100 + 2*n)))
		answer := u.believed(u.exchange(sale))
		wantCode(t, answer, "00")
		wantCode(t, u.believed(u.exchange(u.sealed(u.reversal(u.parsed(sale), answer)))), "00")
	}
	ended := func() bool { return strings.Contains(h.logs.String(), "the quarantine of a terminal ends") }
	wantCode(t, u.believed(u.exchange(u.sealed(u.sale(200)))), h.speech.Codes.MACError)
	raw, err := u.begin(iso8583.NetworkRequest).Set(60, "00000024003").Set(63, "01 ").PackWithoutMAC()
	must(t, err)
	wantCode(t, u.exchange(raw), "00") // a stranger's: the keys go nowhere
	if ended() {
		t.Error("a sign-in without a MAC ended the quarantine")
	}
	u.signIn("003")
	if ended() {
		t.Error("a sign-in without a MAC ended the quarantine")
	}
	wantCode(t, u.believed(u.exchange(u.sealed(u.sale(300)))), "00")
	if !ended() {
		t.Error("a message under the new keys did not end it")
	}
}
