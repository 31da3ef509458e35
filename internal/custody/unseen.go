package custody

import (
	"context"
	"fmt"

	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/pin"
)

// Translator is a [Token] whose module may be able to move PIN blocks between
// keys without letting anything clear out; it is asserted where it is used. It
// is safe for concurrent use. Its errors wrap the sentinels of package keys.
type Translator interface {
	// Reenciphers reports whether the module was found able to, under keys of
	// the algorithm.
	Reenciphers(a keys.Algorithm) bool
	// LoadFor gives a PIN key of which the object may do what can says and no more.
	LoadFor(ctx context.Context, b *keys.Block, can keys.Ability) (*keys.Loaded, error)
	// Reencipher takes one cipher block from under a key that unwraps to under
	// one that wraps.
	Reencipher(from, to keys.Key, block []byte) ([]byte, error)
}

// translateUnseen moves a PIN block within the token: where neither format nor
// PAN changes, both sides' keys can be objects of the token, and the module can
// do it. All else is refused before it starts. Nobody sees the block, so that
// none is malformed here, and the limits on those do not apply.
func (c *Custody) translateUnseen(ctx context.Context, q TranslatePIN, in, out KeyRecord, from, to *pin.Side) ([]byte, error) {
	if from.Format != to.Format {
		return nil, fmt.Errorf("%w: the PIN is clear in the process while its format changes; a key that demands token custody takes the same format on both sides", ErrCustody)
	}
	t, err := c.translator(q, in, out)
	if err != nil {
		return nil, err
	}
	source, err := c.unseenSide(ctx, t, q.In, in, keys.CanUnwrap, keys.CanDecrypt)
	if err != nil {
		return nil, fmt.Errorf("incoming side: %w", err)
	}
	defer source.release()
	target, err := c.unseenSide(ctx, t, q.Out, out, keys.CanWrap, keys.CanEncrypt)
	if err != nil {
		return nil, fmt.Errorf("outgoing side: %w", err)
	}
	defer target.release()
	block, err := pin.TranslateUnseen(mover{t, source.token, target.token}, from, to, q.Block)
	if err != nil {
		return nil, pinError(err)
	}
	return block, nil
}

// translator refuses what the keys or the module cannot do unseen.
func (c *Custody) translator(q TranslatePIN, in, out KeyRecord) (Translator, error) {
	for _, side := range []struct {
		PINSide
		key KeyRecord
	}{{q.In, in}, {q.Out, out}} {
		if side.Wrapped != nil {
			return nil, fmt.Errorf("%w: a key out of a key block is in the process", ErrCustody)
		}
		a := side.key.Block.Attributes.Algorithm
		if side.DUKPT != nil && a.IsTDES() {
			return nil, fmt.Errorf("%w: TDES DUKPT is walked in the process", ErrCustody)
		}
		if side.DUKPT != nil && side.DUKPT.Derive != 0 {
			a = side.DUKPT.Derive
		}
		if a.IsAES() != (side.Format == ISO4) {
			return nil, errCipher
		}
		if t, ok := c.token.(Translator); !ok || !t.Reenciphers(a) {
			return nil, fmt.Errorf("%w: this PKCS#11 module cannot unwrap and wrap a PIN block; see keyd doctor --token", ErrCustody)
		}
	}
	return c.token.(Translator), nil
}

// unseenSide gives the key of one side as an object that may move blocks. The
// outer layer of format 4 is a right that only AES keys get.
func (c *Custody) unseenSide(ctx context.Context, t Translator, side PINSide, k KeyRecord, can, outer keys.Ability) (*working, error) {
	if side.Format == ISO4 {
		can |= outer
	}
	if side.DUKPT != nil {
		if err := derives(k); err != nil {
			return nil, err
		}
		return c.derivedInToken(ctx, k, side.DUKPT, dukpt.PIN, can)
	}
	loaded, err := t.LoadFor(ctx, k.Block, can)
	if err != nil {
		return nil, tokenError("loading the key", err)
	}
	return &working{token: loaded.Key, release: loaded.Release}, nil
}

// mover is the two keys as package pin wants them.
type mover struct {
	t        Translator
	from, to keys.Key
}

func (m mover) BlockSize() int                       { return m.from.BlockSize() }
func (m mover) Move(block []byte) ([]byte, error)    { return m.t.Reencipher(m.from, m.to, block) }
func (m mover) Decrypt(block []byte) ([]byte, error) { return m.from.Decrypt(nil, block) }
func (m mover) Encrypt(block []byte) ([]byte, error) { return m.to.Encrypt(nil, block) }
