package mac

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Hash is a hash for [HMAC].
type Hash uint8

// The hashes of FIPS 180-4 that HMAC keys may have.
const (
	SHA224 Hash = iota + 1
	SHA256
	SHA384
	SHA512
)

// Size is the length of the hash, and so of the whole HMAC, in bytes: 28, 32,
// 48 or 64, and 0 for an unknown hash.
func (h Hash) Size() int {
	return [...]int{0, 28, 32, 48, 64}[h.index()]
}

// String names the hash.
func (h Hash) String() string {
	return [...]string{"unknown hash", "SHA-224", "SHA-256", "SHA-384", "SHA-512"}[h.index()]
}

func (h Hash) index() int {
	if h > SHA512 {
		return 0
	}
	return int(h)
}

// HMAC returns the HMAC of msg under a clear key, of the length of the hash.
// It returns [ErrHash]. RFC 2104; FIPS 198-1.
func HMAC(h Hash, key, msg []byte) ([]byte, error) {
	var f func() hash.Hash
	switch h {
	case SHA224:
		f = sha256.New224
	case SHA256:
		f = sha256.New
	case SHA384:
		f = sha512.New384
	case SHA512:
		f = sha512.New
	default:
		return nil, fmt.Errorf("%w: %d", ErrHash, uint8(h))
	}
	m := hmac.New(f, key)
	m.Write(msg)
	return m.Sum(nil), nil
}
