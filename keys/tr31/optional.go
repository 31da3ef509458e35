package tr31

import (
	"fmt"
	"strings"
)

// FormatOptional writes optional blocks as a header has them, without a padding
// block: the form in which they are kept beside a key.
func FormatOptional(blocks []Optional) string {
	var b strings.Builder
	for _, o := range blocks {
		b.WriteString(marshalOptional(o))
	}
	return b.String()
}

// ParseOptional is the inverse of [FormatOptional]. It returns [ErrShape].
func ParseOptional(text string) ([]Optional, error) {
	if !printable(text) {
		return nil, fmt.Errorf("%w: a character is not printable ASCII", ErrShape)
	}
	var all []Optional
	for at := 0; at < len(text); {
		o, n, err := parseOptional(text[at:])
		if err != nil {
			return nil, fmt.Errorf("%w: optional block %d: %w", ErrShape, len(all)+1, err)
		}
		all = append(all, o)
		at += n
	}
	return all, nil
}
