// Package secret holds bytes that will not print, and the region in which they
// are used and erased.
//
// A [Bytes] is a clear key, a component or anything else that must not reach a
// log line, an error text, a JSON document or a core dump longer than one
// operation lasts. It prints as "[secret]" under every verb and encoder. What
// it holds is seen only through [Bytes.Reveal], which few packages may call.
//
// A [Cipher] is a block cipher over a clear key, in the form in which a token
// key offers it; so the same code runs over both.
package secret

import (
	"crypto/subtle"
	"fmt"
)

// Placeholder is what a secret prints as.
const Placeholder = "[secret]"

// Bytes is a secret of any length. The zero value is empty. Copies share one
// store: clearing one clears all. The store stands behind two pointers, of
// which fmt follows one at most, so that a Bytes in an unexported field, where
// fmt calls no method, shows an address and no more. Not safe for concurrent
// use with Clear.
type Bytes struct {
	p *store
}

type store struct {
	b *[]byte
}

// New returns n zero bytes to be filled through [Bytes.Reveal].
func New(n int) Bytes {
	b := make([]byte, n)
	return Bytes{&store{&b}}
}

// From takes over the bytes of b: it copies them and clears b, so that the
// caller is left with nothing to leak or to forget.
func From(b []byte) Bytes {
	s := New(len(b))
	copy(s.Reveal(), b)
	Clear(b)
	return s
}

// Within returns a secret that is the bytes of b themselves: for memory of a
// kind of its own, which whoever made it gives back after [Bytes.Clear].
func Within(b []byte) Bytes { return Bytes{&store{&b}} }

// Len returns the number of bytes.
func (s Bytes) Len() int {
	return len(s.Reveal())
}

// Reveal returns the bytes themselves, not a copy: what is written there is
// written into the secret, and [Bytes.Clear] clears it there too. Only
// custody, ceremony, hsm and the packages of pure arithmetic may call it.
func (s Bytes) Reveal() []byte {
	if s.p == nil {
		return nil
	}
	return *s.p.b
}

// Equal reports whether both hold the same bytes. It takes the same time
// wherever they differ; their lengths are not secret.
func (s Bytes) Equal(t Bytes) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
}

// Clear overwrites the bytes with zeros, in every copy of s. The length stays.
func (s Bytes) Clear() { Clear(s.Reveal()) }

// String returns [Placeholder].
func (s Bytes) String() string { return Placeholder }

// GoString returns [Placeholder].
func (s Bytes) GoString() string { return Placeholder }

// Format implements [fmt.Formatter]: every verb prints [Placeholder].
func (s Bytes) Format(f fmt.State, _ rune) { Hide(f) }

// MarshalText implements [encoding.TextMarshaler] with [Placeholder]. It also
// serves log/slog, which has no other way to a value's text that is pure.
func (s Bytes) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON implements [encoding/json.Marshaler] with [Placeholder].
func (s Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// Hide writes [Placeholder]: the body of a Format method of a type that must not print.
func Hide(f fmt.State) { _, _ = f.Write([]byte(Placeholder)) }

// Clear overwrites each of parts with zeros; for an array a, Clear(a[:]). It
// is not inlined, so that the compiler cannot prove the write to be of no use
// and leave it out.
//
//go:noinline
func Clear(parts ...[]byte) {
	for _, p := range parts {
		clear(p)
	}
}
