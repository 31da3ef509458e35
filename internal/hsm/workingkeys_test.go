package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// wanted is a request for a key numbered i.
func wanted(i int, usage keys.Usage, a keys.Algorithm, mode keys.Mode) keys.Wanted {
	return keys.Wanted{Template: keys.Block{
		ID: keys.ID(fmt.Sprintf("%032d", i)), Version: 1, CreatedMs: 1_700_000_000_000,
		Attributes: keys.Attributes{Usage: usage, Algorithm: a, Mode: mode, Exportability: keys.NonExportable},
	}}
}

func outside(i int, usage keys.Usage, mode keys.Mode, value []byte) keys.Wanted {
	w := wanted(i, usage, keys.TDES2, mode)
	w.Value = secret.From(bytes.Clone(value))
	return w
}

// TestGenerateBatch makes keys of every kind that it is for, more than one
// session's worth, and loads each.
func TestGenerateBatch(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		token := module.Token(t)
		m := hsm.NewManager(token)
		var all []keys.Wanted
		for i := range 70 {
			single := wanted(4*i, keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC)
			single.Single = true
			all = append(all, single,
				wanted(4*i+1, keys.UsagePIN, keys.TDES2, keys.ModeDecrypt),
				wanted(4*i+2, keys.UsageCMAC, keys.AES128, keys.ModeMAC),
				wanted(4*i+3, keys.UsageMACAlg3, keys.TDES2, keys.ModeMAC))
		}
		made, err := m.GenerateBatch(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for i, got := range made {
			if got.Block.ID != all[i].Template.ID || len(got.Print) == 0 || seen[string(got.Print)] {
				t.Fatalf("key %d: id %s, print of %d bytes, seen before: %t", i, got.Block.ID, len(got.Print), seen[string(got.Print)])
			}
			seen[string(got.Print)] = true
			if want := all[i].Single || got.Block.Attributes.Usage == keys.UsageMACAlg3; got.InProcess != want {
				t.Errorf("key %d: in process %t, want %t", i, got.InProcess, want)
			}
			if i >= 8 {
				continue // one of each kind is enough
			}
			loaded, err := token.Load(t.Context(), got.Block)
			if err != nil {
				t.Fatal(err)
			}
			if (loaded.Companion != nil) != (got.Block.Attributes.Usage == keys.UsageMACAlg3) {
				t.Errorf("key %d: companion %v", i, loaded.Companion)
			}
			loaded.Release()
		}
	})
}

// TestGenerateBatchRefused: what is wrong with one key, no key is made for.
func TestGenerateBatchRefused(t *testing.T) {
	m := hsm.NewManager(softhsmtest.SoftHSM().Token(t))
	hmac := wanted(1, keys.UsageHMAC, keys.HMACSHA256, keys.ModeMAC)
	singleAES := wanted(1, keys.UsageCMAC, keys.AES128, keys.ModeMAC)
	singleAES.Single = true
	guarded := wanted(1, keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC)
	guarded.Single, guarded.Template.Policy = true, map[string]string{"keyd:custody": "token"}
	for _, test := range []struct {
		name string
		w    keys.Wanted
		want error
	}{
		{"HMAC", hmac, keys.ErrAttributes},
		{"single AES", singleAES, keys.ErrAttributes},
		{"single, token only", guarded, keys.ErrCustody},
		{"halves equal", outside(1, keys.UsageKEK, keys.ModeBoth, bytes.Repeat([]byte{0x5B, 0xB5, 0xC7, 0x2C, 0xD0, 0x0B, 0x73, 0x38}, 2)), keys.ErrMaterial},
		{"too long", outside(1, keys.UsageKEK, keys.ModeBoth, make([]byte, 24)), keys.ErrMaterial},
	} {
		t.Run(test.name, func(t *testing.T) {
			good := wanted(0, keys.UsagePIN, keys.TDES2, keys.ModeBoth)
			if made, err := m.GenerateBatch(t.Context(), []keys.Wanted{good, test.w}); !errors.Is(err, test.want) || made != nil {
				t.Errorf("%v, %v; want %v", made, err, test.want)
			}
		})
	}
}

// The published keys of section 12 of the UnionPay notes.
const (
	v0TMK = "CA5D92598DCA48CE8A4C76361A9269E9"
	v0PIK = "807A23AD32B36D457AE91FDF927570EA"
	v0MAK = "5BB5C72CD00B7338"
)

// TestDeliver is vector V0, U-42, U-44, U-46: the published keys under the
// published master key. A single-length key is held as K ‖ K, so its
// cryptogram has two equal halves.
func TestDeliver(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		token := module.Token(t)
		m := hsm.NewManager(token)
		made, err := m.GenerateBatch(t.Context(), []keys.Wanted{
			outside(1, keys.UsageKEK, keys.ModeBoth, unhex(t, v0TMK)),
			outside(2, keys.UsagePIN, keys.ModeDecrypt, unhex(t, v0PIK)),
		})
		if err != nil {
			t.Fatal(err)
		}
		tmk, pik := made[0].Block, made[1].Block
		got, inProcess, err := m.Deliver(t.Context(), tmk, []*keys.Block{pik})
		if err != nil {
			t.Fatal(err)
		}
		want := []keys.Cryptogram{{Value: [16]byte(unhex(t, "6701EAD6A9AD51E51AA406E2C27FCFA9")), Check: [4]byte(unhex(t, "8D0A74B8"))}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("V0 (-want +got):\n%s", diff)
		}
		if can := token.Info().Can(hsm.ReencipherTDES); inProcess == can {
			t.Errorf("in process %t on a module that can wrap: %t", inProcess, can)
		}
		if held := token.Stats().Held; held != 0 {
			t.Errorf("%d keys are left in the cache", held)
		}
	})
}

// TestDeliverSingle checks a new single-length key by the master key in
// software, and UnionPay's MAC by the key in the token, U-45, vectors V1 and V2.
func TestDeliverSingle(t *testing.T) {
	softhsmtest.Each(t, func(t *testing.T, module softhsmtest.Module) {
		token := module.Token(t)
		m := hsm.NewManager(token)
		single := wanted(2, keys.UsageMACAlg1, keys.TDES2, keys.ModeMAC)
		single.Single = true
		made, err := m.GenerateBatch(t.Context(), []keys.Wanted{
			outside(1, keys.UsageKEK, keys.ModeBoth, unhex(t, v0TMK)), single,
			outside(3, keys.UsageMACAlg1, keys.ModeMAC, unhex(t, "55036372B17543ECB173730768B8D6C4")),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := m.Deliver(t.Context(), made[0].Block, []*keys.Block{made[1].Block})
		if err != nil {
			t.Fatal(err)
		}
		tmk, err := softkey.New(keys.TDES2, unhex(t, v0TMK))
		if err != nil {
			t.Fatal(err)
		}
		value, err := tmk.Decrypt(nil, got[0].Value[:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(value[:8], value[8:]) {
			t.Fatal("the halves of a single-length key differ")
		}
		soft, err := softkey.New(keys.TDES2, value)
		if err != nil {
			t.Fatal(err)
		}
		check, err := keys.CheckUnionPay(soft)
		if err != nil || check != got[0].Check {
			t.Errorf("check value %X, want %X (%v)", got[0].Check, check, err)
		}
		same := func(b *keys.Block, by mac.Cipher) {
			t.Helper()
			loaded, err := token.Load(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			defer loaded.Release()
			message := []byte("0200 and so on")
			inside, err := mac.UnionPay(loaded.Key, message)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := mac.UnionPay(by, message); err != nil || inside != other {
				t.Errorf("MAC %s in the token, %s outside (%v)", inside, other, err)
			}
		}
		same(made[1].Block, soft)
		v2, err := softkey.New(keys.TDES2, unhex(t, "55036372B17543ECB173730768B8D6C4"))
		if err != nil {
			t.Fatal(err)
		}
		same(made[2].Block, v2)
	})
}

// TestDeliverRefused: only working keys, and only under a master key.
func TestDeliverRefused(t *testing.T) {
	m := hsm.NewManager(softhsmtest.SoftHSM().Token(t))
	guarded := wanted(4, keys.UsagePIN, keys.TDES2, keys.ModeDecrypt)
	guarded.Template.Policy = map[string]string{"keyd:custody": "token"}
	made, err := m.GenerateBatch(t.Context(), []keys.Wanted{
		wanted(1, keys.UsageKEK, keys.TDES2, keys.ModeBoth), wanted(2, keys.UsagePIN, keys.TDES2, keys.ModeDecrypt),
		wanted(3, keys.UsageKEK, keys.AES128, keys.ModeBoth), guarded,
	})
	if err != nil {
		t.Fatal(err)
	}
	tmk, pin, aes, kept := made[0].Block, made[1].Block, made[2].Block, made[3].Block
	forged := *pin
	forged.Attributes.Mode = keys.ModeBoth
	for _, test := range []struct {
		name    string
		master  *keys.Block
		carried *keys.Block
		want    error
	}{
		{"a master key", tmk, tmk, keys.ErrForbidden},
		{"under a PIN key", pin, pin, keys.ErrForbidden},
		{"in ECB under AES", aes, pin, keys.ErrForbidden},
		{"a changed block", tmk, &forged, keys.ErrBlockMAC},
		{"a key of the token alone", tmk, kept, keys.ErrCustody},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, _, err := m.Deliver(t.Context(), test.master, []*keys.Block{test.carried}); !errors.Is(err, test.want) || got != nil {
				t.Errorf("%v, %v; want %v", got, err, test.want)
			}
		})
	}
	for _, carried := range []*keys.Block{tmk, kept} {
		if _, err := m.WorkingValue(t.Context(), tmk, carried); err == nil {
			t.Errorf("key %s came out", carried.ID)
		}
	}
}

// BenchmarkGenerateBatch is the rate of keys that is made with many others.
func BenchmarkGenerateBatch(b *testing.B) {
	m := hsm.NewManager(softhsmtest.SoftHSM().Token(b))
	list := make([]keys.Wanted, 300)
	for i := range list {
		list[i] = wanted(i, keys.UsagePIN, keys.TDES2, keys.ModeDecrypt)
	}
	start, n := time.Now(), 0
	for b.Loop() {
		if _, err := m.GenerateBatch(b.Context(), list); err != nil {
			b.Fatal(err)
		}
		n += len(list)
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "keys/s")
}
