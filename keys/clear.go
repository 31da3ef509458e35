package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"keyd.dev/keyd/internal/secret"
)

// CheckClear returns the check value by method m of a clear value that is, or
// is to become, a key of a; a component too. It returns [ErrMaterial] for a
// value of a length that a does not take and [ErrCheckValue] for a method that
// keys of a do not have. It does not ask whether the value is weak.
func CheckClear(a Algorithm, m CheckMethod, value []byte) (KCV, error) {
	if !a.CheckableBy(m) {
		return KCV{}, fmt.Errorf("%w: %s keys have no check value by %s", ErrCheckValue, a, m)
	}
	if err := checkLength(a, value); err != nil {
		return KCV{}, err
	}
	if m == CheckByHMAC {
		return CheckHMAC(clearHMAC{a.hash(), value})
	}
	c, err := newCipher(a, value)
	if err != nil {
		return KCV{}, err
	}
	defer c.Clear()
	if m == CheckByZeros {
		return CheckZeros(c)
	}
	return CheckCMAC(clearCMAC{c})
}

func newCipher(a Algorithm, value []byte) (secret.Cipher, error) {
	if a.IsTDES() {
		return secret.NewTDES(value)
	}
	return secret.NewAES(value)
}

func (a Algorithm) hash() func() hash.Hash {
	switch a {
	case HMACSHA224:
		return sha256.New224
	case HMACSHA384:
		return sha512.New384
	case HMACSHA512:
		return sha512.New
	}
	return sha256.New
}

// clearHMAC is an HMAC key in the clear.
type clearHMAC struct {
	hash  func() hash.Hash
	value []byte
}

func (k clearHMAC) HMAC(msg []byte) ([]byte, error) {
	h := hmac.New(k.hash, k.value)
	h.Write(msg)
	return h.Sum(nil), nil
}

// clearCMAC gives a clear cipher the CMAC of exactly one whole block, which is
// all that a check value needs: E(K, M ⊕ K1). NIST SP 800-38B, section 6.2.
type clearCMAC struct{ secret.Cipher }

func (k clearCMAC) CMAC(block []byte) ([]byte, error) {
	l, err := k.Encrypt(nil, make([]byte, k.BlockSize()))
	if err != nil {
		return nil, err
	}
	rb := byte(0x1B)
	if k.BlockSize() == 16 {
		rb = 0x87
	}
	carry := byte(0)
	for i := len(l) - 1; i >= 0; i-- {
		l[i], carry = l[i]<<1|carry, l[i]>>7
	}
	l[len(l)-1] ^= rb & -carry
	for i := range l {
		l[i] ^= block[i]
	}
	return k.Encrypt(nil, l)
}
