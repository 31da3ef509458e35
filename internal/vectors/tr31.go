package vectors

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// tr31Case is a case of tr31.json.
type tr31Case struct {
	ID, Kind      string
	KBPK          hexBytes
	KeyBlock      string `json:"key_block"`
	Version       string
	KeyUsage      string `json:"key_usage"`
	Algorithm     string
	ModeOfUse     string `json:"mode_of_use"`
	KeyVersion    string `json:"key_version"`
	Exportability string
	Optional      []struct{ ID, Data string } `json:"optional_blocks"`
	Key           hexBytes
	Expected      struct{ Error string }
}

// anyBlock opens every version and key: the file has keys under weaker ones,
// and asymmetric keys.
var anyBlock = tr31.Policy{ReadA: true, ReadC: true, AnyKey: true}

// TR31 runs tr31.json with key block protection keys of the factory.
func TR31(t *testing.T, f Factory) Tally {
	return each(t, "tr31", f, func(t *testing.T, f Factory, c *tr31Case) {
		switch c.Kind {
		case "unwrap":
			tr31Unwrap(t, f, c)
		case "unwrap_error":
			tr31Refuse(t, f, c)
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
	})
}

func tr31Unwrap(t *testing.T, f Factory, c *tr31Case) {
	t.Helper()
	b := must[*tr31.Block](t)(tr31.Parse(c.KeyBlock))
	want := tr31.Header{
		Version: tr31.Version(c.Version[0]), Usage: keys.Usage(c.KeyUsage), Algorithm: c.Algorithm[0],
		Mode: keys.Mode(c.ModeOfUse[0]), KeyVersion: c.KeyVersion, Exportability: keys.Exportability(c.Exportability[0]),
	}
	for _, o := range c.Optional {
		if o.ID != "PB" {
			want.Optional = append(want.Optional, tr31.Optional{ID: o.ID, Data: o.Data})
		}
	}
	if d := cmp.Diff(want, b.Header); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
	key := must[secret.Bytes](t)(tr31Open(t, f, b, c.KBPK, anyBlock))
	same(t, "key", key.Reveal(), c.Key)
	tr31Seal(t, f, c, b.Header, key)
	tr31Spoil(t, f, c)
}

// tr31Open opens a block of any version.
func tr31Open(t *testing.T, f Factory, b *tr31.Block, kbpk []byte, p tr31.Policy) (secret.Bytes, error) {
	t.Helper()
	a := kbpkAlgorithm(b.Version, kbpk)
	if b.Version == tr31.VersionA || b.Version == tr31.VersionC {
		enc, auth := tr31.VariantKeys(secret.From(bytes.Clone(kbpk)))
		return b.OpenVariant(makeKey(t, f, a, enc.Reveal()), makeKey(t, f, a, auth.Reveal()), a, p)
	}
	return b.Open(makeKey(t, f, a, kbpk), a, p)
}

func kbpkAlgorithm(v tr31.Version, kbpk []byte) keys.Algorithm {
	if v == tr31.VersionD {
		return map[int]keys.Algorithm{16: keys.AES128, 24: keys.AES192, 32: keys.AES256}[len(kbpk)]
	}
	return map[int]keys.Algorithm{16: keys.TDES2, 24: keys.TDES3}[len(kbpk)]
}

// tr31Seal seals the key again, where a key of its kind may be sealed so, and
// opens the result.
func tr31Seal(t *testing.T, f Factory, c *tr31Case, h tr31.Header, key secret.Bytes) {
	t.Helper()
	a := kbpkAlgorithm(h.Version, c.KBPK)
	kbpk := makeKey(t, f, a, c.KBPK)
	text, err := tr31.Seal(kbpk, a, h, key, rand.Reader)
	carried, unknown := h.KeyAlgorithm(key.Len())
	switch {
	case h.Version == tr31.VersionA || h.Version == tr31.VersionC:
		if !errors.Is(err, tr31.ErrVersion) {
			t.Errorf("sealing version %c: %v, want %v", h.Version, err, tr31.ErrVersion)
		}
		return
	case unknown != nil || tr31.CheckStrength(carried, a) != nil:
		if err == nil {
			t.Error("a key was sealed that must not be")
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	b := must[*tr31.Block](t)(tr31.Parse(text))
	if d := cmp.Diff(h, b.Header); d != "" {
		t.Errorf("header sealed again (-want +got):\n%s", d)
	}
	again := must[secret.Bytes](t)(b.Open(kbpk, a, tr31.Policy{}))
	same(t, "key sealed again", again.Reveal(), c.Key)
}

// tr31Spoil changes characters of a good block, one at a time, all over it.
func tr31Spoil(t *testing.T, f Factory, c *tr31Case) {
	t.Helper()
	stride := 1 + len(c.KeyBlock)/100
	for at := 0; at < len(c.KeyBlock); at += stride {
		text := []byte(c.KeyBlock)
		text[at] = map[bool]byte{true: '1', false: '0'}[text[at] == '0']
		b, err := tr31.Parse(string(text))
		if err != nil {
			continue
		}
		if _, err := tr31Open(t, f, b, c.KBPK, anyBlock); !errors.Is(err, tr31.ErrOpen) && !errors.Is(err, tr31.ErrVersion) {
			t.Errorf("character %d changed: %v, want %v", at+1, err, tr31.ErrOpen)
		}
	}
}

func tr31Refuse(t *testing.T, f Factory, c *tr31Case) {
	t.Helper()
	b, err := tr31.Parse(c.KeyBlock)
	if err != nil {
		if strings.HasPrefix(c.Expected.Error, "auth") || !errors.Is(err, tr31.ErrShape) && !errors.Is(err, tr31.ErrVersion) {
			t.Errorf("%v, want %s", err, c.Expected.Error)
		}
		return
	}
	if kbpkAlgorithm(b.Version, c.KBPK) == 0 {
		if c.Expected.Error != "bad_kbpk_length" {
			t.Errorf("no protection key has %d bytes", len(c.KBPK))
		}
		return
	}
	key, err := tr31Open(t, f, b, c.KBPK, anyBlock)
	if err != tr31.ErrOpen || key.Len() != 0 {
		t.Errorf("%v and %d bytes, want %v itself and none", err, key.Len(), tr31.ErrOpen)
	}
}
