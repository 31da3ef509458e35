package ceremony

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"

	"keyd.dev/keyd/internal/secret"
)

// way is what a sealed message is for. It is part of the info, so that a
// message for one way is of no use on another.
type way string

const (
	wayIn  way = "in"  // from a custodian to the engine
	wayOut way = "out" // from the engine to a custodian
)

// place is what a sealed message is bound to: RFC 9180, section 8.1.
type place struct {
	ceremony  string
	custodian string
	component int
	way       way
}

// info encodes a place so that no two places have the same bytes.
func (p place) info() []byte {
	var b bytes.Buffer
	b.WriteString("keyd ceremony v1")
	for _, part := range []string{p.ceremony, p.custodian, string(p.way)} {
		b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		b.WriteString(part)
	}
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(p.component)))
	return b.Bytes()
}

// lock is the key pair of one side of one ceremony: X25519, HKDF-SHA-256,
// AES-256-GCM. It lives as long as the ceremony.
type lock struct {
	raw *ecdh.PrivateKey
	key hpke.PrivateKey
}

func newLock() (*lock, error) {
	raw, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key to seal to: %w", err)
	}
	key, err := hpke.NewDHKEMPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("making a key to seal to: %w", err)
	}
	return &lock{raw: raw, key: key}, nil
}

// public is the key that others seal to.
func (l *lock) public() []byte { return l.raw.PublicKey().Bytes() }

// open returns what was sealed to l for a place. The error is [ErrSeal].
func (l *lock) open(sealed []byte, at place) (secret.Bytes, error) {
	if l.key == nil {
		return secret.Bytes{}, fmt.Errorf("%w: its key is gone", ErrSeal)
	}
	text, err := hpke.Open(l.key, hpke.HKDFSHA256(), hpke.AES256GCM(), at.info(), sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: it was not sealed for this step", ErrSeal)
	}
	return secret.From(text), nil
}

// forget overwrites the private key: what was sealed to it stays sealed for
// ever. crypto/ecdh has no method for that, and its copy of the key is reached
// by reflection; a test fails where that finds nothing.
func (l *lock) forget() {
	if l == nil || l.raw == nil {
		return
	}
	if kept := privateBytes(l.raw); kept != nil {
		secret.Clear(kept)
	}
	l.key = nil
}

// privateBytes is the key's own memory, or nil where the library keeps it in
// another way.
func privateBytes(key *ecdh.PrivateKey) []byte {
	field := reflect.ValueOf(key).Elem().FieldByName("privateKey")
	if field.Kind() != reflect.Slice || field.Type().Elem().Kind() != reflect.Uint8 {
		return nil
	}
	return field.Bytes()
}

// validPublic reports whether somebody can seal to these bytes.
func validPublic(public []byte) bool {
	_, err := ecdh.X25519().NewPublicKey(public)
	return err == nil
}

// sealTo seals a value to a public key for a place. The error is [ErrSeal].
func sealTo(public []byte, value secret.Bytes, at place) ([]byte, error) {
	key, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: not a public key of this kind", ErrSeal)
	}
	to, err := hpke.NewDHKEMPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: not a public key of this kind", ErrSeal)
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), at.info(), value.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return sealed, nil
}
