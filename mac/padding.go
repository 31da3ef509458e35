package mac

import "fmt"

// Padding is a padding method of ISO/IEC 9797-1.
type Padding uint8

// The padding methods. Padding1 gives a message and the same message with a
// zero byte behind it one MAC; new profiles take Padding2 or CMAC.
const (
	NoPadding Padding = iota + 1 // the message must be whole blocks
	Padding1                     // zeros up to a whole block; a message of whole blocks stays
	Padding2                     // one byte 80, then zeros up to a whole block; always added
)

// String names the method.
func (p Padding) String() string {
	switch p {
	case NoPadding:
		return "none"
	case Padding1:
		return "1"
	case Padding2:
		return "2"
	}
	return fmt.Sprintf("Padding(%d)", uint8(p))
}

// Pad returns msg padded to whole blocks of size bytes, in a fresh slice. It
// returns [ErrEmpty] for an empty message, and [ErrPadding] for an unknown
// method or, without padding, a message that is not whole blocks.
// ISO/IEC 9797-1:2011, section 6.3.
func Pad(msg []byte, size int, p Padding) ([]byte, error) {
	if len(msg) == 0 {
		return nil, ErrEmpty
	}
	over := len(msg) % size
	n := len(msg)
	switch {
	case p == NoPadding && over != 0:
		return nil, fmt.Errorf("%w: %d bytes are not whole blocks of %d; set a padding method", ErrPadding, len(msg), size)
	case p == NoPadding || p == Padding1 && over == 0:
	case p == Padding1 || p == Padding2:
		n += size - over
	default:
		return nil, fmt.Errorf("%w: unknown method %s", ErrPadding, p)
	}
	padded := make([]byte, n)
	copy(padded, msg)
	if p == Padding2 {
		padded[len(msg)] = 0x80
	}
	return padded, nil
}
