package pin

import (
	"crypto/subtle"
	"fmt"
)

// Mover is two keys of one token that lets nothing clear out: one under which
// blocks come and one under which they leave. Each method takes one block of
// BlockSize bytes and returns a fresh slice.
type Mover interface {
	BlockSize() int
	// Move takes a block from under the incoming key to under the outgoing one.
	Move(block []byte) ([]byte, error)
	// Decrypt is ECB with the incoming key, for the outer layer of format 4,
	// below which there is another.
	Decrypt(block []byte) ([]byte, error)
	// Encrypt is ECB with the outgoing key, for the same.
	Encrypt(block []byte) ([]byte, error)
}

// TranslateUnseen takes a block from under one key to under another where
// neither format nor PAN changes: what is enciphered stays as it is, filler
// included, and nobody sees it. So nothing of it is checked, and what is not a
// PIN block becomes another that is none. Of format 4 the outer encipherment is
// taken off and put on again, with the PAN field mixed in; what is below it is
// enciphered still.
//
// It returns the errors of [CheckTranslation], [ErrTranslation] for two
// formats, [ErrCipher] and [ErrLength] as [Decipher], or the mover's error.
// ISO 9564-1, clauses 9.3 and 9.4.
func TranslateUnseen(m Mover, from, to *Side, block []byte) ([]byte, error) {
	if err := CheckTranslation(from, to); err != nil {
		return nil, err
	}
	if from.Format != to.Format {
		return nil, fmt.Errorf("%w: from format %s to %s the PIN must be seen", ErrTranslation, from.Format, to.Format)
	}
	if err := from.fits(m.BlockSize(), len(block)); err != nil {
		return nil, err
	}
	if from.Format != Format4 {
		return moved(m.Move(block))
	}
	inner, err := m.Decrypt(block)
	if err != nil {
		return nil, fmt.Errorf("pin: deciphering the outer layer: %w", err)
	}
	field := from.panField()
	subtle.XORBytes(inner, inner, field[:])
	if inner, err = moved(m.Move(inner)); err != nil {
		return nil, err
	}
	field = to.panField()
	subtle.XORBytes(inner, inner, field[:])
	outer, err := m.Encrypt(inner)
	if err != nil {
		return nil, fmt.Errorf("pin: enciphering the outer layer: %w", err)
	}
	return outer, nil
}

func moved(block []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("pin: moving the block: %w", err)
	}
	return block, nil
}
