package ceremony

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// createTries bounds the draws of components that combine to a weak key, which
// happens less than once in 2^50.
const createTries = 8

// look opens what a custodian has given for as long as its check value takes.
func (s *session) look(t *seat, sealed []byte) (keys.KCV, error) {
	value, err := s.lock.open(sealed, s.at(t, wayIn))
	if err != nil {
		return keys.KCV{}, err
	}
	defer value.Clear()
	return s.checkPart(value)
}

// checkPart is the check value of a component or share.
func (s *session) checkPart(value secret.Bytes) (keys.KCV, error) {
	a := s.algorithm
	if value.Len() != a.KeyBytes() {
		return keys.KCV{}, fmt.Errorf("%w: %d bytes; one of %s has %d", ErrComponent, value.Len(), a, a.KeyBytes())
	}
	if zero(value) {
		return keys.KCV{}, fmt.Errorf("%w: it is all zeros and adds nothing", ErrComponent)
	}
	v, err := keys.CheckClear(a, s.method, value.Reveal())
	if err != nil {
		return keys.KCV{}, fmt.Errorf("%w: %w", ErrComponent, err)
	}
	return v, nil
}

func zero(value secret.Bytes) bool {
	var any byte
	for _, b := range value.Reveal() {
		any |= b
	}
	return any == 0
}

// together puts together what the custodians gave.
func (s *session) together() (secret.Bytes, error) {
	var parts []secret.Bytes
	defer func() {
		for _, p := range parts {
			p.Clear()
		}
	}()
	for _, t := range s.seats {
		p, err := s.lock.open(t.in, s.at(t, wayIn))
		if err != nil {
			return secret.Bytes{}, err
		}
		parts = append(parts, p)
	}
	value, err := s.join(parts)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrComponent, err)
	}
	return value, nil
}

func (s *session) join(parts []secret.Bytes) (secret.Bytes, error) {
	if !s.script.shares() {
		return keys.Combine(s.algorithm, parts...)
	}
	shares := make([]keys.Share, len(parts))
	for i, p := range parts {
		index := s.seats[i].part.Share
		if s.script.LMK.Create {
			index = i + 1
		}
		shares[i] = keys.Share{Index: byte(index), Value: p}
	}
	return keys.Join(s.script.LMK.Threshold, shares)
}

// combine finds the check value of the whole key, compares it with the
// script's, and lets go of the key again: it is put together once more when
// everybody has confirmed.
func (s *session) combine(ctx context.Context, by custody.Caller) error {
	return s.step(ctx, by, audit.CeremonyCombine, audit.Cer{Step: audit.StepCombine}, func(r *audit.Record) error {
		value, err := s.together()
		if err != nil {
			return err
		}
		defer value.Clear()
		if err := s.know(ctx, value); err != nil {
			return err
		}
		r.Keys = s.entry()
		s.event("combine", by.Name, s.check, "")
		return nil
	})
}

// know computes the check value of the whole key and compares it with the
// script's.
func (s *session) know(ctx context.Context, value secret.Bytes) error {
	v, err := s.checkWhole(ctx, value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrComponent, err)
	}
	if want := s.script.expected(); want != "" {
		if err := sameCheck(v, want); err != nil {
			return fmt.Errorf("the whole key: %w", err)
		}
	}
	s.check = v.String()
	return nil
}

func (s *session) checkWhole(ctx context.Context, value secret.Bytes) (keys.KCV, error) {
	if s.script.LMK != nil {
		return s.house.CheckLMK(ctx, value)
	}
	return keys.CheckClear(s.algorithm, s.method, value.Reveal())
}

// entry is the key of this ceremony in a record.
func (s *session) entry() []audit.Key {
	k := audit.Key{Role: audit.KeyRoleTarget, ID: s.script.Object(), Version: 1, KCV: s.check}
	if s.made.KeyID != "" {
		k.ID = string(s.made.KeyID)
	}
	return []audit.Key{k}
}

// create makes the parts of a new key and seals each to its custodian. Of a key
// in components there is no whole before everybody has confirmed but for its
// check value: each component is drawn by itself. A key in shares is drawn and
// split.
func (s *session) create(ctx context.Context, by custody.Caller) error {
	return s.step(ctx, by, audit.CeremonyCreate, audit.Cer{Step: audit.StepCreate}, func(r *audit.Record) error {
		for range createTries {
			parts, err := s.draw()
			if err != nil {
				return err
			}
			err = s.handOut(ctx, parts)
			if errors.Is(err, keys.ErrMaterial) {
				continue
			}
			if err != nil {
				return err
			}
			r.Keys = s.entry()
			s.event("create", by.Name, s.check, fmt.Sprintf("%d parts", len(s.seats)))
			return nil
		}
		return fmt.Errorf("%w: the token's generator gave nothing but weak keys", ErrWork)
	})
}

// draw makes the parts of a new key from the token's generator.
func (s *session) draw() ([]secret.Bytes, error) {
	n := len(s.seats)
	if s.script.shares() {
		value, err := s.random()
		if err != nil {
			return nil, err
		}
		defer value.Clear()
		shares, err := keys.Split(generator{s.house}, value, s.script.LMK.Threshold, n)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWork, err)
		}
		parts := make([]secret.Bytes, n)
		for i, share := range shares {
			parts[i] = share.Value
		}
		return parts, nil
	}
	var parts []secret.Bytes
	for range n {
		p, err := s.random()
		if err != nil {
			clearAll(parts)
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// random draws one value; those of TDES get odd parity, which other hosts look for.
func (s *session) random() (secret.Bytes, error) {
	value := secret.New(s.algorithm.KeyBytes())
	if err := s.house.Random(value.Reveal()); err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: drawing a component: %w", ErrWork, err)
	}
	if s.algorithm.IsTDES() {
		keys.AdjustParity(value.Reveal())
	}
	return value, nil
}

// generator is the token's generator as a reader.
type generator struct{ house House }

func (g generator) Read(p []byte) (int, error) {
	if err := g.house.Random(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// handOut seals each part to its custodian, and to the ceremony itself for the
// work at the end; then the parts are cleared.
func (s *session) handOut(ctx context.Context, parts []secret.Bytes) error {
	defer clearAll(parts)
	value, err := s.join(parts)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWork, err)
	}
	defer value.Clear()
	if err := s.know(ctx, value); err != nil {
		return err
	}
	for i, t := range s.seats {
		v, err := s.checkPart(parts[i])
		if err != nil {
			return fmt.Errorf("%w: %w", keys.ErrMaterial, err) // a component of zeros: draw again
		}
		t.check = v.String()
		if t.out, err = sealTo(t.public, parts[i], s.at(t, wayOut)); err != nil {
			return err
		}
		if t.in, err = sealTo(s.lock.public(), parts[i], s.at(t, wayIn)); err != nil {
			return err
		}
	}
	return nil
}

// split makes components of a value that leaves: all but the last are drawn,
// the last makes up for them.
func (s *session) split(value secret.Bytes) error {
	var parts []secret.Bytes
	defer func() { clearAll(parts) }()
	rest := secret.New(value.Len())
	copy(rest.Reveal(), value.Reveal())
	for range len(s.seats) - 1 {
		p, err := s.random()
		if err != nil {
			rest.Clear()
			return err
		}
		parts = append(parts, p)
		subtle.XORBytes(rest.Reveal(), rest.Reveal(), p.Reveal())
	}
	if s.algorithm.IsTDES() {
		keys.AdjustParity(rest.Reveal()) // parity bits are no part of the key
	}
	parts = append(parts, rest)
	for i, t := range s.seats {
		v, err := s.checkPart(parts[i])
		if err != nil {
			return err
		}
		t.check = v.String()
		if t.out, err = sealTo(t.public, parts[i], s.at(t, wayOut)); err != nil {
			return err
		}
	}
	return nil
}

func clearAll(parts []secret.Bytes) {
	for _, p := range parts {
		p.Clear()
	}
}

// commit does what everybody has confirmed, between its intent and its outcome.
func (s *session) commit(ctx context.Context, by custody.Caller) error {
	err := s.step(ctx, by, audit.CeremonyCommit, audit.Cer{Step: audit.StepCommit}, func(r *audit.Record) error {
		quorum := Quorum{Opener: s.opener, Corr: s.id}
		for _, t := range s.seats {
			quorum.Custodians = append(quorum.Custodians, t.caller)
			quorum.Approvals = append(quorum.Approvals, t.approval)
		}
		if err := s.do(context.WithoutCancel(ctx), quorum); err != nil {
			return err
		}
		if s.made.Check != "" {
			s.check = s.made.Check
		}
		if s.check != "" {
			r.Keys = s.entry()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.done = true
	s.event("commit", by.Name, s.check, string(s.made.KeyID))
	return nil
}

// do is the work of each kind.
func (s *session) do(ctx context.Context, by Quorum) (err error) {
	switch s.script.Kind {
	case Import, Generate, LMK, LMKChange:
		value, err := s.together()
		if err != nil {
			return err
		}
		defer value.Clear()
		return s.keep(ctx, by, value)
	case Export:
		value, attributes, method, made, err := s.house.Export(ctx, by, s.script.Key.Alias)
		if err != nil {
			return err
		}
		defer value.Clear()
		s.made, s.algorithm, s.method = made, attributes.Algorithm, method
		if want := s.script.expected(); want != "" && want != made.Check {
			return fmt.Errorf("%w: the key has %s, the script %s", ErrCheck, made.Check, want)
		}
		return s.split(value)
	case Injection:
		s.made, err = s.house.Initial(ctx, by, s.script.Injection.BDK, s.script.Injection.KEK, s.devices)
	case Destroy:
		s.made, err = s.house.Destroy(ctx, by, s.script.Key.Alias)
	case RoleChange:
		s.made, err = s.house.SetRoles(ctx, by, s.script.Role.Client, s.script.Role.Roles)
	}
	return err
}

// keep stores a key that was put together, after a last look at its check value.
func (s *session) keep(ctx context.Context, by Quorum, value secret.Bytes) error {
	v, err := s.checkWhole(ctx, value)
	if err != nil {
		return err
	}
	if v.String() != s.check {
		return fmt.Errorf("%w: %s was confirmed", ErrCheck, s.check)
	}
	switch s.script.Kind {
	case LMK, LMKChange:
		return s.load(ctx, by, value)
	}
	origin := keys.External
	if s.script.Kind == Generate {
		origin = keys.Generated
	}
	s.made, err = s.house.Import(ctx, by, NewKey{
		Attributes: s.script.attributes(), CheckBy: s.method, Policy: s.script.Key.Policy,
		Alias: s.script.Key.Alias, Origin: origin,
	}, value)
	return err
}
