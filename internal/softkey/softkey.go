// Package softkey is keys in the process that have the interfaces of token
// keys. It is for tests only: a key of this package is a Go slice on the heap,
// guarded by nothing. No program imports it; a test of the module's import
// rules sees to that.
package softkey

import (
	"fmt"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// Key is a software key. It implements [keys.Key], [keys.Derived] and
// [keys.HMACKey] and is safe for concurrent use.
type Key struct {
	algorithm keys.Algorithm
	value     secret.Bytes
	can       keys.Ability
	cipher    secret.Cipher // of TDES and AES keys
}

// everything is what a key from New may do.
const everything = keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC | keys.CanDerive

var (
	_ keys.Derived = (*Key)(nil)
	_ keys.HMACKey = (*Key)(nil)
)

// New returns a key that may do everything. It takes weak keys, and HMAC keys
// of any length, since published vectors have them.
func New(a keys.Algorithm, value []byte) (*Key, error) {
	return newKey(a, value, everything)
}

// Load is New in the shape of a key at work, without a companion.
func Load(a keys.Algorithm, value []byte) (*keys.Loaded, error) {
	k, err := New(a, value)
	if err != nil {
		return nil, err
	}
	return keys.NewLoaded(k, nil, nil), nil
}

func newKey(a keys.Algorithm, value []byte, can keys.Ability) (*Key, error) {
	k := &Key{algorithm: a, value: secret.New(len(value)), can: can}
	copy(k.value.Reveal(), value)
	if !a.IsHMAC() && len(value) != a.KeyBytes() {
		return nil, fmt.Errorf("%w: %s key of %d bytes", keys.ErrMaterial, a, len(value))
	}
	var err error
	switch {
	case a.IsTDES():
		k.cipher, err = secret.NewTDES(value)
	case a.IsAES():
		k.cipher, err = secret.NewAES(value)
	case !a.IsHMAC():
		err = fmt.Errorf("%w: unknown algorithm", keys.ErrMaterial)
	}
	return k, err
}

// BlockSize implements [keys.Key]; it is 0 for HMAC keys.
func (k *Key) BlockSize() int { return k.algorithm.BlockSize() }

// Encrypt implements [keys.Key].
func (k *Key) Encrypt(iv, src []byte) ([]byte, error) {
	if err := k.may(keys.CanEncrypt, !k.algorithm.IsHMAC()); err != nil {
		return nil, err
	}
	return k.cipher.Encrypt(iv, src)
}

// Decrypt implements [keys.Key].
func (k *Key) Decrypt(iv, src []byte) ([]byte, error) {
	if err := k.may(keys.CanDecrypt, !k.algorithm.IsHMAC()); err != nil {
		return nil, err
	}
	return k.cipher.Decrypt(iv, src)
}

// CMAC implements [keys.Key].
func (k *Key) CMAC(msg []byte) ([]byte, error) {
	if err := k.may(keys.CanMAC, !k.algorithm.IsHMAC()); err != nil {
		return nil, err
	}
	return mac.CMAC(k.cipher, msg)
}

// HMAC implements [keys.HMACKey].
func (k *Key) HMAC(msg []byte) ([]byte, error) {
	if err := k.may(keys.CanMAC, k.algorithm.IsHMAC()); err != nil {
		return nil, err
	}
	h := mac.SHA224 + mac.Hash(k.algorithm-keys.HMACSHA224)
	return mac.HMAC(h, k.value.Reveal(), msg)
}

// Derive implements [keys.Key].
func (k *Key) Derive(data []byte, as keys.Spec) (keys.Derived, error) {
	if err := k.may(keys.CanDerive, !k.algorithm.IsHMAC()); err != nil {
		return nil, err
	}
	value, err := k.cipher.Encrypt(nil, data)
	if err != nil {
		return nil, err
	}
	if len(value) < as.Algorithm.KeyBytes() {
		return nil, fmt.Errorf("%w: %d bytes of data for a %s key", keys.ErrMaterial, len(data), as.Algorithm)
	}
	return newKey(as.Algorithm, value[:as.Algorithm.KeyBytes()], as.Can)
}

// Close implements [keys.Derived]: it clears the value and forbids all.
func (k *Key) Close() error {
	k.value.Clear()
	k.can = 0
	return nil
}

func (k *Key) may(what keys.Ability, kind bool) error {
	if k.can&what == 0 || !kind {
		return fmt.Errorf("%w: %s key", keys.ErrForbidden, k.algorithm)
	}
	return nil
}
