package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"errors"
	"fmt"
	"reflect"
)

// ErrKeyLength is returned for a key that the cipher does not take.
var ErrKeyLength = errors.New("secret: key length not of this cipher")

// ErrBlocks is returned for data that is not one or more whole blocks, or an
// initial vector that is not one block.
var ErrBlocks = errors.New("secret: data is not whole blocks")

// Cipher is a block cipher over a clear key in the process, with the methods
// of a token key: keys.Key and Cipher satisfy the same small interfaces. It is
// safe for concurrent use. Go keeps the key schedule on the heap, and that of
// AES begins with the key itself: [Cipher.Clear] overwrites it.
type Cipher struct {
	block cipher.Block
}

// NewTDES returns DES (8-byte key), two-key TDES (16) or three-key TDES (24).
// Parity bits are ignored. The key is not kept. It returns [ErrKeyLength].
// ISO/IEC 18033-3; NIST SP 800-67.
func NewTDES(key []byte) (Cipher, error) {
	switch len(key) {
	case 8:
		b, err := des.NewCipher(key)
		return Cipher{b}, err
	case 16:
		_, full, err := NewTDESPair(key)
		return full, err
	case 24:
		b, err := des.NewTripleDESCipher(key)
		return Cipher{b}, err
	}
	return Cipher{}, fmt.Errorf("%w: TDES with %d bytes", ErrKeyLength, len(key))
}

// NewTDESPair returns single DES under the left half of a key of 16 bytes, and
// two-key TDES under the whole, as algorithm 3 of ISO 9797-1 wants them. They
// share a key schedule, so that [Cipher.Clear] of either spoils both. The key is
// not kept. It returns [ErrKeyLength].
func NewTDESPair(key []byte) (left, full Cipher, err error) {
	if len(key) != 16 {
		return left, full, fmt.Errorf("%w: two-key TDES with %d bytes", ErrKeyLength, len(key))
	}
	one, err := des.NewCipher(key[:8])
	if err != nil {
		return left, full, err
	}
	two, err := des.NewCipher(key[8:])
	if err != nil {
		return left, full, err
	}
	return Cipher{one}, Cipher{&twoKey{one, two}}, nil
}

// twoKey is TDES with K1 = K3. The standard library's TDES makes three
// schedules, which take longer than the few blocks of a message.
type twoKey struct{ one, two cipher.Block }

// BlockSize implements [cipher.Block].
func (t *twoKey) BlockSize() int { return t.one.BlockSize() }

// Encrypt implements [cipher.Block].
func (t *twoKey) Encrypt(dst, src []byte) {
	t.one.Encrypt(dst, src)
	t.two.Decrypt(dst, dst)
	t.one.Encrypt(dst, dst)
}

// Decrypt implements [cipher.Block].
func (t *twoKey) Decrypt(dst, src []byte) {
	t.one.Decrypt(dst, src)
	t.two.Encrypt(dst, dst)
	t.one.Decrypt(dst, dst)
}

// NewAES returns AES with a key of 16, 24 or 32 bytes. The key is not kept. It
// returns [ErrKeyLength]. FIPS 197.
func NewAES(key []byte) (Cipher, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return Cipher{}, fmt.Errorf("%w: AES with %d bytes", ErrKeyLength, len(key))
	}
	return Cipher{b}, nil
}

// BlockSize is 8 (DES, TDES) or 16 (AES) bytes.
func (c Cipher) BlockSize() int { return c.block.BlockSize() }

// Encrypt enciphers whole blocks into a fresh slice: CBC when iv is one block,
// ECB when iv is nil. It returns [ErrBlocks]. NIST SP 800-38A.
func (c Cipher) Encrypt(iv, src []byte) ([]byte, error) {
	if err := c.check(iv, src); err != nil {
		return nil, err
	}
	dst := make([]byte, len(src))
	if iv != nil {
		cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(dst, src)
		return dst, nil
	}
	for n := c.block.BlockSize(); len(src) > 0; src = src[n:] {
		c.block.Encrypt(dst[len(dst)-len(src):], src)
	}
	return dst, nil
}

// Decrypt is the inverse of Encrypt.
func (c Cipher) Decrypt(iv, src []byte) ([]byte, error) {
	if err := c.check(iv, src); err != nil {
		return nil, err
	}
	dst := make([]byte, len(src))
	if iv != nil {
		cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(dst, src)
		return dst, nil
	}
	for n := c.block.BlockSize(); len(src) > 0; src = src[n:] {
		c.block.Decrypt(dst[len(dst)-len(src):], src)
	}
	return dst, nil
}

func (c Cipher) check(iv, src []byte) error {
	n := c.block.BlockSize()
	if len(src) == 0 || len(src)%n != 0 || iv != nil && len(iv) != n {
		return fmt.Errorf("%w: iv of %d and data of %d bytes, block of %d", ErrBlocks, len(iv), len(src), n)
	}
	return nil
}

// Clear overwrites the key schedule in every copy of c, which is of no use from
// then on: it enciphers under a key of zeros. The schedule's type is the
// standard library's own, so that it is reached by reflection.
func (c Cipher) Clear() {
	if two, is := c.block.(*twoKey); is {
		forget(two.one)
		forget(two.two)
		return
	}
	forget(c.block)
}

func forget(block cipher.Block) {
	if schedule := reflect.ValueOf(block); schedule.Kind() == reflect.Pointer {
		schedule.Elem().SetZero()
	}
}

// Format implements [fmt.Formatter]: every verb prints [Placeholder].
func (c Cipher) Format(f fmt.State, _ rune) { Hide(f) }
