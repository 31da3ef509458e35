package softhsmtest_test

import (
	"testing"

	"keyd.dev/keyd/internal/iso8583"
)

// TestUnionPayRefunds are refunds by 0220 (U-20): they name what they give back,
// since the MAC is linear, give back a sale once and at most whole, and are sent
// again by their terminal, never reversed.
func TestUnionPayRefunds(t *testing.T) {
	u := newCUP(t)
	const advice = iso8583.FinancialAdvice
	refund := func(stan, of string, amount int64) *iso8583.Builder {
		return u.follow(advice, "200000", "00", "25", stan, of, amount)
	}
	u.wants(u.buy("000601", 60000), "00")
	u.wants(refund("000602", "000699", 60000), "25")                // D-11: no such sale
	u.wants(refund("000603", "000601", 60002), "64")                // D-14: more than was paid
	u.wants(refund("000604", "000601", 60000).Set(49, "978"), "64") // D-14: another currency
	card := refund("000605", "000601", 60000).Set(2, "6224242900000121")
	u.wants(card, "14") // D-13
	for name, unnamed := range map[string]*iso8583.Builder{
		"batch unknown": refund("000606", "000601", 60000).Set(61, "0000000006010000"),
		"STAN unknown":  refund("000607", "000601", 60000).Set(61, "0000240000000000"),
		"names nothing": u.h.speech.Dialect.Build(advice, iso8583.SideTerminal).Head(head).
			Set(2, masterPAN).Set(3, "200000").Set(4, "000000060000").Set(11, "000608").
			Set(22, "021").Set(25, "00").Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "2500002400060"),
	} {
		if m := u.wants(unnamed, "12"); m.Text(39) != "12" {
			t.Errorf("A-08 a refund whose %s", name)
		}
	}
	for _, type60 := range []string{"30", "32", "34"} { // offline sale, adjustment, tip
		u.wants(u.follow(advice, "200000", "00", type60, "0006"+type60, "000601", 60000), "40")
		u.wants(u.follow(advice, "000000", "00", type60, "0007"+type60, "000601", 60000), "40")
	}
	if e, _ := u.booked(60000); e != 0 || len(u.states(60000)) != 1 {
		t.Errorf("the issuer has %v, want the sale alone", u.states(60000))
	}

	given := u.wants(refund("000610", "000601", 40000), "00")
	again := u.wants(refund("000610", "000601", 40000), "00")
	if given.MTI() != "0230" || given.Text(37) != again.Text(37) || len(u.states(40000)) != 1 {
		t.Errorf("R-44 the advice again: %s %s and %s, the issuer has %v", given.MTI(), given.Text(37), again.Text(37), u.states(40000))
	}
	u.wants(refund("000611", "000601", 20000), "22")                                                   // D-23: once
	u.wants(u.follow(iso8583.FinancialRequest, "200000", "00", "23", "000612", "000601", 60000), "22") // D-23: no void after it
	u.wants(u.undo(iso8583.ReversalRequest, "000601", 60000), "22")                                    // D-23: nor a reversal
	u.wants(u.reverse("200000", "00", "25", "000610", "000601", 40000), "12")                          // D-17: nobody reverses a refund
	u.h.recordsWhole()
}
