package custody

import (
	"context"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/dukpt"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// cipher is a block cipher with its key: a token key, or [secret.Cipher] over
// a working key that had to come out of the token.
type cipher interface {
	BlockSize() int
	Encrypt(iv, src []byte) ([]byte, error)
	Decrypt(iv, src []byte) ([]byte, error)
}

// working is the key that an operation works with.
type working struct {
	full    cipher
	left    cipher         // K1 alone, for algorithm 3; nil where there is none
	token   keys.Key       // full, when it is in the token
	kind    keys.Algorithm // of full
	custody audit.Custody
	release func()
}

// static is a stored key at work as itself. It stays in the token.
func (c *Custody) static(ctx context.Context, k KeyRecord) (*working, error) {
	loaded, err := c.load(ctx, k)
	if err != nil {
		return nil, err
	}
	w := &working{
		full:    loaded.Key,
		token:   loaded.Key,
		kind:    k.Block.Attributes.Algorithm,
		custody: audit.CustodyToken,
		release: loaded.Release,
	}
	if loaded.Companion != nil {
		w.left = loaded.Companion
	}
	return w, nil
}

// derived is the working key of a DUKPT terminal's transaction. t is what is
// remembered of it, or nil.
func (c *Custody) derived(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use, t *transaction) (*working, error) {
	if err := derives(k); err != nil {
		return nil, err
	}
	a := k.Block.Attributes
	switch {
	case a.Algorithm == keys.TDES2:
		return c.derivedTDES(ctx, k, d, use, t)
	case a.Algorithm.IsAES():
		return c.derivedAES(ctx, k, d, use)
	}
	return nil, fmt.Errorf("%w: DUKPT has no form for %s", ErrKeyUse, a.Algorithm)
}

// derives checks that working keys may be derived from the key.
func derives(k KeyRecord) error {
	a := k.Block.Attributes
	if a.Usage != keys.UsageBDK {
		return fmt.Errorf("%w: usage %s derives nothing", ErrKeyUse, a.Usage)
	}
	if a.Mode != keys.ModeDerive && a.Mode != keys.ModeAny {
		return fmt.Errorf("%w: mode of use", ErrKeyUse)
	}
	return nil
}

// derivedTDES makes the initial key by two encryptions in the token and walks
// from there in the process: no PKCS#11 mechanism does the walk. X9.24-1:2009,
// annex A.
func (c *Custody) derivedTDES(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use, t *transaction) (*working, error) {
	if d.Derive != 0 && d.Derive != keys.TDES2 {
		return nil, fmt.Errorf("%w: a TDES BDK derives TDES_2KEY only", ErrRequest)
	}
	ksn, err := dukpt.TDESKSNFromBytes(d.KSN)
	if err != nil {
		return nil, fmt.Errorf("%w: a TDES BDK has key serial numbers of 10 bytes", ErrRequest)
	}
	if err := ksn.Valid(); err != nil {
		return nil, fmt.Errorf("%w: the counter of the key serial number is not valid", ErrRequest)
	}
	if tokenOnly(k) {
		return nil, fmt.Errorf("%w: TDES DUKPT is walked in the process", ErrCustody)
	}
	if !t.is(k.Block.ID, ksn, use) {
		var now transaction
		defer now.forget()
		if err := c.walk(ctx, k, ksn, &now); err != nil {
			return nil, err
		}
		t.keep(k.Block.ID, ksn, &now.key)
		t = &now
	}
	key, err := t.working(use)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer secret.Clear(key[:])
	if use == dukpt.PIN {
		return clearPIN(key[:])
	}
	return clearTDES(key[:])
}

// walk makes the transaction key of a message. It is the caller's to clear.
func (c *Custody) walk(ctx context.Context, k KeyRecord, ksn dukpt.TDESKSN, t *transaction) error {
	loaded, err := c.load(ctx, k)
	if err != nil {
		return err
	}
	defer loaded.Release()
	if loaded.Companion == nil {
		return fmt.Errorf("%w: the BDK has no companion object", ErrKeyUse)
	}
	ik, err := initialKey(loaded, dukpt.InitialKeyData(ksn))
	if err != nil {
		return err
	}
	defer secret.Clear(ik[:])
	if t.key, err = dukpt.Walk(&ik, ksn); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return nil
}

// initialKey asks the BDK and its companion for the two halves.
func initialKey(bdk *keys.Loaded, data [8]byte) (ik [16]byte, err error) {
	left, right, err := bdk.EncryptBoth(data[:])
	if err != nil {
		return ik, tokenError("deriving the initial key", err)
	}
	defer secret.Clear(left, right)
	copy(ik[:8], left)
	copy(ik[8:], right)
	return ik, nil
}

// clearPIN is a TDES working key in the process whose left half nothing needs.
func clearPIN(key []byte) (*working, error) {
	full, err := secret.NewTDES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	kind := keys.TDES2
	if len(key) == 24 {
		kind = keys.TDES3
	}
	return &working{full: full, kind: kind, custody: audit.CustodyProcess, release: func() {}}, nil
}

// clearTDES is a TDES working key in the process, with its left half for
// algorithm 3.
func clearTDES(key []byte) (*working, error) {
	if len(key) == 16 {
		left, full, err := secret.NewTDESPair(key)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
		}
		return &working{left: left, full: full, kind: keys.TDES2, custody: audit.CustodyProcess, release: func() {}}, nil
	}
	w, err := clearPIN(key)
	if err != nil {
		return nil, err
	}
	left, err := secret.NewTDES(key[:8])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	w.left = left
	return w, nil
}

func clearAES(key []byte, kind keys.Algorithm) (*working, error) {
	full, err := secret.NewAES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	return &working{full: full, kind: kind, custody: audit.CustodyProcess, release: func() {}}, nil
}

func (c *Custody) load(ctx context.Context, k KeyRecord) (*keys.Loaded, error) {
	loaded, err := c.token.Load(ctx, k.Block)
	if err != nil {
		return nil, tokenError("loading the key", err)
	}
	return loaded, nil
}

// tokenOnly reports whether the key's policy forbids clear secrets in the process.
func tokenOnly(k KeyRecord) bool { return k.Block.TokenOnly() }

func keyType(a keys.Algorithm) dukpt.KeyType {
	switch a {
	case keys.TDES2:
		return dukpt.TDES2
	case keys.TDES3:
		return dukpt.TDES3
	case keys.AES128:
		return dukpt.AES128
	case keys.AES192:
		return dukpt.AES192
	case keys.AES256:
		return dukpt.AES256
	}
	return 0
}
