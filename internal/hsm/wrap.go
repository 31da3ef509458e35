package hsm

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// needsCompanion reports whether keys of these attributes are loaded as two
// objects. See [keys.Loaded].
func needsCompanion(a keys.Attributes) bool {
	return a.Algorithm == keys.TDES2 && (a.Usage == keys.UsageBDK || a.Usage == keys.UsageMACAlg3)
}

// initialKeyMask turns a base derivation key into the one that gives the right
// half of the initial key. ANSI X9.24-1:2009, annex A.6.
var initialKeyMask = [16]byte{0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0, 0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0}

// companion returns the value of the companion object, or the empty secret.
func companion(a keys.Attributes, value secret.Bytes) secret.Bytes {
	if !needsCompanion(a) {
		return secret.Bytes{}
	}
	other := secret.New(value.Len())
	copy(other.Reveal(), value.Reveal())
	if a.Usage == keys.UsageMACAlg3 {
		copy(other.Reveal()[8:], value.Reveal()[:8])
		return other
	}
	subtle.XORBytes(other.Reveal(), other.Reveal(), initialKeyMask[:])
	return other
}

// draws is how often a weak value is drawn again. One is improbable: two in a
// row mean that the generator does not work.
const draws = 2

// draw takes a TDES value from the token's generator.
func (m *Manager) draw(a keys.Algorithm) (secret.Bytes, error) {
	value := secret.New(a.KeyBytes())
	var err error
	for range draws {
		if err := m.t.Random(value.Reveal()); err != nil {
			return secret.Bytes{}, fmt.Errorf("hsm: draw a key value: %w", err)
		}
		keys.AdjustParity(value.Reveal())
		if err = keys.CheckMaterial(a, value.Reveal()); err == nil {
			return value, nil
		}
	}
	value.Clear()
	return secret.Bytes{}, fmt.Errorf("%w: the random generator gives weak keys: %w", ErrSelfTest, err)
}

// put wraps a clear value, and its companion, into b.
func (m *Manager) put(ctx context.Context, b *keys.Block, value secret.Bytes) (*keys.Block, error) {
	other := companion(b.Attributes, value)
	defer other.Clear()
	values := [2]*lentSecret{lend(value), lend(other)}
	defer values[0].settle()
	defer values[1].settle()
	err := m.t.manage(ctx, "import key", 0, func(e *epoch, s *session) (err error) {
		defer values[0].begin()()
		defer values[1].begin()()
		if b.Wrapped, err = s.wrapValue(e, b, values[0].Bytes); err != nil {
			return err
		}
		if values[1].Len() > 0 {
			if b.Companion, err = s.wrapValue(e, b, values[1].Bytes); err != nil {
				return err
			}
		}
		return m.finish(e, s, b)
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: import key %s: %w", b.ID, err)
	}
	return b, nil
}

// keyWrap is the mechanism that wraps keys: RFC 3394.
func keyWrap() []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP, nil)}
}

func (s *session) wrapValue(e *epoch, b *keys.Block, value secret.Bytes) ([]byte, error) {
	h, err := s.mod.create(s.handle, keyTemplate(b.Attributes.Algorithm, rights{extractable: true}), value.Reveal())
	if err != nil {
		return nil, s.failure("C_CreateObject", err)
	}
	return s.wrap(e, b, h)
}

// wrap wraps an object under the local master key of the block's generation and
// destroys it. A block that has none yet gets the newest.
func (s *session) wrap(e *epoch, b *keys.Block, h pkcs11.ObjectHandle) (wrapped []byte, err error) {
	defer s.sweep(h, &err)
	if b.LMK == 0 {
		b.LMK = e.newest()
	}
	lmk, err := e.master(b.LMK)
	if err != nil {
		return nil, err
	}
	if wrapped, err = s.mod.WrapKey(s.handle, keyWrap(), lmk.wrap, h); err != nil {
		return nil, s.failure("C_WrapKey", err)
	}
	return wrapped, nil
}

// unwrapBlock makes an object of a block's value, as attrs say.
func (s *session) unwrapBlock(e *epoch, b *keys.Block, attrs []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	lmk, err := e.master(b.LMK)
	if err != nil {
		return 0, err
	}
	h, err := s.mod.UnwrapKey(s.handle, keyWrap(), lmk.wrap, b.Wrapped, attrs)
	if err != nil {
		return 0, s.failure("C_UnwrapKey", err)
	}
	return h, nil
}

// finish computes the check value of what was wrapped, by unwrapping it again,
// and the MAC.
func (m *Manager) finish(e *epoch, s *session, b *keys.Block) error {
	var err error
	if b.Check, err = m.t.checkValue(e, s, b); err != nil {
		return fmt.Errorf("check value: %w", err)
	}
	return m.seal(e, s, b)
}

// checkValue computes the check value of a block's wrapped key in the token.
func (t *Token) checkValue(e *epoch, s *session, b *keys.Block) (v [3]byte, err error) {
	can := keys.CanMAC
	if b.CheckBy == keys.CheckByZeros {
		can = keys.CanEncrypt
	}
	a := b.Attributes.Algorithm
	h, err := s.unwrapBlock(e, b, keyTemplate(a, t.attributes(a, can)))
	if err != nil {
		return v, err
	}
	defer s.sweep(h, &err)
	k := direct{t, s, h, a}
	return keys.Check(k, b.CheckBy)
}

// direct is a key used in the session at hand, to compute its check value.
type direct struct {
	t *Token
	s *session
	h pkcs11.ObjectHandle
	a keys.Algorithm
}

func (k direct) BlockSize() int { return k.a.BlockSize() }

func (k direct) Encrypt(iv, src []byte) ([]byte, error) {
	mech := mechsOf(k.a).ecb
	if iv != nil {
		mech = mechsOf(k.a).cbc
	}
	return k.s.once("encrypt", encrypting, mech, iv, k.h, src, len(src))
}

func (k direct) CMAC(msg []byte) ([]byte, error) {
	if k.a.IsTDES() && !k.t.can.tdesCMAC.Load() {
		return chainCMAC(k, msg)
	}
	return k.s.once("CMAC", signing, mechsOf(k.a).cmac, nil, k.h, msg, k.BlockSize())
}

func (k direct) HMAC(msg []byte) ([]byte, error) {
	mech, size := hmacMech(k.a)
	return k.s.once("HMAC", signing, mech, nil, k.h, msg, size)
}

// Decrypt and Derive are no part of a check value.
func (k direct) Decrypt(_, _ []byte) ([]byte, error)                { return nil, keys.ErrForbidden }
func (k direct) Derive(_ []byte, _ keys.Spec) (keys.Derived, error) { return nil, keys.ErrForbidden }

// seal computes the MAC of b.
func (m *Manager) seal(e *epoch, s *session, b *keys.Block) error {
	if err := checkForm(b); err != nil {
		return err
	}
	mac, err := s.blockMAC(e, b)
	if err != nil {
		return err
	}
	b.MAC = mac
	return nil
}

// checkMAC verifies a block.
func (s *session) checkMAC(e *epoch, b *keys.Block) error {
	if err := checkForm(b); err != nil {
		return err
	}
	mac, err := s.blockMAC(e, b)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(mac[:], b.MAC[:]) != 1 {
		return keys.ErrBlockMAC
	}
	return nil
}

func (s *session) blockMAC(e *epoch, b *keys.Block) (mac [16]byte, err error) {
	lmk, err := e.master(b.LMK)
	if err != nil {
		return mac, err
	}
	return s.cmac(lmk.mac, b.MACInput())
}

// cmac is a whole AES-CMAC by one of keyd's own keys.
func (s *session) cmac(key pkcs11.ObjectHandle, msg []byte) (mac [16]byte, err error) {
	out, err := s.once("CMAC", signing, pkcs11.CKM_AES_CMAC, nil, key, msg, len(mac))
	if err != nil {
		return mac, err
	}
	if copy(mac[:], out) != len(mac) {
		return mac, errors.New("hsm: the module gave a short CMAC")
	}
	return mac, nil
}
