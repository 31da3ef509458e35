package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// What miekg/pkcs11 has no names for. PKCS #11 v3.0.
const (
	ckkECEdwards        = 0x40
	ckmECEdwardsKeyPair = 0x1055
	ckmEDDSA            = 0x1057
)

// own is one of keyd's own token keys: the word that System takes and that
// ends its label.
type own struct {
	word string
	spec keys.Spec // as System lends it; the zero value where it does not
	r    rights    // of the token object
}

const (
	labelLMK      = "lmk"
	labelBlockMAC = "block-mac"
	labelData     = "data"
	labelPANToken = "token"
	labelLog      = "log"
)

// ownKeys are the secret keys of an initialised token, in the order in which
// they are made: the local master key last but one, so that a set that was cut
// off looks uninitialised and is refused by its labels. The log key pair follows.
var ownKeys = [...]own{
	{labelPANToken, keys.Spec{Algorithm: keys.HMACSHA256, Can: keys.CanMAC}, rights{sign: true, verify: true}},
	{labelData, keys.Spec{Algorithm: keys.AES256, Can: keys.CanEncrypt | keys.CanDecrypt | keys.CanMAC},
		rights{encrypt: true, decrypt: true, sign: true, verify: true}},
	{labelBlockMAC, keys.Spec{}, rights{sign: true, verify: true}},
	{labelLMK, keys.Spec{}, rights{wrap: true, unwrap: true}},
}

// label returns the label of one of keyd's own objects. Those that a new local
// master key replaces carry its generation, and are given for the first.
func (t *Token) label(word string) string { return t.labelIn(word, firstLMK) }

func (t *Token) labelIn(word string, generation uint32) string {
	switch word {
	case labelLMK, labelBlockMAC:
		return t.masterLabel(word, generation)
	}
	return t.cfg.Prefix + "-" + word
}

// System returns one of keyd's own keys, which live in the token and are the
// same for the life of the Token: "data", an AES-256 key that enciphers,
// deciphers and makes CMACs, for card data in the journal; "token", an
// HMAC-SHA-256 key ([keys.HMACKey]), for PAN tokens.
//
// It returns [keys.ErrNoKey] when the token has none, [keys.ErrAmbiguous] when
// it has several of that label, and [keys.ErrUnavailable].
func (t *Token) System(name string) (keys.Key, error) {
	for _, k := range ownKeys {
		if k.word == name && k.spec.Algorithm != 0 {
			return t.system(k)
		}
	}
	return nil, fmt.Errorf("hsm: system key %q: %w: there are %q and %q", name, keys.ErrNoKey, labelData, labelPANToken)
}

func (t *Token) system(k own) (keys.Key, error) {
	t.mu.Lock()
	lent := t.systems[k.word]
	t.mu.Unlock()
	if lent != nil {
		return lent, nil
	}
	o := &object{t: t, lent: true, build: func(c *call, e *epoch) (pair, error) {
		return e.resident(c, t.label(k.word), pkcs11.CKO_SECRET_KEY, true)
	}}
	if err := t.stand(o, "find key "+t.label(k.word)); err != nil {
		return nil, err
	}
	lent = newKey(o, 0, k.spec)
	t.mu.Lock()
	t.systems[k.word] = lent
	t.mu.Unlock()
	return lent, nil
}

// resident finds a token object and copies it into the keeper's session, where
// it is several times as fast.
func (e *epoch) resident(c *call, label string, class uint, copied bool) (pair, error) {
	var found pair
	err := e.perform(c, e.keeping, func(s *session) error {
		h, err := s.findOne(label, class)
		if err == nil && copied {
			h, err = s.resident(h)
		}
		found[0] = h
		return err
	})
	if err != nil {
		return pair{}, err
	}
	return found, nil
}

// findOne returns the one object of the label. It fails on none, and on more
// than one: which of them to use is for nobody to guess.
func (s *session) findOne(label string, class uint) (pkcs11.ObjectHandle, error) {
	found, err := s.find([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	})
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("hsm: %w: no object is labelled %q", keys.ErrNoKey, label)
	case len(found) > 1:
		return 0, fmt.Errorf("hsm: %w: %d objects are labelled %q; remove those that do not belong", keys.ErrAmbiguous, len(found), label)
	}
	return found[0], nil
}

// resident copies a token object into the session. Where the module will not
// copy, the token object itself serves.
func (s *session) resident(h pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	copied, err := s.mod.CopyObject(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	switch code := codeOf(err); {
	case err == nil:
		return copied, nil
	case lost(code) && !lostHandle(code):
		return 0, s.failure("C_CopyObject", err)
	}
	return h, nil
}

// Signer returns the newest key pair of the audit log's checkpoints, which is used
// for nothing else: Ed25519, or ECDSA P-256 where the module has no EdDSA. The
// signer takes the message itself for Ed25519 and a SHA-256 digest for ECDSA,
// whose signatures are ASN.1 DER; it checks each signature before it returns
// it. Safe for concurrent use. Errors are those of [Token.System].
func (t *Token) Signer() (crypto.Signer, error) {
	all, err := t.LogSigners()
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// signerOf returns the key pair of a label.
func (t *Token) signerOf(label string) (crypto.Signer, error) {
	s := &signer{o: &object{t: t, lent: true, build: func(c *call, e *epoch) (pair, error) {
		return e.resident(c, label, pkcs11.CKO_PRIVATE_KEY, false)
	}}}
	c := t.newCall("find key "+label, t.cfg.Deadline)
	defer t.free(c)
	err := t.try(c, func(e *epoch) error {
		var public crypto.PublicKey
		err := e.perform(c, e.keeping, func(session *session) (err error) {
			public, err = session.publicKey(label)
			return err
		})
		if err != nil {
			return err
		}
		s.public = public
		_, err = s.o.in(c, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// publicKey reads the public half of a key pair.
func (s *session) publicKey(label string) (crypto.PublicKey, error) {
	h, err := s.findOne(label, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	return s.publicOf(h)
}

func (s *session) publicOf(h pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	attrs, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return nil, s.failure("C_GetAttributeValue", err)
	}
	kind := pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckkECEdwards).Value
	return parsePublic(string(attrs[0].Value) == string(kind), attrs[1].Value)
}

// parsePublic reads CKA_EC_POINT: an OCTET STRING around the point, or, from
// some modules, the point alone.
func parsePublic(edwards bool, point []byte) (crypto.PublicKey, error) {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	if edwards {
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("hsm: Ed25519 public key of %d bytes, want %d", len(point), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(point), nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("hsm: P-256 public key: %w", err)
	}
	return public, nil
}

type signer struct {
	o      *object
	public crypto.PublicKey
}

// Public implements [crypto.Signer].
func (s *signer) Public() crypto.PublicKey { return s.public }

// errSignature is a module that signs wrongly.
var errSignature = errors.New("hsm: the module made a signature that does not verify")

// Sign implements [crypto.Signer]. The reader is not used.
func (s *signer) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	k := &key{o: s.o}
	switch public := s.public.(type) {
	case ed25519.PublicKey:
		if opts.HashFunc() != 0 {
			return nil, errors.New("hsm: sign: Ed25519 takes the message itself, not a digest")
		}
		signature, err := k.once("sign", signing, ckmEDDSA, nil, message, ed25519.SignatureSize)
		if err != nil {
			return nil, err
		}
		if !ed25519.Verify(public, message, signature) {
			return nil, errSignature
		}
		return signature, nil
	case *ecdsa.PublicKey:
		if opts.HashFunc() != crypto.SHA256 || len(message) != crypto.SHA256.Size() {
			return nil, errors.New("hsm: sign: ECDSA takes a SHA-256 digest")
		}
		raw, err := k.once("sign", signing, pkcs11.CKM_ECDSA, nil, message, 64)
		if err != nil {
			return nil, err
		}
		return signatureDER(public, message, raw)
	}
	return nil, errors.New("hsm: sign: unknown kind of key")
}

// signatureDER is a module's two integers as ASN.1, verified.
func signatureDER(public *ecdsa.PublicKey, digest, raw []byte) ([]byte, error) {
	if len(raw) != 64 {
		return nil, errSignature
	}
	signature, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
	if err != nil {
		return nil, fmt.Errorf("hsm: sign: %w", err)
	}
	if !ecdsa.VerifyASN1(public, digest, signature) {
		return nil, errSignature
	}
	return signature, nil
}
