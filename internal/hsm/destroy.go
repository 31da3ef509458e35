package hsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// searchPause is how long a search for objects that are still in use waits for
// its next try.
const searchPause = 5 * time.Millisecond

// named gives objects of a stored key the key's id as their CKA_ID.
func named(attrs []*pkcs11.Attribute, id keys.ID) []*pkcs11.Attribute {
	if id == "" {
		return attrs
	}
	return append(attrs, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)))
}

// Forget is [Token.Forget], for those who end keys and use none.
func (m *Manager) Forget(id keys.ID) { m.t.Forget(id) }

// Destroy takes every object of a stored key out of the token, and those that
// were derived from it, and then looks for them: it returns
// [keys.ErrNotDestroyed] when the token still shows one. An object in use is
// waited for as long as one use may take; then it is destroyed under its user.
// From then on this process makes no object of the key again. The key's block
// is the caller's to erase; see [Manager.Erase]. Any other error means that the
// token could not be asked: then nothing is known, and the key may be loaded.
func (m *Manager) Destroy(ctx context.Context, id keys.ID) error {
	m.t.dead.Store(id, nil)
	err := m.destroy(ctx, id)
	if err == nil {
		return nil
	}
	if !errors.Is(err, keys.ErrNotDestroyed) {
		m.t.dead.Delete(id)
	}
	return fmt.Errorf("hsm: destroy key %s: %w", id, err)
}

func (m *Manager) destroy(ctx context.Context, id keys.ID) error {
	for _, e := range m.t.cache.forget(id) {
		if e.object != nil {
			e.object.destroy()
		}
	}
	left, err := m.awaitNone(ctx, id)
	if err != nil || left == 0 {
		return err
	}
	return m.t.manage(ctx, "destroy key", 0, func(_ *epoch, s *session) error {
		found, err := s.named(id)
		if err != nil {
			return err
		}
		var failed error
		for _, h := range found {
			if err := s.mod.DestroyObject(s.handle, h); err != nil {
				failed = errors.Join(failed, s.failure("C_DestroyObject", err))
			}
		}
		again, err := s.named(id)
		if err != nil || len(again) == 0 {
			return err
		}
		return errors.Join(fmt.Errorf("%w: %d objects", keys.ErrNotDestroyed, len(again)), failed)
	})
}

// awaitNone looks for objects of the key until there is none, at most for as
// long as a use of a key may take, and returns how many are left.
func (m *Manager) awaitNone(ctx context.Context, id keys.ID) (left int, err error) {
	over := m.t.now().Add(m.t.cfg.Deadline)
	for {
		if left, err = m.Objects(ctx, id); err != nil || left == 0 || m.t.now().After(over) {
			return left, err
		}
		select {
		case <-ctx.Done():
			return left, ctx.Err()
		case <-time.After(searchPause):
		}
	}
}

// Objects returns how many objects of the key the token shows: the key, its
// companion, those for one side of a translation, and derived ones.
func (m *Manager) Objects(ctx context.Context, id keys.ID) (n int, err error) {
	err = m.t.manage(ctx, "look for a key", 0, func(_ *epoch, s *session) error {
		found, err := s.named(id)
		n = len(found)
		return err
	})
	return n, err
}

func (s *session) named(id keys.ID) ([]pkcs11.ObjectHandle, error) {
	return s.find([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)),
	})
}

// Erase returns the block without its wrapped values and with a new MAC: what
// is kept of a destroyed key. It cannot be loaded. The old block must be
// genuine: [keys.ErrBlockMAC].
func (m *Manager) Erase(ctx context.Context, old *keys.Block) (*keys.Block, error) {
	return m.reseal(ctx, "erase key", old, func(b *keys.Block) { b.Wrapped, b.Companion = nil, nil })
}

// Renew returns the block as another version and with another policy, and with
// a new MAC: for a key that takes the place of another. The old block must be
// genuine: [keys.ErrBlockMAC].
func (m *Manager) Renew(ctx context.Context, old *keys.Block, version uint32, policy map[string]string) (*keys.Block, error) {
	if version == 0 {
		return nil, fmt.Errorf("%w: version 0; versions begin at 1", errTemplate)
	}
	return m.reseal(ctx, "renew key", old, func(b *keys.Block) { b.Version, b.Policy = version, maps.Clone(policy) })
}

func (m *Manager) reseal(ctx context.Context, name string, old *keys.Block, change func(*keys.Block)) (*keys.Block, error) {
	if err := m.t.checkLMK(old); err != nil {
		return nil, err
	}
	b := cloneBlock(old)
	err := m.t.manage(ctx, name, 0, func(e *epoch, s *session) error {
		if err := s.checkMAC(e, old); err != nil {
			return err
		}
		change(b)
		return m.seal(e, s, b)
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: %s %s: %w", name, old.ID, err)
	}
	return b, nil
}
