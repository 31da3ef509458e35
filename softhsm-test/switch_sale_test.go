package softhsmtest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchSales runs sales over a real token, database, log and TLS.
func TestSwitchSales(t *testing.T) {
	rules := append([]sim.Rule{
		{Suffix: "93", Code: "00", Close: true},
		{Suffix: "90", Code: "00", Delay: 300 * time.Millisecond},
		{Suffix: "88", Code: "55"},
	}, sim.DefaultRules()...)
	h := newHouse(t, rules, nil)
	tdes, aes, short := h.pos(0), h.pos(1), h.pos(4)

	t.Run("W-07 W-08 TDES DUKPT with PIN", func(t *testing.T) { h.approves(t, tdes, 1000) })
	t.Run("W-07 W-08 AES DUKPT with PIN", func(t *testing.T) { h.approves(t, aes, 1002) })
	t.Run("L-11 who accepts says which key verified", func(t *testing.T) { h.namesItsKeys(t, aes) })
	t.Run("W-04 MAC of 4 bytes", func(t *testing.T) { shortMAC(t, h, short) })
	t.Run("W-09 55 and 51 come from the issuer", func(t *testing.T) {
		_, answer := tdes.sell(2088)
		wantCode(t, answer, "55")
		_, answer = tdes.sell(2001)
		wantCode(t, answer, "51")
	})
	t.Run("W-09 refused by keyd", func(t *testing.T) { h.refusesSales(t, tdes) })
	t.Run("W-09 malformed PIN block is 63", func(t *testing.T) {
		sale, err := tdes.Sale(2100, visa, func(b *iso8583.Builder) { b.Set(52, "0011223344556677") })
		wantCode(t, tdes.ask(sale, err), "63")
		if e := h.booked(sale); e != nil {
			t.Errorf("the issuer has %+v of a sale that never left", *e)
		}
	})
	t.Run("R-01 R-33 silence, wrong MAC, late answer, lost link", func(t *testing.T) { h.reversesUnknown(t, tdes) })
	t.Run("A-25.T3 R-44 W-16 duplicates", func(t *testing.T) { h.knowsDuplicates(t, tdes) })
	t.Run("A-13.T1 R-44 replay of a reversed sale", func(t *testing.T) { h.refusesReplayedSale(t, tdes) })
	t.Run("A-27.T1 nobody takes the approval", func(t *testing.T) { h.reversesUndelivered(t, aes) })
	t.Run("W-09 91 without upstream", func(t *testing.T) { h.refusesWithoutUpstream(t, tdes) })
}

func (h *house) approves(t *testing.T, p *pos, amount int64) {
	sale, answer := p.sell(amount)
	wantCode(t, answer, "00")
	if answer.MTI() != "0210" || answer.Text(37) == "" || answer.Text(38) == "" {
		t.Errorf("the answer is %v with RRN %q and approval %q", answer, answer.Text(37), answer.Text(38))
	}
	for _, de := range []int{2, 3, 4, 7, 11, 12, 13, 41, 42, 49, 62} {
		if answer.Text(de) != sale.Message.Text(de) {
			t.Errorf("W-03: DE %d is not echoed", de)
		}
	}
	if e := h.booked(sale); e == nil || e.PIN != "right" || e.Messages != 1 {
		t.Errorf("the issuer has %+v, want one message with the right PIN", e)
	}
}

// shortMAC is a terminal whose MACs have 4 bytes and 4 zero bytes.
func shortMAC(t *testing.T, h *house, p *pos) {
	whole, err := p.Sale(1004, visa, nil)
	must(t, err)
	cut := append([]byte(nil), whole.Raw...)
	copy(cut[len(cut)-8:], "00000000")
	raw, err := p.link.Exchange(cut)
	must(t, err)
	m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	must(t, err)
	wantCode(t, m, "00")
	if field := m.Text(64); !strings.HasSuffix(field, "00000000") || strings.HasPrefix(field, "00000000") {
		t.Errorf("the answer's MAC is not 4 bytes and 4 zero bytes")
	}
	whole, err = p.Sale(1006, visa, nil)
	must(t, err)
	raw, err = p.link.Exchange(whole.Raw) // 8 bytes where the register says 4
	must(t, err)
	m, err = iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	must(t, err)
	wantCode(t, m, "63")
}

func (h *house) refusesSales(t *testing.T, p *pos) {
	for _, c := range []struct {
		name, code string
		amount     int64
		draft      sim.Draft
	}{
		{"12 unknown processing code", "12", 2102, func(b *iso8583.Builder) { b.Set(3, "990000") }},
		{"12 other currency", "12", 2104, func(b *iso8583.Builder) { b.Set(49, "840") }},
		{"13 amount of zero", "13", 0, nil},
		{"14 short PAN", "14", 2106, func(b *iso8583.Builder) { b.Set(2, "41111111") }},
		{"14 another card in track 2", "14", 2107, func(b *iso8583.Builder) { b.Set(35, "5555555555554444=2912") }},
		{"30 PIN block of the other scheme", "30", 2108, func(b *iso8583.Builder) { b.Set(3, "000000") }},
		{"61 above the limit", "61", 5_000_002, nil},
		{"03 merchant of another terminal", "03", 2110, func(b *iso8583.Builder) { b.Set(42, "M00000000000002") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			card := sim.Card{PAN: visa.PAN}
			draft := c.draft
			if c.code == "30" {
				draft = func(b *iso8583.Builder) { b.Set(63, strings.Repeat("0", 32)) }
			}
			sale, err := p.Sale(c.amount, card, draft)
			wantCode(t, p.ask(sale, err), c.code)
			if e := h.booked(sale); e != nil && c.amount != 0 {
				t.Errorf("the issuer has %+v of a refused sale", *e)
			}
		})
	}
	t.Run("58 unknown terminal, without a MAC", func(t *testing.T) {
		sale, err := p.Sale(2112, sim.Card{PAN: visa.PAN}, func(b *iso8583.Builder) { b.Set(41, "T9999999") })
		must(t, err)
		raw, err := p.link.Exchange(sale.Raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "58")
		if m.Has(64) || m.Has(128) {
			t.Errorf("the answer to an unknown terminal has a MAC")
		}
	})
}

// reversesUnknown makes each way in which an outcome is unknown: the terminal is
// told so, the issuer gets one reversal, and no approval ever.
func (h *house) reversesUnknown(t *testing.T, p *pos) {
	for _, c := range []struct {
		name, code string
		amount     int64
	}{
		{"D-32 A-06.T3 silence", "68", 3199},
		{"A-06.T1 wrong MAC", "96", 3297},
		{"R-42 the link breaks", "68", 3493},
		{"A-21 late answer", "68", 3395},
	} {
		t.Run(c.name, func(t *testing.T) {
			eventually(t, "the link is up", func() bool { return h.sw.Status().SignedOn })
			sale, answer := p.sell(c.amount)
			wantCode(t, answer, c.code)
			h.awaitReversed(sale)
			again := p.undo(iso8583.ReversalRequest, sale, answer, nil)
			wantCode(t, again, "00") // D-19: joins keyd's own reversal
			h.awaitReversed(sale)
		})
	}
	if got := h.records(func(r record) bool { return r.Action == "response.refuse" && r.Reason == "upstream_mac_invalid" }); len(got) != 1 || got[0].ISO.Alert != "security" {
		t.Errorf("the wrong MAC left the records %+v", got)
	}
	eventually(t, "the late answer is recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Action == "sale.answer" && r.Reason == "timeout" && r.ISO.DE39 == "00" })) == 1
	})
}

func (h *house) knowsDuplicates(t *testing.T, p *pos) {
	eventually(t, "the link is up", func() bool { return h.sw.Status().SignedOn })
	same := func(sale *sim.Sent) sim.Draft {
		return func(b *iso8583.Builder) { b.Copy(sale.Message, 4, 11, 12, 13) }
	}
	sale, first := p.sell(4000)
	again := p.ask(p.Sale(4000, visa, same(sale)))
	if got, want := again.Text(39)+again.Text(37)+again.Text(38), first.Text(39)+first.Text(37)+first.Text(38); got != want {
		t.Errorf("the repeat got %q, want the stored answer %q", got, want)
	}
	other := p.ask(p.Sale(4002, visa, func(b *iso8583.Builder) { b.Copy(sale.Message, 11, 12, 13) }))
	wantCode(t, other, "94")

	slow, err := p.Sale(4190, visa, nil)
	must(t, err)
	must(t, p.link.Send(slow.Raw))
	joined, err := p.Sale(4190, visa, same(slow))
	must(t, err)
	must(t, p.link.Send(joined.Raw))
	codes := ""
	for range 2 {
		raw, err := p.link.Receive()
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		codes += m.Text(39)
	}
	if codes != "0000" {
		t.Errorf("sale and repeat in flight got %q, want both approved", codes)
	}
	for _, sale := range []*sim.Sent{sale, slow} {
		if e := h.booked(sale); e == nil || e.Messages != 1 || e.Received != 0 {
			t.Errorf("the issuer has %+v, want one message", e)
		}
	}
}

func (h *house) refusesReplayedSale(t *testing.T, p *pos) {
	sale, answer := p.sell(5000)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	wantCode(t, p.ask(sale, nil), "94")
	h.awaitReversed(sale)
	wantCode(t, p.ask(sale, nil), "94")
	h.reopen()
	p.link = h.dial("terminal")
	wantCode(t, p.ask(sale, nil), "94")
	if e := h.booked(sale); e.Messages != 1 {
		t.Errorf("the issuer has %+v, want one message", *e)
	}
}

func (h *house) reversesUndelivered(t *testing.T, p *pos) {
	p.link = h.dial("terminal")
	sale, err := p.Sale(6090, visa, nil)
	must(t, err)
	must(t, p.link.Send(sale.Raw))
	eventually(t, "the sale is at the issuer", func() bool { return h.booked(sale) != nil })
	must(t, p.link.Close())
	h.awaitReversed(sale)
}

func (h *house) refusesWithoutUpstream(t *testing.T, p *pos) {
	addr := h.bank.Addr().String()
	h.unbank()
	eventually(t, "the link is down", func() bool { return !h.sw.Status().LinkUp })
	sale, answer := p.sell(7000)
	wantCode(t, answer, "91")
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "12") // D-16
	h.startIssuer(addr)
	eventually(t, "the link is up again", func() bool { return h.sw.Status().SignedOn })
	h.approves(t, p, 7002)
	if e := h.booked(sale); e != nil {
		t.Errorf("the issuer has %+v of a sale that never left", *e)
	}
}

// namesItsKeys looks at the records of one message each: the decision on a message
// that was accepted has the key that verified it, a refused one leaves that to the
// record of the verification (decision 0057).
func (h *house) namesItsKeys(t *testing.T, p *pos) {
	sale, answer := p.sell(1100)
	wantCode(t, answer, "00")
	void := p.undo(iso8583.ReversalRequest, sale, answer, nil)
	wantCode(t, void, "00")
	forged, err := p.Sale(1102, visa, nil)
	must(t, err)
	last := &forged.Raw[len(forged.Raw)-1]
	*last = "10"[btoi(*last == '1')]
	wantCode(t, p.ask(forged, nil), "63")
	again, answer := p.sell(1104)
	wantCode(t, answer, "00")
	wantCode(t, p.ask(again, nil), "00") // the same bytes once more
	uses := make(map[string][]string)    // by request
	named := make(map[string]string)     // the last request of an action with a STAN
	for _, r := range h.records(func(r record) bool { return r.Corr != "" }) {
		line := r.Action
		for _, k := range r.Keys {
			line += " " + k.Role
		}
		uses[r.Corr] = append(uses[r.Corr], strings.TrimSpace(line+" "+r.MAC.Alg+" "+r.MAC.Verdict))
		named[r.Action+" "+r.ISO.STAN] = r.Corr
	}
	for _, c := range []struct {
		of   string
		want []string
	}{
		{"sale.accept " + sale.Message.Text(11), []string{
			"pin.translate out bdk", "sale.accept bdk cmac_aes ok", "mac.generate mac alg3 ok", // and out it goes
			"mac.generate bdk cmac_aes ok", "sale.answer mac alg3 ok",
		}},
		{"sale.answer " + again.Message.Text(11), []string{"sale.answer bdk cmac_aes ok", "mac.generate bdk cmac_aes ok"}},
		{"reversal.accept " + void.Text(11), []string{"reversal.accept bdk cmac_aes ok", "mac.generate bdk cmac_aes ok"}},
		{"sale.refuse " + forged.Message.Text(11), []string{"mac.verify bdk cmac_aes bad", "sale.refuse cmac_aes bad", "mac.generate bdk cmac_aes ok"}},
	} {
		got := uses[named[c.of]]
		slices.Sort(got)
		slices.Sort(c.want)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.of, diff)
		}
	}
}
