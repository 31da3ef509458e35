package hsm

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// Rewrap returns the block under the newest local master key, with a new MAC and
// otherwise unchanged; a block that is there already comes back as it is. The
// old block must be genuine. The value goes from the one to the other inside the
// token, as an object that nobody can read and that is destroyed before this
// returns; its check value is computed from the new block and must be the old
// one. It returns [keys.ErrBlockMAC], [keys.ErrLMK], [keys.ErrNoKey],
// [ErrSelfTest] or [keys.ErrUnavailable].
func (m *Manager) Rewrap(ctx context.Context, b *keys.Block) (*keys.Block, error) {
	done, err := m.RewrapAll(ctx, []*keys.Block{b})
	if err != nil {
		return nil, err
	}
	return done[0].Block, done[0].Err
}

// rewrapTogether is how many blocks are moved in one session: few enough for
// the deadline of a network HSM.
const rewrapTogether = 64

// RewrapAll is Rewrap of many blocks, in few sessions; the answers stand in the
// order of the blocks. One that cannot be re-wrapped has its error and does not
// hold up the others. The error of the whole is that of a token that is away:
// then no answer counts, and the blocks can be given again.
func (m *Manager) RewrapAll(ctx context.Context, blocks []*keys.Block) ([]keys.Rewrapped, error) {
	done := make([]keys.Rewrapped, 0, len(blocks))
	for some := range slices.Chunk(blocks, rewrapTogether) {
		moved, err := m.rewrapSome(ctx, some)
		if err != nil {
			return nil, fmt.Errorf("hsm: re-wrap key blocks: %w", err)
		}
		done = append(done, moved...)
	}
	return done, nil
}

// rewrapSome works on copies, because this caller may give up before the worker does.
func (m *Manager) rewrapSome(ctx context.Context, blocks []*keys.Block) ([]keys.Rewrapped, error) {
	own := make([]*keys.Block, len(blocks))
	for i, b := range blocks {
		own[i] = cloneBlock(b)
	}
	done := make([]keys.Rewrapped, len(blocks))
	err := m.t.manage(ctx, "re-wrap key blocks", 0, func(e *epoch, s *session) error {
		for i, old := range own {
			b, err := m.rewrap(e, s, old)
			if err != nil && (errors.Is(err, keys.ErrUnavailable) || lost(codeOf(err))) {
				return err
			}
			if err != nil {
				err = fmt.Errorf("hsm: re-wrap key %s: %w", old.ID, err)
			}
			done[i] = keys.Rewrapped{Block: b, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

// Outdate takes the objects of blocks that were replaced, and of those derived
// from them, out of the token as soon as nobody uses them.
func (m *Manager) Outdate(blocks []*keys.Block) {
	replaced := make(map[[16]byte]bool, len(blocks))
	for _, b := range blocks {
		replaced[b.MAC] = true
	}
	for _, e := range m.t.cache.outdate(replaced) {
		m.t.bury(e)
	}
}

// outdate takes every entry of these blocks out and returns those to be destroyed.
func (c *cache) outdate(macs map[[16]byte]bool) (doomed []*entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.byKey {
		if !macs[key.mac] {
			continue
		}
		if old := c.drop(e); old != nil {
			doomed = append(doomed, old)
		}
	}
	return doomed
}

func (m *Manager) rewrap(e *epoch, s *session, old *keys.Block) (*keys.Block, error) {
	if err := s.checkMAC(e, old); err != nil {
		return nil, err
	}
	b := cloneBlock(old)
	if b.LMK = e.newest(); b.LMK == old.LMK {
		return b, nil
	}
	if len(old.Wrapped) == 0 { // what is left of a destroyed key
		return b, m.seal(e, s, b)
	}
	var err error
	if b.Wrapped, err = s.rewrapValue(e, old, b, old.Wrapped); err != nil {
		return nil, err
	}
	if len(old.Companion) > 0 {
		if b.Companion, err = s.rewrapValue(e, old, b, old.Companion); err != nil {
			return nil, err
		}
	}
	check, err := m.t.checkValue(e, s, b)
	if err != nil {
		return nil, fmt.Errorf("check value: %w", err)
	}
	if subtle.ConstantTimeCompare(check[:], old.Check[:]) != 1 {
		return nil, fmt.Errorf("%w: what it wrapped anew has another check value", ErrSelfTest)
	}
	if err := m.seal(e, s, b); err != nil {
		return nil, err
	}
	return b, nil
}

// rewrapValue moves one value from old's generation to b's.
func (s *session) rewrapValue(e *epoch, old, b *keys.Block, wrapped []byte) ([]byte, error) {
	from := &keys.Block{LMK: old.LMK, Wrapped: wrapped}
	h, err := s.unwrapBlock(e, from, keyTemplate(old.Attributes.Algorithm, rights{extractable: true}))
	if err != nil {
		return nil, err
	}
	return s.wrap(e, b, h)
}

// RetireLMK destroys a generation of the local master key, and looks for it
// afterwards. blocks is how many key blocks are under it, which the caller has
// counted: with any left it returns [ErrInUse], as for the newest generation,
// because those keys would be lost. Blocks of a retired generation, those of old
// backups too, give [keys.ErrLMK].
//
// It returns [keys.ErrNotDestroyed] where an object is still there after it was destroyed,
// [keys.ErrLMK] for a generation that the token does not hold, or
// [keys.ErrUnavailable], after which the call can be repeated.
func (m *Manager) RetireLMK(ctx context.Context, generation uint32, blocks int) error {
	if blocks > 0 {
		return fmt.Errorf("hsm: retire local master key %d: %w: %d key blocks are under it", generation, ErrInUse, blocks)
	}
	m.t.making.Lock()
	defer m.t.making.Unlock()
	err := m.t.manage(ctx, "retire a local master key", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		return m.t.destroyMaster(s, generation)
	})
	if err == nil {
		err = m.t.renewed(ctx) // and with the epoch the keeper's copy of the block MAC key
	}
	if err == nil {
		err = m.t.manage(ctx, "look for a retired local master key", 0, func(_ *epoch, s *session) error {
			return m.t.noMaster(s, generation)
		})
	}
	if err != nil {
		return fmt.Errorf("hsm: retire local master key %d: %w", generation, err)
	}
	return nil
}

// destroyMaster destroys the objects of a generation, the master key first: a
// block MAC key alone is what AddLMK removes.
func (t *Token) destroyMaster(s *session, generation uint32) error {
	stored, err := t.storedMasters(s)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(stored, func(m storedMaster) bool { return m.generation == generation })
	if at < 0 {
		return fmt.Errorf("%w: the token does not hold it", keys.ErrLMK)
	}
	if stored[at].wrap != 0 && !slices.ContainsFunc(stored[at+1:], func(m storedMaster) bool { return m.wrap != 0 && m.mac != 0 }) {
		return fmt.Errorf("%w: it is the newest", ErrInUse)
	}
	for _, h := range []pkcs11.ObjectHandle{stored[at].wrap, stored[at].mac} {
		if h == 0 {
			continue
		}
		if err := s.mod.DestroyObject(s.handle, h); err != nil {
			return s.failure("C_DestroyObject", err)
		}
	}
	return nil
}

// noMaster looks for the objects of a generation, copies in sessions included.
func (t *Token) noMaster(s *session, generation uint32) error {
	for _, word := range []string{labelLMK, labelBlockMAC} {
		label := t.masterLabel(word, generation)
		found, err := s.find([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)})
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%w: %q", keys.ErrNotDestroyed, label)
		}
	}
	return nil
}
