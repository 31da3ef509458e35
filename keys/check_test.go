package keys_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCheckValues are the test keys of section 16 of the API, by the default
// method of their algorithm.
func TestCheckValues(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     keys.Algorithm
		value string
		want  string
	}{
		{"bdk-tdes", keys.TDES2, "0123456789ABCDEFFEDCBA9876543210", "08D7B4"},
		{"bdk-aes", keys.AES128, "FEDCBA9876543210F1F1F1F1F1F1F1F1", "FF0BD7"},
		{"zpk-b", keys.TDES3, "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E", "893CDC"},
		{"zpk-aes", keys.AES256, "8FFD058A06164289C2046604ABD7E908088BB47987B40D21D3D6AAFE62F5375D", "A76DE0"},
		{"tak-hmac", keys.HMACSHA256, "00D432DB1409FBAC6D776941E4647163DF3369AE8BFCB556518B9B3C4EB11BB4", "11433E"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := keys.ParseKCV(c.want)
			if err != nil {
				t.Fatal(err)
			}
			k, err := softkey.New(c.a, unhex(t, c.value))
			if err != nil {
				t.Fatal(err)
			}
			got, err := keys.Check(k, c.a.CheckMethod())
			if err != nil || !got.Equal(want) {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			if got, err = keys.CheckClear(c.a, c.a.CheckMethod(), unhex(t, c.value)); err != nil || got != want {
				t.Errorf("clear: %s, %v; want %s", got, err, want)
			}
		})
	}
}

func TestCheckMethods(t *testing.T) {
	for m, word := range map[keys.CheckMethod]string{keys.CheckByZeros: "ANSI_X9_24", keys.CheckByCMAC: "CMAC", keys.CheckByHMAC: "HMAC"} {
		if back, err := keys.ParseCheckMethod(word); err != nil || back != m || m.String() != word {
			t.Errorf("%s reads as %s, %v", word, back, err)
		}
	}
	for _, bad := range []string{"", "SHA_1", "cmac"} {
		if _, err := keys.ParseCheckMethod(bad); !errors.Is(err, keys.ErrCheckValue) {
			t.Errorf("%q: %v, want %v", bad, err, keys.ErrCheckValue)
		}
	}
	for _, a := range keys.Algorithms() {
		for _, m := range []keys.CheckMethod{keys.CheckByZeros, keys.CheckByCMAC, keys.CheckByHMAC, 0} {
			want := m != 0 && a.IsHMAC() == (m == keys.CheckByHMAC)
			if a.CheckableBy(m) != want {
				t.Errorf("%s by %s: %t, want %t", a, m, !want, want)
			}
			_, err := keys.CheckClear(a, m, make([]byte, a.KeyBytes()))
			if (err == nil) != want || err != nil && !errors.Is(err, keys.ErrCheckValue) {
				t.Errorf("%s by %s: %v", a, m, err)
			}
		}
		if !a.CheckableBy(a.CheckMethod()) {
			t.Errorf("%s keys have not their own default", a)
		}
		if _, err := keys.CheckClear(a, a.CheckMethod(), make([]byte, 3)); !errors.Is(err, keys.ErrMaterial) {
			t.Errorf("%s of 3 bytes: %v, want %v", a, err, keys.ErrMaterial)
		}
	}
	if keys.Algorithm(0).CheckableBy(keys.CheckByZeros) {
		t.Error("no algorithm, yet a check value")
	}
}

// failing is a key whose token has gone; it is no HMAC key.
type failing struct{ keys.Key }

func (failing) BlockSize() int                      { return 8 }
func (failing) Encrypt(_, _ []byte) ([]byte, error) { return nil, keys.ErrUnavailable }
func (failing) CMAC(_ []byte) ([]byte, error)       { return nil, keys.ErrUnavailable }

func TestCheckFails(t *testing.T) {
	for m, want := range map[keys.CheckMethod]error{
		keys.CheckByZeros: keys.ErrUnavailable,
		keys.CheckByCMAC:  keys.ErrUnavailable,
		keys.CheckByHMAC:  keys.ErrCheckValue,
		0:                 keys.ErrCheckValue,
	} {
		if v, err := keys.Check(failing{}, m); !errors.Is(err, want) || v != (keys.KCV{}) {
			t.Errorf("%s: %s, %v; want %v", m, v, err, want)
		}
	}
	block, err := softkey.New(keys.AES128, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Check(block, keys.CheckByHMAC); err == nil {
		t.Error("an AES key has a check value by HMAC")
	}
}

func TestParseKCV(t *testing.T) {
	got, err := keys.ParseKCV("08d7B4")
	if err != nil || got.String() != "08D7B4" {
		t.Errorf("%s, %v", got, err)
	}
	if got.Equal(keys.KCV{0x08, 0xD7, 0xB5}) || !got.Equal(keys.KCV{0x08, 0xD7, 0xB4}) {
		t.Error("Equal is not equality")
	}
	for _, bad := range []string{"", "08D7", "08D7B400", "08D7BG", "08 D7B"} {
		if _, err := keys.ParseKCV(bad); !errors.Is(err, keys.ErrCheckValue) {
			t.Errorf("%q: %v, want %v", bad, err, keys.ErrCheckValue)
		}
	}
}

func TestCheckMaterial(t *testing.T) {
	const (
		a = "0123456789ABCDEF"
		b = "FEDCBA9876543210"
		c = "89ABCDEF01234567"
		p = "0022446688AACCEE" // a with every parity bit turned
	)
	for _, v := range []struct {
		name  string
		a     keys.Algorithm
		value string
		ok    bool
	}{
		{"TDES two parts", keys.TDES2, a + b, true},
		{"TDES three parts", keys.TDES3, a + b + c, true},
		{"17.7 equal halves", keys.TDES2, a + a, false},
		{"17.7 halves equal but for parity", keys.TDES2, a + p, false},
		{"17.7 first and second", keys.TDES3, a + a + c, false},
		{"17.7 second and third", keys.TDES3, a + b + b, false},
		{"17.7 first and third", keys.TDES3, a + b + a, false},
		{"17.7 all zeros", keys.TDES2, "00000000000000000000000000000000", false},
		{"17.7 a part of zeros", keys.TDES2, a + "0000000000000000", false},
		{"17.7 weak, odd parity", keys.TDES2, a + "0101010101010101", false},
		{"17.7 weak, even parity", keys.TDES2, "FFFFFFFFFFFFFFFF" + b, false},
		{"17.7 weak E0F1", keys.TDES2, a + "E0E0E0E0F1F1F1F1", false},
		{"17.7 weak 1F0E", keys.TDES2, a + "1F1F1F1F0E0E0E0E", false},
		{"17.7 semi-weak", keys.TDES3, a + b + "011F011F010E010E", false},
		{"17.7 semi-weak, last of the list", keys.TDES3, "FEE0FEE0FEF1FEF1" + a + b, false},
		{"single DES", keys.TDES2, a, false},
		{"two parts as three", keys.TDES3, a + b, false},
		{"three parts as two", keys.TDES2, a + b + c, false},
		{"AES", keys.AES128, a + a, true},
		{"17.7 AES all bytes equal", keys.AES128, "7A7A7A7A7A7A7A7A7A7A7A7A7A7A7A7A", false},
		{"AES-256 of 16 bytes", keys.AES256, a + b, false},
		{"HMAC as long as its hash", keys.HMACSHA224, a + b + c + "00000001", true},
		{"17.7 HMAC shorter than its hash", keys.HMACSHA224, a + b + c + "000001", false},
		{"HMAC as long as its block", keys.HMACSHA256, a + a + a + a + a + a + a + a, true},
		{"17.7 HMAC longer than its block", keys.HMACSHA256, a + a + a + a + a + a + a + a + "00", false},
		{"HMAC-SHA-512, 128 bytes", keys.HMACSHA512, a + a + a + a + a + a + a + a + b + b + b + b + b + b + b + b, true},
		{"17.7 HMAC all bytes equal", keys.HMACSHA256, "1111111111111111111111111111111111111111111111111111111111111111", false},
		{"no algorithm", 0, a + b, false},
		{"empty", keys.AES128, "", false},
	} {
		t.Run(v.name, func(t *testing.T) {
			value := unhex(t, v.value)
			err := keys.CheckMaterial(v.a, value)
			if (err == nil) != v.ok || err != nil && !errors.Is(err, keys.ErrMaterial) {
				t.Errorf("%v, want accepted: %t", err, v.ok)
			}
			if !bytes.Equal(value, unhex(t, v.value)) {
				t.Error("the value was changed")
			}
		})
	}
}

func TestParity(t *testing.T) {
	for v := range 256 {
		b := []byte{byte(v)}
		keys.AdjustParity(b)
		if !keys.OddParity(b) || b[0]&^1 != byte(v)&^1 {
			t.Errorf("%02X becomes %02X", v, b[0])
		}
		if keys.OddParity([]byte{byte(v), b[0]}) != (b[0] == byte(v)) {
			t.Errorf("%02X: parity misjudged", v)
		}
	}
}

// TestWeakDES makes the 4 weak and 12 semi-weak keys from what makes them so:
// two half-subkeys, each constant, in turns. That they are weak is shown by
// DES: one of a pair undoes the other.
func TestWeakDES(t *testing.T) {
	halves := [][2]byte{{0x01, 0x01}, {0x1F, 0x0E}, {0xE0, 0xF1}, {0xFE, 0xFE}}
	alternate := func(a, b [2]byte) []byte {
		return []byte{a[0], b[0], a[0], b[0], a[1], b[1], a[1], b[1]}
	}
	other := unhex(t, "0123456789ABCDEF")
	for _, a := range halves {
		for _, b := range halves {
			weak, partner := alternate(a, b), alternate(b, a)
			c, err := secret.NewTDES(weak)
			if err != nil {
				t.Fatal(err)
			}
			d, err := secret.NewTDES(partner)
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := c.Encrypt(nil, other)
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := d.Encrypt(nil, sealed); err != nil || !bytes.Equal(opened, other) {
				t.Errorf("%X is not weak: %v", weak, err)
			}
			for _, value := range [][]byte{append(bytes.Clone(other), weak...), append(bytes.Clone(weak), other...)} {
				if err := keys.CheckMaterial(keys.TDES2, value); !errors.Is(err, keys.ErrMaterial) {
					t.Errorf("17.7 %X in a key: %v, want %v", weak, err, keys.ErrMaterial)
				}
			}
		}
	}
}
