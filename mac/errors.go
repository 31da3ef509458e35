package mac

import "errors"

// The errors of this package, each wrapped with what was wrong. Errors of the
// cipher behind a [Cipher] are passed on, wrapped.
var (
	// ErrMAC: the MAC is not that of the message. It says nothing else.
	ErrMAC = errors.New("mac: does not match")
	// ErrEmpty: there is no message to compute over.
	ErrEmpty = errors.New("mac: empty message")
	// ErrPadding: the message is not whole blocks and padding is none, or the padding is unknown.
	ErrPadding = errors.New("mac: message cannot be padded so")
	// ErrLength: the wanted length is none that the algorithm has.
	ErrLength = errors.New("mac: no such MAC length")
	// ErrCipher: the algorithm does not work with this cipher or key length.
	ErrCipher = errors.New("mac: cipher not of this algorithm")
	// ErrHash: the hash is unknown.
	ErrHash = errors.New("mac: unknown hash")
)
