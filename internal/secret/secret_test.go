package secret_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/secret"
)

const canary = "canary-7F3A"

// leaks reports whether text shows the canary in any form fmt has for bytes.
func leaks(text string) bool {
	b := []byte(canary)
	for _, form := range []string{
		canary, fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), fmt.Sprintf("% x", b),
		fmt.Sprintf("%d", b[:4])[1:12], fmt.Sprintf("%#v", b[:4])[7:20], fmt.Sprintf("%c", b[:4])[1:6], fmt.Sprintf("%U", b[:4])[1:12], fmt.Sprintf("%o", b[:4])[1:9], fmt.Sprintf("%b", b[:4])[1:16],
		"Y2FuYXJ5", // base64 of "canary"
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestLeaksFindsTheCanary(t *testing.T) {
	type plain struct{ b []byte }
	text, err := json.Marshal([]byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{
		fmt.Sprint(plain{[]byte(canary)}), fmt.Sprintf("%o %b", plain{[]byte(canary)}, 1), fmt.Sprintf("%b", plain{[]byte(canary)}), fmt.Sprintf("%c", plain{[]byte(canary)}), fmt.Sprintf("%U", plain{[]byte(canary)}), fmt.Sprintf("%#v", plain{[]byte(canary)}), string([]byte(canary)), string(text),
	} {
		if !leaks(shown) {
			t.Errorf("not found in %q", shown)
		}
	}
}

func TestBytesDoNotPrint(t *testing.T) {
	type nested struct {
		Exported   secret.Bytes
		unexported secret.Bytes
		pointer    *secret.Bytes
	}
	s := secret.From([]byte(canary))
	for _, v := range []any{s, &s, nested{s, s, &s}, &nested{s, s, &s}, []secret.Bytes{s}, map[string]secret.Bytes{"k": s}, errors.New(s.String())} {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %b %o %c %U %e %t %p %T %w %#x %10s %-10q") {
			if text := fmt.Sprintf(verb, v); leaks(text) {
				t.Errorf("C-14 %s of %T shows the secret", verb, v)
			}
		}
	}
	if got := fmt.Sprintf("%v", s); got != secret.Placeholder {
		t.Errorf("C-14 %%v gives %q, want %q", got, secret.Placeholder)
	}
}

func TestBytesDoNotEncode(t *testing.T) {
	s := secret.From([]byte(canary))
	type document struct{ Key secret.Bytes }
	asJSON, err := json.Marshal(document{s})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Key":"[secret]"}`; string(asJSON) != want {
		t.Errorf("C-14 JSON is %s, want %s", asJSON, want)
	}
	asXML, err := xml.Marshal(document{s})
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(asXML)) || !strings.Contains(string(asXML), secret.Placeholder) {
		t.Error("C-14 XML shows something else than the placeholder")
	}
	if err := json.Unmarshal(asJSON, &document{}); err == nil {
		t.Error("C-14 a secret was read from JSON, which would replace it by the placeholder")
	}
}

func TestBytesDoNotLog(t *testing.T) {
	s := secret.From([]byte(canary))
	var out bytes.Buffer
	for name, h := range map[string]slog.Handler{"text": slog.NewTextHandler(&out, nil), "json": slog.NewJSONHandler(&out, nil)} {
		out.Reset()
		slog.New(h).Info("loaded", "key", s, "group", slog.GroupValue(slog.Any("part", s)), "list", []secret.Bytes{s})
		if leaks(out.String()) || !strings.Contains(out.String(), secret.Placeholder) {
			t.Errorf("C-14 the %s handler shows something else than the placeholder", name)
		}
	}
}

func TestFromTakesOver(t *testing.T) {
	source := []byte(canary)
	s := secret.From(source)
	if !bytes.Equal(source, make([]byte, len(source))) {
		t.Error("the source still holds the secret")
	}
	if string(s.Reveal()) != canary || s.Len() != len(canary) {
		t.Error("the secret does not hold the source's bytes")
	}
}

func TestClearReachesEveryCopy(t *testing.T) {
	s := secret.From([]byte(canary))
	other, revealed := s, s.Reveal()
	s.Clear()
	for name, b := range map[string][]byte{"copy": other.Reveal(), "revealed slice": revealed} {
		if !bytes.Equal(b, make([]byte, len(canary))) {
			t.Errorf("the %s still holds the secret", name)
		}
	}
	var array [4]byte
	copy(array[:], canary)
	second := []byte(canary)
	secret.Clear(array[:], second)
	if array != [4]byte{} || !bytes.Equal(second, make([]byte, len(canary))) {
		t.Error("Clear left bytes")
	}
}

func TestEqual(t *testing.T) {
	var zero secret.Bytes
	zero.Clear()
	a := secret.From([]byte(canary))
	for name, c := range map[string]struct {
		other secret.Bytes
		want  bool
	}{
		"same":    {secret.From([]byte(canary)), true},
		"differs": {secret.From([]byte("canary-7F3B")), false},
		"shorter": {secret.From([]byte("canary")), false},
		"zero":    {zero, false},
	} {
		if got := a.Equal(c.other); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestCipherClear(t *testing.T) {
	key := []byte(canary + "-0123")
	for name, c := range map[string]struct {
		make func([]byte) (secret.Cipher, error)
	}{
		"AES":              {secret.NewAES},
		"TDES":             {secret.NewTDES},
		"TDES, three keys": {func(k []byte) (secret.Cipher, error) { return secret.NewTDES(append(k[:16:16], k[3:11]...)) }},
		"TDES, of a pair": {func(k []byte) (secret.Cipher, error) {
			_, full, err := secret.NewTDESPair(k)
			return full, err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := c.make(key)
			if err != nil {
				t.Fatal(err)
			}
			before, err := k.Encrypt(nil, make([]byte, 16))
			if err != nil {
				t.Fatal(err)
			}
			other := k
			k.Clear()
			// A schedule of nothing but zeros: what it gives does not depend on the key.
			after, err := other.Encrypt(nil, make([]byte, 16))
			if err != nil || bytes.Equal(before, after) {
				t.Errorf("C-14 the key schedule is still there: %v", err)
			}
			second, err := c.make(append([]byte("another"), key[7:]...))
			if err != nil {
				t.Fatal(err)
			}
			second.Clear()
			if same, err := second.Encrypt(nil, make([]byte, 16)); err != nil || !bytes.Equal(same, after) {
				t.Errorf("C-14 a cleared cipher still depends on its key: %v", err)
			}
		})
	}
	secret.Cipher{}.Clear()
}

// TestTwoKeyTDES: two schedules give what the standard library's three give.
func TestTwoKeyTDES(t *testing.T) {
	for range 100 {
		key, data, iv := make([]byte, 16), make([]byte, 64), make([]byte, 8)
		for _, b := range [][]byte{key, data, iv} {
			if _, err := rand.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		left, full, err := secret.NewTDESPair(key)
		if err != nil {
			t.Fatal(err)
		}
		single, err := secret.NewTDES(key[:8])
		if err != nil {
			t.Fatal(err)
		}
		three, err := secret.NewTDES(append(key[:16:16], key[:8]...))
		if err != nil {
			t.Fatal(err)
		}
		for _, iv := range [][]byte{nil, iv} {
			for _, pair := range [][2]secret.Cipher{{left, single}, {full, three}} {
				got, err1 := pair[0].Encrypt(iv, data)
				want, err2 := pair[1].Encrypt(iv, data)
				if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
					t.Fatalf("enciphered otherwise: %v, %v", err1, err2)
				}
				if back, err := pair[0].Decrypt(iv, got); err != nil || !bytes.Equal(back, data) {
					t.Fatalf("deciphered otherwise: %v", err)
				}
			}
		}
	}
	for _, n := range []int{0, 8, 15, 17, 24} {
		if _, _, err := secret.NewTDESPair(make([]byte, n)); !errors.Is(err, secret.ErrKeyLength) {
			t.Errorf("a pair of %d bytes: %v", n, err)
		}
	}
}

func TestDoRuns(t *testing.T) {
	ran := false
	secret.Do(func() { ran = true })
	if !ran {
		t.Error("C-15 f was not run")
	}
}

func TestCipher(t *testing.T) {
	key16 := bytes.Repeat([]byte{0x01, 0x23}, 8)
	for name, c := range map[string]struct {
		make func([]byte) (secret.Cipher, error)
		key  []byte
		size int
	}{
		"DES":        {secret.NewTDES, key16[:8], 8},
		"TDES 2-key": {secret.NewTDES, append(key16[:8:8], 1, 2, 3, 4, 5, 6, 7, 8), 8},
		"TDES 3-key": {secret.NewTDES, append(key16[:16:16], 1, 2, 3, 4, 5, 6, 7, 8), 8},
		"AES-128":    {secret.NewAES, key16, 16},
		"AES-256":    {secret.NewAES, append(key16[:16:16], key16...), 16},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := c.make(c.key)
			if err != nil {
				t.Fatal(err)
			}
			if k.BlockSize() != c.size {
				t.Fatalf("block of %d bytes, want %d", k.BlockSize(), c.size)
			}
			plain := bytes.Repeat([]byte(canary), 16)[:3*c.size]
			iv := bytes.Repeat([]byte{0xA5}, c.size)
			for _, iv := range [][]byte{nil, iv} {
				sealed, err := k.Encrypt(iv, plain)
				if err != nil {
					t.Fatal(err)
				}
				opened, err := k.Decrypt(iv, sealed)
				if err != nil || !bytes.Equal(opened, plain) || bytes.Equal(sealed, plain) {
					t.Errorf("with an iv of %d bytes: decryption is not the inverse: %v", len(iv), err)
				}
			}
			for _, bad := range []struct{ iv, src []byte }{{nil, nil}, {nil, plain[1:]}, {iv[1:], plain}, {[]byte{}, plain}} {
				if _, err := k.Encrypt(bad.iv, bad.src); !errors.Is(err, secret.ErrBlocks) {
					t.Errorf("encrypting %d bytes with an iv of %d: %v", len(bad.src), len(bad.iv), err)
				}
				if _, err := k.Decrypt(bad.iv, bad.src); !errors.Is(err, secret.ErrBlocks) {
					t.Errorf("decrypting %d bytes with an iv of %d: %v", len(bad.src), len(bad.iv), err)
				}
			}
			if text := fmt.Sprintf("%v %+v %#v", k, k, &k); strings.Count(text, secret.Placeholder) != 3 {
				t.Errorf("C-14 the cipher prints")
			}
		})
	}
	for n := range 40 {
		if _, err := secret.NewTDES(make([]byte, n)); (err == nil) != (n == 8 || n == 16 || n == 24) || err != nil && !errors.Is(err, secret.ErrKeyLength) {
			t.Errorf("TDES with %d bytes: %v", n, err)
		}
		if _, err := secret.NewAES(make([]byte, n)); (err == nil) != (n == 16 || n == 24 || n == 32) || err != nil && !errors.Is(err, secret.ErrKeyLength) {
			t.Errorf("AES with %d bytes: %v", n, err)
		}
	}
}
