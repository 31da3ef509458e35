package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of OAEP
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// The answers to whether a module unwraps keys by OAEP with SHA-256 and SHA-512.
const (
	oaepUntried uint32 = iota
	oaepRefused
	oaepWorks
)

// oaepHashes are the hashes of the API's wrapping specifications.
var oaepHashes = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

func oaepMech(hash crypto.Hash) []*pkcs11.Mechanism {
	h := oaepHashes[hash]
	params := pkcs11.NewOAEPParams(h.hash, h.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}
}

// ImportOAEP makes a block of a key that came enciphered under the public half
// of a wrapping pair: RSAES-OAEP with MGF1 of the same hash and an empty label,
// over the bare key, which must be as long as the template's algorithm has it.
// The private half stays in the token, and so does the key where the module does
// the hash and the rules on key values can be checked from outside; inProcess
// reports that it crossed this process instead.
//
// It returns [keys.ErrMaterial] for everything that deciphering reveals,
// [keys.ErrCustody] where the policy forbids the process, [keys.ErrNoKey] for
// a pair that is not in the token, and the errors of [Manager.Import].
func (m *Manager) ImportOAEP(ctx context.Context, name string, hash crypto.Hash, cryptogram []byte, template keys.Block) (b *keys.Block, inProcess bool, err error) {
	if b, err = m.prepare(template, keys.External); err != nil {
		return nil, false, err
	}
	if _, ok := oaepHashes[hash]; !ok {
		return nil, false, fmt.Errorf("hsm: import key %s: %w: OAEP with %v", b.ID, keys.ErrAttributes, hash)
	}
	label := m.t.label(labelPair + name)
	cryptogram = slices.Clone(cryptogram)
	var value secret.Bytes
	err = m.t.manage(ctx, "unwrap key by OAEP", 0, func(e *epoch, s *session) error {
		pair, err := s.findOne(label, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		unwraps, err := s.flag(pair, pkcs11.CKA_UNWRAP)
		if err != nil {
			return err
		}
		if err := s.checkSize(pair, cryptogram); err != nil {
			return err
		}
		unseen := unwraps && checkedUnseen(b.Attributes)
		switch {
		case unseen:
			return m.takeUnseen(e, s, pair, hash, cryptogram, b)
		case b.TokenOnly():
			return fmt.Errorf("%w: a key of usage %s and algorithm %s comes in through the process on this module",
				keys.ErrCustody, b.Attributes.Usage, b.Attributes.Algorithm)
		case unwraps:
			value, err = s.unwrapClear(pair, hash, cryptogram)
		default:
			value, err = s.decryptRaw(pair, hash, cryptogram)
		}
		inProcess = true
		return err
	})
	if err != nil {
		return nil, inProcess, fmt.Errorf("hsm: import key %s: %w", b.ID, err)
	}
	if !inProcess {
		return b, false, nil
	}
	defer value.Clear()
	b, err = m.Import(ctx, template, value)
	return b, true, err
}

// checkSize refuses a cryptogram that is not as long as the modulus.
func (s *session) checkSize(pair pkcs11.ObjectHandle, cryptogram []byte) error {
	public, err := s.mod.GetAttributeValue(s.handle, pair, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil)})
	if err != nil {
		return s.failure("C_GetAttributeValue", err)
	}
	if len(cryptogram) != len(bytes.TrimLeft(public[0].Value, "\x00")) {
		return fmt.Errorf("%w: length of the cryptogram", keys.ErrMaterial)
	}
	return nil
}

// checkedUnseen reports whether the rules on key values can be checked of a key
// that nobody sees: of AES keys, because the values that are refused are few
// enough to be compared with. Whether two parts of a TDES key are equal, no
// answer of the key tells; and those with a companion are two objects.
func checkedUnseen(a keys.Attributes) bool { return a.Algorithm.IsAES() }

// flag reads a yes or no of an object.
func (s *session) flag(h pkcs11.ObjectHandle, attribute uint) (bool, error) {
	got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil {
		return false, s.failure("C_GetAttributeValue", err)
	}
	return len(got[0].Value) > 0 && got[0].Value[0] != 0, nil
}

// takeUnseen unwraps a key in the token, checks it there and wraps it into b.
func (m *Manager) takeUnseen(e *epoch, s *session, pair pkcs11.ObjectHandle, hash crypto.Hash, cryptogram []byte, b *keys.Block) (err error) {
	alg := b.Attributes.Algorithm
	h, err := s.mod.UnwrapKey(s.handle, oaepMech(hash), pair, cryptogram, keyTemplate(alg, rights{extractable: true, encrypt: true}))
	if err != nil {
		return s.refused("C_UnwrapKey", err)
	}
	if err := s.checkUnseen(h, alg); err != nil {
		s.sweep(h, &err)
		return err
	}
	if b.Wrapped, err = s.wrap(e, b, h); err != nil { // and destroys h
		return err
	}
	return m.finish(e, s, b)
}

// checkUnseen checks the length of an AES key, and that its bytes are not all
// the same.
func (s *session) checkUnseen(h pkcs11.ObjectHandle, a keys.Algorithm) error {
	got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil)})
	if err != nil {
		return s.failure("C_GetAttributeValue", err)
	}
	if n := ulong(got[0].Value); n != uint64(a.KeyBytes()) {
		return fmt.Errorf("%w: length", keys.ErrMaterial)
	}
	zero := make([]byte, a.BlockSize())
	mark, err := s.once("encrypt", encrypting, mechsOf(a).ecb, nil, h, zero, len(zero))
	if err != nil {
		return err
	}
	weak := make([]byte, a.KeyBytes())
	found := false
	for value := range 256 {
		for i := range weak {
			weak[i] = byte(value)
		}
		soft, err := secret.NewAES(weak)
		if err != nil {
			return err
		}
		other, err := soft.Encrypt(nil, zero)
		if err != nil {
			return err
		}
		found = found || same(mark, other)
	}
	if found {
		return fmt.Errorf("%w: weak", keys.ErrMaterial)
	}
	return nil
}

// ulong reads a CK_ULONG.
func ulong(p []byte) uint64 {
	var whole [8]byte
	copy(whole[:], p)
	return binary.NativeEndian.Uint64(whole[:])
}

// unwrapClear unwraps a key into an object that shows its value.
func (s *session) unwrapClear(pair pkcs11.ObjectHandle, hash crypto.Hash, cryptogram []byte) (value secret.Bytes, err error) {
	attrs := secretTemplate(pkcs11.CKK_GENERIC_SECRET, rights{extractable: true})
	for _, a := range attrs {
		if a.Type == pkcs11.CKA_SENSITIVE {
			a.Value = pkcs11.NewAttribute(a.Type, false).Value
		}
	}
	h, err := s.mod.UnwrapKey(s.handle, oaepMech(hash), pair, cryptogram, attrs)
	if err != nil {
		return secret.Bytes{}, s.refused("C_UnwrapKey", err)
	}
	defer s.sweep(h, &err)
	got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return secret.Bytes{}, s.failure("C_GetAttributeValue", err)
	}
	return secret.From(got[0].Value), nil
}

// decryptRaw does the RSA in the token and the rest of OAEP here.
func (s *session) decryptRaw(pair pkcs11.ObjectHandle, hash crypto.Hash, cryptogram []byte) (secret.Bytes, error) {
	size := len(cryptogram)
	em := make([]byte, size)
	defer secret.Clear(em)
	n, _, err := s.mod.once(s.handle, decrypting, pkcs11.CKM_RSA_X_509, nil, pair, cryptogram, em)
	if err != nil {
		return secret.Bytes{}, s.refused("C_Decrypt", err)
	}
	if n != size {
		return secret.Bytes{}, fmt.Errorf("hsm: the module gave %d bytes of an RSA decryption, want %d", n, size)
	}
	value, ok := openOAEP(hash, em)
	if !ok {
		return secret.Bytes{}, fmt.Errorf("%w: it does not open", keys.ErrMaterial)
	}
	return value, nil
}

// refused is what a module says to a cryptogram that it does not open. Modules
// use many codes for that, some of which mean a lost device elsewhere; the
// session is given up in any case.
func (s *session) refused(op string, err error) error {
	failed := s.failure(op, err)
	switch code := codeOf(err); code {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_OBJECT_HANDLE_INVALID,
		pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:
		return failed
	}
	return fmt.Errorf("%w: it does not open: %v", keys.ErrMaterial, failed)
}

// unwrapsOAEP finds out, once, whether the module unwraps keys by OAEP with the
// hashes of the API: with a throw-away pair and a known key.
func (t *Token) unwrapsOAEP(s *session) bool {
	if answer := t.can.oaep.Load(); answer != oaepUntried {
		return answer == oaepWorks
	}
	answer := oaepWorks
	if err := s.tryOAEP(); err != nil {
		answer = oaepRefused
		s.replace()
	}
	t.can.oaep.Store(answer)
	return answer == oaepWorks
}

func (s *session) tryOAEP() error {
	const label = "keyd-self-test-oaep"
	h, err := s.rsaPair(label, false, 2048, rights{unwrap: true})
	if err != nil {
		return err
	}
	public, err := s.rsaPublic(h)
	if err != nil {
		return err
	}
	private, err := s.find([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
	})
	if err != nil || len(private) != 1 {
		return fmt.Errorf("hsm: the throw-away pair is not found: %d objects, %w", len(private), err)
	}
	defer s.sweep(h, &err)
	defer s.sweep(private[0], &err)
	p := &probe{s: s}
	for hash := range oaepHashes {
		cryptogram, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, wrapValue, nil)
		if err != nil {
			return err
		}
		value, err := s.unwrapClear(private[0], hash, cryptogram)
		if err != nil {
			return err
		}
		ok := same(value.Reveal(), wrapValue)
		value.Clear()
		if !ok {
			return errAnswer
		}
		key, err := s.mod.UnwrapKey(s.handle, oaepMech(hash), private[0], cryptogram, keyTemplate(keys.AES128, rights{encrypt: true}))
		if err != nil {
			return s.failure("C_UnwrapKey", err)
		}
		if err := p.encrypts("the unwrapped key", key, wrapValue); err != nil {
			return err
		}
		s.sweep(key, &err)
	}
	return err
}
