package logindex

import "errors"

// The errors of this package; those of package audit pass through.
var (
	// ErrFormat: bytes that are no file of this index.
	ErrFormat = errors.New("logindex: malformed")
	// ErrStale: a file that is not of these records.
	ErrStale = errors.New("logindex: not of these records")
	// ErrConfig: what was asked of the package makes no sense.
	ErrConfig = errors.New("logindex: bad configuration")
)
