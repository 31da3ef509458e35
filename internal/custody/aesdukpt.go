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

// aesWalk is the way from an AES base derivation key to one working key.
// X9.24-3:2017, section 6.3.
type aesWalk struct {
	ksn  dukpt.AESKSN
	bdk  dukpt.KeyType
	kind keys.Algorithm // of the BDK and of every key on the way
	use  dukpt.Use
	want keys.Algorithm // of the working key
	last dukpt.Step     // to the working key
}

func newAESWalk(k KeyRecord, d *DUKPT, use dukpt.Use) (*aesWalk, error) {
	ksn, err := dukpt.AESKSNFromBytes(d.KSN)
	if err != nil {
		return nil, fmt.Errorf("%w: an AES BDK has key serial numbers of 12 bytes", ErrRequest)
	}
	if err := ksn.Valid(); err != nil {
		return nil, fmt.Errorf("%w: the counter of the key serial number is not valid", ErrRequest)
	}
	w := &aesWalk{ksn: ksn, kind: k.Block.Attributes.Algorithm, use: use, want: d.Derive}
	w.bdk = keyType(w.kind)
	if w.want == 0 {
		w.want = w.kind
	}
	if w.last, err = dukpt.WorkingKeyStep(ksn, w.bdk, use, keyType(w.want)); err != nil {
		return nil, fmt.Errorf("%w: the derivation type is not one of this BDK", ErrRequest)
	}
	return w, nil
}

// derivedAES begins in the token: the initial key is derived there and kept
// there. Where the key's policy is token, every further step is made there
// too, as objects that are destroyed at once; else the process goes on from
// the first intermediate key, because some modules lose memory with every
// object. All working keys of MACs are for CMAC.
func (c *Custody) derivedAES(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use) (*working, error) {
	if tokenOnly(k) {
		return c.derivedInToken(ctx, k, d, use, keys.CanMAC)
	}
	w, err := newAESWalk(k, d, use)
	if err != nil {
		return nil, err
	}
	ik, err := c.initialKeyAES(ctx, k, w, keys.CanEncrypt)
	if err != nil {
		return nil, err
	}
	defer ik.Release()
	return w.inProcess(ik.Key)
}

// derivedInToken walks in the token; the working key may do what can says.
func (c *Custody) derivedInToken(ctx context.Context, k KeyRecord, d *DUKPT, use dukpt.Use, can keys.Ability) (*working, error) {
	w, err := newAESWalk(k, d, use)
	if err != nil {
		return nil, err
	}
	ik, err := c.initialKeyAES(ctx, k, w, keys.CanDerive)
	if err != nil {
		return nil, err
	}
	defer ik.Release()
	return w.inToken(ik.Key, can)
}

// initialKeyAES gives the device's initial key. One that could both encipher
// and derive would give every key of the device away to whoever holds the
// session.
func (c *Custody) initialKeyAES(ctx context.Context, k KeyRecord, w *aesWalk, can keys.Ability) (*keys.Loaded, error) {
	first := dukpt.InitialKeyStep(w.ksn.InitialKeyID(), w.bdk)
	ik, err := c.token.Derived(ctx, k.Block, first.Data(), keys.Spec{Algorithm: w.kind, Can: can})
	if err != nil {
		return nil, tokenError("deriving the initial key", err)
	}
	return ik, nil
}

// inToken makes every step an object of the token.
func (w *aesWalk) inToken(ik keys.Key, can keys.Ability) (*working, error) {
	at := ik
	closeAt := func() error { return nil }
	for step := range dukpt.Steps(w.ksn, w.bdk) {
		next, err := at.Derive(step.Data(), keys.Spec{Algorithm: w.kind, Can: keys.CanDerive})
		closed := closeAt()
		if err != nil {
			return nil, tokenError("deriving a transaction key", err)
		}
		at, closeAt = next, next.Close
		if closed != nil {
			return nil, errors.Join(tokenError("destroying an intermediate key", closed), closeAt())
		}
	}
	key, err := at.Derive(w.last.Data(), keys.Spec{Algorithm: w.want, Can: can})
	if closed := closeAt(); err == nil && closed != nil {
		return nil, errors.Join(tokenError("destroying a transaction key", closed), key.Close())
	}
	if err != nil {
		return nil, tokenError("deriving a working key", err)
	}
	return &working{
		full:    key,
		token:   key,
		kind:    w.want,
		custody: audit.CustodyToken,
		release: func() { _ = key.Close() }, // the module keeps a broken object; there is nobody to tell
	}, nil
}

// inProcess takes the first intermediate key out of the token and goes on.
func (w *aesWalk) inProcess(ik keys.Key) (*working, error) {
	register := highestBit(w.ksn.Counter())
	var start dukpt.Key
	for step := range dukpt.Steps(w.ksn, w.bdk) {
		value, err := ik.Encrypt(nil, step.Data())
		if err != nil {
			return nil, tokenError("deriving an intermediate key", err)
		}
		start, err = dukpt.NewKey(w.bdk, value[:w.bdk.Bytes()])
		secret.Clear(value)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyUse, err)
		}
		break
	}
	defer start.Clear()
	transaction, err := dukpt.AESWalkFrom(&start, register, w.ksn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer transaction.Clear()
	key, err := dukpt.AESWorkingKey(&transaction, w.ksn, w.use, keyType(w.want))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	defer key.Clear()
	if w.want.IsTDES() {
		return clearTDES(key.Bytes())
	}
	return clearAES(key.Bytes(), w.want)
}

// highestBit is the counter with all one bits but the highest cleared.
func highestBit(counter uint32) uint32 {
	for counter&(counter-1) != 0 {
		counter &= counter - 1
	}
	return counter
}
