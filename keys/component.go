package keys

import (
	"crypto/subtle"
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// ParseComponent reads a component as a custodian types it: hexadecimal digits
// of either case, in groups parted by single spaces or in one. A group has
// whole bytes. The text is the caller's to clear. It returns [ErrComponent],
// which tells positions but no digit.
func ParseComponent(text []byte) (secret.Bytes, error) {
	value := make([]byte, 0, len(text)/2)
	defer secret.Clear(value[:cap(value)])
	for i := 0; i < len(text); i++ {
		if text[i] == ' ' && len(value) > 0 && text[i-1] != ' ' && i+1 < len(text) {
			continue
		}
		high, ok := hexDigit(text[i])
		if !ok {
			return secret.Bytes{}, fmt.Errorf("%w: character %d is not a hexadecimal digit", ErrComponent, i+1)
		}
		i++
		if i == len(text) {
			return secret.Bytes{}, fmt.Errorf("%w: %d characters: the last byte is half", ErrComponent, len(text))
		}
		low, ok := hexDigit(text[i])
		if !ok {
			return secret.Bytes{}, fmt.Errorf("%w: character %d is not a hexadecimal digit", ErrComponent, i+1)
		}
		value = append(value, high<<4|low)
	}
	if len(value) == 0 {
		return secret.Bytes{}, fmt.Errorf("%w: empty", ErrComponent)
	}
	return secret.From(value), nil
}

// hexDigit gives the value of one digit without a branch or a table, whose
// time would tell which digit it was.
func hexDigit(c byte) (byte, bool) {
	digit := int(c) - '0'
	letter := int(c|0x20) - 'a'
	isDigit := ^(digit >> 8) & ^((9 - digit) >> 8)
	isLetter := ^(letter >> 8) & ^((5 - letter) >> 8)
	return byte(digit&isDigit | (letter+10)&isLetter), isDigit|isLetter != 0
}

// Combine returns the key that components make: their XOR. A key of a has the
// length of each of them, and is checked as [CheckMaterial] does; parity is
// left as it comes. The components stay as they are. It returns
// [ErrComponent] when there is none, when one has another length than keys of
// a have, or when one is all zeros, and [ErrMaterial] for a result that may
// be no key. ISO 11568, key components.
func Combine(a Algorithm, components ...secret.Bytes) (secret.Bytes, error) {
	if len(components) == 0 {
		return secret.Bytes{}, fmt.Errorf("%w: there is none", ErrComponent)
	}
	value := secret.New(a.KeyBytes())
	sum := value.Reveal()
	for i, c := range components {
		if c.Len() != len(sum) {
			return secret.Bytes{}, fmt.Errorf("%w: component %d has %d bytes, a %s key has %d", ErrComponent, i+1, c.Len(), a, len(sum))
		}
		if allZero(c.Reveal()) {
			return secret.Bytes{}, fmt.Errorf("%w: component %d is all zeros and adds nothing", ErrComponent, i+1)
		}
		subtle.XORBytes(sum, sum, c.Reveal())
	}
	if err := CheckMaterial(a, sum); err != nil {
		value.Clear()
		return secret.Bytes{}, fmt.Errorf("combining %d components: %w", len(components), err)
	}
	return value, nil
}

func allZero(value []byte) bool {
	var any byte
	for _, b := range value {
		any |= b
	}
	return any == 0
}
