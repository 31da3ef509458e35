package pin

import (
	"crypto/subtle"
	"fmt"
	"io"

	"keyd.dev/keyd/internal/secret"
)

// The nibbles of a field: control, length, 14 of PIN and filler, and in format
// 4 sixteen of random.
const (
	atLength = 1
	atDigits = 2
	atRandom = 16
)

// Encode returns the clear field of p in the side's format; filler that is
// random is read from random, fresh each time. Both p and the field are the
// caller's to clear. The time does not depend on the PIN. It returns the
// errors of [Side.Validate], [ErrPIN] for the zero PIN, or the error of
// random. ISO 9564-1, clauses 9.3.2 (format 0), 9.3.3 (1), 9.3.4 (3), 9.3.5 (4).
func Encode(side *Side, p *PIN, random io.Reader) (Field, error) {
	if err := side.Validate(); err != nil {
		return Field{}, err
	}
	if side.Format.Legacy() {
		return Field{}, fmt.Errorf("%w: nothing is written in %s", ErrFormat, side.Format)
	}
	if p.n < minPIN || p.n > maxPIN {
		return Field{}, fmt.Errorf("%w: no digits", ErrPIN)
	}
	var nibbles [32]byte
	defer secret.Clear(nibbles[:])
	if err := fill(&nibbles, side.Format, random); err != nil {
		return Field{}, fmt.Errorf("pin: filler: %w", err)
	}
	nibbles[0] = side.Format.control()
	nibbles[atLength] = byte(p.n)
	for i, d := range p.digits {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, p.n)
		nibbles[atDigits+i] = byte(subtle.ConstantTimeSelect(isPIN, int(d), int(nibbles[atDigits+i])))
	}
	field := Field{value: pack(&nibbles), n: side.Format.Bytes()}
	side.mixPAN(&field)
	return field, nil
}

// mixPAN XORs the PAN into a field of format 0 or 3, or out of it. Format 4
// has it between its two encipherments.
func (s *Side) mixPAN(field *Field) {
	if s.Format == Format0 || s.Format == Format3 {
		pan := s.panField()
		subtle.XORBytes(field.value[:8], field.value[:8], pan[:8])
	}
}

// fill sets all nibbles behind the length to filler, as if there were no digits.
func fill(nibbles *[32]byte, f Format, random io.Reader) error {
	filler := nibbles[atDigits:atRandom]
	switch f {
	case Format0:
		set(filler, 0xF)
	case Format4:
		set(filler, 0xA)
		return randomNibbles(nibbles[atRandom:], random)
	case Format1:
		return randomNibbles(filler, random)
	case Format3:
		return randomLetters(filler, random)
	}
	return nil
}

func set(nibbles []byte, value byte) {
	for i := range nibbles {
		nibbles[i] = value
	}
}

// randomNibbles reads one byte for each two of dst.
func randomNibbles(dst []byte, random io.Reader) error {
	buf := make([]byte, len(dst)/2)
	if _, err := io.ReadFull(random, buf); err != nil {
		return err
	}
	for i, b := range buf {
		dst[2*i], dst[2*i+1] = b>>4, b&0xF
	}
	return nil
}

// randomLetters fills dst with A to F, each as likely: bytes from 252 up, which
// six does not divide, are thrown away.
func randomLetters(dst []byte, random io.Reader) error {
	buf := make([]byte, 16)
	for len(dst) > 0 {
		if _, err := io.ReadFull(random, buf); err != nil {
			return err
		}
		for _, b := range buf {
			if b < 252 && len(dst) > 0 {
				dst[0] = 0xA + b%6
				dst = dst[1:]
			}
		}
	}
	return nil
}

// Decode returns the PIN of a clear field. It checks the control nibble, a
// length of 4 to 12, every digit and every nibble of filler that the format
// fixes; with a PAN mixed in, a wrong PAN shows, if at all, as a digit or
// filler that does not fit. Whatever is wrong, it returns [ErrBlock] and takes
// the same time. [Side.Validate]'s errors and [ErrLength] say what the caller
// got wrong. Field and PIN are the caller's to clear. Clauses as for [Encode].
func Decode(side *Side, field *Field) (PIN, error) {
	if err := side.Validate(); err != nil {
		return PIN{}, err
	}
	if field.n != side.Format.Bytes() {
		return PIN{}, fmt.Errorf("%w: %d bytes, format %s has %d", ErrLength, field.n, side.Format, side.Format.Bytes())
	}
	p, ok := decode(side, field)
	if ok != 1 {
		return PIN{}, ErrBlock
	}
	return p, nil
}

// decode returns the PIN and 1, or a substitute of four zeros and 0. It has
// neither a branch nor an index that depends on the field.
func decode(side *Side, field *Field) (p PIN, ok int) {
	secret.Do(func() { p, ok = decodeField(side, field) })
	return p, ok
}

func decodeField(side *Side, field *Field) (PIN, int) {
	plain := *field
	side.mixPAN(&plain)
	nibbles := unpack(&plain.value)
	defer secret.Clear(plain.value[:], nibbles[:])
	if side.Format.Legacy() {
		return decodeLegacy(side.Format, &nibbles)
	}

	length := int(nibbles[atLength])
	ok := subtle.ConstantTimeByteEq(nibbles[0], side.Format.control())
	ok &= subtle.ConstantTimeLessOrEq(minPIN, length)
	ok &= subtle.ConstantTimeLessOrEq(length, maxPIN)
	for i, v := range nibbles[atDigits:atRandom] {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, length)
		isDigit := subtle.ConstantTimeLessOrEq(int(v), 9)
		ok &= subtle.ConstantTimeSelect(isPIN, isDigit, isFiller(side.Format, v))
	}
	p := PIN{n: subtle.ConstantTimeSelect(ok, length, minPIN)}
	for i := range p.digits {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, length) & ok
		p.digits[i] = nibbles[atDigits+i] & byte(-isPIN)
	}
	return p, ok
}

func isFiller(f Format, v byte) int {
	switch f {
	case Format0:
		return subtle.ConstantTimeByteEq(v, 0xF)
	case Format3:
		return subtle.ConstantTimeLessOrEq(0xA, int(v))
	case Format4:
		return subtle.ConstantTimeByteEq(v, 0xA)
	}
	return 1
}
