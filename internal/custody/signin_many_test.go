package custody_test

import (
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/unionpay"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// setsAtOnce is how many sets of three keys the token makes in one session.
const setsAtOnce = 85

// TestA19T1 opens ten thousand fields 62, as the token makes them for a sign-in,
// the way a terminal does: no value stands in two slots, the halves of each key
// differ, every check value is right. Under the race detector, and on the second
// module, it opens fewer.
func TestA19T1(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		m := hsm.NewManager(module.Token(t))
		template := func(n int, u keys.Usage, mode keys.Mode) keys.Block {
			id := []byte("a19t1000000000000000000000000000")
			for at := len(id) - 1; n > 0; at, n = at-1, n/10 {
				id[at] = byte('0' + n%10)
			}
			return keys.Block{ID: keys.ID(id), Version: 1, Attributes: keys.Attributes{Usage: u, Algorithm: keys.TDES2, Mode: mode, Exportability: keys.NonExportable}}
		}
		master := template(0, keys.UsageKEK, keys.ModeBoth)
		made, err := m.GenerateBatch(t.Context(), []keys.Wanted{{Template: master, Value: secret.From(unhex(t, testTMK))}})
		if err != nil {
			t.Fatal(err)
		}
		tmk := made[0].Block
		u := terminal{tmk: testTMK}
		want := mostSets
		if module.Name != "softhsm" {
			want = min(want, 1000)
		}
		seen := make(map[string]bool)
		for n := 0; n < want; {
			var wanted []keys.Wanted
			for range min(setsAtOnce, want-n) {
				wanted = append(wanted,
					keys.Wanted{Template: template(3*n+1, keys.UsagePIN, keys.ModeDecrypt)},
					keys.Wanted{Template: template(3*n+2, keys.UsageMACAlg1, keys.ModeMAC), Single: n%2 == 0},
					keys.Wanted{Template: template(3*n+3, keys.UsageData, keys.ModeDecrypt)})
				n++
			}
			made, err := m.GenerateBatch(t.Context(), wanted)
			if err != nil {
				t.Fatal(err)
			}
			blocks := make([]*keys.Block, len(made))
			for i := range made {
				blocks[i] = made[i].Block
			}
			sealed, _, err := m.Deliver(t.Context(), tmk, blocks)
			if err != nil {
				t.Fatal(err)
			}
			for ; len(sealed) > 0; sealed = sealed[3:] {
				data := unionpay.SlotOf(sealed[2])
				field, err := unionpay.Pack(unionpay.Form004, unionpay.Set{PIN: unionpay.SlotOf(sealed[0]), MAC: unionpay.SlotOf(sealed[1]), Data: &data})
				if err != nil {
					t.Fatal(err)
				}
				u.open(t, "004", field)
				if seen[string(u.pin)] || seen[string(u.mac)] {
					t.Fatal("two sign-ins got one value")
				}
				seen[string(u.pin)], seen[string(u.mac)] = true, true
			}
		}
	})
}

// BenchmarkSignIn is the rate of sign-ins, one after the other.
func BenchmarkSignIn(b *testing.B) {
	r := newRegistry(b, softhsmtest.Token(b))
	if _, err := r.AddTerminals(b.Context(), admin, "bench", []custody.NewTerminal{generated(1, "unionpay")}); err != nil {
		b.Fatal(err)
	}
	user := r.WithoutMaker()
	for b.Loop() {
		q := custody.SignIn{TID: "T0000001", Form: "003", Algorithm: custody.CUPECB, MACBytes: 8}
		if _, err := user.SignIn(b.Context(), theSwitch, "bench", q); err != nil {
			b.Fatal(err)
		}
	}
}
