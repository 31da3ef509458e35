package tr31

import "errors"

// The errors of this package, each but ErrOpen wrapped with what was wrong.
var (
	// ErrShape: the text is not a key block, before any key was used.
	ErrShape = errors.New("tr31: not a key block")
	// ErrVersion: the version is unknown, not permitted, or not one of this KBPK.
	ErrVersion = errors.New("tr31: key block version not permitted")
	// ErrHeader: the header says what no key of keyd may be, or what no block can hold.
	ErrHeader = errors.New("tr31: header not permitted")
	// ErrStrength: the carried key is stronger than the KBPK.
	ErrStrength = errors.New("tr31: key stronger than its protection key")
	// ErrOpen: the block did not open. It is the one error for all that its
	// MAC and its deciphering reveal.
	ErrOpen = errors.New("tr31: key block did not open")
)
