package custody

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// RowSealer makes the MACs of the rows of one database: HMAC-SHA-256, its first
// 16 bytes. Its key is an HMAC by the token's own key over a label and the
// database's id. It is made in the token once and works in the process, since
// each transaction reads and writes several rows. Decision 0038. It is safe for
// concurrent use.
type RowSealer struct {
	key   secret.Bytes
	ready sync.Pool // of *rowHash
}

// rowHash has the key in it.
type rowHash struct {
	hash.Hash
	sum [sha256.Size]byte
}

// rowLabel keeps the key of rows apart from all else that the token's key makes.
const rowLabel = "keyd row key 1\n"

// NewRowSealer derives the key of a database's rows. It returns [ErrUnavailable]
// when the token does not give it.
func NewRowSealer(t interface {
	System(name string) (keys.Key, error)
}, database [16]byte) (*RowSealer, error) {
	own, err := t.System("token")
	if err != nil {
		return nil, tokenError("finding the key for row MACs", err)
	}
	mac, ok := own.(keys.HMACKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key for row MACs cannot compute an HMAC", ErrUnavailable)
	}
	value, err := mac.HMAC(append([]byte(rowLabel), database[:]...))
	if err != nil {
		return nil, tokenError("deriving the key for row MACs", err)
	}
	if len(value) != sha256.Size {
		secret.Clear(value)
		return nil, fmt.Errorf("%w: a key for row MACs of %d bytes", ErrUnavailable, len(value))
	}
	s := &RowSealer{key: secret.From(value)}
	s.ready.New = func() any { return &rowHash{Hash: hmac.New(sha256.New, s.key.Reveal())} }
	return s, nil
}

// Seal returns the MAC of a row.
func (s *RowSealer) Seal(row []byte) (sum [16]byte) {
	h := s.ready.Get().(*rowHash)
	defer s.ready.Put(h)
	h.Reset()
	h.Write(row)
	h.Hash.Sum(h.sum[:0])
	copy(sum[:], h.sum[:])
	return sum
}
