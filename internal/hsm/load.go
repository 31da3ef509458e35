package hsm

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// Load gives the key of a block, from the cache or unwrapped anew in the
// token, where it can do only what its usage and mode need. The caller must
// Release it. Safe for concurrent use: one block makes one object.
//
// It returns [keys.ErrBlockMAC] for a block that this token did not make,
// [keys.ErrLMK] for one under another local master key, [keys.ErrNoKey] while
// the token has no local master key, [keys.ErrUnavailable] when the token
// cannot be reached, and the error of ctx.
func (t *Token) Load(ctx context.Context, b *keys.Block) (*keys.Loaded, error) {
	if err := t.checkLMK(b); err != nil {
		return nil, err
	}
	loaded, err := t.cached(ctx, cacheKey{mac: b.MAC}, b, t.loading)
	if err != nil {
		return nil, fmt.Errorf("hsm: load key %s: %w", b.ID, err)
	}
	return loaded, nil
}

// LoadFor is Load for one side of a translation in the token: the key's object
// may do what can says and no more, and is another than that of Load. can is
// [keys.CanUnwrap] for the incoming key, with [keys.CanDecrypt] where it is AES,
// and [keys.CanWrap] for the outgoing key, with [keys.CanEncrypt]. It returns
// [keys.ErrForbidden] for what usage and mode of the key do not admit, and
// otherwise the errors of Load.
func (t *Token) LoadFor(ctx context.Context, b *keys.Block, can keys.Ability) (*keys.Loaded, error) {
	if err := t.checkLMK(b); err != nil {
		return nil, err
	}
	if !admits(b, can) {
		return nil, fmt.Errorf("hsm: load key %s: %w: not for this side of a translation", b.ID, keys.ErrForbidden)
	}
	loaded, err := t.cached(ctx, cacheKey{mac: b.MAC, can: can}, b, t.loading)
	if err != nil {
		return nil, fmt.Errorf("hsm: load key %s: %w", b.ID, err)
	}
	return loaded, nil
}

// Derived gives the key whose value is ECB(key of base, data), cut to the
// length that as names. It stays in the token and in the cache. data is whole
// blocks of the base key's cipher, at least as long as the new key and at most
// 64 bytes. The caller must Release it. Errors are those of [Token.Load], and
// [keys.ErrForbidden] for a base that may not derive.
func (t *Token) Derived(ctx context.Context, base *keys.Block, data []byte, as keys.Spec) (*keys.Loaded, error) {
	if err := t.checkLMK(base); err != nil {
		return nil, err
	}
	if err := checkDerivation(base.Attributes.Algorithm, data, as); err != nil {
		return nil, fmt.Errorf("hsm: derive from key %s: %w", base.ID, err)
	}
	if len(data) > mostDerivation {
		return nil, fmt.Errorf("hsm: derive from key %s: %d bytes of data, want at most %d", base.ID, len(data), mostDerivation)
	}
	key := cacheKey{mac: base.MAC, as: as, n: len(data)}
	copy(key.data[:], data)
	loaded, err := t.cached(ctx, key, base, t.deriving)
	if err != nil {
		return nil, fmt.Errorf("hsm: derive from key %s: %w", base.ID, err)
	}
	return loaded, nil
}

// Forget destroys the objects of every version of a key, and of those derived
// from it, as soon as nobody uses them: for a key that was stopped or deleted.
func (t *Token) Forget(id keys.ID) {
	for _, e := range t.cache.forget(id) {
		t.bury(e)
	}
}

// cached returns the entry of key, which fill brings to stand if it is new.
func (t *Token) cached(ctx context.Context, key cacheKey, b *keys.Block, fill func(*entry) error) (*keys.Loaded, error) {
	for {
		e, fresh, doomed := t.cache.take(key, b)
		for _, old := range doomed {
			t.bury(old)
		}
		// Not behind the caller's back: new objects would come faster than old ones go.
		for _, idle := range t.cache.crowd(e) {
			t.discard(idle)
		}
		if fresh {
			// On its own goroutine: the first caller's context must not decide
			// for those who wait beside it.
			go t.fill(e, fill)
		}
		select {
		case <-e.ready:
		case <-ctx.Done():
			t.release(e)
			return nil, ctx.Err()
		}
		same := sameBlock(e.block, b)
		switch {
		case e.err == nil && same:
			return t.lend(e), nil
		case e.err == nil:
			// The block in the cache is genuine: this one has its MAC and is another.
			t.release(e)
			return nil, keys.ErrBlockMAC
		case same || !errors.Is(e.err, keys.ErrBlockMAC):
			t.release(e)
			return nil, e.err
		}
		// Somebody else's forgery with the MAC of this block has failed; now this one.
		t.release(e)
	}
}

func (t *Token) fill(e *entry, fill func(*entry) error) {
	if e.err = fill(e); e.err != nil {
		t.cache.remove(e)
	}
	close(e.ready)
	t.release(e)
}

// release takes a user off e.
func (t *Token) release(e *entry) {
	if old := t.cache.release(e); old != nil {
		t.bury(old)
	}
}

// bury destroys the object of an entry that nobody uses or can find. It does
// not wait: the caller may be in the middle of a transaction.
func (t *Token) bury(e *entry) {
	if e.object != nil {
		go e.object.destroy()
	}
}

// lease is one user's hold on an entry. Releasing it twice has no effect, so
// that a slip cannot destroy the key under another user.
type lease struct {
	t    *Token
	e    *entry
	over atomic.Bool
}

func (l *lease) release() {
	if !l.over.Swap(true) {
		l.t.release(l.e)
	}
}

func (t *Token) lend(e *entry) *keys.Loaded {
	l := &lease{t: t, e: e}
	o := e.object
	if e.key.n > 0 {
		return keys.NewLoaded(newKey(o, 0, e.key.as), nil, l.release)
	}
	spec := keys.Spec{Algorithm: e.block.Attributes.Algorithm, Can: e.can()}
	var companion keys.Key
	if len(e.block.Companion) > 0 {
		companion = newKey(o, 1, spec)
	}
	return keys.NewLoaded(newKey(o, 0, spec), companion, l.release)
}

// loading brings the entry of a stored key to stand.
func (t *Token) loading(e *entry) error {
	b := e.block
	verified := false
	o := &object{t: t, id: b.ID, build: func(c *call, ep *epoch) (pair, error) {
		if !verified {
			if err := t.verifyBlock(c, ep, b); err != nil {
				return pair{}, err
			}
			if err := b.Attributes.Validate(); err != nil {
				return pair{}, err
			}
			verified = true
		}
		return t.unwrap(c, ep, b, e.can())
	}}
	e.object = o
	return t.stand(o, "load key")
}

// deriving brings the entry of a derived key to stand. Its base is loaded
// through the cache, and so verified, and released again.
func (t *Token) deriving(e *entry) error {
	base := e.block
	data := slices.Clone(e.key.data[:e.key.n])
	o := &object{t: t, id: base.ID, build: func(c *call, ep *epoch) (pair, error) {
		loaded, err := t.cached(context.Background(), cacheKey{mac: base.MAC}, base, t.loading)
		if err != nil {
			return pair{}, err
		}
		defer loaded.Release()
		k, ok := loaded.Key.(*key)
		if !ok {
			return pair{}, fmt.Errorf("%w: an HMAC key derives nothing", keys.ErrForbidden)
		}
		return k.derive(c, ep, data, e.key.as)
	}}
	e.object = o
	return t.stand(o, "derive key")
}

// stand builds o in the present epoch.
func (t *Token) stand(o *object, name string) error {
	c := t.newCall(name, t.cfg.Deadline)
	defer t.free(c)
	return t.try(c, func(e *epoch) error {
		_, err := o.in(c, e)
		return err
	})
}

// verifyBlock checks the block's MAC under the token's block MAC key.
func (t *Token) verifyBlock(c *call, e *epoch, b *keys.Block) error {
	lmk, err := e.master(b.LMK)
	if err != nil {
		return err
	}
	if err := checkForm(b); err != nil {
		return fmt.Errorf("%w: %w", keys.ErrBlockMAC, err)
	}
	var mac [16]byte
	if err := e.once(c, signing, pkcs11.CKM_AES_CMAC, pair{lmk.mac}, nil, b.MACInput(), mac[:]); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(mac[:], b.MAC[:]) != 1 {
		return keys.ErrBlockMAC
	}
	return nil
}

// unwrap makes the key object of a verified block, and its companion.
func (t *Token) unwrap(c *call, e *epoch, b *keys.Block, can keys.Ability) (pair, error) {
	if len(b.Wrapped) == 0 {
		return pair{}, fmt.Errorf("%w: the key was destroyed", keys.ErrNoKey)
	}
	attrs := named(keyTemplate(b.Attributes.Algorithm, t.attributes(b.Attributes.Algorithm, can)), b.ID)
	lmk, err := e.master(b.LMK)
	if err != nil {
		return pair{}, err
	}
	var handles pair
	err = e.perform(c, e.keeping, func(s *session) error {
		var made pair
		for i, wrapped := range [][]byte{b.Wrapped, b.Companion} {
			if len(wrapped) == 0 {
				continue
			}
			h, err := s.mod.UnwrapKey(s.handle, keyWrap(), lmk.wrap, wrapped, attrs)
			if err != nil {
				_ = s.destroy(made)
				return s.failure("C_UnwrapKey", err)
			}
			made[i] = h
			t.stats.made.Add(1)
		}
		handles = made
		return nil
	})
	if err != nil {
		return pair{}, err
	}
	return handles, nil
}

// errTemplate is what cannot be a block.
var errTemplate = errors.New("hsm: key block or template refused")

// checkForm reports whether b is what its stored form is read back as: a policy
// tag with a line break in it would come back as two.
func checkForm(b *keys.Block) error {
	raw, err := b.MarshalBinary()
	if err != nil {
		return fmt.Errorf("%w: %w", errTemplate, err)
	}
	again, err := keys.ParseBlock(raw)
	if err != nil {
		return fmt.Errorf("%w: it would not be read back: %w", errTemplate, err)
	}
	if !sameBlock(again, b) {
		return fmt.Errorf("%w: it would be read back as another; see its policy tags", errTemplate)
	}
	return nil
}

// sameBlock reports whether two blocks are the same in every part.
func sameBlock(a, b *keys.Block) bool {
	return a.ID == b.ID && a.Version == b.Version && a.LMK == b.LMK && a.Attributes == b.Attributes &&
		a.Origin == b.Origin && a.CheckBy == b.CheckBy && a.Check == b.Check && a.CreatedMs == b.CreatedMs &&
		a.MAC == b.MAC && maps.Equal(a.Policy, b.Policy) &&
		bytes.Equal(a.Wrapped, b.Wrapped) && bytes.Equal(a.Companion, b.Companion)
}

func cloneBlock(b *keys.Block) *keys.Block {
	clone := *b
	clone.Policy = maps.Clone(b.Policy)
	clone.Wrapped = slices.Clone(b.Wrapped)
	clone.Companion = slices.Clone(b.Companion)
	return &clone
}
