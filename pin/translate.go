package pin

import (
	"crypto/subtle"
	"fmt"
	"io"
)

// Encrypter is the cipher under which a block leaves. Encrypt enciphers one
// block of BlockSize bytes, in ECB when iv is nil, into a fresh slice.
type Encrypter interface {
	BlockSize() int
	Encrypt(iv, src []byte) ([]byte, error)
}

// Decrypter is the cipher under which a block came. Decrypt deciphers one
// block of BlockSize bytes, in ECB when iv is nil, into a fresh slice.
type Decrypter interface {
	BlockSize() int
	Decrypt(iv, src []byte) ([]byte, error)
}

// Encipher returns the block of a clear field: one encipherment, or for format
// 4 two with the PAN field mixed in between. It returns the errors of
// [Side.Validate], [ErrLength], [ErrCipher] for a cipher of another block
// size, or the cipher's error. ISO 9564-1, clause 9.3.5.4 (format 4).
func Encipher(c Encrypter, side *Side, field *Field) ([]byte, error) {
	if err := side.fits(c.BlockSize(), field.n); err != nil {
		return nil, err
	}
	block, err := c.Encrypt(nil, field.Bytes())
	if err != nil {
		return nil, fmt.Errorf("pin: enciphering: %w", err)
	}
	if side.Format != Format4 {
		return block, nil
	}
	pan := side.panField()
	subtle.XORBytes(block, block, pan[:])
	if block, err = c.Encrypt(nil, block); err != nil {
		return nil, fmt.Errorf("pin: enciphering: %w", err)
	}
	return block, nil
}

// Decipher is the inverse of [Encipher]. It cannot tell whether what it
// returns is a PIN: see [Decode]. The field is the caller's to clear.
func Decipher(c Decrypter, side *Side, block []byte) (Field, error) {
	if err := side.fits(c.BlockSize(), len(block)); err != nil {
		return Field{}, err
	}
	plain, err := c.Decrypt(nil, block)
	if err != nil {
		return Field{}, fmt.Errorf("pin: deciphering: %w", err)
	}
	if side.Format == Format4 {
		pan := side.panField()
		subtle.XORBytes(plain, plain, pan[:])
		if plain, err = c.Decrypt(nil, plain); err != nil {
			return Field{}, fmt.Errorf("pin: deciphering: %w", err)
		}
	}
	defer clear(plain)
	return NewField(side.Format, plain)
}

// fits checks a side against the cipher's block size and a block's length.
func (s *Side) fits(cipherBlock, length int) error {
	if err := s.Validate(); err != nil {
		return err
	}
	switch n := s.Format.Bytes(); {
	case cipherBlock != n:
		return fmt.Errorf("%w: format %s has blocks of %d bytes, the key's cipher of %d", ErrCipher, s.Format, n, cipherBlock)
	case length != n:
		return fmt.Errorf("%w: %d bytes, format %s has %d", ErrLength, length, s.Format, n)
	}
	return nil
}

// Permitted reports whether PINs may go from one format to another: any to any,
// but none from a format with a PAN into format 1, which would cut the bond of
// PIN and PAN, and none into a legacy format. Values that are no format are not
// permitted. ISO 9564-1, clause 9.4; PCI PIN, requirement 3.
func Permitted(from, to Format) bool {
	if from.Bytes() == 0 || to.Bytes() == 0 || to.Legacy() {
		return false
	}
	return to != Format1 || from == Format1
}

// CheckTranslation returns [ErrTranslation] when the formats are not
// [Permitted] or the two sides have different PANs, and the errors of
// [Side.Validate].
func CheckTranslation(from, to *Side) error {
	if err := from.Validate(); err != nil {
		return fmt.Errorf("incoming side: %w", err)
	}
	if err := to.Validate(); err != nil {
		return fmt.Errorf("outgoing side: %w", err)
	}
	if !Permitted(from.Format, to.Format) {
		return fmt.Errorf("%w: from format %s to %s loses the PAN", ErrTranslation, from.Format, to.Format)
	}
	if from.Format.NeedsPAN() && to.Format.NeedsPAN() && from.PAN != to.PAN {
		return fmt.Errorf("%w: the PAN must not change", ErrTranslation)
	}
	return nil
}

// Reformat returns the clear field of the outgoing side with the PIN of the
// incoming side's. It returns the errors of [CheckTranslation], [Decode] and
// [Encode]. With [ErrBlock], and only then, the field is a well-formed one of
// a substitute PIN: whoever enciphers it, throws the result away and only then
// reports the error, takes the same time for good blocks and bad. Fields are
// the caller's to clear.
func Reformat(from, to *Side, field *Field, random io.Reader) (Field, error) {
	if err := CheckTranslation(from, to); err != nil {
		return Field{}, err
	}
	if field.n != from.Format.Bytes() {
		return Field{}, fmt.Errorf("%w: %d bytes, format %s has %d", ErrLength, field.n, from.Format, from.Format.Bytes())
	}
	p, ok := decode(from, field)
	defer p.Clear()
	out, err := Encode(to, &p, random)
	if err == nil && ok != 1 {
		err = ErrBlock
	}
	return out, err
}

// Translate deciphers a block with in, checks it, writes its PIN in the format
// of the outgoing side and enciphers that with out; between, the PIN is clear
// in this process. in and out may be the same key. It returns the errors of
// [CheckTranslation], [Decipher] and [Encipher], and [ErrBlock], alone and after
// all the work, for a block that was not accepted.
func Translate(in Decrypter, from *Side, block []byte, out Encrypter, to *Side, random io.Reader) ([]byte, error) {
	if err := CheckTranslation(from, to); err != nil {
		return nil, err
	}
	if err := to.fits(out.BlockSize(), to.Format.Bytes()); err != nil {
		return nil, fmt.Errorf("outgoing side: %w", err)
	}
	field, err := Decipher(in, from, block)
	defer field.Clear()
	if err != nil {
		return nil, fmt.Errorf("incoming side: %w", err)
	}
	reformed, refused := Reformat(from, to, &field, random)
	defer reformed.Clear()
	if refused != nil && refused != ErrBlock {
		return nil, refused
	}
	translated, err := Encipher(out, to, &reformed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("outgoing side: %w", err)
	case refused != nil:
		return nil, ErrBlock
	}
	return translated, nil
}
