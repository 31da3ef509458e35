package dukpt

import "errors"

// The errors of this package, each wrapped with what was wrong.
var (
	// ErrKSN: the text or bytes are not a key serial number of this kind.
	ErrKSN = errors.New("dukpt: not a key serial number")
	// ErrCounter: the counter is zero or has too many one bits, so that no
	// terminal sends it and no key belongs to it.
	ErrCounter = errors.New("dukpt: counter not valid")
	// ErrExhausted: the terminal has no further valid counter and needs a new initial key.
	ErrExhausted = errors.New("dukpt: counter exhausted")
	// ErrKeyLength: the clear key has not the length of its kind.
	ErrKeyLength = errors.New("dukpt: wrong key length")
	// ErrUse: there is no such working key in this form of DUKPT.
	ErrUse = errors.New("dukpt: no working key for this use")
	// ErrStrength: the working key would be stronger than the key it is derived from.
	ErrStrength = errors.New("dukpt: working key stronger than its derivation key")
)
