package keys_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// thalesTestZMK is pair 06-07 of the published test LMK, which takes the place
// of a ZMK in the values below: those of public simulators.
const thalesTestZMK = "61616161616161617070707070707070"

func schemeVectors() []struct {
	scheme      keys.Scheme
	value, want string
} {
	return []struct {
		scheme      keys.Scheme
		value, want string
	}{
		{keys.SchemeU, "F1799DF10D51EA89A849F22F3DDA7A80", "U247078713614BE11F819054C5FFB08FF"},
		{keys.SchemeT, "EA040820ABB0CB9E8AF7ADD64F54C73D0289C8923D70FB8C", "T971803BA969012152827CC97A98D18D50BE6559CDFF6F7E1"},
	}
}

// TestSchemeVariants: published values of the variant schemes.
func TestSchemeVariants(t *testing.T) {
	for _, v := range schemeVectors() {
		value, err := hex.DecodeString(v.value)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for i, variant := range v.scheme.Variants() {
			zmk, err := hex.DecodeString(thalesTestZMK)
			if err != nil {
				t.Fatal(err)
			}
			for j, b := range v.scheme.Mask(variant, len(zmk)) {
				zmk[j] ^= b
			}
			c, err := secret.NewTDES(zmk)
			if err != nil {
				t.Fatal(err)
			}
			part, err := c.Encrypt(nil, value[8*i:8*i+8])
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if text := v.scheme.FormatCryptogram(got); text != v.want {
			t.Errorf("scheme %c: %s, want %s", v.scheme, text, v.want)
		}
	}
}

func TestScheme(t *testing.T) {
	for _, letter := range []string{"", "Z", "S", "x", "XX", "\x00"} {
		if _, err := keys.ParseScheme(letter); !errors.Is(err, keys.ErrAttributes) {
			t.Errorf("%q: %v", letter, err)
		}
	}
	x, err := keys.ParseScheme("X")
	if err != nil || x.Algorithm() != keys.TDES2 || x.Mask(0, 16) != nil {
		t.Fatalf("X: %v, %v", x, err)
	}
	for _, bad := range []string{"", "X", "00", "X0123", "U0123456789ABCDEFFEDCBA9876543210", "0123456789ABCDEFFEDCBA987654321G", "0123456789ABCDEFFEDCBA98765432100"} {
		if _, err := x.ParseCryptogram(bad); !errors.Is(err, keys.ErrMaterial) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzParseCryptogram: what is read is written as it was, but for its letter.
func FuzzParseCryptogram(f *testing.F) {
	f.Add("X", "X0123456789ABCDEFFEDCBA9876543210")
	f.Add("T", "971803BA969012152827CC97A98D18D50BE6559CDFF6F7E1")
	f.Add("U", "")
	f.Fuzz(func(t *testing.T, letter, text string) {
		s, err := keys.ParseScheme(letter)
		if err != nil {
			return
		}
		raw, err := s.ParseCryptogram(text)
		if err != nil {
			return
		}
		again, err := s.ParseCryptogram(s.FormatCryptogram(raw))
		if err != nil || !bytes.Equal(raw, again) || len(raw) != s.Algorithm().KeyBytes() {
			t.Errorf("%q: %X, then %X, %v", text, raw, again, err)
		}
	})
}
