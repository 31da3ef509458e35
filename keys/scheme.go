package keys

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Scheme is how hosts of before key blocks write a TDES key under a zone master
// key (ZMK): its parts of eight bytes, each enciphered by itself, under the ZMK
// or under variants of it. Nothing binds the parts to each other, nor the key to
// its use; only a check value that came another way tells whether it is whole.
// Spec: Thales host command manuals, "key scheme tags".
type Scheme byte

// The schemes; their values are the letters that hosts put before the digits.
const (
	SchemeX Scheme = 'X' // two parts, under the ZMK itself (ANSI X9.17)
	SchemeY Scheme = 'Y' // three parts, likewise
	SchemeU Scheme = 'U' // two parts, each under a variant of the ZMK
	SchemeT Scheme = 'T' // three parts, likewise
)

// ParseScheme reads a letter. It returns [ErrAttributes].
func ParseScheme(letter string) (Scheme, error) {
	if len(letter) == 1 {
		if s := Scheme(letter[0]); s.Algorithm() != 0 {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: key scheme, want X, Y, U or T", ErrAttributes)
}

// Algorithm is that of the keys that the scheme carries, or 0 for no scheme.
func (s Scheme) Algorithm() Algorithm {
	switch s {
	case SchemeX, SchemeU:
		return TDES2
	case SchemeY, SchemeT:
		return TDES3
	}
	return 0
}

// Variants are what the first byte of the ZMK's second part is XORed with for
// each part of the key; 0 leaves the ZMK as it is.
func (s Scheme) Variants() []byte {
	switch s {
	case SchemeX:
		return []byte{0, 0}
	case SchemeY:
		return []byte{0, 0, 0}
	case SchemeU:
		return []byte{0xA6, 0x5A}
	case SchemeT:
		return []byte{0x6A, 0xDE, 0x2B}
	}
	return nil
}

// Mask returns the mask of a variant for a ZMK of n bytes, or nil for none.
func (s Scheme) Mask(variant byte, n int) []byte {
	if variant == 0 {
		return nil
	}
	mask := make([]byte, n)
	mask[8] = variant
	return mask
}

// ParseCryptogram reads the hexadecimal digits of a key under a ZMK, with or
// without the scheme's letter before them. It returns [ErrMaterial] for digits
// of another number than the scheme's, or no digits.
func (s Scheme) ParseCryptogram(text string) ([]byte, error) {
	digits := strings.TrimPrefix(text, string(rune(s)))
	if len(digits) != 2*s.Algorithm().KeyBytes() || len(digits) == 0 {
		return nil, fmt.Errorf("%w: a cryptogram of scheme %c has %d hexadecimal digits", ErrMaterial, s, 2*s.Algorithm().KeyBytes())
	}
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("%w: a cryptogram is hexadecimal digits", ErrMaterial)
	}
	return raw, nil
}

// FormatCryptogram is the inverse, upper case, with the letter.
func (s Scheme) FormatCryptogram(raw []byte) string {
	return string(rune(s)) + strings.ToUpper(hex.EncodeToString(raw))
}
