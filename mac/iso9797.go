package mac

import "fmt"

// Algorithm1 returns the CBC-MAC of msg, one block: CBC with a zero initial
// vector, of which the last block is the MAC. With single DES it is X9.9. It
// returns [ErrEmpty], [ErrPadding] or the cipher's error. ISO/IEC 9797-1:2011,
// section 7.2.
func Algorithm1(c Cipher, msg []byte, p Padding) ([]byte, error) {
	padded, err := Pad(msg, c.BlockSize(), p)
	if err != nil {
		return nil, err
	}
	return lastBlock(c, make([]byte, c.BlockSize()), padded)
}

// Algorithm3 returns the retail MAC of msg, 8 bytes: CBC with single DES, whose
// last block is then deciphered with K2 and enciphered with K1. left is DES
// with K1, or TDES with K1 ‖ K1, which is the same; full is TDES with K1 ‖ K2.
// It calls each at most once: CBC with left over all blocks but the last, and
// one block with full, whose initial vector is where left has come to. It
// returns [ErrCipher] for a cipher with other blocks than 8 bytes, [ErrEmpty],
// [ErrPadding] or the cipher's error. ISO/IEC 9797-1:2011, section 7.4; X9.19.
func Algorithm3(left, full Cipher, msg []byte, p Padding) ([]byte, error) {
	if err := requireTDES(left, "algorithm 3"); err != nil {
		return nil, err
	}
	if err := requireTDES(full, "algorithm 3"); err != nil {
		return nil, err
	}
	padded, err := Pad(msg, 8, p)
	if err != nil {
		return nil, err
	}
	chain := make([]byte, 8)
	if head := padded[:len(padded)-8]; len(head) > 0 {
		if chain, err = lastBlock(left, chain, head); err != nil {
			return nil, err
		}
	}
	return lastBlock(full, chain, padded[len(padded)-8:])
}

// AS2805 returns the MAC of AS 2805.4.1 with a double-length key: algorithm 3
// with padding 1, of which the left four bytes travel. Arguments and errors are
// those of [Algorithm3].
func AS2805(left, full Cipher, msg []byte) ([4]byte, error) {
	mac, err := Algorithm3(left, full, msg, Padding1)
	if err != nil {
		return [4]byte{}, fmt.Errorf("AS 2805.4.1: %w", err)
	}
	return [4]byte(mac), nil
}
