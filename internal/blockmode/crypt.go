package blockmode

import (
	"crypto/subtle"
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// Cipher is a block cipher with its key. Encrypt and Decrypt take whole blocks
// and return a fresh slice: CBC when iv is one block, ECB when iv is nil.
type Cipher interface {
	// BlockSize is 8 or 16 bytes.
	BlockSize() int
	Encrypt(iv, src []byte) ([]byte, error)
	Decrypt(iv, src []byte) ([]byte, error)
}

// Encrypt enciphers data, whole segments of the mode, into a fresh slice. iv is
// one block, or nil for zeros; ECB takes none. It returns [ErrMode],
// [ErrVector], [ErrData] or the cipher's error. NIST SP 800-38A, section 6.
func Encrypt(c Cipher, m Mode, iv, data []byte) ([]byte, error) {
	bits, iv, err := m.check(c.BlockSize(), iv, data)
	if err != nil {
		return nil, err
	}
	switch {
	case m == ECB || m == CBC:
		return c.Encrypt(iv, data)
	case m == OFB:
		return outputFeedback(c, iv, data)
	case bits == 8*c.BlockSize():
		return wholeFeedback(c, iv, data)
	case bits == 1 && len(data) > MostCFB1:
		return nil, fmt.Errorf("%w: %d bytes; CFB1 enciphers at most %d at a time", ErrData, len(data), MostCFB1)
	}
	return feedback(c, bits, iv, data)
}

// Decrypt is the inverse of Encrypt. All its modes but ECB and CBC need the
// cipher's encryption.
func Decrypt(c Cipher, m Mode, iv, data []byte) ([]byte, error) {
	bits, iv, err := m.check(c.BlockSize(), iv, data)
	if err != nil {
		return nil, err
	}
	switch m {
	case ECB, CBC:
		return c.Decrypt(iv, data)
	case OFB:
		return outputFeedback(c, iv, data)
	}
	return unfeedback(c, bits, iv, data)
}

// outputFeedback is OFB in both directions. Its key stream, E(IV), E(E(IV)) and
// so on, is CBC over zeros: one call. SP 800-38A, section 6.4.
func outputFeedback(c Cipher, iv, data []byte) ([]byte, error) {
	stream, err := c.Encrypt(iv, make([]byte, len(data)))
	if err != nil {
		return nil, err
	}
	subtle.XORBytes(stream, stream, data)
	return stream, nil
}

// wholeFeedback enciphers in CFB with segments of whole blocks, in two calls.
// Let D0 = E(IV), and D be the CBC encryption of the data under the initial
// vector D0. Then D1 = E(P1 ⊕ D0) = E(C1), and so on: C = P ⊕ (D0, D1, …).
// SP 800-38A, section 6.3.
func wholeFeedback(c Cipher, iv, data []byte) ([]byte, error) {
	size := c.BlockSize()
	first, err := c.Encrypt(nil, iv)
	if err != nil {
		return nil, err
	}
	defer secret.Clear(first)
	out := make([]byte, 0, len(data))
	out = append(out, first...)
	if len(data) > size {
		rest, err := c.Encrypt(first, data[:len(data)-size])
		if err != nil {
			return nil, err
		}
		out = append(out, rest...)
		secret.Clear(rest)
	}
	subtle.XORBytes(out, out, data)
	return out, nil
}

// feedback enciphers in CFB segment by segment: each needs the one before it.
func feedback(c Cipher, bits int, iv, data []byte) ([]byte, error) {
	register := append([]byte(nil), iv...)
	out := make([]byte, len(data))
	copy(out, data)
	for at := 0; at < 8*len(data); at += bits {
		stream, err := c.Encrypt(nil, register)
		if err != nil {
			return nil, err
		}
		mask(out, at, bits, stream)
		secret.Clear(stream)
		shift(register, bits, out, at)
	}
	return out, nil
}

// unfeedback deciphers in CFB: every register follows from the cipher text, so
// that one call gives the whole key stream.
func unfeedback(c Cipher, bits int, iv, data []byte) ([]byte, error) {
	size := c.BlockSize()
	registers := make([]byte, 0, size*(8*len(data)/bits))
	register := append([]byte(nil), iv...)
	for at := 0; at < 8*len(data); at += bits {
		registers = append(registers, register...)
		shift(register, bits, data, at)
	}
	stream, err := c.Encrypt(nil, registers)
	if err != nil {
		return nil, err
	}
	defer secret.Clear(stream)
	out := make([]byte, len(data))
	copy(out, data)
	for at := 0; at < 8*len(data); at += bits {
		mask(out, at, bits, stream[at/bits*size:])
	}
	return out, nil
}

// mask XORs the leftmost bits of stream into out at bit at.
func mask(out []byte, at, bits int, stream []byte) {
	if bits == 1 {
		out[at/8] ^= stream[0] & 0x80 >> (at % 8)
		return
	}
	n := bits / 8
	subtle.XORBytes(out[at/8:at/8+n], out[at/8:at/8+n], stream[:n])
}

// shift moves the register to the left by the bits of src at bit at.
func shift(register []byte, bits int, src []byte, at int) {
	if bits == 1 {
		in := src[at/8] >> (7 - at%8) & 1
		for i := len(register) - 1; i >= 0; i-- {
			register[i], in = register[i]<<1|in, register[i]>>7
		}
		return
	}
	n := bits / 8
	copy(register, register[n:])
	copy(register[len(register)-n:], src[at/8:at/8+n])
}
