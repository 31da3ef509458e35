package mac

import (
	"crypto/subtle"
	"fmt"
)

// minLength is the shortest MAC that travels anywhere: half a MAC of four
// bytes, in some terminal protocols.
const minLength = 2

// Truncate returns the leftmost length bytes of a whole MAC. It returns
// [ErrLength] for less than two bytes or more than there are. ISO/IEC
// 9797-1:2011, section 6.6.
func Truncate(full []byte, length int) ([]byte, error) {
	if length < minLength || length > len(full) {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrLength, length, len(full))
	}
	return full[:length:length], nil
}

// Verify compares a received MAC with the leftmost length bytes of the
// computed one, in constant time. length comes from the caller's
// configuration, never from the message: a received MAC that is shorter or
// longer is wrong, whatever its bytes. It returns [ErrMAC] for a MAC that is
// wrong and [ErrLength] for a length that no MAC has.
func Verify(full, received []byte, length int) error {
	want, err := Truncate(full, length)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, received) != 1 {
		return ErrMAC
	}
	return nil
}
