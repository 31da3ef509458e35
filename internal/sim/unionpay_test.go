package sim

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// The worked dialogue of spec/unionpay-pos.md, section 11, and the sign-in of
// vector V0.
const (
	v0TMK    = "CA5D92598DCA48CE8A4C76361A9269E9"
	v0Keys   = "6701EAD6A9AD51E51AA406E2C27FCFA98D0A74B8B651F9E9BACE9AE10000000000000000AB7153CA"
	dialogue = "60000600006031003110030200702004C020C0981116622424290000011300000000000001000000040302100012336224242900000113D28062013949031010313030303031393835303130303038323431303030323031353623B72AC5781BA14126000000000000000013220000240006003243324532303132"
	undoing  = "600006000060310031100304007020048002C08011166224242900000113000000000000010000000403021000393831303030303139383530313030303832343130303032303135360013220000240006003346383136314541"
	undone   = "60000600006031003110030410303800800AC08011000000000000010000000403101530112100313132313130303030343033303031303030303139383530313030303832343130303032303135360013220000240006003838413933323143"
)

func unhexed(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cupTerminal is the terminal of the dialogue, signed in with the keys of V0.
func cupTerminal(t testing.TB, change func(*UnionPayConfig)) (*UnionPay, *State) {
	t.Helper()
	p, err := profile.Builtin("unionpay")
	if err != nil {
		t.Fatal(err)
	}
	cfg := UnionPayConfig{TID: "10000198", MID: "501000824100020", TMK: v0TMK, Dialect: p.Dialect, Algorithm: "cup_ecb"}
	if change != nil {
		change(&cfg)
	}
	u, err := NewUnionPay(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{STAN: 402, Batch: 24, Keys: v0Keys}
	if err := u.begin(s, false); err != nil || !u.ready(s) {
		t.Fatalf("the keys of V0 were not taken: %v", err)
	}
	return u, s
}

// TestUnionPayDialogue: sale, reversal and its answer, byte for byte (U-07, U-16,
// U-21, U-35, U-52, U-64).
func TestUnionPayDialogue(t *testing.T) {
	u, s := cupTerminal(t, nil)
	sale, err := u.request(s, Order{Do: DoSale, Amount: 10000, Card: Card{
		PAN: "6224242900000113", PIN: "123456", Track2: "6224242900000113D2806201394903101",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ToUpper(hex.EncodeToString(sale.Raw)); got != dialogue {
		t.Errorf("sale\n%s\nmust be\n%s", got, dialogue)
	}
	p := &Pending{Original: sale.Remember(nil), Reason: "98"}
	back, err := u.reversal(s, p)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ToUpper(hex.EncodeToString(back.Raw)); got != undoing {
		t.Errorf("reversal\n%s\nmust be\n%s", got, undoing)
	}
	again, err := u.reversal(s, p)
	if err != nil || string(again.Raw) != string(back.Raw) {
		t.Errorf("U-66: the repeat is another message, or %v", err)
	}
	j, err := u.judge(back, unhexed(t, undone))
	if err != nil || j.MAC != MACValid || !u.settles(j.Message.Text(39)) {
		t.Errorf("the answer of the dialogue: %v, MAC %s", err, j.MAC)
	}
}

// TestUnionPayJudges is U-58 and U-60: what a terminal makes of an answer.
func TestUnionPayJudges(t *testing.T) {
	u, s := cupTerminal(t, nil)
	strict, _ := cupTerminal(t, func(c *UnionPayConfig) { c.Strict = true })
	sale, err := u.request(s, Order{Do: DoSale, Amount: 10000, Card: Card{PAN: "6224242900000113"}})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(code string, change func(*iso8583.Builder)) []byte {
		b := sale.Message.Answer(code).Set(12, "101530").Set(13, "1121").Set(37, "112110000403")
		if change != nil {
			change(b)
		}
		sent, err := u.seal(b)
		if err != nil {
			t.Fatal(err)
		}
		return sent.Raw
	}
	for _, tt := range []struct {
		name   string
		raw    []byte
		reason string // of the reversal; "" when the answer is believed
		strict string // the same with Strict
	}{
		{"approval", answer("00", nil), "", ""},
		{"approval with a wrong MAC", spoiled(answer("00", nil)), "A0", "A0"},
		{"approval of a special kind with a wrong MAC", spoiled(answer("11", nil)), "A0", "A0"},
		{"A-20 decline with a wrong MAC", spoiled(answer("51", nil)), "", "A0"},
		{"another processing code", answer("00", func(b *iso8583.Builder) { b.Set(3, "200000") }), "06", "06"},
		{"another STAN", answer("00", func(b *iso8583.Builder) { b.Set(11, "000999") }), "06", "06"},
		{"another terminal", answer("51", func(b *iso8583.Builder) { b.Set(41, "10000199") }), "06", "06"},
		{"another merchant, approved", answer("00", func(b *iso8583.Builder) { b.Set(42, "501000824100021") }), "06", "06"},
		{"another amount", answer("00", func(b *iso8583.Builder) { b.Set(4, "000000010001") }), "06", "06"},
		{"approved in part", answer("10", func(b *iso8583.Builder) { b.Set(4, "000000005000") }), "", ""},
		{"cut short", answer("00", nil)[:60], "06", "06"},
		{"a request", sale.Raw, "06", "06"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for of, want := range map[*UnionPay]string{u: tt.reason, strict: tt.strict} {
				_, err := of.judge(sale, tt.raw)
				got := ""
				if err != nil {
					got = of.reason(err)
				}
				if got != want {
					t.Errorf("reason %q, want %q (%v)", got, want, err)
				}
			}
		})
	}
}

// TestOpenKeys is U-42 to U-47: the three layouts, and what must not be taken.
func TestOpenKeys(t *testing.T) {
	tmk, field := unhexed(t, v0TMK), unhexed(t, v0Keys)
	got, err := openKeys(tmk, field)
	if err != nil || hex.EncodeToString(got.pik) != "807a23ad32b36d457ae91fdf927570ea" || hex.EncodeToString(got.mak) != "5bb5c72cd00b7338" || got.tdk != nil {
		t.Fatalf("V0: %v", err)
	}
	single := append(append([]byte{}, field[20:28]...), field[36:]...) // the MAK of V0 in both slots of 001
	single = append(single, single...)
	if got, err := openKeys(tmk, single); err != nil || len(got.pik) != 8 || len(got.mak) != 8 {
		t.Errorf("form 001: %v", err)
	}
	track := append(append([]byte{}, field...), field[:20]...) // the PIK of V0 as TDK
	if got, err := openKeys(tmk, track); err != nil || len(got.tdk) != 16 {
		t.Errorf("form 004: %v", err)
	}
	double := append(append([]byte{}, field[:20]...), field[:20]...) // the PIK of V0 as MAK
	if got, err := openKeys(tmk, double); err != nil || len(got.mak) != 16 {
		t.Errorf("U-45, a MAK of double length: %v", err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"a bit of the PIK":            func(b []byte) []byte { b[0] ^= 0x10; return b },
		"a bit of the PIK's check":    func(b []byte) []byte { b[16] ^= 1; return b },
		"a bit of the MAK":            func(b []byte) []byte { b[20] ^= 0x10; return b },
		"a bit of the MAK's check":    func(b []byte) []byte { b[39] ^= 1; return b },
		"something in the empty half": func(b []byte) []byte { b[35] = 1; return b },
		"another length":              func(b []byte) []byte { return b[:39] },
		"nothing":                     func([]byte) []byte { return nil },
	} {
		if _, err := openKeys(tmk, spoil(unhexed(t, v0Keys))); !errors.Is(err, ErrWorkingKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := openKeys(unhexed(t, "00112233445566778899AABBCCDDEEFF"), field); !errors.Is(err, ErrWorkingKeys) {
		t.Errorf("under another master key: %v", err)
	}
}

// TestUnionPayMACs are the vectors of section 11.4 and section 12.
func TestUnionPayMACs(t *testing.T) {
	const mab = "04007020048002C0801116622424290000011300000000000001000000040302100039383130303030313938353031303030383234313030303230313536001322000024000600"
	for _, tt := range []struct{ algorithm, key, data, want string }{
		{"x9_9", "5BB5C72CD00B7338", mab, "9FF15A6490EEE373"},
		{"x9_19", "55036372B17543ECB173730768B8D6C4", mab, "1888583BFA973CAA"},
		{"cbc_mac_3des", "55036372B17543ECB173730768B8D6C4", mab, "D73E6A0B981E3C70"},
		{"cup_ecb", "2222222222222222", "1234567890ABCDEFABCDEF1234567890", "E267B6E21913D339"},
	} {
		t.Run(tt.algorithm, func(t *testing.T) {
			k := workingKeys{mak: unhexed(t, tt.key)}
			sum, err := k.mac(tt.algorithm, unhexed(t, tt.data))
			if got := strings.ToUpper(hex.EncodeToString(sum[:])); err != nil || got != tt.want {
				t.Errorf("%s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

// TestUnionPayTypes are the rows of section 4 and what a terminal reverses (U-15 to
// U-20, U-65).
func TestUnionPayTypes(t *testing.T) {
	u, s := cupTerminal(t, nil)
	card := Card{PAN: "6224242900000113", PIN: testPINOfTrials}
	made := func(o Order) *Sent {
		t.Helper()
		sent, err := u.request(s, o)
		if err != nil {
			t.Fatal(err)
		}
		return sent
	}
	remembered := func(sent *Sent) *Memory {
		m := sent.Remember(nil)
		m.RRN, m.Approval, m.Date = "112110000403", "123456", "1121"
		return &m
	}
	sale := remembered(made(Order{Do: DoSale, Amount: 100, Card: card}))
	preauth := remembered(made(Order{Do: DoPreauth, Amount: 100, Card: card}))
	completion := remembered(made(Order{Do: DoComplete, Amount: 90, Of: preauth}))
	for _, tt := range []struct {
		name                  string
		o                     Order
		mti, de3, de25, de601 string
		owes, repeats         bool
		names                 *Memory
	}{
		{"U-15 balance inquiry", Order{Do: DoBalance, Card: card}, "0200", "310000", "00", "01", false, false, nil},
		{"U-16 sale", Order{Do: DoSale, Amount: 100, Card: card}, "0200", "000000", "00", "22", true, false, nil},
		{"U-17 void of a sale", Order{Do: DoVoid, Of: sale}, "0200", "200000", "00", "23", true, false, sale},
		{"U-18 pre-authorisation", Order{Do: DoPreauth, Amount: 100, Card: card}, "0100", "030000", "06", "10", true, false, nil},
		{"U-18 its void", Order{Do: DoVoid, Of: preauth}, "0100", "200000", "06", "11", true, false, preauth},
		{"U-19 completion", Order{Do: DoComplete, Amount: 90, Of: preauth}, "0200", "000000", "06", "20", true, false, preauth},
		{"U-19 its void", Order{Do: DoVoid, Of: completion}, "0200", "200000", "06", "21", true, false, completion},
		{"U-20 refund", Order{Do: DoRefund, Amount: 100, Of: sale}, "0220", "200000", "00", "25", false, true, sale},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent := made(tt.o)
			m := sent.Message
			if got := []string{string(m.MTI()), m.Text(3), m.Text(25), m.Text(60)}; got[0] != tt.mti || got[1] != tt.de3 || got[2] != tt.de25 || got[3] != tt.de601+"00002400060" {
				t.Errorf("%q", got)
			}
			if u.owes(tt.o) != tt.owes || u.repeats(tt.o) != tt.repeats {
				t.Errorf("reverses it: %v, sends it again: %v", u.owes(tt.o), u.repeats(tt.o))
			}
			want := ""
			if tt.names != nil {
				want = "000024" + tt.names.field(11) + "1121"
			}
			if m.Text(61) != want {
				t.Errorf("U-38: DE 61 is %q, want %q", m.Text(61), want)
			}
			if !tt.owes {
				return
			}
			back, err := u.reversal(s, &Pending{Original: sent.Remember(nil), Reason: "06"})
			if err != nil {
				t.Fatal(err)
			}
			r := back.Message
			if r.Text(61) != want || r.Text(11) != m.Text(11) || r.Text(60) != m.Text(60) || r.Text(39) != "06" || r.Has(35) || r.Has(52) || r.Has(53) || r.Has(26) || r.Has(37) {
				t.Errorf("U-64: the reversal has DE 61 %q, 11 %q, 39 %q", r.Text(61), r.Text(11), r.Text(39))
			}
		})
	}
	if _, err := u.request(s, Order{Do: DoVoid, Of: remembered(made(Order{Do: DoBalance, Card: card}))}); !errors.Is(err, ErrOrder) {
		t.Errorf("void of an inquiry: %v", err)
	}
}

// testPINOfTrials is the PIN of simulated cards.
const testPINOfTrials = "1234"

// TestUnionPayNumbers: STAN and batch begin again after 999999, and an 0810 sets
// the batch (U-37, U-48).
func TestUnionPayNumbers(t *testing.T) {
	u, s := cupTerminal(t, nil)
	s.STAN, s.Batch = maxSTAN-1, maxSTAN
	for _, want := range []string{"999999", "000001"} {
		sent, err := u.request(s, Order{Do: DoSale, Amount: 100, Card: Card{PAN: "6224242900000113"}})
		if err != nil || sent.Message.Text(11) != want {
			t.Fatalf("STAN %s, %v; want %s", sent.Message.Text(11), err, want)
		}
	}
	u.closes(s)
	if s.Batch != 1 {
		t.Errorf("the batch after 999999 is %d", s.Batch)
	}
	in, err := u.call(s, DoSignIn)
	if err != nil || u.ready(s) {
		t.Fatalf("U-47: signing in keeps the old keys, or %v", err)
	}
	raw, err := in.Message.Answer("00").Set(60, "00000777003").Set(62, v0Keys).PackWithoutMAC()
	if err != nil {
		t.Fatal(err)
	}
	j, err := u.judge(in, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.installs(s, j.Message); err != nil || s.Batch != 777 || !u.ready(s) || s.Keys != v0Keys {
		t.Errorf("batch %d, ready %v, %v", s.Batch, u.ready(s), err)
	}
	raw, err = in.Message.Answer("00").Set(62, v0Keys+"00").PackWithoutMAC()
	if err != nil {
		t.Fatal(err)
	}
	if j, err = u.judge(in, raw); err != nil {
		t.Fatal(err)
	}
	if err := u.installs(s, j.Message); !errors.Is(err, ErrWorkingKeys) {
		t.Errorf("keys of another layout: %v", err)
	}
}

// TestUnionPayRefusesConfig: what no terminal can be made of.
func TestUnionPayRefusesConfig(t *testing.T) {
	for name, change := range map[string]func(*UnionPayConfig){
		"no dialect":       func(c *UnionPayConfig) { c.Dialect = nil },
		"master key":       func(c *UnionPayConfig) { c.TMK = "00" },
		"no hexadecimal":   func(c *UnionPayConfig) { c.TMK = "secret" },
		"form of sign-in":  func(c *UnionPayConfig) { c.Form = "002" },
		"algorithm":        func(c *UnionPayConfig) { c.Algorithm = "sm4_cbc" },
		"batch above most": func(c *UnionPayConfig) { c.Batch = maxSTAN + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := profile.Builtin("unionpay")
			if err != nil {
				t.Fatal(err)
			}
			cfg := UnionPayConfig{TID: "10000198", MID: "501000824100020", TMK: v0TMK, Dialect: p.Dialect, Algorithm: "cup_ecb"}
			change(&cfg)
			if _, err := NewUnionPay(cfg); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

// FuzzOpenKeys: working keys come from outside.
func FuzzOpenKeys(f *testing.F) {
	f.Add(unhexed(f, v0Keys))
	f.Add([]byte{})
	tmk := unhexed(f, v0TMK)
	f.Fuzz(func(t *testing.T, field []byte) {
		k, err := openKeys(tmk, field)
		if (err == nil) == (k == nil) {
			t.Errorf("keys and error %v", err)
		}
	})
}

// FuzzUnionPayJudge: an answer may be anything; nothing but a MAC makes an approval
// believed.
func FuzzUnionPayJudge(f *testing.F) {
	f.Add(unhexed(f, undone))
	f.Add(unhexed(f, undoing))
	u, s := cupTerminal(f, nil)
	sale, err := u.request(s, Order{Do: DoSale, Amount: 10000, Card: Card{PAN: "6224242900000113"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := u.judge(sale, raw)
		if err == nil && u.approves(j.Message.Text(39)) && j.MAC != MACValid {
			t.Errorf("an approval without a MAC was believed")
		}
	})
}

// TestChip is U-04, U-58 and U-64: what a chip's transaction and its reversal have.
func TestChip(t *testing.T) {
	u, s := cupTerminal(t, nil)
	sent, err := u.request(s, Order{Do: DoSale, Amount: 10000, Card: Card{PAN: "6224242900000113", Chip: true}})
	if err != nil {
		t.Fatal(err)
	}
	m := sent.Message
	if m.Header()[0] != 0x61 || m.Text(22) != "051" || m.Text(23) != "001" || m.Text(60) != "2200002400050" || !strings.Contains(m.Text(55), "9F0206000000010000") {
		t.Errorf("header %X, DE 22 %s, 60 %s, 55 %s", m.Header(), m.Text(22), m.Text(60), m.Text(55))
	}
	back, err := u.reversal(s, &Pending{Original: sent.Remember(nil), Reason: "06"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := splitTLV(back.Message.Text(55))
	var tags []string
	for _, o := range list {
		tags = append(tags, o.tag)
	}
	if got := strings.Join(tags, " "); err != nil || got != "9F10 9F36 95 9F1E" {
		t.Errorf("the reversal has %s, %v", got, err)
	}
	for _, bad := range []string{"9", "95", "9505", "950500", "9F", "9F10", "9581"} {
		if _, err := splitTLV(bad); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// FuzzSplitTLV: chip data stand in a file.
func FuzzSplitTLV(f *testing.F) {
	f.Add(chipData(100, "156", 7))
	f.Fuzz(func(t *testing.T, field string) {
		list, err := splitTLV(field)
		if err == nil && joinTLV(list) != strings.ToUpper(field) {
			t.Errorf("%s became %s", field, joinTLV(list))
		}
	})
}
