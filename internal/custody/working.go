package custody

import (
	"context"
	"errors"
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

// derived is the working key of a DUKPT terminal's transaction.
func (c *Custody) derived(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use) (*working, error) {
	a := k.Block.Attributes
	if a.Usage != keys.UsageBDK {
		return nil, fmt.Errorf("%w: usage %s derives nothing", ErrKeyUse, a.Usage)
	}
	if a.Mode != keys.ModeDerive && a.Mode != keys.ModeAny {
		return nil, fmt.Errorf("%w: mode of use", ErrKeyUse)
	}
	switch {
	case a.Algorithm == keys.TDES2:
		return c.derivedTDES(ctx, k, d, use)
	case a.Algorithm.IsAES():
		return c.derivedAES(ctx, k, d, use)
	}
	return nil, fmt.Errorf("%w: DUKPT has no form for %s", ErrKeyUse, a.Algorithm)
}

// derivedTDES makes the initial key by two encryptions in the token and walks
// from there in the process: no PKCS#11 mechanism does the walk. X9.24-1:2009,
// annex A.
func (c *Custody) derivedTDES(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use) (*working, error) {
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
	loaded, err := c.load(ctx, k)
	if err != nil {
		return nil, err
	}
	defer loaded.Release()
	if loaded.Companion == nil {
		return nil, fmt.Errorf("%w: the BDK has no companion object", ErrKeyUse)
	}
	ik, err := initialKey(loaded, dukpt.InitialKeyData(ksn))
	if err != nil {
		return nil, err
	}
	defer secret.Clear(ik[:])
	transaction, err := dukpt.Walk(&ik, ksn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer secret.Clear(transaction[:])
	key, err := dukpt.WorkingKey(&transaction, use)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer secret.Clear(key[:])
	return clearTDES(key[:])
}

// initialKey asks the BDK and its companion for the two halves.
func initialKey(bdk *keys.Loaded, data [8]byte) (ik [16]byte, err error) {
	left, err := bdk.Key.Encrypt(nil, data[:])
	if err != nil {
		return ik, tokenError("deriving the initial key", err)
	}
	defer secret.Clear(left)
	right, err := bdk.Companion.Encrypt(nil, data[:])
	if err != nil {
		return ik, tokenError("deriving the initial key", err)
	}
	defer secret.Clear(right)
	copy(ik[:8], left)
	copy(ik[8:], right)
	return ik, nil
}

// clearTDES is a two-key TDES working key in the process.
func clearTDES(key []byte) (*working, error) {
	full, err := secret.NewTDES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	left, err := secret.NewTDES(key[:8])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	kind := keys.TDES2
	if len(key) == 24 {
		kind = keys.TDES3
	}
	return &working{full: full, left: left, kind: kind, custody: audit.CustodyProcess, release: func() {}}, nil
}

func clearAES(key []byte, kind keys.Algorithm) (*working, error) {
	full, err := secret.NewAES(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
	}
	return &working{full: full, kind: kind, custody: audit.CustodyProcess, release: func() {}}, nil
}

// derivedAES begins in the token: the initial key is derived there and kept
// there. Where the key's policy is token, every further step is made there
// too, as objects that are destroyed at once; else the process goes on from
// the first intermediate key, because some modules lose memory with every
// object (spec of the token boundary, section 6). X9.24-3:2017, section 6.3.
func (c *Custody) derivedAES(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use) (*working, error) {
	ksn, err := dukpt.AESKSNFromBytes(d.KSN)
	if err != nil {
		return nil, fmt.Errorf("%w: an AES BDK has key serial numbers of 12 bytes", ErrRequest)
	}
	if err := ksn.Valid(); err != nil {
		return nil, fmt.Errorf("%w: the counter of the key serial number is not valid", ErrRequest)
	}
	bdk := keyType(k.Block.Attributes.Algorithm)
	want := d.Derive
	if want == 0 {
		want = k.Block.Attributes.Algorithm
	}
	last, err := dukpt.WorkingKeyStep(ksn, bdk, use, keyType(want))
	if err != nil {
		return nil, fmt.Errorf("%w: the derivation type is not one of this BDK", ErrRequest)
	}
	first := dukpt.InitialKeyStep(ksn.InitialKeyID(), bdk)
	ik, err := c.token.Derived(ctx, k.Block, first.Data(), keys.Spec{
		Algorithm: k.Block.Attributes.Algorithm,
		Can:       keys.CanEncrypt | keys.CanDerive,
	})
	if err != nil {
		return nil, tokenError("deriving the initial key", err)
	}
	defer ik.Release()
	if tokenOnly(k) {
		return walkInToken(ik.Key, ksn, bdk, k.Block.Attributes.Algorithm, last, want)
	}
	return walkInProcess(ik.Key, ksn, bdk, use, want)
}

// walkInToken makes every step an object of the token.
func walkInToken(ik keys.Key, ksn dukpt.AESKSN, bdk dukpt.KeyType, kind keys.Algorithm, last dukpt.Step, want keys.Algorithm) (*working, error) {
	var at keys.Key = ik
	closeAt := func() error { return nil }
	for step := range dukpt.Steps(ksn, bdk) {
		next, err := at.Derive(step.Data(), keys.Spec{Algorithm: kind, Can: keys.CanDerive})
		closed := closeAt()
		if err != nil {
			return nil, tokenError("deriving a transaction key", err)
		}
		at, closeAt = next, next.Close
		if closed != nil {
			return nil, errors.Join(tokenError("destroying an intermediate key", closed), closeAt())
		}
	}
	key, err := at.Derive(last.Data(), keys.Spec{Algorithm: want, Can: keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC})
	if closed := closeAt(); err == nil && closed != nil {
		return nil, errors.Join(tokenError("destroying a transaction key", closed), key.Close())
	}
	if err != nil {
		return nil, tokenError("deriving a working key", err)
	}
	return &working{
		full:    key,
		token:   key,
		kind:    want,
		custody: audit.CustodyToken,
		release: func() { _ = key.Close() }, // the module keeps a broken object; there is nobody to tell
	}, nil
}

// walkInProcess takes the first intermediate key out of the token and goes on.
func walkInProcess(ik keys.Key, ksn dukpt.AESKSN, bdk dukpt.KeyType, use dukpt.Use, want keys.Algorithm) (*working, error) {
	register := highestBit(ksn.Counter())
	var start dukpt.Key
	for step := range dukpt.Steps(ksn, bdk) {
		value, err := ik.Encrypt(nil, step.Data())
		if err != nil {
			return nil, tokenError("deriving an intermediate key", err)
		}
		start, err = dukpt.NewKey(bdk, value[:bdk.Bytes()])
		secret.Clear(value)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
		}
		break
	}
	defer start.Clear()
	transaction, err := dukpt.AESWalkFrom(&start, register, ksn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer transaction.Clear()
	key, err := dukpt.AESWorkingKey(&transaction, ksn, use, keyType(want))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer key.Clear()
	if want.IsTDES() {
		return clearTDES(key.Bytes())
	}
	return clearAES(key.Bytes(), want)
}

func (c *Custody) load(ctx context.Context, k KeyRecord) (*keys.Loaded, error) {
	loaded, err := c.token.Load(ctx, k.Block)
	if err != nil {
		return nil, tokenError("loading the key", err)
	}
	return loaded, nil
}

// tokenOnly reports whether the key's policy forbids clear secrets in the process.
func tokenOnly(k KeyRecord) bool { return k.Block.Policy[TagCustody] == "token" }

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

// highestBit is the counter with all one bits but the highest cleared.
func highestBit(counter uint32) uint32 {
	for counter&(counter-1) != 0 {
		counter &= counter - 1
	}
	return counter
}
