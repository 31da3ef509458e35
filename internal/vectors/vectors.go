// Package vectors runs the project's vector files over keys of any kind: a
// test gives it a [Factory], and each case goes through the keys that it makes.
// So one set of files speaks for Go's ciphers and for every token module.
//
// Vectors that must fail are cases like the others. A file with a case of a
// kind that its runner does not know fails as a whole; nothing is skipped.
// What differs is named in the test's output, and never shown.
package vectors

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"keyd.dev/keyd/keys"
)

// Factory makes a key of the value, in a token or in the process. The key may
// be weak, of unequal parity, or a single-DES key as TDES2 with two equal
// halves; the factory takes it as it is. HMAC keys have at least the length of
// the hash. The key may encipher, decipher, compute MACs and derive. The
// runner releases it.
type Factory func(a keys.Algorithm, value []byte) (*keys.Loaded, error)

//go:embed testdata/*.json
var files embed.FS

// load reads the cases of a vector file. It fails the test when the file does
// not have as many as it says.
func load[T any](t *testing.T, name string) []T {
	t.Helper()
	text, err := files.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Count int
		Cases []T
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(file.Cases) != file.Count || file.Count == 0 {
		t.Fatalf("%s: %d cases, says it has %d", name, len(file.Cases), file.Count)
	}
	return file.Cases
}

// hexBytes are bytes that stand in hexadecimal in a file.
type hexBytes []byte

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *hexBytes) UnmarshalText(text []byte) error {
	var err error
	*h, err = hex.DecodeString(string(text))
	return err
}

// blockAlgorithms are the files' words for ciphers; "des" is single DES, which
// becomes TDES2 with two equal halves.
var blockAlgorithms = map[string]keys.Algorithm{
	"tdes2": keys.TDES2, "tdes3": keys.TDES3,
	"aes128": keys.AES128, "aes192": keys.AES192, "aes256": keys.AES256,
}

// blockKey makes a key of a cipher, whose word may leave the length to the value.
func blockKey(t *testing.T, f Factory, cipher string, value []byte) keys.Key {
	t.Helper()
	a, ok := blockAlgorithms[cipher]
	switch {
	case len(value) == 8:
		a, value = keys.TDES2, append(bytes.Clone(value), value...)
	case !ok && len(value) == 16:
		a = keys.TDES2
	case !ok && len(value) == 24:
		a = keys.TDES3
	}
	return makeKey(t, f, a, value)
}

func makeKey(t *testing.T, f Factory, a keys.Algorithm, value []byte) keys.Key {
	t.Helper()
	l, err := f(a, value)
	if err != nil {
		t.Fatalf("making a %s key: %v", a, err)
	}
	t.Cleanup(l.Release)
	return l.Key
}

// must returns the value of a call that must not fail.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// same fails when what was computed is not what the file has. It shows neither.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (%d bytes, want %d)", what, len(got), len(want))
	}
}

// fixed is a source of filler that gives the vector's.
func fixed(filler []byte) io.Reader { return bytes.NewReader(filler) }

// counterCase is what cases about serial numbers alone, or about strength, expect.
type counterCase struct {
	KSN      string
	Expected struct {
		Valid     bool
		NextKSN   string `json:"next_ksn"`
		Exhausted bool
		Key       hexBytes
		Error     string
	}
}

// ksn is what both kinds of serial number have.
type ksn[K any] interface {
	fmt.Stringer
	Valid() error
	Next() (K, error)
}

func checkValidity[K ksn[K]](t *testing.T, k K, c counterCase) {
	t.Helper()
	if err := k.Valid(); (err == nil) != c.Expected.Valid {
		t.Errorf("%s: Valid gives %v, want valid: %t", c.KSN, err, c.Expected.Valid)
	}
}

func checkNext[K ksn[K]](t *testing.T, k K, c counterCase, exhausted error) {
	t.Helper()
	next, err := k.Next()
	if c.Expected.Exhausted {
		if err == nil {
			t.Errorf("%s: Next gives %s, want %v", c.KSN, next, exhausted)
		}
		return
	}
	if err != nil || next.String() != c.Expected.NextKSN {
		t.Errorf("%s: Next gives %s, %v; want %s", c.KSN, next, err, c.Expected.NextKSN)
	}
}
