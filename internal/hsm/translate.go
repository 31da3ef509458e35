package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// Reenciphers reports whether the module was found able to do [Token.Reencipher]
// with keys of the algorithm. A token that comes back after a loss is asked anew.
func (t *Token) Reenciphers(a keys.Algorithm) bool {
	switch {
	case a.IsTDES():
		return t.can.reencipherTDES.Load()
	case a.IsAES():
		return t.can.reencipherAES.Load()
	}
	return false
}

// Reencipher takes one cipher block, 8 bytes (TDES) or 16 (AES), from under one
// key to under another. What it enciphers is an object of the token in between,
// which nobody can read, and which is destroyed before the call returns: neither
// this process nor the module's checks see it, so that a garbled block becomes
// another garbled block. from must have [keys.CanUnwrap], to [keys.CanWrap]; both
// are keys of this token.
//
// It returns [keys.ErrForbidden] where a key may not, [keys.ErrCustody] where the
// module cannot, and [keys.ErrUnavailable].
func (t *Token) Reencipher(from, to keys.Key, block []byte) ([]byte, error) {
	in, out, err := t.pairOf(from, to, len(block))
	if err != nil {
		return nil, fmt.Errorf("hsm: re-encipher: %w", err)
	}
	c := t.newCall("re-encipher", t.cfg.Deadline)
	defer t.free(c)
	moved := make([]byte, len(block))
	err = t.try(c, func(e *epoch) error {
		source, err := in.o.in(c, e)
		if err != nil {
			return err
		}
		target, err := out.o.in(c, e)
		if err != nil {
			return err
		}
		return e.reencipher(c, mechsOf(in.spec.Algorithm).ecb, source[in.role], target[out.role], block, moved)
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// pairOf checks the two keys of a re-encipherment of n bytes.
func (t *Token) pairOf(from, to keys.Key, n int) (in, out *key, err error) {
	in, out = t.ownKey(from), t.ownKey(to)
	switch {
	case in == nil || out == nil:
		return nil, nil, fmt.Errorf("%w: a key is not of this token", keys.ErrForbidden)
	case in.spec.Can&keys.CanUnwrap == 0 || out.spec.Can&keys.CanWrap == 0:
		return nil, nil, fmt.Errorf("%w: the incoming key must be one that unwraps, the outgoing one that wraps", keys.ErrForbidden)
	case in.BlockSize() != out.BlockSize() || in.BlockSize() != n:
		return nil, nil, fmt.Errorf("%w: %d bytes from a cipher of %d to one of %d", keys.ErrForbidden, n, in.BlockSize(), out.BlockSize())
	case !t.Reenciphers(in.spec.Algorithm):
		return nil, nil, fmt.Errorf("%w: the module cannot unwrap and wrap a block of %s", keys.ErrCustody, in.spec.Algorithm)
	}
	return in, out, nil
}

// ownKey returns k as a key of this token, or nil.
func (t *Token) ownKey(k keys.Key) *key {
	if d, ok := k.(derived); ok {
		k = d.Key
	}
	if own, ok := k.(*key); ok && own.o.t == t {
		return own
	}
	return nil
}

// reencipher does it on a worker, whose session ends where the object could not
// be destroyed.
func (e *epoch) reencipher(c *call, mech uint, from, to pkcs11.ObjectHandle, block, moved []byte) error {
	c.in = append(c.in[:0], block...)
	c.out = slices.Grow(c.out[:0], len(moved))[:len(moved)]
	err := e.perform(c, e.queue, func(s *session) (err error) {
		c.n, err = s.reencipher(c.name, mech, from, to, c.in, c.out)
		return err
	})
	if err != nil {
		return err
	}
	e.t.stats.made.Add(1)
	e.t.stats.destroyed.Add(1)
	if c.n != len(moved) {
		return fmt.Errorf("hsm: %s: the module gave %d bytes, want %d", c.name, c.n, len(moved))
	}
	copy(moved, c.out)
	return nil
}

func (s *session) reencipher(name string, mech uint, from, to pkcs11.ObjectHandle, in, out []byte) (int, error) {
	n, left, err := s.mod.reencipher(s.handle, mech, from, to, in, out)
	if err == nil {
		return n, nil
	}
	err = s.failure(name, err)
	if left {
		s.replace() // the object ends with the session
	}
	return 0, err
}
