package custody

import (
	"context"
	"crypto"
	"fmt"
	"slices"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// ImportBlock asks for a key out of a TR-31 key block, which says what the key is.
type ImportBlock struct {
	KEK     Ref
	Block   string
	CheckBy keys.CheckMethod // 0: the algorithm's default
	Enabled bool
	Tags    map[string]string
	Once    *Repeat
}

// ImportBlock takes a key in. Versions B and D are read, A and C under the
// key-encryption keys that the configuration names for them. It returns
// [ErrDenied], [ErrNoKey], [ErrKeyState], [ErrKeyUse], [ErrCustody],
// [ErrRequest], [ErrKeyBlock] for whatever opening the block reveals,
// [ErrApproval], [ErrRepeated] or [ErrUnavailable]. Section 8.5 of the API.
func (c *Custody) ImportBlock(ctx context.Context, caller Caller, corr string, q ImportBlock) (KeyRecord, audit.Custody, error) {
	if err := c.exchanging(); err != nil {
		return KeyRecord{}, 0, err
	}
	kek, err := c.wrappingKey(ctx, caller, OpImportKey, q.KEK, keys.ModeDecrypt)
	if err != nil {
		return KeyRecord{}, 0, c.refuse(ctx, caller, corr, OpImportKey, err)
	}
	block, err := tr31.Parse(q.Block)
	if err != nil {
		return KeyRecord{}, 0, blockError(err)
	}
	if err := c.acceptable(block, kek); err != nil {
		return KeyRecord{}, 0, err
	}
	if q.Tags[TagCustody] == "token" {
		return KeyRecord{}, 0, fmt.Errorf("%w: a key out of a key block passes through the process; set the policy afterwards", ErrCustody)
	}
	retained, err := keep(&block.Header)
	if err != nil {
		return KeyRecord{}, 0, err
	}
	in := asked{
		usage: block.Usage, kek: &kek, header: q.Block[:16], checkBy: q.CheckBy, enabled: q.Enabled, tags: q.Tags, once: q.Once,
		object: fmt.Sprintf("%s %c mode %c of a key block under %s", block.Usage, block.Algorithm, block.Mode, keyName(kek)),
	}
	return c.takeIn(ctx, caller, corr, in, func() (opened, error) { return c.open(ctx, block, kek, retained) })
}

// acceptable refuses by what the header says openly, before any key is used.
func (c *Custody) acceptable(block *tr31.Block, kek KeyRecord) error {
	switch {
	case block.Usage.Name() == "":
		return fmt.Errorf("%w: the key block's usage is not one of a key that keyd stores", ErrRequest)
	case block.KeyVersion[0] == 'c':
		return fmt.Errorf("%w: the key block carries a component, not a key", ErrRequest)
	}
	a := keys.Attributes{Usage: block.Usage, Mode: block.Mode, Exportability: block.Exportability}
	if !slices.ContainsFunc(keys.Algorithms(), func(k keys.Algorithm) bool {
		a.Algorithm = k
		return k.TR31() == block.Algorithm && a.Validate() == nil
	}) {
		return fmt.Errorf("%w: the key block's usage, algorithm and mode of use do not go together", ErrRequest)
	}
	if block.Version == tr31.VersionA || block.Version == tr31.VersionC {
		if !listed(c.lists.Load().legacyBlocks, kek) || !kek.Block.Attributes.Algorithm.IsTDES() {
			return blockError(tr31.ErrVersion)
		}
	}
	return nil
}

// open opens a block and says how the key is stored.
func (c *Custody) open(ctx context.Context, block *tr31.Block, kek KeyRecord, retained map[string]string) (opened, error) {
	unseal := c.openDerived
	if block.Version == tr31.VersionA || block.Version == tr31.VersionC {
		unseal = c.openVariant
	}
	value, err := unseal(ctx, block, kek)
	if err != nil {
		return opened{}, err
	}
	a, err := block.Attributes(value.Len())
	if err != nil {
		value.Clear()
		return opened{}, fmt.Errorf("%w: %v", ErrKeyBlock, err)
	}
	return opened{attributes: a, kept: retained, put: c.putClear(ctx, value)}, nil
}

// ImportOAEP asks for a key that was enciphered under the certificate of an
// import token: RSA-OAEP over the bare key.
type ImportOAEP struct {
	Token      string // "import-token-…"
	Hash       crypto.Hash
	Cryptogram []byte
	Attributes keys.Attributes
	CheckBy    keys.CheckMethod
	Enabled    bool
	Tags       map[string]string
	Once       *Repeat
}

// ImportOAEP takes a key in. Nothing in a cryptogram says who made it. It
// returns [ErrDenied], [ErrNoToken] for a token that is unknown, expired or of
// another keyd, [ErrRequest], [ErrKeyBlock], [ErrCustody], [ErrApproval],
// [ErrRepeated] or [ErrUnavailable]. Section 11.2 of the API.
func (c *Custody) ImportOAEP(ctx context.Context, caller Caller, corr string, q ImportOAEP) (KeyRecord, audit.Custody, error) {
	if err := c.exchanging(); err != nil {
		return KeyRecord{}, 0, err
	}
	if !caller.may(OpImportKey) {
		return KeyRecord{}, 0, c.refuse(ctx, caller, corr, OpImportKey, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpImportKey))
	}
	if err := q.Attributes.Validate(); err != nil {
		return KeyRecord{}, 0, fmt.Errorf("%w: usage, algorithm and mode of use do not go together", ErrRequest)
	}
	pair, err := c.usableToken(ctx, caller, corr, q.Token)
	if err != nil {
		return KeyRecord{}, 0, err
	}
	if err := underRSA(q.Attributes.Algorithm, pair.bits); err != nil {
		return KeyRecord{}, 0, err
	}
	in := asked{
		usage: q.Attributes.Usage, checkBy: q.CheckBy, enabled: q.Enabled, tags: q.Tags, once: q.Once,
		object: fmt.Sprintf("%s of a cryptogram under %s", q.Attributes, q.Token),
	}
	return c.takeIn(ctx, caller, corr, in, func() (opened, error) {
		return opened{attributes: q.Attributes, put: func(template keys.Block) (*keys.Block, bool, error) {
			return c.exchange.Token.ImportOAEP(ctx, pair.name, q.Hash, q.Cryptogram, template)
		}}, nil
	})
}

// underRSA is the column of section 8.4 of the API for RSA cryptograms.
func underRSA(a keys.Algorithm, bits int) error {
	least := map[keys.Algorithm]int{keys.TDES2: 2048, keys.TDES3: 2048, keys.AES128: 3072}[a]
	switch {
	case least == 0:
		return fmt.Errorf("%w: no key of this algorithm comes in under RSA; use a key block", ErrRequest)
	case bits < least:
		return fmt.Errorf("%w: the key is stronger than the wrapping key", ErrRequest)
	}
	return nil
}

// ImportCryptogram asks for a TDES key that an old host enciphered under a zone
// master key, with the check value that came with it.
type ImportCryptogram struct {
	ZMK        Ref
	Scheme     keys.Scheme
	Cryptogram []byte
	Attributes keys.Attributes
	Check      keys.KCV // over zeros
	CheckBy    keys.CheckMethod
	Enabled    bool
	Tags       map[string]string
	Once       *Repeat
}

// ImportCryptogram takes a key in, where the configuration names the zone master
// key for it. Only the check value tells whether it is the right one: another
// imports nothing. Errors are those of [Custody.ImportBlock].
func (c *Custody) ImportCryptogram(ctx context.Context, caller Caller, corr string, q ImportCryptogram) (KeyRecord, audit.Custody, error) {
	zmk, err := c.zoneMaster(ctx, caller, corr, OpImportKey, q.ZMK, keys.ModeDecrypt, c.lists.Load().cryptogramsIn)
	if err != nil {
		return KeyRecord{}, 0, err
	}
	if err := schemeFits(q.Scheme, q.Attributes.Algorithm, zmk); err != nil {
		return KeyRecord{}, 0, err
	}
	switch {
	case q.Attributes.Validate() != nil:
		return KeyRecord{}, 0, fmt.Errorf("%w: usage, algorithm and mode of use do not go together", ErrRequest)
	case q.Tags[TagCustody] == "token":
		return KeyRecord{}, 0, fmt.Errorf("%w: a key out of a cryptogram passes through the process; set the policy afterwards", ErrCustody)
	}
	in := asked{
		usage: q.Attributes.Usage, kek: &zmk, checkBy: q.CheckBy, enabled: q.Enabled, tags: q.Tags, once: q.Once,
		object: fmt.Sprintf("%s, check value %s, of a cryptogram of scheme %c under %s", q.Attributes, q.Check, q.Scheme, keyName(zmk)),
	}
	return c.takeIn(ctx, caller, corr, in, func() (opened, error) {
		value, err := c.underZMK(ctx, zmk, q.Scheme, q.Cryptogram, keys.CanDecrypt)
		if err != nil {
			return opened{}, err
		}
		got, err := keys.CheckClear(q.Attributes.Algorithm, keys.CheckByZeros, value.Reveal())
		if err != nil || !got.Equal(q.Check) {
			value.Clear()
			return opened{}, fmt.Errorf("%w: %w", ErrKeyBlock, errCheckValue)
		}
		return opened{attributes: q.Attributes, put: c.putClear(ctx, value)}, nil
	})
}
