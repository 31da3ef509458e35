package softhsmtest_test

import (
	"bytes"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestL14BelievedRefusalsStandAlone: while forgeries of the same client share
// records, a sale that was believed and then refused, by a rule that forgeries are
// refused by too, has each of its own.
func TestL14BelievedRefusalsStandAlone(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		c.Lockout.Records = 1
	})
	p, victim := h.pos(0), h.pos(2)
	sale, answer := victim.sell(9900)
	forged, err := victim.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	link := h.dial("terminal")
	flood := func() {
		for range 15 { // ten have records of their own after a silence
			raw := bytes.Replace(bytes.Clone(forged.Raw), []byte("T0000003"), []byte("T9999999"), 1)
			_, err := link.Exchange(raw)
			must(t, err)
		}
	}
	flood()
	const each = 4
	for n := range each {
		refused, err := p.Sale(int64(100+2*n), visa, func(b *iso8583.Builder) { b.Set(7, "1399999999") })
		must(t, err)
		wantCode(t, p.ask(refused, nil), "30")
		flood()
	}
	if n := len(h.records(func(r record) bool { return r.Action == "refuse.aggregate" })); n == 0 {
		t.Fatal("the flood is too small to share records")
	}
	refused := h.records(func(r record) bool { return r.Action == "sale.refuse" && r.ISO.Rule == "D-01" })
	if len(refused) != each {
		t.Errorf("%d of %d believed sales have a record of their refusal", len(refused), each)
	}
}
