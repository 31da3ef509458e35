package custody

import (
	"context"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// WrappedKey is a key that comes with the request, in a TR-31 key block under
// the key-encryption key that the request names. It works for one operation and
// is not stored.
type WrappedKey struct {
	Block   string
	CheckBy keys.CheckMethod // of the check value in the answer; 0 is the algorithm's default
}

// headerText is how many characters of a key block a record may hold (L-90).
const headerText = 16

// carries checks what can be seen of a wrapped key before any key is used: that
// the named key may unwrap, and that the block's header is that of a key for
// this. Versions B and D are read. Section 10.2 of the API.
func carries(kek KeyRecord, w *WrappedKey, usage keys.Usage, way direction) (*tr31.Block, error) {
	a := kek.Block.Attributes
	switch {
	case a.Usage != keys.UsageKEK && a.Usage != keys.UsageKBPK:
		return nil, fmt.Errorf("%w: usage %s unwraps no keys", ErrKeyUse, a.Usage)
	case !taking.admitted(a.Mode):
		return nil, fmt.Errorf("%w: mode of use", ErrKeyUse)
	case tokenOnly(kek):
		return nil, fmt.Errorf("%w: a key out of a key block is in the process", ErrCustody)
	}
	block, err := tr31.Parse(w.Block)
	if err != nil {
		return nil, blockError(err)
	}
	switch {
	case block.Version != tr31.VersionB && block.Version != tr31.VersionD:
		return nil, blockError(tr31.ErrVersion)
	case block.Usage != usage:
		return nil, fmt.Errorf("%w: Tr31KeyBlock: its key has not usage %s", ErrRequest, usage)
	case !way.admitted(block.Mode):
		return nil, fmt.Errorf("%w: Tr31KeyBlock: mode of use of its key", ErrRequest)
	case block.KeyVersion[0] == 'c':
		return nil, fmt.Errorf("%w: Tr31KeyBlock: it carries a component, not a key", ErrRequest)
	}
	return block, nil
}

// unwrapped is the key of a block at work in this process, with its check
// value. The block's own keys stay in the token; what it carries cannot, for the
// block authenticates the clear key. It returns [ErrKeyBlock] for whatever
// opening the block revealed.
func (c *Custody) unwrapped(ctx context.Context, kek KeyRecord, block *tr31.Block, by keys.CheckMethod) (*working, keys.KCV, error) {
	value, err := c.openDerived(ctx, block, kek)
	if err != nil {
		return nil, keys.KCV{}, err
	}
	defer value.Clear()
	kind, err := block.KeyAlgorithm(value.Len())
	if err == nil {
		err = keys.CheckMaterial(kind, value.Reveal())
	}
	if err != nil {
		return nil, keys.KCV{}, fmt.Errorf("%w: %v", ErrKeyBlock, err)
	}
	if by == 0 {
		by = kind.CheckMethod()
	}
	check, err := keys.CheckClear(kind, by, value.Reveal())
	if err != nil {
		return nil, keys.KCV{}, fmt.Errorf("%w: KeyCheckValueAlgorithm: keys of this algorithm have no such check value", ErrRequest)
	}
	cipher, err := clearCipher(value.Reveal(), kind)
	if err != nil {
		return nil, keys.KCV{}, fmt.Errorf("%w: %v", ErrKeyBlock, err)
	}
	return &working{full: cipher, kind: kind, custody: audit.CustodyProcess, release: cipher.Clear}, check, nil
}

// clearCipher is a clear key at work; the caller clears it.
func clearCipher(value []byte, kind keys.Algorithm) (secret.Cipher, error) {
	if kind.IsTDES() {
		return secret.NewTDES(value)
	}
	return secret.NewAES(value)
}

// wrappedPINKey checks the key-encryption key and the header of a PIN key that
// comes with the request; the record names both. The meter counts the use.
func (a *Act) wrappedPINKey(ctx context.Context, r *audit.Record, side PINSide, kek KeyRecord, way direction) (*meter, error) {
	r.Keys = append(r.Keys, keyEntry(audit.KeyRoleKEK, kek))
	m, err := a.c.ready(ctx, kek, taking)
	if err != nil {
		return nil, err
	}
	if _, err := carries(kek, side.Wrapped, keys.UsagePIN, way); err != nil {
		return nil, err
	}
	r.Keys[len(r.Keys)-1].Header = side.Wrapped.Block[:headerText]
	return m, nil
}

// wrappedPIN is such a PIN key at work.
func (c *Custody) wrappedPIN(ctx context.Context, side PINSide, kek KeyRecord) (*working, keys.KCV, error) {
	block, err := tr31.Parse(side.Wrapped.Block)
	if err != nil {
		return nil, keys.KCV{}, blockError(err)
	}
	return c.unwrapped(ctx, kek, block, side.Wrapped.CheckBy)
}
