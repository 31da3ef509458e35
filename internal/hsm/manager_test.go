package hsm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// clear32 is 32 bytes whose TDES parts differ and are not weak.
const clear32 = "0123456789ABCDEFFEDCBA987654321089ABCDEF012345671032547698BADCFE"

func TestInit(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := hsm.NewManager(token)
	all := []string{"keyd-block-mac-1", "keyd-data", "keyd-lmk-1", "keyd-log", "keyd-token"}
	made, missing, err := m.Exists(t.Context())
	slices.Sort(missing)
	if err != nil || len(made) != 0 || !slices.Equal(missing, all) {
		t.Errorf("before: made %q, missing %q, %v", made, missing, err)
	}
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, missing, err = m.Exists(t.Context())
	slices.Sort(made)
	if err != nil || len(missing) != 0 || !slices.Equal(made, all) {
		t.Errorf("after: made %q, missing %q, %v", made, missing, err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if logins := token.Stats().Logins; logins != 1 {
		t.Errorf("%d logins, want 1: the new keeper shares the login", logins)
	}
	if err := m.Init(t.Context()); !errors.Is(err, hsm.ErrExists) || !strings.Contains(err.Error(), "keyd-lmk-1") {
		t.Errorf("a second Init: %v, want %v with the labels", err, hsm.ErrExists)
	}
}

func TestInitHalfMade(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token, faulty, err := hsm.OpenFaulty(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	m := hsm.NewManager(token)
	faulty.Set(func(call string) error {
		if call == "C_GenerateKeyPair" {
			return pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED)
		}
		return nil
	})
	err = m.Init(t.Context())
	for _, label := range []string{"keyd-log", "keyd-lmk-1", "keyd-data"} {
		if err == nil || !strings.Contains(err.Error(), label) {
			t.Errorf("Init: %v, which does not name %s", err, label)
		}
	}
	faulty.Set(nil)
	if err := m.Init(t.Context()); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("Init over half a set: %v, want %v", err, hsm.ErrExists)
	}
}

func TestDuplicates(t *testing.T) {
	t.Run("system key", func(t *testing.T) {
		token := softhsmtest.Token(t)
		if err := token.Duplicate("data"); err != nil {
			t.Fatal(err)
		}
		if _, err := token.System("data"); !errors.Is(err, keys.ErrAmbiguous) {
			t.Errorf("System: %v, want %v", err, keys.ErrAmbiguous)
		}
		if _, err := token.System("other"); !errors.Is(err, keys.ErrNoKey) {
			t.Errorf("System of another name: %v, want %v", err, keys.ErrNoKey)
		}
	})
	for _, word := range []string{"lmk", "block-mac"} {
		t.Run(word, func(t *testing.T) {
			cfg := softhsmtest.Config(t)
			token := softhsmtest.Open(t, cfg)
			if err := hsm.NewManager(token).Init(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := token.Duplicate(word); err != nil {
				t.Fatal(err)
			}
			if err := token.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := hsm.Open(cfg)
			if err == nil {
				_ = again.Close()
			}
			if !errors.Is(err, keys.ErrAmbiguous) {
				t.Errorf("Open: %v, want %v", err, keys.ErrAmbiguous)
			}
		})
	}
}

// every calls f for each permitted combination of usage and algorithm, with
// each mode of the usage.
func every(t *testing.T, f func(t *testing.T, b keys.Block)) {
	t.Helper()
	n := 0
	for _, u := range keys.Usages() {
		for _, a := range keys.Algorithms() {
			for _, mode := range []keys.Mode{'B', 'E', 'D', 'C', 'G', 'V', 'X', 'N'} {
				b := template(u, a, mode)
				if b.Attributes.Validate() != nil {
					continue
				}
				n++
				t.Run(b.Attributes.String(), func(t *testing.T) { f(t, b) })
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d combinations", n)
	}
}

func TestGenerate(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	every(t, func(t *testing.T, tmpl keys.Block) {
		b, inProcess, err := m.Generate(t.Context(), tmpl)
		if err != nil {
			t.Fatal(err)
		}
		a := b.Attributes
		companion := a.Algorithm == keys.TDES2 && (a.Usage == keys.UsageBDK || a.Usage == keys.UsageMACAlg3)
		if inProcess != companion || (b.Companion != nil) != companion {
			t.Errorf("in the process: %t, companion: %t; want both %t", inProcess, b.Companion != nil, companion)
		}
		if b.Origin != keys.Generated || b.CheckBy != a.Algorithm.CheckMethod() || b.LMK != 1 {
			t.Errorf("origin %c, check by %v, LMK %d", b.Origin, b.CheckBy, b.LMK)
		}
		if want := a.Algorithm.KeyBytes() + 8; len(b.Wrapped) != want {
			t.Errorf("%d wrapped bytes, want %d", len(b.Wrapped), want)
		}
		value, err := m.Export(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if a.Algorithm.IsTDES() && !keys.OddParity(value.Reveal()) {
			t.Error("the parity is not odd")
		}
		check, err := keys.CheckClear(a.Algorithm, b.CheckBy, value.Reveal())
		if err != nil || check != b.Check {
			t.Errorf("check value differs from that of the value: %v", err)
		}
		loaded, err := token.Load(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if (loaded.Companion != nil) != companion {
			t.Errorf("loaded with a companion: %t, want %t", loaded.Companion != nil, companion)
		}
		loaded.Release()
		again, _, err := m.Generate(t.Context(), tmpl)
		if err != nil || bytes.Equal(again.Wrapped, b.Wrapped) {
			t.Errorf("a second key has the same value: %v", err)
		}
	})
}

func TestTemplateRefused(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	tests := []struct {
		name   string
		change func(*keys.Block)
	}{
		{"id", func(b *keys.Block) { b.ID = "short" }},
		{"version", func(b *keys.Block) { b.Version = 0 }},
		{"usage", func(b *keys.Block) { b.Attributes.Usage = "ZZ" }},
		{"algorithm", func(b *keys.Block) { b.Attributes.Algorithm = keys.HMACSHA256 }},
		{"mode", func(b *keys.Block) { b.Attributes.Mode = 'X' }},
		{"exportability", func(b *keys.Block) { b.Attributes.Exportability = 0 }},
		{"check method", func(b *keys.Block) { b.CheckBy = keys.CheckByHMAC }},
		{"policy with a line break", func(b *keys.Block) { b.Policy = map[string]string{"a": "b\nkeyd:custody=process"} }},
		{"policy name with =", func(b *keys.Block) { b.Policy = map[string]string{"a=b": "c"} }},
		{"long policy", func(b *keys.Block) { b.Policy = map[string]string{"a": strings.Repeat("x", 70_000)} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tmpl := template(keys.UsagePIN, keys.TDES2, keys.ModeBoth)
			test.change(&tmpl)
			if b, _, err := m.Generate(t.Context(), tmpl); err == nil {
				t.Errorf("Generate made %v", b.Attributes)
			}
			if b, err := m.Import(t.Context(), tmpl, secret.From(unhex(t, clear32)[:16])); err == nil {
				t.Errorf("Import made %v", b.Attributes)
			}
		})
	}
}

// TestImport proves the bytes of a block with Go's own AES: RFC 3394 under the
// local master key, and the MAC under the key derived from it.
func TestImport(t *testing.T) {
	lmk := unhex(t, "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := hsm.NewManager(token)
	if err := m.InitFrom(t.Context(), secret.From(slices.Clone(lmk))); err != nil {
		t.Fatal(err)
	}
	macKey, err := hkdf.Key(sha256.New, lmk, nil, "keyd own key block-mac", 32)
	if err != nil {
		t.Fatal(err)
	}
	blockMAC, err := mac.NewAES(macKey)
	if err != nil {
		t.Fatal(err)
	}
	every(t, func(t *testing.T, tmpl keys.Block) {
		tmpl.Policy = map[string]string{"keyd:custody": "process", "keyd:note": "x"}
		a := tmpl.Attributes
		value := bytes.Repeat(unhex(t, clear32), 2)[:a.Algorithm.KeyBytes()]
		b, err := m.Import(t.Context(), tmpl, secret.From(slices.Clone(value)))
		if err != nil {
			t.Fatal(err)
		}
		if got := unwrap3394(t, lmk, b.Wrapped); !bytes.Equal(got, value) {
			t.Error("RFC 3394 gives another value")
		}
		if b.Companion != nil {
			want := slices.Clone(value)
			if a.Usage == keys.UsageMACAlg3 {
				copy(want[8:], want[:8])
			} else {
				for _, i := range []int{0, 1, 2, 3, 8, 9, 10, 11} {
					want[i] ^= 0xC0
				}
			}
			if got := unwrap3394(t, lmk, b.Companion); !bytes.Equal(got, want) {
				t.Error("RFC 3394 gives another companion")
			}
		}
		want, err := mac.CMAC(blockMAC, b.MACInput())
		if err != nil || !bytes.Equal(want, b.MAC[:]) {
			t.Errorf("the MAC is not that of the block: %v", err)
		}
		check, err := keys.CheckClear(a.Algorithm, b.CheckBy, value)
		if err != nil || check != b.Check || b.Origin != keys.External {
			t.Errorf("check value or origin %c wrong: %v", b.Origin, err)
		}
	})
}

// unwrap3394 is RFC 3394, section 2.2.2.
func unwrap3394(t *testing.T, kek, wrapped []byte) []byte {
	t.Helper()
	cipher, err := aes.NewCipher(kek)
	if err != nil || len(wrapped) < 24 {
		t.Fatalf("%d wrapped bytes, %v", len(wrapped), err)
	}
	a, r := slices.Clone(wrapped[:8]), slices.Clone(wrapped[8:])
	n := len(r) / 8
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			block := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(a)^uint64(n*j+i))
			block = append(block, r[8*(i-1):8*i]...)
			cipher.Decrypt(block, block)
			copy(a, block[:8])
			copy(r[8*(i-1):], block[8:])
		}
	}
	if !bytes.Equal(a, bytes.Repeat([]byte{0xA6}, 8)) {
		t.Fatal("RFC 3394: wrong integrity value")
	}
	return r
}

func TestImportRefuses(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	tests := []struct {
		name  string
		tmpl  keys.Block
		value string
	}{
		{"TDES single length", template("P0", keys.TDES2, 'B'), "0123456789ABCDEF"},
		{"TDES equal halves", template("P0", keys.TDES2, 'B'), "0123456789ABCDEF0123456789ABCDEF"},
		{"TDES halves equal but for parity", template("P0", keys.TDES2, 'B'), "0123456789ABCDEF0022446688AACCEE"},
		{"TDES weak half", template("P0", keys.TDES2, 'B'), "01010101010101010123456789ABCDEF"},
		{"TDES zero", template("P0", keys.TDES2, 'B'), "00000000000000000000000000000000"},
		{"TDES first and third part equal", template("P0", keys.TDES3, 'B'), "0123456789ABCDEFFEDCBA98765432100123456789ABCDEF"},
		{"AES zero", template("P0", keys.AES128, 'B'), "00000000000000000000000000000000"},
		{"AES length", template("P0", keys.AES128, 'B'), clear32},
		{"HMAC short", template("M7", keys.HMACSHA256, 'C'), "0123456789ABCDEFFEDCBA9876543210"},
		{"HMAC of a length that RFC 3394 does not take", template("M7", keys.HMACSHA256, 'C'), clear32 + "55"},
		{"empty", template("P0", keys.AES128, 'B'), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := m.Import(t.Context(), test.tmpl, secret.From(unhex(t, test.value)))
			if !errors.Is(err, keys.ErrMaterial) {
				t.Errorf("Import: %v, want %v", err, keys.ErrMaterial)
			}
			if test.value != "" && err != nil && strings.Contains(strings.ToUpper(err.Error()), test.value[:8]) {
				t.Error("the error shows the value")
			}
		})
	}
}

func TestImportParity(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	even := secret.From(unhex(t, "0022446688AACCEEFFDDBB9977553311"))
	b, err := m.Import(t.Context(), template("P0", keys.TDES2, 'B'), even)
	if err != nil {
		t.Fatal(err)
	}
	if b.Check != keys.KCV([]byte{0x08, 0xD7, 0xB4}) {
		t.Errorf("check value %v, want 08D7B4", b.Check)
	}
	if even.Reveal()[0] != 0 {
		t.Error("the caller's value was changed")
	}
	got, err := m.Export(t.Context(), b)
	if err != nil || !bytes.Equal(got.Reveal(), unhex(t, "0123456789ABCDEFFEDCBA9876543210")) {
		t.Errorf("the stored value has not odd parity: %v", err)
	}
}

func TestSecondToken(t *testing.T) {
	lmk := "F0E1D2C3B4A5968778695A4B3C2D1E0F00112233445566778899AABBCCDDEEFF"
	open := func(value string) (*hsm.Token, *hsm.Manager) {
		token := softhsmtest.Open(t, softhsmtest.Config(t))
		m := hsm.NewManager(token)
		if err := m.InitFrom(t.Context(), secret.From(unhex(t, value))); err != nil {
			t.Fatal(err)
		}
		return token, m
	}
	message := []byte("4111111111111111")
	first, m := open(lmk)
	b, _, err := m.Generate(t.Context(), template("P0", keys.AES256, 'B'))
	if err != nil {
		t.Fatal(err)
	}
	pan := func(token *hsm.Token) []byte {
		k, err := token.System("token")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := k.(keys.HMACKey).HMAC(message)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	sum := pan(first)
	_ = first.Close()

	second, _ := open(lmk)
	loaded, err := second.Load(t.Context(), b)
	if err != nil {
		t.Fatalf("a token of the same local master key: %v", err)
	}
	loaded.Release()
	if diff := cmp.Diff(sum, pan(second)); diff != "" {
		t.Errorf("PAN tokens differ between tokens of one local master key")
	}
	_ = second.Close()

	third, _ := open(clear32)
	if _, err := third.Load(t.Context(), b); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("a token of another local master key: %v, want %v", err, keys.ErrBlockMAC)
	}
	weak := hsm.NewManager(third).InitFrom(t.Context(), secret.New(32))
	if !errors.Is(weak, keys.ErrMaterial) {
		t.Errorf("a zero local master key: %v, want %v", weak, keys.ErrMaterial)
	}
}

func TestSeal(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsm.NewManager(token)
	old, _, err := m.Generate(t.Context(), template("P0", keys.AES128, 'B'))
	if err != nil {
		t.Fatal(err)
	}
	policy := map[string]string{"keyd:custody": "token"}
	b, err := m.Seal(t.Context(), old, policy)
	if err != nil {
		t.Fatal(err)
	}
	if b.MAC == old.MAC || b.Policy["keyd:custody"] != "token" || old.Policy != nil {
		t.Errorf("policy %v, old policy %v", b.Policy, old.Policy)
	}
	for name, block := range map[string]*keys.Block{"old": old, "new": b} {
		l, err := token.Load(t.Context(), block)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		l.Release()
	}
	forged := *b
	forged.Attributes.Usage = keys.UsageData
	if _, err := m.Seal(t.Context(), &forged, policy); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("sealing a forged block: %v, want %v", err, keys.ErrBlockMAC)
	}
	if _, err := m.Seal(t.Context(), b, map[string]string{"a": "b\nc=d"}); err == nil {
		t.Error("a policy that would not be read back was sealed")
	}
}

func TestExportRefuses(t *testing.T) {
	m := hsm.NewManager(softhsmtest.Token(t))
	tmpl := template("P0", keys.AES128, 'B')
	tmpl.Attributes.Exportability = keys.NonExportable
	b, _, err := m.Generate(t.Context(), tmpl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Export(t.Context(), b); !errors.Is(err, keys.ErrForbidden) {
		t.Errorf("Export of a key that may not leave: %v, want %v", err, keys.ErrForbidden)
	}
	forged := *b
	forged.Attributes.Exportability = keys.Exportable
	if _, err := m.Export(t.Context(), &forged); !errors.Is(err, keys.ErrBlockMAC) {
		t.Errorf("Export of one whose header was changed: %v, want %v", err, keys.ErrBlockMAC)
	}
}
