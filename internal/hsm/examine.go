package hsm

import (
	"context"
	"crypto/subtle"
	"fmt"

	"keyd.dev/keyd/keys"
)

// Examine proves of each block that this token could use it, without keeping
// anything: the MAC is genuine, the local master key of its generation is
// there, value and companion unwrap, and the check value is that of the value.
// What is left of a destroyed key has no value to prove. It returns the error
// of the first block that fails: [keys.ErrBlockMAC], [keys.ErrLMK],
// [keys.ErrCheckValue], or [keys.ErrUnavailable].
func (m *Manager) Examine(ctx context.Context, blocks []*keys.Block) error {
	own := make([]*keys.Block, len(blocks))
	for i, b := range blocks {
		own[i] = cloneBlock(b)
	}
	return m.t.manage(ctx, "examine key blocks", 0, func(e *epoch, s *session) error {
		for _, b := range own {
			if err := m.t.examine(e, s, b); err != nil {
				return fmt.Errorf("hsm: examine key %s: %w", b.ID, err)
			}
		}
		return nil
	})
}

func (t *Token) examine(e *epoch, s *session, b *keys.Block) (err error) {
	if err := s.checkMAC(e, b); err != nil {
		return err
	}
	if len(b.Wrapped) == 0 {
		return nil
	}
	check, err := t.checkValue(e, s, b)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(check[:], b.Check[:]) != 1 {
		return fmt.Errorf("%w: the block names another than its value has", keys.ErrCheckValue)
	}
	if len(b.Companion) == 0 {
		return nil
	}
	other := cloneBlock(b)
	other.Wrapped = b.Companion
	h, err := s.unwrapBlock(e, other, keyTemplate(b.Attributes.Algorithm, rights{encrypt: true}))
	if err != nil {
		return err
	}
	s.sweep(h, &err)
	return err
}
