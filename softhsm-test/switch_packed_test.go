package softhsmtest_test

import (
	"fmt"
	"testing"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/mac"
)

// packedDUKPT are packed messages with a KSN of ten bytes in DE 53 (mac-and-DUKPT
// section 4).
const packedDUKPT = `
name = "packed-dukpt"
base = "ascii87"
about = "packed, DUKPT, the KSN as bytes in DE 53"
wire = "bcd"
[ksn]
field = 53
[mac]
format = "raw_8"
[[message]]
name = "financial"
types = ["0100", "0200", "0220"]
must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49]
may = [14, 32, 35, 37, 52, 53, 55, 63, 90]
answer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]
answer_may = [32, 38, 53, 55]
[[message]]
name = "reversal"
types = ["0400", "0401", "0420", "0421"]
must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 39, 41, 42, 49, 90]
may = [14, 32, 37, 38, 53, 55, 95]
answer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]
answer_may = [32, 38, 53, 55]
[[message]]
name = "network"
types = ["0800"]
mac = "optional"
must = [7, 11, 41, 42, 70]
may = [53]
answer_must = [7, 11, 39, 41, 42, 70]
answer_may = [37, 53]
[[field]]
de = 52
name = "PIN block"
form = "b8"
[[field]]
de = 53
name = "KSN"
form = "b10"
echo = true
terminal = true
[[field]]
de = 62
name = "private"
form = "ans...99"
`

// TestPackedDUKPT: a profile alone moves the KSN to another field and form. A sale
// with PIN, its reversal, and a KSN that was used.
func TestPackedDUKPT(t *testing.T) {
	speaks, err := profile.Parse("packed.toml", []byte(packedDUKPT))
	must(t, err)
	h := newHouse(t, nil, func(cfg *isoswitch.Config) { cfg.Profile = speaks })
	p := h.pos(0)
	send := func(like *iso8583.Message, ksn string) *iso8583.Message {
		t.Helper()
		b := speaks.Dialect.Build(like.MTI(), iso8583.SideTerminal).Set(53, ksn)
		for _, de := range []int{2, 3, 4, 7, 11, 12, 13, 22, 25, 37, 38, 39, 41, 42, 49, 52, 90} {
			if like.Has(de) {
				b.Set(de, like.Text(de))
			}
		}
		open, err := b.Pack()
		must(t, err)
		full := dukptMAC(t, ksn, dukpt.MACRequest, "x9_19", mac.Padding1, open.MACInput())
		got, err := p.link.Exchange(open.Seal([8]byte(full)))
		must(t, err)
		m, err := speaks.Dialect.Parse(got, iso8583.SideTerminal)
		must(t, err)
		sum, err := m.MAC()
		must(t, err)
		if want := dukptMAC(t, ksn, dukpt.MACResponse, "x9_19", mac.Padding1, m.MACInput()); fmt.Sprintf("%X", sum) != fmt.Sprintf("%X", want) {
			t.Error("the MAC of the answer is another")
		}
		return m
	}
	sale, err := p.Sale(1000, visa, nil)
	must(t, err)
	answer := send(sale.Message, sale.KSN)
	wantCode(t, answer, "00")
	if e := h.booked(sale); e == nil || e.PIN != "right" {
		t.Errorf("the issuer has %+v", e)
	}
	undo, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	wantCode(t, send(undo.Message, sale.KSN), "63") // used
	wantCode(t, send(undo.Message, undo.KSN), "00")
	h.awaitReversed(sale)
}
