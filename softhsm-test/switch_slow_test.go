package softhsmtest_test

import (
	"bytes"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestW19SlowedConnection: whatever comes by a connection that is slowed down waits
// as long as it must, gets its own answer once, in the order of its terminal, and
// is counted; who comes by another connection does not wait.
func TestW19SlowedConnection(t *testing.T) {
	const slow = time.Second
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		c.Lockout.Flood, c.Lockout.Records, c.Lockout.Slow = 1, 1, slow
		c.Limits.Outstanding = 100 // those after it wait until there is room again
	})
	bad, other, honest := h.pos(0), h.pos(1), h.pos(2)
	sale, answer := bad.sell(1400)
	honest.sell(1402)
	forged := func() []byte {
		t.Helper()
		made, err := bad.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		raw := bytes.Clone(made.Raw)
		raw[len(raw)-1] = "10"[btoi(raw[len(raw)-1] == '1')]
		return raw
	}
	before := h.counted()
	for range 5 {
		wantCode(t, bad.parsed(forged()), "63")
	}
	type asked struct {
		sent *sim.Sent // nil for what cannot be believed
		by   *sim.Terminal
		code string
	}
	waiting := map[string]asked{} // by TID and STAN
	var all [][]byte
	ask := func(raw []byte, a asked) {
		t.Helper()
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		waiting[m.Text(41)+m.Text(11)] = a
		all = append(all, raw)
	}
	const forgeries = 150
	for n := range forgeries {
		ask(forged(), asked{code: "63"})
		if n%50 == 49 {
			all[n] = append(all[n], 0) // a byte too many: it stands in the lane like the others
		}
	}
	on, err := bad.Network("001")
	must(t, err)
	ask(on.Raw, asked{on, bad.Terminal, "00"})
	for _, from := range []*pos{bad, other} { // for the first the sign-on must have been heard
		next, err := from.Sale(1404, visa, nil)
		must(t, err)
		ask(next.Raw, asked{next, from.Terminal, "00"})
	}
	if len(waiting) != forgeries+3 {
		t.Fatalf("%d messages have names of their own, want %d", len(waiting), forgeries+3)
	}
	began := time.Now()
	must(t, bad.link.Send([]byte("0"))) // nothing that has an answer
	for _, raw := range all {
		must(t, bad.link.Send(raw))
	}
	honest.sell(1406)
	if took := time.Since(began); took >= slow {
		t.Errorf("who came by another connection waited %v", took)
	}
	for n := range all {
		raw, err := bad.link.Receive()
		must(t, err)
		if took := time.Since(began); n == 0 && took < slow {
			t.Errorf("the first answer came after %v, want %v", took, slow)
		}
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		name := m.Text(41) + m.Text(11)
		want, is := waiting[name]
		if !is {
			t.Fatalf("an answer to %s that nobody waits for", name)
		}
		delete(waiting, name)
		wantCode(t, m, want.code)
		if want.sent == nil {
			if m.Has(64) || m.Has(128) {
				t.Error("a locked terminal cost a call to the token")
			}
			continue
		}
		_, err = want.by.Answer(want.sent, raw)
		must(t, err)
	}
	if n := h.counted() - before; n != 5+1+forgeries {
		t.Errorf("the log counts %d refusals, want %d", n, 5+1+forgeries)
	}
	if n := len(h.records(func(r record) bool { return r.Action == "refuse.aggregate" })); n == 0 {
		t.Error("no record stands for many")
	}
	h.untouched(sale)
}
