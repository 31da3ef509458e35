package ceremony

import (
	"bytes"
	"crypto/ecdh"

	"keyd.dev/keyd/internal/secret"
)

// Holds reports whether anything secret is left of a ceremony: sealed
// components, or the key that opens them.
func (e *Engine) Holds(id string) bool {
	s := e.all[id]
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.lock.key != nil || !bytes.Equal(privateBytes(s.lock.raw), make([]byte, 32))
	for _, t := range s.seats {
		left = left || t.in != nil || t.out != nil || t.public != nil
	}
	return left
}

// SealRound seals to a fresh lock for one place and opens for another.
func SealRound(value secret.Bytes, ceremony, custodian string, component int, in bool, as func(*string, *string, *int, *bool)) (secret.Bytes, error) {
	l, err := newLock()
	if err != nil {
		return secret.Bytes{}, err
	}
	ways := map[bool]way{true: wayIn, false: wayOut}
	sealed, err := sealTo(l.public(), value, place{ceremony, custodian, component, ways[in]})
	if err != nil {
		return secret.Bytes{}, err
	}
	as(&ceremony, &custodian, &component, &in)
	return l.open(sealed, place{ceremony, custodian, component, ways[in]})
}

// Forgotten reports whether forget reaches the bytes of a private key.
func Forgotten() (before, after []byte, err error) {
	l, err := newLock()
	if err != nil {
		return nil, nil, err
	}
	kept := privateBytes(l.raw)
	before = bytes.Clone(kept)
	l.forget()
	return before, kept, nil
}

// PrivateOf is the library's own copy of a private key.
func PrivateOf(k *ecdh.PrivateKey) []byte { return privateBytes(k) }

// ReadRequest is the door's decoder.
func ReadRequest(body []byte, limit int64) error {
	_, err := readRequest(bytes.NewReader(body), limit)
	return err
}
