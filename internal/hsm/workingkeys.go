package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// mostTogether bounds the keys that one session makes, so that its work stays
// within the manager's deadline on a slow module.
const mostTogether = 256

// GenerateBatch makes many keys, and what each makes of [keys.PrintData]. It
// opens a session for hundreds of keys where [Manager.Generate] opens one for
// each. New values are made in the token, but for those that Generate makes in
// the process, and for keys of single length, which no module here can double.
// Keys of HMAC are not for it.
//
// It returns all keys or none. The errors are those of Generate and
// [Manager.Import], with the position of the key.
func (m *Manager) GenerateBatch(ctx context.Context, wanted []keys.Wanted) ([]keys.Made, error) {
	made := make([]keys.Made, len(wanted))
	for i, w := range wanted {
		if err := m.plan(&made[i], w); err != nil {
			return nil, fmt.Errorf("hsm: key %d of %d: %w", i+1, len(wanted), err)
		}
	}
	for from := 0; from < len(wanted); from += mostTogether {
		to := min(from+mostTogether, len(wanted))
		if err := m.makeTogether(ctx, wanted[from:to], made[from:to]); err != nil {
			return nil, fmt.Errorf("hsm: keys %d to %d of %d: %w", from+1, to, len(wanted), err)
		}
	}
	return made, nil
}

// plan checks one of the wanted keys and prepares its block.
func (m *Manager) plan(made *keys.Made, w keys.Wanted) error {
	origin := keys.Generated
	if w.Value.Len() > 0 {
		origin = keys.External
	}
	b, err := m.prepare(w.Template, origin)
	if err != nil {
		return err
	}
	a := b.Attributes
	switch {
	case a.Algorithm.IsHMAC():
		return fmt.Errorf("%w: HMAC keys are made one by one", keys.ErrAttributes)
	case w.Single && (a.Algorithm != keys.TDES2 || needsCompanion(a) || w.Value.Len() > 0):
		return fmt.Errorf("%w: only a new key of %s can be of single length", keys.ErrAttributes, keys.TDES2)
	}
	made.Block, made.InProcess = b, w.Single || w.Value.Len() > 0 || needsCompanion(a)
	if made.InProcess && b.TokenOnly() {
		return fmt.Errorf("%w: its value would cross the process", keys.ErrCustody)
	}
	return nil
}

// makeTogether makes some keys in one session. What the worker does is not
// seen here unless it came to its end: a caller that gave up has left it behind.
func (m *Manager) makeTogether(ctx context.Context, wanted []keys.Wanted, made []keys.Made) error {
	values := make([]secret.Bytes, len(wanted)) // the worker's copies
	for i, w := range wanted {
		values[i] = secret.New(w.Value.Len())
		copy(values[i].Reveal(), w.Value.Reveal())
	}
	blocks := make([]*keys.Block, len(made))
	prints := make([][]byte, len(made))
	for i := range made {
		blocks[i] = cloneBlock(made[i].Block)
	}
	err := m.t.manage(ctx, "make keys", 0, func(e *epoch, s *session) error {
		defer clearAll(values)
		for i, b := range blocks {
			b.LMK = e.newest()
			value, err := m.valueOf(s, b.Attributes, values[i], wanted[i].Single)
			if err != nil {
				return err
			}
			prints[i], err = m.makeOne(e, s, b, value)
			value.Clear()
			if err != nil {
				return fmt.Errorf("key %s: %w", b.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range made {
		made[i].Block, made[i].Print = blocks[i], prints[i]
	}
	return nil
}

func clearAll(values []secret.Bytes) {
	for _, v := range values {
		v.Clear()
	}
}

// valueOf returns the clear value of a key that has one in the process, or the
// empty secret for one that the token makes.
func (m *Manager) valueOf(s *session, a keys.Attributes, given secret.Bytes, single bool) (secret.Bytes, error) {
	switch {
	case given.Len() > 0:
		value := secret.New(given.Len())
		copy(value.Reveal(), given.Reveal())
		if a.Algorithm.IsTDES() {
			keys.AdjustParity(value.Reveal())
		}
		if err := keys.CheckMaterial(a.Algorithm, value.Reveal()); err != nil {
			value.Clear()
			return secret.Bytes{}, err
		}
		return value, nil
	case single:
		return s.drawDES()
	case needsCompanion(a):
		return m.draw(a.Algorithm)
	}
	return secret.Bytes{}, nil
}

// drawDES takes a single-length key from the token's generator, as K ‖ K.
func (s *session) drawDES() (secret.Bytes, error) {
	value := secret.New(keys.TDES2.KeyBytes())
	v := value.Reveal()
	var err error
	for range draws {
		if err = s.mod.random(s.handle, v); err != nil {
			err = s.failure("C_GenerateRandom", err)
			break
		}
		keys.AdjustParity(v)
		// Both halves are looked at, and the first is taken.
		if err = keys.CheckMaterial(keys.TDES2, v); err == nil {
			copy(v[8:], v[:8])
			return value, nil
		}
	}
	value.Clear()
	return secret.Bytes{}, fmt.Errorf("hsm: draw a DES key: %w", err)
}

// makeOne brings one block to its end and returns its print.
func (m *Manager) makeOne(e *epoch, s *session, b *keys.Block, value secret.Bytes) (print []byte, err error) {
	a := b.Attributes.Algorithm
	can := keys.CanEncrypt
	if b.CheckBy == keys.CheckByCMAC {
		can |= keys.CanMAC
	}
	r := m.t.attributes(a, can)
	r.extractable = true
	h, err := s.bring(a, r, value)
	if err != nil {
		return nil, err
	}
	k := direct{m.t, s, h, a}
	if print, err = k.Encrypt(nil, keys.PrintData(a)); err == nil {
		b.Check, err = checkOf(k, b.CheckBy, print)
	}
	if err != nil {
		s.sweep(h, &err)
		return nil, err
	}
	if b.Wrapped, err = s.wrap(e, b, h); err != nil { // which destroys it
		return nil, err
	}
	if other := companion(b.Attributes, value); other.Len() > 0 {
		defer other.Clear()
		if b.Companion, err = s.wrapValue(e, b, other); err != nil {
			return nil, err
		}
	}
	return print, m.seal(e, s, b)
}

// bring makes the object of a new key, or of a value.
func (s *session) bring(a keys.Algorithm, r rights, value secret.Bytes) (pkcs11.ObjectHandle, error) {
	attrs := keyTemplate(a, r)
	if value.Len() > 0 {
		h, err := s.mod.create(s.handle, attrs, value.Reveal())
		if err != nil {
			return 0, s.failure("C_CreateObject", err)
		}
		return h, nil
	}
	if needsLength(a) {
		attrs = append(attrs, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, a.KeyBytes()))
	}
	h, err := s.mod.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(generation(a), nil)}, attrs)
	if err != nil {
		return 0, s.failure("C_GenerateKey", err)
	}
	return h, nil
}

// checkOf is the check value, which over zeros stands in the print already.
func checkOf(k direct, by keys.CheckMethod, print []byte) (v keys.KCV, err error) {
	if by == keys.CheckByZeros {
		copy(v[:], print)
		return v, nil
	}
	return keys.Check(k, by)
}
