package mac

import "crypto/subtle"

// UnionPay returns the MAC of UnionPay terminals ("cup_ecb") as eight ASCII
// characters, which are field 64 as it stands: the first four bytes of
// [UnionPayWhole] in upper-case hexadecimal. Its errors are those of
// UnionPayWhole.
func UnionPay(c Cipher, msg []byte) ([8]byte, error) {
	var mac [8]byte
	full, err := UnionPayWhole(c, msg)
	if err != nil {
		return mac, err
	}
	upperHex(mac[:], full[:4])
	return mac, nil
}

// UnionPayWhole returns the whole result of UnionPay's MAC for terminals, 8
// bytes, for links on which another form of it travels. The message is padded
// with zeros and its 8-byte blocks are XORed together; what comes out is written
// as 16 upper-case hexadecimal characters, which go through a CBC-MAC. c is DES
// (a single-length key, or TDES with K1 ‖ K1) or TDES (a double-length key).
//
// It is linear before the encryption, so anyone can make two messages with one
// MAC: for private or TLS links only, and never shortened. It returns
// [ErrCipher] for a cipher with other blocks than 8 bytes, [ErrEmpty] or the
// cipher's error.
func UnionPayWhole(c Cipher, msg []byte) ([]byte, error) {
	if err := requireTDES(c, "the UnionPay MAC"); err != nil {
		return nil, err
	}
	padded, err := Pad(msg, 8, Padding1)
	if err != nil {
		return nil, err
	}
	var sum [8]byte
	for b := padded; len(b) > 0; b = b[8:] {
		subtle.XORBytes(sum[:], sum[:], b[:8])
	}
	var text [16]byte
	upperHex(text[:], sum[:])
	// Enciphering the first half, XORing the second in and enciphering again is CBC.
	return lastBlock(c, make([]byte, 8), text[:])
}

func upperHex(dst, src []byte) {
	const digits = "0123456789ABCDEF"
	for i, b := range src {
		dst[2*i] = digits[b>>4]
		dst[2*i+1] = digits[b&0xF]
	}
}
