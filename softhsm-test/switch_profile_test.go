package softhsmtest_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
)

// northern is a profile of a user's own: the codes of another house.
const northern = `
name = "north"
base = "ascii87"
about = "terminals of the north, which know other codes"
mac_error_code = "A0"
timeout_answer = "98"
bad_upstream_mac_answer = "92"
incomplete_codes = ["30", "63", "97", "A0"]
reversal_reasons = ["98"]

[decision_codes.D-02]
request = "97"
advice = "97"

[decision_codes.D-10]
advice = "25"

[decision_codes.D-13]
request = "57"
`

// speaking tunes a house to a profile.
func speaking(t testing.TB, text string) func(*isoswitch.Config) {
	t.Helper()
	p, err := profile.Parse("test.toml", []byte(text))
	must(t, err)
	return func(c *isoswitch.Config) { c.Profile = p }
}

// TestSwitchProfile runs the switch by a file of a user's own, over a real token,
// database, log and TLS.
func TestSwitchProfile(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), speaking(t, northern))
	p := h.pos(0)
	t.Run("a sale is one all the same", func(t *testing.T) { h.approves(t, p, 1000) })
	t.Run("D-04 A0 for a wrong MAC, with a MAC", func(t *testing.T) {
		sale, err := p.Sale(1002, visa, nil)
		must(t, err)
		sale.Raw[len(sale.Raw)-1] ^= 1
		wantCode(t, p.ask(sale, nil), "A0")
	})
	t.Run("D-02 97 for an unknown terminal, 03 for another's merchant", func(t *testing.T) {
		sale, err := p.Sale(1004, visa, func(b *iso8583.Builder) { b.Set(41, "T9999999") })
		must(t, err)
		raw, err := p.link.Exchange(sale.Raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "97")
		sale, err = p.Sale(1006, sim.Card{PAN: visa.PAN}, func(b *iso8583.Builder) { b.Set(42, "M00000000000002") })
		wantCode(t, p.ask(sale, err), "03")
	})
	t.Run("upstream is silent or not authentic", func(t *testing.T) {
		sale, answer := p.sell(1099)
		wantCode(t, answer, "98")
		h.awaitReversed(sale)
		sale, answer = p.sell(1097)
		wantCode(t, answer, "92")
		h.awaitReversed(sale)
	})
	t.Run("D-13 the row's own code", func(t *testing.T) {
		sale, answer := p.sell(1010)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }), "57")
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		h.awaitReversed(sale)
	})
	t.Run("D-10 D-07 a code of its own is kept for the repeat", func(t *testing.T) {
		sale, err := p.Sale(1012, visa, nil)
		must(t, err)
		for _, mti := range []iso8583.MTI{iso8583.ReversalAdvice, iso8583.ReversalAdviceRepeat} {
			back, err := p.Reversal(mti, sale, "", "", nil)
			wantCode(t, p.ask(back, err), "25")
		}
	})
	if !strings.Contains(h.logs.String(), "a reversal has a reason that its profile does not list") {
		t.Error("U-59: nobody is told of an unknown reason")
	}
}

// TestSwitchProfileWithoutBareRefusals: where no answer goes without a MAC, the
// connection ends.
func TestSwitchProfileWithoutBareRefusals(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), speaking(t, `
name = "strict"
base = "ascii87"
about = "no answer goes without a MAC"
answer_without_mac = false
`))
	p := h.pos(0)
	h.approves(t, p, 1000)
	sale, err := p.Sale(1004, visa, func(b *iso8583.Builder) { b.Set(41, "T9999999") })
	must(t, err)
	began := time.Now()
	if raw, err := p.link.Exchange(sale.Raw); err == nil || !errors.Is(err, io.EOF) && time.Since(began) > 4*time.Second {
		t.Errorf("an unknown terminal got %d bytes, %v", len(raw), err)
	}
	h.approves(t, h.pos(1), 1006)
}
