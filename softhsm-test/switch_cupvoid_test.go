package softhsmtest_test

import (
	"fmt"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
)

// follow is a message of a UnionPay terminal that names another by DE 61: batch,
// STAN and date.
func (u *cup) follow(mti iso8583.MTI, processing, condition, type60, stan, of string, amount int64) *iso8583.Builder {
	return u.h.speech.Dialect.Build(mti, iso8583.SideTerminal).Head(head).
		Set(2, masterPAN).Set(3, processing).Set(4, fmt.Sprintf("%012d", amount)).Set(11, stan).
		Set(22, "021").Set(25, condition).Set(41, masterTID).Set(42, masterMID).Set(49, "156").
		Set(60, type60+"00002400060").Set(61, "000024"+of+"0000")
}

// reverse is a 0400 of a message that names another.
func (u *cup) reverse(processing, condition, type60, stan, of string, amount int64) *iso8583.Builder {
	b := u.h.speech.Dialect.Build(iso8583.ReversalRequest, iso8583.SideTerminal).Head(head).
		Set(2, masterPAN).Set(3, processing).Set(4, fmt.Sprintf("%012d", amount)).Set(11, stan).
		Set(22, "021").Set(25, condition).Set(39, "98").Set(41, masterTID).Set(42, masterMID).Set(49, "156").
		Set(60, type60+"00002400060")
	if of != "" {
		b.Set(61, "000024"+of+"0000")
	}
	return b
}

// states are what the issuer has of the messages of an amount, in their order.
func (u *cup) states(amount int64) (all []string) {
	for _, e := range u.h.issuer.Book() {
		if e.TID == masterTID && e.Amount == amount {
			all = append(all, e.State)
		}
	}
	return all
}

func (u *cup) wantStates(amount int64, want ...string) {
	u.t.Helper()
	u.h.quiet()
	if got := u.states(amount); fmt.Sprint(got) != fmt.Sprint(want) {
		u.t.Errorf("the issuer has %v of %d, want %v", got, amount, want)
	}
}

// TestUnionPayVoids are U-17 to U-19 by DE 61, with D-23, D-24 and D-29.
func TestUnionPayVoids(t *testing.T) {
	u := newCUP(t)
	u.t = t
	const auth, fin = iso8583.AuthorizationRequest, iso8583.FinancialRequest
	t.Run("U-17 void of a sale, D-23, D-29", func(t *testing.T) {
		u.t = t
		u.wants(u.buy("000101", 30000), "00")
		u.wants(u.follow(fin, "200000", "00", "23", "000102", "000199", 30000), "25") // D-11
		u.wants(u.follow(fin, "200000", "00", "23", "000103", "000101", 30002), "64") // D-14
		u.wants(u.follow(fin, "200000", "00", "22", "000104", "000101", 30000), "12") // DE 60.1 of a sale
		u.wants(u.follow(fin, "200000", "00", "23", "000105", "000101", 30000), "00")
		u.wantStates(30000, "voided", "approved")
		u.wants(u.undo(iso8583.ReversalRequest, "000101", 30000), "22")           // D-23
		u.wants(u.reverse("200000", "00", "23", "000105", "000777", 30000), "25") // D-15: DE 61
		u.wants(u.reverse("200000", "00", "23", "000105", "000101", 30000), "00") // D-29
		u.wantStates(30000, "approved", "reversed")
		u.wants(u.undo(iso8583.ReversalRequest, "000101", 30000), "00")
		u.wantStates(30000, "reversed", "reversed")
	})
	t.Run("U-18 U-19 pre-authorization, completion and their voids, D-24", func(t *testing.T) {
		u.t = t
		open := u.h.speech.Dialect.Build(auth, iso8583.SideTerminal).Head(head).
			Set(2, masterPAN).Set(3, "030000").Set(4, "000000031000").Set(11, "000201").
			Set(22, "021").Set(25, "06").Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "1000002400060")
		u.wants(open, "00")
		u.wants(u.follow(auth, "200000", "06", "11", "000202", "000201", 31000), "00")
		u.wantStates(31000, "voided", "approved")
		u.wants(u.follow(fin, "000000", "06", "20", "000203", "000201", 31000), "22") // D-23
		u.wants(u.reverse("200000", "06", "11", "000202", "000201", 31000), "00")     // D-29
		u.wantStates(31000, "approved", "reversed")
		u.wants(u.follow(fin, "000000", "06", "20", "000204", "000201", 31000), "00")
		u.wantStates(31000, "completed", "reversed", "approved")
		u.wants(u.reverse("030000", "06", "10", "000201", "", 31000), "22") // D-24
		u.wants(u.follow(fin, "200000", "06", "21", "000205", "000204", 31000), "00")
		u.wantStates(31000, "completed", "reversed", "voided", "approved")
	})
	t.Run("a void of nothing", func(t *testing.T) {
		u.t = t
		b := u.h.speech.Dialect.Build(fin, iso8583.SideTerminal).Head(head).
			Set(2, masterPAN).Set(3, "200000").Set(4, "000000030000").Set(11, "000301").
			Set(22, "021").Set(25, "00").Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "2300002400060")
		u.wants(b, "12")
	})
	u.h.recordsWhole()
}
