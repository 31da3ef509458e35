package mac

import (
	"crypto/subtle"
	"fmt"
)

// CMAC returns the CMAC of msg, one block: two calls of the cipher, one for
// the subkeys and one CBC over the message. It serves where a token has the
// cipher and no CMAC of its own; the subkeys are then secrets of the process
// for this call. An empty message has a CMAC. It returns the cipher's error.
// NIST SP 800-38B, section 6.2; ISO/IEC 9797-1:2011, algorithm 5.
func CMAC(c Cipher, msg []byte) ([]byte, error) {
	size := c.BlockSize()
	subkey, err := c.Encrypt(nil, make([]byte, size))
	if err != nil {
		return nil, fmt.Errorf("mac: CMAC subkeys: %w", err)
	}
	defer clear(subkey)
	double(subkey)
	padded := make([]byte, max(1, (len(msg)+size-1)/size)*size)
	copy(padded, msg)
	if len(msg) < len(padded) {
		padded[len(msg)] = 0x80
		double(subkey)
	}
	last := padded[len(padded)-size:]
	subtle.XORBytes(last, last, subkey)
	defer clear(last) // with the message, it gives the subkey away
	return lastBlock(c, make([]byte, size), padded)
}

// double multiplies by x in the field of 2^64 or 2^128 elements, in constant
// time. NIST SP 800-38B, section 6.1.
func double(b []byte) {
	reduction := byte(0x1B)
	if len(b) == 16 {
		reduction = 0x87
	}
	carry := byte(0)
	for i := len(b) - 1; i >= 0; i-- {
		b[i], carry = b[i]<<1|carry, b[i]>>7
	}
	b[len(b)-1] ^= reduction & -carry
}
