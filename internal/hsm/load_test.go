package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// imported makes the block of a value.
func imported(t testing.TB, m *hsm.Manager, tmpl keys.Block, value []byte) *keys.Block {
	t.Helper()
	b, err := m.Import(t.Context(), tmpl, secret.From(slices.Clone(value)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loaded(t testing.TB, token *hsm.Token, b *keys.Block) *keys.Loaded {
	t.Helper()
	l, err := token.Load(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}

// TestAbilities reads the attributes of every kind of loaded key in the token,
// and does with it, past this package's own check, what it may not.
func TestAbilities(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	all := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
		pkcs11.CKA_DERIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_PRIVATE, pkcs11.CKA_TOKEN}
	every(t, func(t *testing.T, tmpl keys.Block) {
		a := tmpl.Attributes
		l := loaded(t, token, imported(t, m, tmpl, bytes.Repeat(unhex(t, clear32), 2)[:a.Algorithm.KeyBytes()]))
		want := map[uint]bool{pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_PRIVATE: true}
		for _, typ := range may(a, token.Info()) {
			want[typ] = true
		}
		for _, k := range []keys.Key{l.Key, l.Companion} {
			if k == nil {
				continue
			}
			got, err := hsm.Attributes(k, all...)
			if err != nil {
				t.Fatal(err)
			}
			for typ, set := range got {
				if set != want[typ] {
					t.Errorf("attribute %#x is %t, want %t", typ, set, want[typ])
				}
			}
			if err := hsm.ReadValue(k); err == nil {
				t.Error("the value can be read")
			}
			if a.Algorithm.IsHMAC() {
				continue
			}
			if err := hsm.Bypass(k, false); errors.Is(err, keys.ErrForbidden) == want[pkcs11.CKA_ENCRYPT] {
				t.Errorf("encrypting past the check: %v, may: %t", err, want[pkcs11.CKA_ENCRYPT])
			}
			if err := hsm.Bypass(k, true); errors.Is(err, keys.ErrForbidden) == want[pkcs11.CKA_SIGN] {
				t.Errorf("a MAC past the check: %v, may: %t", err, want[pkcs11.CKA_SIGN])
			}
		}
	})
}

// may is section 9 of the boundary's rules, written down once more.
func may(a keys.Attributes, module hsm.Info) []uint {
	if a.Usage == "M6" && a.Algorithm.IsTDES() && !module.Can(hsm.TDESCMAC) {
		return []uint{pkcs11.CKA_ENCRYPT} // for the chain
	}
	switch a.Usage {
	case "B0":
		if a.Algorithm.IsAES() {
			return []uint{pkcs11.CKA_DERIVE}
		}
		return []uint{pkcs11.CKA_ENCRYPT}
	case "K0", "K1":
		return []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DERIVE}
	case "M0", "M1", "M3", "C0":
		return []uint{pkcs11.CKA_ENCRYPT}
	case "M6", "M7":
		return []uint{pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY}
	}
	switch a.Mode {
	case 'E':
		return []uint{pkcs11.CKA_ENCRYPT}
	case 'D':
		return []uint{pkcs11.CKA_DECRYPT}
	}
	return []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
}

func TestForbidden(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	value := unhex(t, clear32)
	block, spec := make([]byte, 16), keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt}
	bdk := loaded(t, token, imported(t, m, template("B0", keys.AES128, 'X'), value[:16])).Key
	out := loaded(t, token, imported(t, m, template("P0", keys.AES128, 'E'), value[:16])).Key
	sum := loaded(t, token, imported(t, m, template("M7", keys.HMACSHA256, 'C'), value)).Key
	for name, call := range map[string]func() error{
		"BDK encrypts":       func() error { _, err := bdk.Encrypt(nil, block); return err },
		"BDK decrypts":       func() error { _, err := bdk.Decrypt(nil, block); return err },
		"BDK makes a CMAC":   func() error { _, err := bdk.CMAC(block); return err },
		"PIN key, E, D":      func() error { _, err := out.Decrypt(nil, block); return err },
		"PIN key derives":    func() error { _, err := out.Derive(block, spec); return err },
		"HMAC key encrypts":  func() error { _, err := sum.Encrypt(nil, block); return err },
		"HMAC key, CMAC":     func() error { _, err := sum.CMAC(block); return err },
		"HMAC key derives":   func() error { _, err := sum.Derive(block, spec); return err },
		"derived, forbidden": func() error { return derivedMay(bdk, block, spec) },
	} {
		if err := call(); !errors.Is(err, keys.ErrForbidden) {
			t.Errorf("%s: %v, want %v", name, err, keys.ErrForbidden)
		}
	}
	if _, ok := out.(keys.HMACKey); ok {
		t.Error("an AES key claims to have HMAC")
	}
}

func derivedMay(base keys.Key, data []byte, as keys.Spec) error {
	d, err := base.Derive(data, as)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Decrypt(nil, data)
	return err
}

func TestArguments(t *testing.T) {
	token := softhsmtest.Token(t)
	value := unhex(t, clear32)
	m := hsm.NewManager(token)
	k := loaded(t, token, imported(t, m, template("K0", keys.TDES2, 'B'), value[:16])).Key
	block := make([]byte, 8)
	for name, call := range map[string]func() error{
		"no data":             func() error { _, err := k.Encrypt(nil, nil); return err },
		"part of a block":     func() error { _, err := k.Encrypt(nil, block[:7]); return err },
		"initial vector":      func() error { _, err := k.Encrypt(block[:7], block); return err },
		"derive: no data":     func() error { _, err := k.Derive(nil, keys.Spec{Algorithm: keys.TDES2}); return err },
		"derive: short":       func() error { _, err := k.Derive(block, keys.Spec{Algorithm: keys.TDES2}); return err },
		"derive: part":        func() error { _, err := k.Derive(make([]byte, 20), keys.Spec{Algorithm: keys.TDES2}); return err },
		"derive: no such key": func() error { _, err := k.Derive(block, keys.Spec{}); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestUses runs a published case through loaded blocks for each use that needs
// a companion or a derivation.
func TestUses(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)

	t.Run("TDES initial key", func(t *testing.T) {
		// ANSI X9.24-1:2009, annex A.4.
		l := loaded(t, token, imported(t, m, template("B0", keys.TDES2, 'X'), unhex(t, "0123456789ABCDEFFEDCBA9876543210")))
		serial := unhex(t, "FFFF9876543210E0")
		left, err := l.Key.Encrypt(nil, serial)
		if err != nil {
			t.Fatal(err)
		}
		right, err := l.Companion.Encrypt(nil, serial)
		if err != nil || !bytes.Equal(append(left, right...), unhex(t, "6AC292FAA1315B4D858AB3A3D7D5933A")) {
			t.Errorf("the initial key differs: %v", err)
		}
	})
	t.Run("algorithm 3", func(t *testing.T) {
		value := unhex(t, "0123456789ABCDEFFEDCBA9876543210")
		l := loaded(t, token, imported(t, m, template("M3", keys.TDES2, 'C'), value))
		left, full, err := mac.NewAlgorithm3(value)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 40; n++ {
			message := bytes.Repeat([]byte{byte(n)}, n)
			want, err := mac.Algorithm3(left, full, message, mac.Padding2)
			if err != nil {
				t.Fatal(err)
			}
			got, err := mac.Algorithm3(l.Companion, l.Key, message, mac.Padding2)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: the MAC differs: %v", n, err)
			}
		}
	})
	t.Run("AES initial key", func(t *testing.T) {
		// ANSI X9.24-3:2017, section B: BDK of 128 bits.
		b := imported(t, m, template("B0", keys.AES128, 'X'), unhex(t, "FEDCBA9876543210F1F1F1F1F1F1F1F1"))
		step := dukpt.InitialKeyStep([8]byte(unhex(t, "1234567890123456")), dukpt.AES128)
		as := keys.Spec{Algorithm: keys.AES128, Can: keys.CanEncrypt}
		before := token.Stats().Made
		for range 3 {
			l, err := token.Derived(t.Context(), b, step.Data(), as)
			if err != nil {
				t.Fatal(err)
			}
			ik, err := mac.NewAES(unhex(t, "1273671EA26AC29AFA4D1084127652A1"))
			if err != nil {
				t.Fatal(err)
			}
			want, _ := ik.Encrypt(nil, make([]byte, 32))
			got, err := l.Key.Encrypt(nil, make([]byte, 32))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("the initial key differs: %v", err)
			}
			l.Release()
		}
		if made := token.Stats().Made - before; made != 2 {
			t.Errorf("%d objects made, want 2: the base and the derived key", made)
		}
		if _, err := token.Derived(t.Context(), b, make([]byte, 80), as); err == nil {
			t.Error("derivation data of 80 bytes was accepted")
		}
		forged := *b
		forged.Attributes.Algorithm = keys.AES192
		if _, err := token.Derived(t.Context(), &forged, make([]byte, 16), as); !errors.Is(err, keys.ErrBlockMAC) {
			t.Errorf("deriving from a forged base: %v, want %v", err, keys.ErrBlockMAC)
		}
		pinKey := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
		if _, err := token.Derived(t.Context(), pinKey, step.Data(), as); !errors.Is(err, keys.ErrForbidden) {
			t.Errorf("deriving from a PIN key: %v, want %v", err, keys.ErrForbidden)
		}
	})
	t.Run("system keys", func(t *testing.T) {
		data, err := token.System("data")
		if err != nil {
			t.Fatal(err)
		}
		iv, text := make([]byte, 16), bytes.Repeat([]byte{7}, 48)
		sealed, err := data.Encrypt(iv, text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := data.Decrypt(iv, sealed); err != nil || !bytes.Equal(again, text) {
			t.Errorf("data does not come back: %v", err)
		}
		if same, err := token.System("data"); err != nil || same != data {
			t.Errorf("the second time it is another key: %v", err)
		}
		pan, err := token.System("token")
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := pan.(keys.HMACKey).HMAC(nil); err != nil || len(sum) != 32 {
			t.Errorf("HMAC of %d bytes: %v", len(sum), err)
		}
	})
}

// tampered returns copies of b with one part changed each.
func tampered(b *keys.Block) map[string]*keys.Block {
	all := make(map[string]*keys.Block)
	change := func(name string, f func(*keys.Block)) {
		c := *b
		c.Policy, c.Wrapped, c.Companion = maps.Clone(b.Policy), slices.Clone(b.Wrapped), slices.Clone(b.Companion)
		f(&c)
		all[name] = &c
	}
	change("id", func(b *keys.Block) { b.ID = b.ID[:31] + "0" })
	change("version", func(b *keys.Block) { b.Version++ })
	change("usage", func(b *keys.Block) { b.Attributes.Usage = "D0" })
	change("unknown usage", func(b *keys.Block) { b.Attributes.Usage = "ZZ" })
	change("algorithm", func(b *keys.Block) { b.Attributes.Algorithm = keys.AES192 })
	change("mode", func(b *keys.Block) { b.Attributes.Mode = keys.ModeEncrypt })
	change("exportability", func(b *keys.Block) { b.Attributes.Exportability = keys.Sensitive })
	change("origin", func(b *keys.Block) { b.Origin = keys.Generated })
	change("check method", func(b *keys.Block) { b.CheckBy = keys.CheckByCMAC })
	change("check value", func(b *keys.Block) { b.Check[2] ^= 1 })
	change("time", func(b *keys.Block) { b.CreatedMs++ })
	change("policy value", func(b *keys.Block) { b.Policy["keyd:custody"] = "process" })
	change("policy removed", func(b *keys.Block) { delete(b.Policy, "keyd:custody") })
	change("policy added", func(b *keys.Block) { b.Policy["keyd:a"] = "b" })
	change("wrapped", func(b *keys.Block) { b.Wrapped[0] ^= 1 })
	change("wrapped end", func(b *keys.Block) { b.Wrapped[len(b.Wrapped)-1] ^= 0x80 })
	change("wrapped cut", func(b *keys.Block) { b.Wrapped = b.Wrapped[:len(b.Wrapped)-8] })
	change("companion", func(b *keys.Block) { b.Companion[3] ^= 1 })
	change("companion removed", func(b *keys.Block) { b.Companion = nil })
	change("exchanged", func(b *keys.Block) { b.Wrapped, b.Companion = b.Companion, b.Wrapped })
	change("MAC", func(b *keys.Block) { b.MAC[15] ^= 1 })
	change("MAC zero", func(b *keys.Block) { b.MAC = [16]byte{} })
	return all
}

func TestTampered(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	tmpl := template("B0", keys.TDES2, 'X')
	tmpl.Policy = map[string]string{"keyd:custody": "token", "keyd:mac-length": "8"}
	b := imported(t, m, tmpl, unhex(t, clear32)[:16])
	other := imported(t, m, template("B0", keys.TDES2, 'X'), unhex(t, clear32)[16:])
	refused := func(t *testing.T) {
		all := tampered(b)
		swapped := *b
		swapped.Wrapped, swapped.Companion = other.Wrapped, other.Companion
		all["another key's value"] = &swapped
		for name, forged := range all {
			if l, err := token.Load(t.Context(), forged); !errors.Is(err, keys.ErrBlockMAC) {
				t.Errorf("%s: %v, want %v", name, err, keys.ErrBlockMAC)
				if err == nil {
					l.Release()
				}
			}
		}
	}
	t.Run("cold", refused)
	if made := token.Stats().Made; made != 0 {
		t.Errorf("%d objects made of forged blocks", made)
	}
	loaded(t, token, b)
	t.Run("with the genuine block in the cache", refused)

	raw, err := b.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := slices.Clone(raw)
		bad[i] ^= 1
		forged, err := keys.ParseBlock(bad)
		if err != nil {
			continue
		}
		if l, err := token.Load(t.Context(), forged); err == nil {
			l.Release()
			t.Errorf("byte %d changed: the block was loaded", i)
		}
	}
}

// TestForgeryInTheWay loads a genuine block while forgeries with its MAC are
// being loaded: they must not stand in its way.
func TestForgeryInTheWay(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	for range 20 {
		b, _, err := m.Generate(t.Context(), template("P0", keys.AES128, 'B'))
		if err != nil {
			t.Fatal(err)
		}
		forged := *b
		forged.Attributes.Mode = keys.ModeEncrypt
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := token.Load(t.Context(), &forged); !errors.Is(err, keys.ErrBlockMAC) {
					t.Errorf("forged: %v", err)
				}
			})
			wg.Go(func() {
				l, err := token.Load(t.Context(), b)
				if err != nil {
					t.Errorf("genuine: %v", err)
					return
				}
				l.Release()
			})
		}
		wg.Wait()
	}
}

func TestOtherLMK(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	b := imported(t, m, template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	for _, generation := range []uint32{0, 2} {
		other := *b
		other.LMK = generation
		_, err := token.Load(t.Context(), &other)
		_, errDerived := token.Derived(t.Context(), &other, make([]byte, 16), keys.Spec{Algorithm: keys.AES128})
		_, errExport := m.Export(t.Context(), &other)
		_, errSeal := m.Seal(t.Context(), &other, nil)
		for _, err := range []error{err, errDerived, errExport, errSeal} {
			if !errors.Is(err, keys.ErrLMK) {
				t.Errorf("generation %d: %v, want %v", generation, err, keys.ErrLMK)
			}
		}
	}
}

func TestLoadContext(t *testing.T) {
	token := softhsmtest.Token(t)
	b := imported(t, hsm.NewManager(token), template("P0", keys.AES128, 'B'), unhex(t, clear32)[:16])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := token.Load(ctx, b); err == nil {
		l.Release() // it may have been ready already
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Load: %v, want %v", err, context.Canceled)
	}
	loaded(t, token, b)
}

func must[V any](v V, err error) func(testing.TB) V {
	return func(t testing.TB) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
