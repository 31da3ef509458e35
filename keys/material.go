package keys

import (
	"crypto/subtle"
	"fmt"
	"math/bits"
)

// weakDES are the weak and semi-weak DES keys. NIST SP 800-67, section 3.3.2.
var weakDES = [...][8]byte{
	{0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01},
	{0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE},
	{0xE0, 0xE0, 0xE0, 0xE0, 0xF1, 0xF1, 0xF1, 0xF1},
	{0x1F, 0x1F, 0x1F, 0x1F, 0x0E, 0x0E, 0x0E, 0x0E},
	{0x01, 0x1F, 0x01, 0x1F, 0x01, 0x0E, 0x01, 0x0E},
	{0x1F, 0x01, 0x1F, 0x01, 0x0E, 0x01, 0x0E, 0x01},
	{0x01, 0xE0, 0x01, 0xE0, 0x01, 0xF1, 0x01, 0xF1},
	{0xE0, 0x01, 0xE0, 0x01, 0xF1, 0x01, 0xF1, 0x01},
	{0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE},
	{0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01},
	{0x1F, 0xE0, 0x1F, 0xE0, 0x0E, 0xF1, 0x0E, 0xF1},
	{0xE0, 0x1F, 0xE0, 0x1F, 0xF1, 0x0E, 0xF1, 0x0E},
	{0x1F, 0xFE, 0x1F, 0xFE, 0x0E, 0xFE, 0x0E, 0xFE},
	{0xFE, 0x1F, 0xFE, 0x1F, 0xFE, 0x0E, 0xFE, 0x0E},
	{0xE0, 0xFE, 0xE0, 0xFE, 0xF1, 0xFE, 0xF1, 0xFE},
	{0xFE, 0xE0, 0xFE, 0xE0, 0xFE, 0xF1, 0xFE, 0xF1},
}

// CheckMaterial reports whether value may be a key of a. It returns
// [ErrMaterial] with the reason, and nothing of the value, for:
//
//   - a wrong length; HMAC keys have at least the bytes of the hash and at
//     most those of its block (RFC 2104, section 3);
//   - a key whose bytes are all equal, zeros among them;
//   - TDES keys of which two 8-byte parts are equal, parity aside, or of which
//     one is a weak or semi-weak DES key (NIST SP 800-67, section 3.3.2).
//
// Parity is not looked at: see [AdjustParity].
func CheckMaterial(a Algorithm, value []byte) error {
	if err := checkLength(a, value); err != nil {
		return err
	}
	var differ byte
	for _, b := range value {
		differ |= b ^ value[0]
	}
	if differ == 0 {
		return fmt.Errorf("%w: all bytes of the key are equal", ErrMaterial)
	}
	if a.IsTDES() {
		return checkTDES(value)
	}
	return nil
}

// checkTDES looks at every part, whatever it finds, so that the time tells nothing.
func checkTDES(value []byte) error {
	var parts [3][8]byte
	n := len(value) / 8
	for i, b := range value {
		parts[i/8][i%8] = b &^ 1
	}
	defer clear(parts[:])
	equal, weak := 0, 0
	for i := range n {
		for j := range i {
			equal |= subtle.ConstantTimeCompare(parts[i][:], parts[j][:])
		}
		weak |= subtle.ConstantTimeCompare(parts[i][:], make([]byte, 8))
		for _, w := range weakDES {
			for k := range w {
				w[k] &^= 1
			}
			weak |= subtle.ConstantTimeCompare(parts[i][:], w[:])
		}
	}
	switch {
	case equal == 1:
		return fmt.Errorf("%w: two parts of the key are equal, which makes it single DES", ErrMaterial)
	case weak == 1:
		return fmt.Errorf("%w: a part of the key is a weak or semi-weak DES key", ErrMaterial)
	}
	return nil
}

func checkLength(a Algorithm, value []byte) error {
	if !a.known() {
		return fmt.Errorf("%w: unknown algorithm", ErrMaterial)
	}
	least, most := a.KeyBytes(), a.KeyBytes()
	if a.IsHMAC() {
		h := a.hash()()
		least, most = h.Size(), h.BlockSize()
	}
	if len(value) < least || len(value) > most {
		return fmt.Errorf("%w: %s key of %d bytes, want %d to %d", ErrMaterial, a, len(value), least, most)
	}
	return nil
}

// OddParity reports whether each byte has an odd number of one bits, as DES
// keys have. The time it takes does not depend on the bytes.
func OddParity(value []byte) bool {
	odd := 1
	for _, b := range value {
		odd &= bits.OnesCount8(b)
	}
	return odd&1 == 1
}

// AdjustParity sets the lowest bit of each byte of value, in place, so that
// the byte has odd parity. DES ignores that bit.
func AdjustParity(value []byte) {
	for i, b := range value {
		value[i] = b&^1 | byte(bits.OnesCount8(b&^1)&1^1)
	}
}
