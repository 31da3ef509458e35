package mac

import "crypto/subtle"

// UnionPay returns the MAC of UnionPay terminals ("cup_ecb"): eight ASCII
// characters, which are field 64 as it stands. The message is padded with
// zeros and its 8-byte blocks are XORed together; the result is written as 16
// upper-case hexadecimal characters, which go through a CBC-MAC; the first
// eight hexadecimal characters of that are the MAC. c is DES (a single-length
// key, or TDES with K1 ‖ K1) or TDES (a double-length key).
//
// It is linear before the encryption, so anyone can make two messages with one
// MAC: for private or TLS links only, and never shortened. It returns
// [ErrCipher] for a cipher with other blocks than 8 bytes, [ErrEmpty] or the
// cipher's error.
func UnionPay(c Cipher, msg []byte) ([8]byte, error) {
	var mac [8]byte
	if err := requireTDES(c, "the UnionPay MAC"); err != nil {
		return mac, err
	}
	padded, err := Pad(msg, 8, Padding1)
	if err != nil {
		return mac, err
	}
	var sum [8]byte
	for b := padded; len(b) > 0; b = b[8:] {
		subtle.XORBytes(sum[:], sum[:], b[:8])
	}
	var text [16]byte
	upperHex(text[:], sum[:])
	// Enciphering the first half, XORing the second in and enciphering again is CBC.
	full, err := lastBlock(c, make([]byte, 8), text[:])
	if err != nil {
		return mac, err
	}
	upperHex(mac[:], full[:4])
	return mac, nil
}

func upperHex(dst, src []byte) {
	const digits = "0123456789ABCDEF"
	for i, b := range src {
		dst[2*i] = digits[b>>4]
		dst[2*i+1] = digits[b&0xF]
	}
}
