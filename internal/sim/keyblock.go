package sim

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
)

// Purposes of the keys of a key block. X9.143, table of the derivation data.
const (
	forEncryption     = 0x0000
	forAuthentication = 0x0001
)

// keyBlock is the TR-31 key block, version D, of a double-length TDES key under an
// AES-256 key-encryption key, made by the standard's text: it shares nothing with
// the code that reads it. X9.143, section 7.3.
func keyBlock(kek []byte, usage string, mode byte, key []byte) (string, error) {
	const (
		headerLength = 16
		blockSize    = 16
	)
	data := make([]byte, 2*blockSize) // length in bits, key, filler
	if _, err := rand.Read(data); err != nil {
		return "", err
	}
	if len(key) != 16 || len(usage) != 2 {
		return "", fmt.Errorf("sim: a key of %d bytes of usage %q in a key block", len(key), usage)
	}
	binary.BigEndian.PutUint16(data, uint16(8*len(key)))
	copy(data[2:], key)
	header := fmt.Sprintf("D%04d%sT%c00N0000", headerLength+2*len(data)+2*blockSize, usage, mode)
	enc, err := derivedKey(kek, forEncryption)
	if err != nil {
		return "", err
	}
	auth, err := derivedKey(kek, forAuthentication)
	if err != nil {
		return "", err
	}
	sum, err := mac.CMAC(auth, append([]byte(header), data...))
	if err != nil {
		return "", err
	}
	sealed, err := enc.Encrypt(sum, data)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%X%X", header, sealed, sum), nil
}

// derivedKey is a key of the block: CMACs in counter mode under the
// key-encryption key. NIST SP 800-108.
func derivedKey(kek []byte, purpose uint16) (secret.Cipher, error) {
	const (
		aes256 = 0x0004
		bits   = 256
	)
	base, err := secret.NewAES(kek)
	if err != nil {
		return secret.Cipher{}, fmt.Errorf("sim: key-encryption key: %w", err)
	}
	var key []byte
	for counter := byte(1); counter <= 2; counter++ {
		in := []byte{counter}
		in = binary.BigEndian.AppendUint16(in, purpose)
		in = append(in, 0)
		in = binary.BigEndian.AppendUint16(in, aes256)
		in = binary.BigEndian.AppendUint16(in, bits)
		part, err := mac.CMAC(base, in)
		if err != nil {
			return secret.Cipher{}, err
		}
		key = append(key, part...)
	}
	return secret.NewAES(key)
}

// checkValue is that of a TDES key: over zeros, three bytes.
func checkValue(key []byte) (string, error) {
	c, err := secret.NewTDES(key)
	if err != nil {
		return "", err
	}
	sum, err := c.Encrypt(nil, make([]byte, 8))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%X", sum[:3]), nil
}
