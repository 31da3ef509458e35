package keys_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

func TestParseComponent(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // "" for refused
	}{
		{"plain", "0123456789ABCDEF", "0123456789ABCDEF"},
		{"lower case", "0123456789abcdef", "0123456789ABCDEF"},
		{"groups of four", "0123 4567 89AB CDEF", "0123456789ABCDEF"},
		{"pairs", "01 23", "0123"},
		{"one byte", "0f", "0F"},
		{"empty", "", ""},
		{"blank", " ", ""},
		{"leading blank", " 0123", ""},
		{"trailing blank", "0123 ", ""},
		{"two blanks", "01  23", ""},
		{"half a byte", "012", ""},
		{"byte torn by a blank", "0 12 3", ""},
		{"tab", "01\t23", ""},
		{"newline", "0123\n", ""},
		{"letter G", "0G", ""},
		{"letter g first", "g0", ""},
		{"slash, below 0", "/0", ""},
		{"colon, above 9", ":0", ""},
		{"at, below A", "@0", ""},
		{"backquote, below a", "`0", ""},
		{"high byte", "\xC10", ""},
		{"zero byte", "\x000", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := keys.ParseComponent([]byte(c.text))
			if c.want == "" {
				if !errors.Is(err, keys.ErrComponent) || got.Len() != 0 {
					t.Errorf("%v, want %v", err, keys.ErrComponent)
				}
				return
			}
			if err != nil || !bytes.Equal(got.Reveal(), unhex(t, c.want)) {
				t.Errorf("refused or misread: %v", err)
			}
		})
	}
}

func FuzzParseComponent(f *testing.F) {
	for _, s := range []string{"0123 4567", "", " ", "0", "zz", "01  23"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		got, err := keys.ParseComponent(text)
		if !bytes.Equal(before, text) {
			t.Fatal("the text was changed")
		}
		// The plain reading: split at single blanks, each part whole bytes.
		var want []byte
		for _, group := range strings.Split(string(text), " ") {
			b, e := hex.DecodeString(group)
			if e != nil || len(b) == 0 {
				want = nil
				break
			}
			want = append(want, b...)
		}
		if (err == nil) != (want != nil) || !bytes.Equal(got.Reveal(), want) {
			t.Errorf("%d characters: %v, want accepted: %t", len(text), err, want != nil)
		}
		if err != nil && !errors.Is(err, keys.ErrComponent) {
			t.Error(err)
		}
	})
}

func TestCombine(t *testing.T) {
	component := func(text string) secret.Bytes { return secret.From(unhex(t, text)) }
	const (
		a = "0123456789ABCDEFFEDCBA9876543210"
		b = "89ABCDEF0123456776543210FEDCBA98"
	)
	for _, c := range []struct {
		name  string
		a     keys.Algorithm
		parts []string
		want  string
		err   error
	}{
		{"two", keys.AES128, []string{a, b}, "8888888888888888" + "8888888888888888", keys.ErrMaterial},
		{"two that make a key", keys.AES128, []string{a, "00000000000000000000000000000001"}, "0123456789ABCDEFFEDCBA9876543211", nil},
		{"three", keys.TDES2, []string{a, b, a}, b, nil},
		{"one", keys.TDES2, []string{a}, a, nil},
		{"none", keys.TDES2, nil, "", keys.ErrComponent},
		{"equal ones", keys.TDES2, []string{a, a}, "", keys.ErrMaterial},
		{"zeros add nothing", keys.TDES2, []string{a, "00000000000000000000000000000000"}, "", keys.ErrComponent},
		{"lengths differ", keys.TDES2, []string{a, b[:16]}, "", keys.ErrComponent},
		{"not the algorithm's length", keys.TDES3, []string{a, b}, "", keys.ErrComponent},
		{"no algorithm", 0, []string{a}, "", keys.ErrComponent},
	} {
		t.Run(c.name, func(t *testing.T) {
			var parts []secret.Bytes
			for _, p := range c.parts {
				parts = append(parts, component(p))
			}
			got, err := keys.Combine(c.a, parts...)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if err == nil && !bytes.Equal(got.Reveal(), unhex(t, c.want)) || err != nil && got.Len() != 0 {
				t.Error("the key differs")
			}
			for i, p := range parts {
				if !bytes.Equal(p.Reveal(), unhex(t, c.parts[i])) {
					t.Errorf("component %d was changed", i+1)
				}
			}
		})
	}
}
