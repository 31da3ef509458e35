// Package credentials says where the token's PIN and the TLS certificates come
// from. A PIN comes from exactly one named source and reaches the caller as a
// [secret.Bytes]; certificates come from files that may change while the
// process runs.
package credentials

import "errors"

// The errors of this package. Each is wrapped with the source or the file, and
// with what to do about it.
var (
	// ErrSource: the text does not name a source of a PIN.
	ErrSource = errors.New("credentials: not a PIN source")
	// ErrUnsafe: others than the owner could read or change the PIN there.
	ErrUnsafe = errors.New("credentials: the PIN is not safe there")
	// ErrNoPIN: the source is there and holds no usable PIN.
	ErrNoPIN = errors.New("credentials: no PIN")
	// ErrCertificate: a certificate, key, CA or CRL file cannot be used.
	ErrCertificate = errors.New("credentials: certificate not usable")
	// ErrRevoked: the peer's certificate stands on the CRL.
	ErrRevoked = errors.New("credentials: certificate revoked")
	// ErrStaleCRL: the CRL is past its next update and crl_strict is set.
	ErrStaleCRL = errors.New("credentials: revocation list out of date")
)
