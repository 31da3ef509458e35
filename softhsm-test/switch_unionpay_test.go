package softhsmtest_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
)

// The MAC inputs of unionpay-pos.md section 11: the reversal of the worked
// dialogue, and the two forgeries that its MAC fits too.
const (
	reversalMAB = "04007020048002C0801116622424290000011300000000000001000000040302100039383130303030313938353031303030383234313030303230313536001322000024000600"
	forgedV11   = "04007020048002C0801116622424290000011300000009000001000000040302100039383130303030313938353031303030383234313930303230313536001322000024000600"
	forgedV12   = "04007020048002C0801116622424290000011300000000000009000000040302100039383130303030313938353031303030383234313030303230313536001322080024000600"
)

// head is what stands before the MTI in the dialogue.
var head = []byte("\x60\x00\x06\x00\x00\x60\x31\x00\x31\x10\x03")

// cup is a UnionPay terminal at a switch that runs by the profile that keyd brings.
type cup struct {
	*master
	t *testing.T
}

func newCUP(t *testing.T) *cup {
	t.Helper()
	speech, err := profile.Builtin("unionpay")
	must(t, err)
	h := &masterHouse{house: build(t, nil), speech: speech, kind: custody.TerminalProfile{
		Name: "unionpay", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Algorithm: custody.CUPECB,
	}}
	h.tune = func(cfg *isoswitch.Config) {
		h.furnishRegistry()
		cfg.Custody, cfg.Profile = h.registry.WithoutMaker(), h.speech
	}
	h.rules = sim.DefaultRules()
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	u := &cup{h.terminal(), t}
	u.signIn("003")
	return u
}

// buy is a sale of section 11.1 with another STAN and amount.
func (u *cup) buy(stan string, amount int64) *iso8583.Builder {
	u.t.Helper()
	pik, err := softkey.New(keys.TDES2, u.pin)
	must(u.t, err)
	block, err := hex.DecodeString("041276BD6FFFFFEE") // PIN 1234 of this card, format 0
	must(u.t, err)
	enciphered, err := pik.Encrypt(nil, block)
	must(u.t, err)
	return u.h.speech.Dialect.Build(iso8583.FinancialRequest, iso8583.SideTerminal).Head(head).
		Set(2, masterPAN).Set(3, "000000").Set(4, fmt.Sprintf("%012d", amount)).Set(11, stan).
		Set(22, "021").Set(25, "00").Set(26, "12").Set(35, "6224242900000113D2806201394903101").
		Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(52, fmt.Sprintf("%X", enciphered)).
		Set(53, "2600000000000000").Set(60, "2200002400060")
}

// undo is the reversal of section 11.2 for a sale with another STAN and amount.
func (u *cup) undo(mti iso8583.MTI, stan string, amount int64) *iso8583.Builder {
	return u.h.speech.Dialect.Build(mti, iso8583.SideTerminal).Head(head).
		Set(2, masterPAN).Set(3, "000000").Set(4, fmt.Sprintf("%012d", amount)).Set(11, stan).
		Set(22, "021").Set(25, "00").Set(39, "98").Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "2200002400060")
}

// wants sends a message with a good MAC and compares DE 39 of the answer, whose
// MAC must be good too.
func (u *cup) wants(b *iso8583.Builder, code string) *iso8583.Message {
	u.t.Helper()
	m := u.believed(u.exchange(u.sealed(b)))
	if m.Text(39) != code {
		u.t.Errorf("%s %s: %s, want %s", m.MTI(), m.Text(11), m.Text(39), code)
	}
	return m
}

// forged is a MAC input with the MAC of another that it fits too.
func (u *cup) forged(input []byte, of []byte) []byte {
	mac := u.macOf(of)
	return slices.Concat(head, input, fmt.Appendf(nil, "%X", mac[:4]))
}

func (u *cup) booked(amount int64) (effective, messages int) {
	for _, e := range u.h.issuer.Book() {
		if e.TID == masterTID && e.Amount == amount {
			effective, messages = effective+e.Effective, messages+1
		}
	}
	return effective, messages
}

// TestUnionPayDialogue is the worked dialogue over a real token, database, log and
// TLS, under keys of a sign-in; the forgeries come between the sale and its
// reversal.
func TestUnionPayDialogue(t *testing.T) {
	u := newCUP(t)
	u.t = t
	sale := u.sealed(u.buy("000403", 10000))
	approved := u.believed(u.exchange(sale))
	if approved.Text(39) != "00" || approved.MTI() != "0210" || approved.Text(37) == "" || approved.Text(38) == "" {
		t.Fatalf("U-16 sale: %s %s", approved.MTI(), approved.Text(39))
	}
	if got := fmt.Sprintf("%X %X", approved.TPDU(), approved.Header()); got != "6000000006 603100311003" {
		t.Errorf("U-03: the answer begins with %s", got)
	}
	if approved.Text(12) == "" || approved.Text(13) == "" || approved.Text(60) != "2200002400060" {
		t.Errorf("U-26: DE 12 %q, 13 %q, 60 %q", approved.Text(12), approved.Text(13), approved.Text(60))
	}
	genuine, err := hex.DecodeString(reversalMAB)
	must(t, err)
	for _, tt := range []struct{ name, input, want, rule string }{
		{"A-08.T2 V11", forgedV11, "03", "D-02"},
		{"A-08.T2 V12", forgedV12, "25", "D-11"},
	} {
		input, err := hex.DecodeString(tt.input)
		must(t, err)
		if u.macOf(input) != u.macOf(genuine) {
			t.Fatalf("%s has another MAC", tt.name)
		}
		t.Run(tt.name, func(t *testing.T) {
			m := u.believed(u.exchange(u.forged(input, genuine)))
			if m.Text(39) != tt.want {
				t.Errorf("answered %s, want %s", m.Text(39), tt.want)
			}
			if n := len(u.h.records(func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == tt.rule })); n != 1 {
				t.Errorf("%d records of %s, want 1", n, tt.rule)
			}
		})
	}
	t.Run("A-07.T1 no MAC", func(t *testing.T) {
		bare := slices.Concat(head, genuine)
		bare[len(head)+9] &^= 1
		m := u.exchange(bare)
		if m.Text(39) != "A0" {
			t.Errorf("%s, want A0", m.Text(39))
		}
	})
	if effective, _ := u.booked(10000); effective != 0 {
		t.Fatal("a forgery was honoured")
	}
	changed := u.forged(genuine, genuine)
	for i := range head {
		changed[i] ^= 0x5A
	}
	t.Run("A-18.T1 U-06 the reversal under another TPDU and header", func(t *testing.T) {
		if m := u.believed(u.exchange(changed)); m.Text(39) != "00" {
			t.Errorf("answered %s", m.Text(39))
		}
	})
	u.wants(u.undo(iso8583.ReversalRequest, "000403", 10000).Set(39, "06"), "00") // U-62, U-66, D-07
	u.wants(u.undo(iso8583.ReversalRepeat, "000403", 10000), "00")
	eventually(t, "the issuer has reversed the sale", func() bool { effective, _ := u.booked(10000); return effective == 1 })
	if m := u.exchange(sale); m.Text(39) != "94" {
		t.Errorf("A-13 the sale again: %s, want 94", m.Text(39))
	}
}

// TestUnionPayRows are rows of the decision table by batch.
func TestUnionPayRows(t *testing.T) {
	u := newCUP(t)
	u.t = t
	u.wants(u.buy("000001", 20000), "00")
	for _, tt := range []struct {
		name, code string
		change     func(*iso8583.Builder)
	}{
		{"D-13 another card", "14", func(b *iso8583.Builder) { b.Set(2, "6224242900000121") }},
		{"D-14 another amount", "64", func(b *iso8583.Builder) { b.Set(4, "000000020002") }},
		{"D-15 another type in DE 60.1", "25", func(b *iso8583.Builder) { b.Set(60, "2000002400060") }},
		{"D-15 another condition code", "25", func(b *iso8583.Builder) { b.Set(25, "06") }},
		{"D-15 DE 61 in the reversal of a sale", "25", func(b *iso8583.Builder) { b.Set(61, "0000240000011121") }},
		{"D-17 a type that no reversal names", "12", func(b *iso8583.Builder) { b.Set(60, "0100002400060") }},
		{"D-11 another batch", "25", func(b *iso8583.Builder) { b.Set(60, "2200002500060") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := u.undo(iso8583.ReversalRequest, "000001", 20000)
			tt.change(b)
			u.wants(b, tt.code)
		})
	}
	t.Run("D-10 before its sale", func(t *testing.T) {
		u.wants(u.undo(iso8583.ReversalRequest, "000002", 20002), "25")
		u.wants(u.buy("000002", 20002), "94")
	})
	t.Run("U-16 a sale by track alone", func(t *testing.T) {
		plain := u.h.speech.Dialect.Build(iso8583.FinancialRequest, iso8583.SideTerminal).Head(head).
			Set(3, "000000").Set(4, "000000020004").Set(11, "000003").Set(22, "021").Set(25, "00").
			Set(35, "6224242900000113D2806201394903101").Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "2200002400060")
		u.wants(plain, "00")
		u.wants(u.undo(iso8583.ReversalRequest, "000003", 20004), "00")
	})
	t.Run("U-15 a balance inquiry, which nothing reverses", func(t *testing.T) {
		u.wants(u.h.speech.Dialect.Build(iso8583.FinancialRequest, iso8583.SideTerminal).Head(head).
			Set(3, "310000").Set(11, "000004").Set(22, "021").Set(25, "00").Set(35, "6224242900000113D2806201394903101").
			Set(41, masterTID).Set(42, masterMID).Set(49, "156").Set(60, "0100002400060"), "00")
	})
	t.Run("U-65 DE 61 in a sale", func(t *testing.T) {
		u.wants(u.buy("000005", 20000).Set(61, "0000240000011121"), "12")
		if _, messages := u.booked(20000); messages != 1 {
			t.Errorf("the issuer has %d messages of the sale, want 1", messages)
		}
	})
	t.Run("98 when upstream is silent", func(t *testing.T) { u.wants(u.buy("000006", 20099), "98") })
	u.wants(u.undo(iso8583.ReversalRequest, "000001", 20000), "00")
	t.Run("U-51 a message under the keys of before", func(t *testing.T) {
		old := u.sealed(u.buy("000007", 20006))
		u.signIn("003")
		if m := u.exchange(old); m.Text(39) != "A0" {
			t.Errorf("%s, want A0", m.Text(39))
		}
		u.wants(u.buy("000007", 20006), "00")
	})
	u.h.recordsWhole()
}

// recordsWhole fails the test when a record had something in it that the log does
// not take.
func (h *house) recordsWhole() {
	h.t.Helper()
	must(h.t, filepath.WalkDir(h.logDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if at := bytes.Index(text, []byte(`"scrub":[`)); at >= 0 {
			h.t.Errorf("a record was scrubbed: %.600q", text[max(0, at-500):])
		}
		return err
	}))
}

// TestUnionPayForgeries (A-08.T3) sends each message that differs from the
// reversal in a byte of DE 4 and a byte of DE 41 or 42 and has its MAC. None has
// an effect.
func TestUnionPayForgeries(t *testing.T) {
	t.Run("A-08.T3 none has an effect", unionPayForgeries)
}

func unionPayForgeries(t *testing.T) {
	u := newCUP(t)
	u.t = t
	u.wants(u.buy("000403", 10000), "00")
	genuine, err := hex.DecodeString(reversalMAB)
	must(t, err)
	character := func(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' }
	sent := 0
	for i := 22; i < 28; i++ { // DE 4
		for j := 36; j < 59; j++ { // DE 41 and 42
			for n := range 100 {
				diff := byte(n/10<<4|n%10) ^ genuine[i]
				if i%8 != j%8 || diff == 0 || !character(genuine[j]^diff) {
					continue
				}
				input := slices.Clone(genuine)
				input[i], input[j] = input[i]^diff, input[j]^diff
				if m := u.exchange(u.forged(input, genuine)); m.Text(39) == "00" {
					t.Errorf("DE 4 byte %d and offset %d: %s", i-22, j, m.Text(39))
				}
				sent++
			}
		}
	}
	if sent != 437 {
		t.Errorf("%d forgeries, want 437", sent)
	}
	if effective, messages := u.booked(10000); effective != 0 || messages != 1 {
		t.Errorf("the issuer has %d messages of the sale, %d of them effective reversals", messages, effective)
	}
	u.wants(u.undo(iso8583.ReversalRequest, "000403", 10000), "00")
}
