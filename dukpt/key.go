package dukpt

import (
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// KeyType is the algorithm and length of a derived key.
type KeyType uint8

// The key types of X9.24-3. HMAC128 and its kin are keys of 16, 24 and 32
// bytes for an HMAC; the standard leaves the hash open.
const (
	TDES2 KeyType = iota + 1
	TDES3
	AES128
	AES192
	AES256
	HMAC128
	HMAC192
	HMAC256
)

// keyTypes hold the algorithm indicator of X9.24-3:2017, the length in bytes
// and the strength in bits of each type. The strengths of TDES are those of
// NIST SP 800-57, part 1.
var keyTypes = [...]struct {
	name      string
	algorithm uint16
	bytes     int
	strength  int
}{
	TDES2:   {"TDES 2-key", 0, 16, 80},
	TDES3:   {"TDES 3-key", 1, 24, 112},
	AES128:  {"AES-128", 2, 16, 128},
	AES192:  {"AES-192", 3, 24, 192},
	AES256:  {"AES-256", 4, 32, 256},
	HMAC128: {"HMAC-128", 5, 16, 128},
	HMAC192: {"HMAC-192", 5, 24, 192},
	HMAC256: {"HMAC-256", 5, 32, 256},
}

// String names the type.
func (t KeyType) String() string {
	if !t.known() {
		return fmt.Sprintf("KeyType(%d)", uint8(t))
	}
	return keyTypes[t].name
}

// Bytes is the length of a key of this type, 0 for an unknown type.
func (t KeyType) Bytes() int {
	if !t.known() {
		return 0
	}
	return keyTypes[t].bytes
}

// Derives reports whether keys of this type derive others: AES keys do.
func (t KeyType) Derives() bool { return t == AES128 || t == AES192 || t == AES256 }

// StrongerThan reports whether t has more bits of strength than u.
func (t KeyType) StrongerThan(u KeyType) bool {
	return t.known() && u.known() && keyTypes[t].strength > keyTypes[u].strength
}

func (t KeyType) known() bool { return t >= TDES2 && t <= HMAC256 }

// Key is a clear key on its way through the process: a fixed array, so that it
// can stay on the stack. It never prints. Whoever has one clears it.
type Key struct {
	value [32]byte
	kind  KeyType
}

// NewKey copies value, which must have the length of its type. It returns
// [ErrKeyLength].
func NewKey(t KeyType, value []byte) (Key, error) {
	if !t.known() || len(value) != t.Bytes() {
		return Key{}, fmt.Errorf("%w: %s key of %d bytes, want %d", ErrKeyLength, t, len(value), t.Bytes())
	}
	k := Key{kind: t}
	copy(k.value[:], value)
	return k, nil
}

// Type is the algorithm and length of the key.
func (k *Key) Type() KeyType { return k.kind }

// Bytes returns the key itself, not a copy: [Key.Clear] clears it there too.
func (k *Key) Bytes() []byte { return k.value[:k.kind.Bytes()] }

// Clear overwrites the key with zeros.
func (k *Key) Clear() { secret.Clear(k.value[:]) }

// String returns "[secret]".
func (k Key) String() string { return secret.Placeholder }

// GoString returns "[secret]".
func (k Key) GoString() string { return secret.Placeholder }

// Format implements [fmt.Formatter]: every verb prints "[secret]".
func (k Key) Format(f fmt.State, _ rune) { secret.Hide(f) }

// MarshalText implements [encoding.TextMarshaler] with "[secret]".
func (k Key) MarshalText() ([]byte, error) { return []byte(secret.Placeholder), nil }
