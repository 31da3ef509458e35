package siem

import "errors"

// The errors of this package, wrapped with what was being done.
var (
	// ErrConfig: a sink's configuration is unsafe or incomplete.
	ErrConfig = errors.New("siem: the configuration is refused")
	// ErrFormat: bytes that are neither a record nor a message.
	ErrFormat = errors.New("siem: malformed")
)
