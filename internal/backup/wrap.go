package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// ErrWrapped: the file has a second wrap, and nothing that opens it was given.
var ErrWrapped = errors.New("backup: wrapped a second time")

// Transit wraps the key of one file where somebody else keeps the key: Vault's
// transit engine. Unwrap returns an error for what Wrap did not make. C-11.
type Transit interface {
	Name() string // of the key, without spaces, "transit/keyd-backup" say
	Wrap(ctx context.Context, fileKey []byte) (string, error)
	Unwrap(ctx context.Context, wrapped string) ([]byte, error)
}

// Wrap is a layer around the sealed file: an age file of its own, that Vault or
// one of the custodians opens. What is inside opens beside the local master key
// alone, as without it.
type Wrap struct {
	Transit    Transit
	Custodians []age.Recipient
}

// wrapStanza is the type of the first header line of a wrapped file.
const wrapStanza = "keyd-transit"

// wrapMark begins every wrapped file.
const wrapMark = "age-encryption.org/v1\n-> " + wrapStanza + " "

// around returns a writer whose bytes arrive wrapped at to. The file is whole
// once it is closed.
func (w *Wrap) around(ctx context.Context, to io.Writer) (io.WriteCloser, error) {
	wrapped, err := age.Encrypt(to, append([]age.Recipient{transitRecipient{ctx, w.Transit}}, w.Custodians...)...)
	if err != nil {
		return nil, fmt.Errorf("backup: wrapping with %s: %w", w.Transit.Name(), err)
	}
	return wrapped, nil
}

// Opener is what may open a second wrap; either part may be absent.
type Opener struct {
	Transit func(name string) (Transit, error) // nil where there is no Vault
	Held    []age.Identity                     // of a custodian
}

// Open takes the second wrap off a file, where there is one. It returns
// [ErrWrapped] when nothing that was given can open it.
func Open(ctx context.Context, r io.Reader, with Opener) (io.Reader, error) {
	file := bufio.NewReader(r)
	if mark, err := file.Peek(len(wrapMark)); err != nil || string(mark) != wrapMark {
		return file, nil // another reader says what is wrong with it
	}
	held := append([]age.Identity{transitIdentity{ctx, with.Transit}}, with.Held...)
	if len(with.Held) > 0 {
		held = held[1:] // who gives an identity means it
	}
	inside, err := age.Decrypt(file, held...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w, for other custodians: give the identity of one of them, or none and the configuration of Vault", ErrWrapped)
	case err != nil:
		return nil, fmt.Errorf("backup: second wrap: %w", err)
	}
	return inside, nil
}

// transitRecipient lets age wrap a file's key by Vault.
type transitRecipient struct {
	ctx     context.Context
	transit Transit
}

// Wrap implements [age.Recipient].
func (r transitRecipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	wrapped, err := r.transit.Wrap(r.ctx, fileKey)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: wrapStanza, Args: []string{r.transit.Name()}, Body: []byte(wrapped)}}, nil
}

// transitIdentity is the other way round.
type transitIdentity struct {
	ctx  context.Context
	find func(name string) (Transit, error)
}

// Unwrap implements [age.Identity].
func (i transitIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != wrapStanza || len(s.Args) != 1 {
			continue
		}
		if i.find == nil {
			return nil, fmt.Errorf("%w by the key %s of Vault: give a configuration with [vault], or the identity of a custodian", ErrWrapped, s.Args[0])
		}
		transit, err := i.find(s.Args[0])
		if err != nil {
			return nil, err
		}
		fileKey, err := transit.Unwrap(i.ctx, string(s.Body))
		if err == nil && len(fileKey) != fileKeyBytes {
			err = fmt.Errorf("%w: a key of %d bytes in the second wrap", ErrDamaged, len(fileKey))
		}
		return fileKey, err
	}
	return nil, age.ErrIncorrectIdentity
}
