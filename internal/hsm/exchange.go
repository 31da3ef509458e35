package hsm

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// labelIssuer is the pair that signs the certificates of the other pairs of the
// exchange with the outside. Of a wrapping pair the public half is given away and
// the private half takes keys in.
const (
	labelIssuer = "issuer"
	labelPair   = "pair-" // and the pair's name, so that none is an object of keyd's own
)

// pairDeadline bounds the making of an RSA pair, which searches for primes.
const pairDeadline = 3 * time.Minute

// rsaExponent is the public exponent of every pair, 65537.
var rsaExponent = []byte{1, 0, 1}

// Under gives a stored key to be used in another way than its usage has, for
// the forms of exchange that need it: as an object of its own, which may do
// what can says. With a mask as long as the key its value is XORed with that
// first, for which it crosses this process; without, it does not. The caller
// must Close it. It returns [keys.ErrAttributes] for abilities or a mask that no
// key may have, and otherwise the errors of [Token.Load].
func (m *Manager) Under(ctx context.Context, b *keys.Block, mask []byte, can keys.Ability) (keys.Derived, error) {
	if err := m.t.checkLMK(b); err != nil {
		return nil, err
	}
	if err := checkAbilities(can); err != nil {
		return nil, fmt.Errorf("hsm: use key %s: %w", b.ID, err)
	}
	as := keys.Spec{Algorithm: b.Attributes.Algorithm, Can: can}
	if mask == nil {
		return m.underItself(b, as)
	}
	value, err := m.read(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("hsm: use key %s: %w", b.ID, err)
	}
	defer value.Clear()
	if len(mask) != value.Len() {
		return nil, fmt.Errorf("hsm: use key %s: %w: mask of %d bytes", b.ID, keys.ErrAttributes, len(mask))
	}
	subtle.XORBytes(value.Reveal(), value.Reveal(), mask)
	return m.Hold(value, as)
}

func (m *Manager) underItself(b *keys.Block, as keys.Spec) (keys.Derived, error) {
	alone := cloneBlock(b)
	o := &object{t: m.t, build: func(c *call, e *epoch) (pair, error) {
		if err := m.t.verifyBlock(c, e, alone); err != nil {
			return pair{}, err
		}
		return m.t.unwrap(c, e, alone, as.Can)
	}}
	if err := m.t.stand(o, "use key"); err != nil {
		return nil, fmt.Errorf("hsm: use key %s: %w", b.ID, err)
	}
	return newDerived(o, as), nil
}

// InitialKey returns the value of ECB(key of b, data), cut to the length of the
// key: the DUKPT initial key of an AES base derivation key, for the caller to
// put under another key at once and to clear. The base derivation key does not
// leave the token. Errors are those of [Token.Load].
func (m *Manager) InitialKey(ctx context.Context, b *keys.Block, data []byte) (secret.Bytes, error) {
	bdk, err := m.Under(ctx, b, nil, keys.CanEncrypt)
	if err != nil {
		return secret.Bytes{}, err
	}
	value, err := ecb(bdk, data)
	if closed := bdk.Close(); err == nil && closed != nil {
		secret.Clear(value)
		err = closed
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("hsm: initial key of %s: %w", b.ID, err)
	}
	n := b.Attributes.Algorithm.KeyBytes()
	if len(value) < n {
		secret.Clear(value)
		return secret.Bytes{}, fmt.Errorf("hsm: initial key of %s: %w: %d bytes of data", b.ID, keys.ErrAttributes, len(data))
	}
	ik := secret.New(n)
	copy(ik.Reveal(), value)
	secret.Clear(value)
	return ik, nil
}

// ecb enciphers blocks one by one.
func ecb(k keys.Key, data []byte) ([]byte, error) {
	out := make([]byte, 0, len(data))
	for at := 0; at < len(data); at += k.BlockSize() {
		block, err := k.Encrypt(nil, data[at:min(at+k.BlockSize(), len(data))])
		if err != nil {
			secret.Clear(out)
			return nil, err
		}
		out = append(out, block...)
		secret.Clear(block)
	}
	return out, nil
}

// Issuer returns the key pair that signs keyd's own certificates, ECDSA P-256;
// it is made on first use. It takes SHA-256 digests.
func (m *Manager) Issuer(ctx context.Context) (crypto.Signer, error) {
	label := m.t.label(labelIssuer)
	signer, err := m.t.signerOf(label)
	if !errors.Is(err, keys.ErrNoKey) {
		return signer, err
	}
	m.t.making.Lock()
	defer m.t.making.Unlock()
	err = m.t.manage(ctx, "make the issuing key", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		// Of two that ask at once, one finds the other's.
		found, err := s.find([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		})
		if err != nil || len(found) > 0 {
			return err
		}
		_, _, err = s.pair(logKeyKinds[len(logKeyKinds)-1], true, label)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m.t.signerOf(label)
}

// MakeWrappingPair makes an RSA key pair in the token under a name of its own.
// The private half never leaves it and can do nothing but take keys in:
// C_UnwrapKey where the module has OAEP with SHA-256 and SHA-512, else the bare
// RSA decryption. It returns [ErrExists] for a name in use.
func (m *Manager) MakeWrappingPair(ctx context.Context, name string, bits int) (*rsa.PublicKey, error) {
	return m.makePair(ctx, name, bits, func(s *session) rights {
		unwraps := m.t.unwrapsOAEP(s)
		return rights{unwrap: unwraps, decrypt: !unwraps}
	})
}

// MakeSigningPair is MakeWrappingPair for a private half that can sign alone.
func (m *Manager) MakeSigningPair(ctx context.Context, name string, bits int) (*rsa.PublicKey, error) {
	return m.makePair(ctx, name, bits, func(*session) rights { return rights{sign: true} })
}

func (m *Manager) makePair(ctx context.Context, name string, bits int, may func(*session) rights) (*rsa.PublicKey, error) {
	label := m.t.label(labelPair + name)
	m.t.making.Lock()
	defer m.t.making.Unlock()
	var public *rsa.PublicKey
	err := m.t.manageFor(ctx, pairDeadline, "make an RSA key pair", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		found, err := s.find([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		})
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%w: %q", ErrExists, label)
		}
		h, err := s.rsaPair(label, true, bits, may(s))
		if err != nil {
			return err
		}
		public, err = s.rsaPublic(h)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: RSA key pair %q: %w", label, err)
	}
	return public, nil
}

// rsaPair makes an RSA key pair, of whose private half r says what it may do, and
// returns its public half.
func (s *session) rsaPair(label string, stored bool, bits int, r rights) (pkcs11.ObjectHandle, error) {
	public := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, stored),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, rsaExponent),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, r.unwrap || r.decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, r.sign),
	}
	private := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, stored),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, r.decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, r.unwrap),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, r.sign),
	}
	mech := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}
	h, _, err := s.mod.GenerateKeyPair(s.handle, mech, public, private)
	if err != nil {
		return 0, s.failure("C_GenerateKeyPair", err)
	}
	return h, nil
}

func (s *session) rsaPublic(h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	attrs, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil),
	})
	if err != nil {
		return nil, s.failure("C_GetAttributeValue", err)
	}
	if exponent := new(big.Int).SetBytes(attrs[1].Value); exponent.Cmp(new(big.Int).SetBytes(rsaExponent)) != 0 {
		return nil, errors.New("hsm: the pair has another public exponent than it was asked for")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(attrs[0].Value), E: 1<<16 + 1}, nil
}

// WrappingPair returns the public half of a pair, or [keys.ErrNoKey].
func (m *Manager) WrappingPair(ctx context.Context, name string) (*rsa.PublicKey, error) {
	var public *rsa.PublicKey
	label := m.t.label(labelPair + name)
	err := m.t.manage(ctx, "find a wrapping key pair", 0, func(_ *epoch, s *session) error {
		h, err := s.findOne(label, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return err
		}
		public, err = s.rsaPublic(h)
		return err
	})
	return public, err
}

// DestroyWrappingPair destroys both halves of a pair and looks for them again.
// It returns [ErrExists] when one is still there. A pair that is not there is
// no error.
func (m *Manager) DestroyWrappingPair(ctx context.Context, name string) error {
	label := m.t.label(labelPair + name)
	match := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	}
	m.t.making.Lock()
	defer m.t.making.Unlock()
	return m.t.manage(ctx, "destroy a wrapping key pair", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		found, err := s.find(match)
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.mod.DestroyObject(s.handle, h); err != nil {
				return s.failure("C_DestroyObject", err)
			}
		}
		if found, err = s.find(match); err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("hsm: destroy %q: %w: %d objects came back", label, ErrExists, len(found))
		}
		return nil
	})
}
