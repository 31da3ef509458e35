package backup

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"keyd.dev/keyd/internal/secret"
)

// The errors of this package.
var (
	// ErrNotBackup: the file is no backup of keyd, or of a newer version.
	ErrNotBackup = errors.New("backup: not a backup file of this version")
	// ErrKey: the token does not open the file; it holds another local master key.
	ErrKey = errors.New("backup: the token does not hold the local master key of the backup")
	// ErrDamaged: the file was changed, or is not whole.
	ErrDamaged = errors.New("backup: the file is damaged")
)

// Keeper wraps the key of one file under the local master key. It is used once
// a file and need not be safe for concurrent use. Unwrap returns an error for
// whatever Wrap of a token with the same local master key did not make.
type Keeper interface {
	Wrap(fileKey secret.Bytes) ([]byte, error)
	Unwrap(wrapped []byte) (secret.Bytes, error)
}

// stanza is the type of the one header line of the file.
const stanza = "keyd-lmk"

// fileKeyBytes is the length of an age file key.
const fileKeyBytes = 16

// recipient lets age seal a file to the local master key.
type recipient struct{ keeper Keeper }

// Wrap implements [age.Recipient].
func (r recipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	own := secret.New(len(fileKey))
	defer own.Clear()
	copy(own.Reveal(), fileKey)
	wrapped, err := r.keeper.Wrap(own)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanza, Body: wrapped}}, nil
}

// identity is the other way round.
type identity struct{ keeper Keeper }

// Unwrap implements [age.Identity].
func (i identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != stanza {
		return nil, age.ErrIncorrectIdentity
	}
	fileKey, err := i.keeper.Unwrap(stanzas[0].Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if fileKey.Len() != fileKeyBytes {
		fileKey.Clear()
		return nil, fmt.Errorf("%w: a key of %d bytes", ErrKey, fileKey.Len())
	}
	return fileKey.Reveal(), nil // age keeps it for the stream and clears nothing
}

// seal returns a writer whose plain bytes arrive sealed at w. The file is
// whole once it is closed.
func seal(w io.Writer, keeper Keeper) (io.WriteCloser, error) {
	sealed, err := age.Encrypt(w, recipient{keeper})
	if err != nil {
		return nil, fmt.Errorf("backup: seal: %w", err)
	}
	return sealed, nil
}

// open is the inverse of seal.
func open(r io.Reader, keeper Keeper) (io.Reader, error) {
	plain, err := age.Decrypt(r, identity{keeper})
	switch {
	case errors.Is(err, ErrKey):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotBackup, err)
	}
	return plain, nil
}
