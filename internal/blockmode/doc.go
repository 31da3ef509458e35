// Package blockmode computes the modes of operation of NIST SP 800-38A over a
// block cipher that can be used and never seen: a token key, or a clear key in
// the process. Such a cipher offers ECB and CBC of whole blocks; the feedback
// modes are put together from these, in as few calls as the mode permits, since
// each call of a token costs more than many blocks.
//
// Nothing is padded and nothing is authenticated. The package holds no keys and
// keeps no state between calls.
package blockmode

import "errors"

// Reasons for which data is refused. They are wrapped with what was found.
var (
	// ErrMode: there is no such mode, or the cipher has no such form of it.
	ErrMode = errors.New("blockmode: the cipher has no such mode")
	// ErrVector: the initial vector is not one block, or ECB was given one.
	ErrVector = errors.New("blockmode: the initial vector does not fit")
	// ErrData: the data is empty, not whole segments, or too long for the mode.
	ErrData = errors.New("blockmode: the data does not fit the mode")
)
