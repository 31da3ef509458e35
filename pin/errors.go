package pin

import "errors"

// The errors of this package. ErrBlock is returned as it stands, the others
// are wrapped with what was wrong; none holds a digit.
var (
	// ErrBlock: the block was not accepted. It is the one error for all that
	// deciphering revealed: control, length, digits, filler, PAN or key.
	ErrBlock = errors.New("pin: block not accepted")
	// ErrPIN: not 4 to 12 decimal digits.
	ErrPIN = errors.New("pin: not a PIN")
	// ErrPAN: not 12 to 19 decimal digits, or missing where the format needs it.
	ErrPAN = errors.New("pin: not a PAN")
	// ErrFormat: no such format, or not with this field.
	ErrFormat = errors.New("pin: format not supported")
	// ErrLength: the enciphered block has not the length of its format.
	ErrLength = errors.New("pin: wrong block length")
	// ErrTranslation: the rules of PIN security forbid this translation.
	ErrTranslation = errors.New("pin: translation not permitted")
	// ErrCipher: the key's cipher is not that of the format.
	ErrCipher = errors.New("pin: cipher not of this format")
)
