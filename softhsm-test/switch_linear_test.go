package softhsmtest_test

import (
	"bytes"
	"slices"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// chipTags are what a reversal has of a chip (U-64).
const chipTags = "9F3602000195050000000000" + "9F1008" + "0000000000000000"

// TestLinearMACForgery: from the reversal of one sale, which was seen under its
// MAC, that of another is made by eight bytes of DE 55 (U-56, U-64). The MAC fits,
// and nothing follows until two persons want it.
func TestLinearMACForgery(t *testing.T) {
	forge := func(u *cup, stan, of string, amount, seenAmount int64) []byte {
		seen, err := u.undo(iso8583.ReversalRequest, of, seenAmount).Set(55, chipTags).Pack()
		must(t, err)
		wanted, err := u.undo(iso8583.ReversalRequest, stan, amount).Set(55, chipTags).Pack()
		must(t, err)
		input := slices.Clone(wanted.MACInput())
		at := bytes.Index(input, []byte{0x9F, 0x10, 0x08}) + 3
		for i, b := range fold(seen.MACInput()) {
			input[at+(i-at%8+8)%8] ^= b ^ fold(wanted.MACInput())[i]
		}
		return u.forged(input, seen.MACInput())
	}
	u := newCUP(t)
	u.wants(u.buy("000701", 70000), "00")
	u.wants(u.buy("000702", 71000), "00")
	t.Run("A-08 held", func(t *testing.T) {
		u.t = t
		if m := u.believed(u.exchange(forge(u, "000702", "000701", 71000, 70000))); m.Text(39) != "00" {
			t.Errorf("it is answered %s", m.Text(39))
		}
		u.wantStates(71000, "approved")
		u.wantHeld("0400")
		u.order(custody.RejectReversal)
		u.wantStates(71000, "approved")
	})
	t.Run("A-08 D-25 held, as an advice of a closed batch", func(t *testing.T) {
		u.t = t
		u.wants(u.buy("000704", 73000), "00")
		u.h.close("")
		u.wants(u.undo(iso8583.ReversalAdvice, "000704", 73000).Set(55, chipTags), "00")
		u.wantStates(73000, "approved")
		u.wantHeld("0420")
		u.order(custody.RejectReversal)
	})
	u.wants(u.buy("000703", 72000), "00")
	t.Run("A-08 refused", func(t *testing.T) {
		u.t = t
		u.h.renew(t, func(l *isoswitch.Limits) { l.Unchecked = isoswitch.Refuse })
		if m := u.believed(u.exchange(forge(u, "000703", "000701", 72000, 70000))); m.Text(39) != "58" {
			t.Errorf("it is answered %s", m.Text(39))
		}
		u.wantStates(72000, "approved")
	})
	u.t = t
	u.wants(u.undo(iso8583.ReversalRequest, "000703", 72000), "00") // the terminal's own
	u.wantStates(72000, "reversed")
	u.h.recordsWhole()
}

// order is what two persons decide of the one reversal that is held.
func (u *cup) order(act custody.ReversalAct) {
	u.t.Helper()
	held, err := u.h.desk().Reversals(u.t.Context(), custody.ReversalQuery{State: string(isoswitch.Held), Limit: 9})
	must(u.t, err)
	if len(held) != 1 {
		u.t.Fatalf("%d reversals are held, want 1", len(held))
	}
	_, err = u.h.desk().Order(u.t.Context(), held[0].Name, custody.ReversalOrder{Act: act})
	must(u.t, err)
}

// TestLinearMACFields: under a linear MAC each field of a reversal is what its
// original had, or known, or the reversal is held.
func TestLinearMACFields(t *testing.T) {
	u := newCUP(t)
	copies := func(b *iso8583.Builder) *iso8583.Builder { return b.Set(14, "2812").Set(23, "001") }
	stan, amount := 0, int64(80000)
	for _, tt := range []struct {
		name string
		held bool
		sale func(*iso8583.Builder)
		undo func(*iso8583.Builder)
	}{
		{"U-64 what the sale had", false, func(b *iso8583.Builder) { copies(b) }, func(b *iso8583.Builder) { copies(b) }},
		{"U-58 another known reason", false, nil, func(b *iso8583.Builder) { b.Set(39, "06") }},
		{"expiry that the sale had not", true, nil, func(b *iso8583.Builder) { b.Set(14, "2812") }},
		{"another expiry", true, func(b *iso8583.Builder) { copies(b) }, func(b *iso8583.Builder) { copies(b).Set(14, "2811") }},
		{"another card sequence number", true, func(b *iso8583.Builder) { copies(b) }, func(b *iso8583.Builder) { copies(b).Set(23, "002") }},
		{"no expiry where the sale had one", true, func(b *iso8583.Builder) { copies(b) }, nil},
		{"another entry mode", true, nil, func(b *iso8583.Builder) { b.Set(22, "022") }},
		{"U-59 a reason that nobody knows", true, nil, func(b *iso8583.Builder) { b.Set(39, "77") }},
		{"another end of DE 60", true, nil, func(b *iso8583.Builder) { b.Set(60, "2200002400050") }},
		{"a longer DE 60", true, nil, func(b *iso8583.Builder) { b.Set(60, "2200002400060123") }},
		{"chip data", true, func(b *iso8583.Builder) { b.Set(55, chipTags) }, func(b *iso8583.Builder) { b.Set(55, chipTags) }},
	} {
		t.Run("A-08 "+tt.name, func(t *testing.T) {
			u.t = t
			stan, amount = stan+1, amount+2
			number := "0008" + string([]byte{byte('0' + stan/10), byte('0' + stan%10)})
			sale, undo := u.buy(number, amount), u.undo(iso8583.ReversalRequest, number, amount)
			if tt.sale != nil {
				tt.sale(sale)
			}
			if tt.undo != nil {
				tt.undo(undo)
			}
			u.wants(sale, "00")
			u.wants(undo, "00")
			u.wants(undo, "00") // D-07
			if !tt.held {
				u.wantStates(amount, "reversed")
				return
			}
			u.wantStates(amount, "approved")
			u.order(custody.ReleaseReversal)
			u.wantStates(amount, "reversed")
		})
	}
	u.h.recordsWhole()
}

// TestLinearMACReferences: what refers to another transaction has no such field
// either, or is refused.
func TestLinearMACReferences(t *testing.T) {
	u := newCUP(t)
	const financial = iso8583.FinancialRequest
	sold := u.wants(u.buy("000901", 90000), "00")
	stan := 0
	void := func() *iso8583.Builder {
		stan++
		return u.follow(financial, "200000", "00", "23", "00091"+string(rune('0'+stan)), "000901", 90000)
	}
	for name, change := range map[string]func(*iso8583.Builder){
		"chip data":             func(b *iso8583.Builder) { b.Set(55, chipTags) },
		"free text":             func(b *iso8583.Builder) { b.Set(63, "01 12345678") },
		"a track":               func(b *iso8583.Builder) { b.Set(35, "6224242900000113D2806201394903101") },
		"an expiry":             func(b *iso8583.Builder) { b.Set(14, "2812") },
		"another entry mode":    func(b *iso8583.Builder) { b.Set(22, "012") },
		"another reference":     func(b *iso8583.Builder) { b.Set(37, "123456789012") },
		"another approval code": func(b *iso8583.Builder) { b.Set(38, "ZZZZZZ") },
		"a longer DE 61":        func(b *iso8583.Builder) { b.Set(61, "0000240009010000"+"1234567890123") },
		"another date in DE 61": func(b *iso8583.Builder) { b.Set(61, "0000240009010230") },
	} {
		t.Run("A-08 a void with "+name, func(t *testing.T) {
			u.t = t
			b := void()
			change(b)
			u.wants(b, "25")
			u.wantStates(90000, "approved")
		})
	}
	u.t = t
	if n := len(u.h.records(func(r record) bool {
		return r.Action == "sale.refuse" && r.Reason == "mac_policy" && r.ISO.Alert == "security"
	})); n != 9 {
		t.Errorf("%d records of them, want 9", n)
	}
	u.wants(u.follow(financial, "200000", "00", "23", "000930", "000901", 90000).Set(37, sold.Text(37)).Set(38, sold.Text(38)), "00")
	u.wantStates(90000, "voided", "approved")
}

// TestChipReversal: under a MAC that is not linear a reversal with chip data has its
// effect at once (U-53, U-64).
func TestChipReversal(t *testing.T) {
	speech, err := profile.Parse("retail.toml", []byte("name = \"retail\"\nbase = \"unionpay\"\nabout = \"x9_19\"\nmak_length = 16\n[mac.tmk]\nalgorithm = \"x9_19\"\n"))
	must(t, err)
	h := &masterHouse{house: build(t, nil), speech: speech, kind: custody.TerminalProfile{
		Name: "unionpay", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg3, MACBytes: 16,
	}}
	h.tune = func(cfg *isoswitch.Config) {
		h.furnishRegistry()
		cfg.Custody, cfg.Profile = h.registry.WithoutMaker(), h.speech
	}
	h.rules = sim.DefaultRules()
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	u := &cup{h.terminal(), t}
	u.maker = retail(mac.Padding1)
	u.signIn("003")
	u.wants(u.buy("000001", 95000).Set(55, chipTags), "00")
	u.wants(u.undo(iso8583.ReversalRequest, "000001", 95000).Set(55, chipTags).Set(14, "2812"), "00")
	u.wantStates(95000, "reversed")
	u.wants(u.buy("000002", 96000), "00")
	u.wants(u.follow(iso8583.FinancialRequest, "200000", "00", "23", "000003", "000002", 96000).Set(55, chipTags).Set(63, "01 "), "00")
	u.wantStates(96000, "voided", "approved")
}

// fold is the sum of all blocks of 8 bytes, without carry.
func fold(input []byte) (sum [8]byte) {
	for i, b := range input {
		sum[i%8] ^= b
	}
	return sum
}

// wantHeld wants one record of a message that was held because its MAC is linear.
func (u *cup) wantHeld(mti string) {
	u.t.Helper()
	if n := len(u.h.records(func(r record) bool {
		return r.Action == "reversal.hold" && r.Reason == "mac_policy" && r.ISO.MTI == mti && r.ISO.Rule == "D-35" && r.ISO.Alert == "security"
	})); n != 1 {
		u.t.Errorf("%d records of a held %s, want 1", n, mti)
	}
}
