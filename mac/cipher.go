package mac

import (
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// Cipher is a block cipher with its key, in a token or in the process. Encrypt
// enciphers whole blocks into a fresh slice: CBC when iv is one block, ECB
// when iv is nil. Implementations need be safe for concurrent use only if the
// caller shares them.
type Cipher interface {
	// BlockSize is 8 or 16 bytes.
	BlockSize() int
	Encrypt(iv, src []byte) ([]byte, error)
}

// NewTDES returns a cipher over a clear key of 8 bytes (single DES), 16
// (two-key TDES) or 24 (three-key TDES). The key is not kept. It returns
// [ErrCipher] for another length.
func NewTDES(key []byte) (Cipher, error) {
	c, err := secret.NewTDES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCipher, err)
	}
	return c, nil
}

// NewAES returns a cipher over a clear AES key of 16, 24 or 32 bytes. The key
// is not kept. It returns [ErrCipher] for another length.
func NewAES(key []byte) (Cipher, error) {
	c, err := secret.NewAES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCipher, err)
	}
	return c, nil
}

// NewAlgorithm3 returns the two ciphers of [Algorithm3] over a clear key of
// exactly 16 bytes, K1 ‖ K2: single DES with K1, and TDES. It returns
// [ErrCipher] for another length; for three-key TDES, implementations differ.
func NewAlgorithm3(key []byte) (left, full Cipher, err error) {
	if len(key) != 16 {
		return nil, nil, fmt.Errorf("%w: algorithm 3 with a key of %d bytes, want 16", ErrCipher, len(key))
	}
	one, both, err := secret.NewTDESPair(key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCipher, err)
	}
	return one, both, nil
}

// lastBlock enciphers msg in CBC mode and returns the last block.
func lastBlock(c Cipher, iv, msg []byte) ([]byte, error) {
	out, err := c.Encrypt(iv, msg)
	if err != nil {
		return nil, fmt.Errorf("mac: %w", err)
	}
	return out[len(out)-c.BlockSize():], nil
}

func requireTDES(c Cipher, algorithm string) error {
	if c.BlockSize() != 8 {
		return fmt.Errorf("%w: %s with blocks of %d bytes, want 8", ErrCipher, algorithm, c.BlockSize())
	}
	return nil
}
