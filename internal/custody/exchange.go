package custody

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// Exchanger is what custody needs of the PKCS#11 boundary to exchange keys with
// the outside. Like [Maker] it is apart from [Token], so that the path of
// transactions cannot let a key out. Its errors wrap the sentinels of package
// keys; [keys.ErrMaterial] is whatever deciphering a cryptogram revealed.
type Exchanger interface {
	// Export gives the value of a key that may leave; the caller clears it.
	Export(ctx context.Context, b *keys.Block) (secret.Bytes, error)
	// Under gives a stored key that may do what can says, XORed with mask unless
	// that is nil.
	Under(ctx context.Context, b *keys.Block, mask []byte, can keys.Ability) (keys.Derived, error)
	// InitialKey gives ECB(key of b, data): an initial key of an AES base derivation key.
	InitialKey(ctx context.Context, b *keys.Block, data []byte) (secret.Bytes, error)
	// ImportOAEP takes in a key that came under the public half of a wrapping pair.
	ImportOAEP(ctx context.Context, pair string, hash crypto.Hash, cryptogram []byte, template keys.Block) (b *keys.Block, inProcess bool, err error)
	// MakeWrappingPair and MakeSigningPair make an RSA pair in the token;
	// WrappingPair finds either.
	MakeWrappingPair(ctx context.Context, pair string, bits int) (*rsa.PublicKey, error)
	MakeSigningPair(ctx context.Context, pair string, bits int) (*rsa.PublicKey, error)
	WrappingPair(ctx context.Context, pair string) (*rsa.PublicKey, error)
	// DestroyWrappingPair destroys a pair and looks for it again.
	DestroyWrappingPair(ctx context.Context, pair string) error
	// Issuer signs keyd's own certificates.
	Issuer(ctx context.Context) (crypto.Signer, error)
}

// Exchange is what custody needs to exchange keys with the outside, and which
// weak forms of it this installation permits. The lists are of aliases of
// key-encryption keys, or patterns of them; they stand in the configuration and
// not in the keys, so that whoever exchanges keys is not the one who weakens how.
type Exchange struct {
	Token            Exchanger     // nil: no key comes in or goes out
	Store            ExchangeStore // with Token
	LegacyBlocks     []string      // key blocks of versions A and C come in under these
	CryptogramImport []string      // bare cryptograms come in under these
	CryptogramExport []string      // and go out under these
}

func (x *Exchange) check() error {
	if x.Token != nil && x.Store == nil {
		return errors.New("custody: the exchange of keys needs its store")
	}
	return nil
}

// listed reports whether a key-encryption key is named by a list.
func listed(list []string, k KeyRecord) bool { return Client{Keys: list}.mayUse(k.Aliases) }

// exchanging refuses where the parts of the exchange are not there.
func (c *Custody) exchanging() error {
	if c.exchange.Token == nil || c.maker == nil {
		return fmt.Errorf("%w: this process exchanges no keys", ErrUnavailable)
	}
	return nil
}

// wrappingKey finds the key-encryption key of an exchange, which must be one by
// usage and mode: side is [keys.ModeDecrypt] for what comes in and
// [keys.ModeEncrypt] for what goes out.
func (c *Custody) wrappingKey(ctx context.Context, caller Caller, op Operation, ref Ref, side keys.Mode) (KeyRecord, error) {
	k, err := c.book.permit(ctx, caller.Client, op, ref)
	if err == nil {
		way := taking
		if side == keys.ModeEncrypt {
			way = making
		}
		err = c.use(ctx, k, way)
	}
	if errors.Is(err, ErrNoKey) {
		return k, fmt.Errorf("%w: %w", ErrNoWrappingKey, err)
	}
	if err != nil {
		return k, err
	}
	a := k.Block.Attributes
	switch {
	case a.Usage != keys.UsageKEK && a.Usage != keys.UsageKBPK:
		return k, fmt.Errorf("%w: the wrapping key is no key-encryption key", ErrKeyUse)
	case a.Mode != keys.ModeBoth && a.Mode != keys.ModeAny && a.Mode != side:
		return k, fmt.Errorf("%w: mode of use of the wrapping key", ErrKeyUse)
	case tokenOnly(k):
		return k, fmt.Errorf("%w: the carried key is in the process", ErrCustody)
	}
	return k, nil
}

// asked is a key that is to come in, as far as the request says.
type asked struct {
	usage   keys.Usage
	object  string // what a second person approves
	kek     *KeyRecord
	header  string // of a key block
	checkBy keys.CheckMethod
	enabled bool
	tags    map[string]string
	once    *Repeat
}

// opened is a key that came in, before it is stored.
type opened struct {
	attributes keys.Attributes
	kept       map[string]string // of its key block, for the way out
	put        func(template keys.Block) (b *keys.Block, inProcess bool, err error)
}

// takeIn makes a stored key of one from outside: the second person, the intent,
// the opening, the key, the outcome. Nothing is stored unless all of it went well.
func (c *Custody) takeIn(ctx context.Context, caller Caller, corr string, q asked, open func() (opened, error)) (KeyRecord, audit.Custody, error) {
	if _, _, err := splitTags(q.tags, c.lists.Load().legacyPIN); err != nil {
		return KeyRecord{}, 0, err
	}
	if err := c.room(ctx); err != nil {
		return KeyRecord{}, 0, err
	}
	approvals, err := c.approved(ctx, caller, corr, OpImportKey, q.object, q.usage)
	if err != nil {
		return KeyRecord{}, 0, err
	}
	id, err := newID()
	if err != nil {
		return KeyRecord{}, 0, err
	}
	r := c.changeRecord(caller, corr, audit.KeyImport, audit.ChangeKey, string(id))
	r.Approvals = approvals
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: string(id), Version: 1, Usage: string(q.usage), Header: q.header}}
	if q.kek != nil {
		r.Keys = append(r.Keys, keyEntrySec(audit.KeyRoleKEK, q.kek.Block, keyName(*q.kek)))
	}
	var k KeyRecord
	var class audit.Custody
	err = c.intended(ctx, r, func(r *audit.Record) error {
		if q.kek != nil {
			if err := c.use(ctx, *q.kek, taking); err != nil {
				return err
			}
		}
		in, err := open()
		if err != nil {
			return err
		}
		template, tags, err := c.template(in.attributes, q.checkBy, q.tags, keys.External)
		if err != nil {
			return err
		}
		template.ID = id
		maps.Copy(template.Policy, in.kept)
		block, inProcess, err := in.put(template)
		if err != nil {
			return broughtIn(err)
		}
		k = c.newRecord(template, tags, q.enabled)
		k.Block, class = block, custodyClass(inProcess)
		r.Custody = class
		header := r.Keys[0].Header
		r.Keys[0] = keyEntrySec(audit.KeyRoleTarget, block, string(id))
		r.Keys[0].Header = header
		return c.addKey(ctx, caller, k, OpImportKey, q.once)
	})
	if err != nil {
		return KeyRecord{}, 0, err
	}
	return k, class, nil
}

// broughtIn maps what the boundary says of a key that came in. What deciphering
// revealed is one error.
func broughtIn(err error) error {
	if errors.Is(err, keys.ErrMaterial) {
		return fmt.Errorf("%w: %v", ErrKeyBlock, err)
	}
	return tokenError("taking a key in", err)
}

// putClear stores a clear value, which it clears.
func (c *Custody) putClear(ctx context.Context, value secret.Bytes) func(keys.Block) (*keys.Block, bool, error) {
	return func(template keys.Block) (*keys.Block, bool, error) {
		defer value.Clear()
		b, err := c.maker.Import(ctx, template, value)
		return b, true, err
	}
}

// randomReader reads the token's generator.
type randomReader struct{ c *Custody }

func (r randomReader) Read(p []byte) (int, error) {
	if err := r.c.Random(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// What a key block said of a key and its attributes do not hold is kept in the
// key's policy, under the MAC of its block, and reappears when it is exported;
// so is what binds a terminal's key to it. No caller can set these: they are no
// policy tags of the API.
const (
	keptVersion  = "keyd:tr31-version"
	keptOptional = "keyd:tr31-optional"
	// Of a terminal's working keys: whose they are, how many seconds after their
	// making they are too old, and which use of the key's id was the last before
	// this value, from where its own uses are counted.
	keptTerminal = "keyd:terminal"
	keptAge      = "keyd:max-age"
	keptFrom     = "keyd:uses-before"
	// Of a zone key: by which change of a host it came, see [ChangeZoneKey].
	keptChange = "keyd:zone-change"
	mostKept   = 2048 // characters of optional blocks
)

// writtenHere are the optional blocks that are not kept: the hash of an HMAC key
// is written anew, and the check value of the protection key is of another key.
var writtenHere = map[string]bool{tr31.HashBlock: true, "KP": true}

// keep returns the policy that holds what h says besides the attributes. It
// returns [ErrRequest] when that is too much.
func keep(h *tr31.Header) (map[string]string, error) {
	kept := make(map[string]string)
	if h.KeyVersion != "00" {
		kept[keptVersion] = h.KeyVersion
	}
	var blocks []tr31.Optional
	for _, o := range h.Optional {
		if !writtenHere[o.ID] {
			blocks = append(blocks, o)
		}
	}
	if text := tr31.FormatOptional(blocks); len(text) > mostKept {
		return nil, fmt.Errorf("%w: the key block's optional blocks are too long to be kept", ErrRequest)
	} else if text != "" {
		kept[keptOptional] = text
	}
	return kept, nil
}

// keptTag tells what keyd itself wrote from the tags of the API.
func keptTag(name, _ string) bool {
	switch name {
	case keptVersion, keptOptional, keptTerminal, keptAge, keptFrom, keptChange:
		return true
	}
	return false
}

// retain carries what keep wrote over to another policy of the same value.
func retain(policy, from map[string]string) {
	for name, value := range from {
		if keptTag(name, value) {
			policy[name] = value
		}
	}
}

// kept is the inverse of keep.
func kept(b *keys.Block) (version string, blocks []tr31.Optional, err error) {
	version = "00"
	if v, ok := b.Policy[keptVersion]; ok {
		version = v
	}
	blocks, err = tr31.ParseOptional(b.Policy[keptOptional])
	if err != nil {
		return "", nil, fmt.Errorf("%w: optional blocks of key %s: %w", ErrTampered, b.ID, err)
	}
	return version, blocks, nil
}

// blockError maps what package tr31 says of a block: what its opening revealed
// is one error, and so is a text that is no block; what its header says openly is
// named.
func blockError(err error) error {
	switch {
	case errors.Is(err, tr31.ErrShape), errors.Is(err, tr31.ErrOpen):
		return fmt.Errorf("%w: %v", ErrKeyBlock, err)
	case errors.Is(err, tr31.ErrVersion):
		return fmt.Errorf("%w: the key block's version is not permitted under this wrapping key", ErrRequest)
	case errors.Is(err, tr31.ErrStrength):
		return fmt.Errorf("%w: the key is stronger than the wrapping key", ErrRequest)
	case errors.Is(err, tr31.ErrHeader):
		return fmt.Errorf("%w: the key block's header names no key that keyd stores", ErrRequest)
	}
	return tokenError("using the wrapping key", err)
}
