package hsm

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// capabilities are those functions of the module that keyd's path depends on.
type capabilities struct {
	tdesCMAC       atomic.Bool // else the chain of chainCMAC
	reencipherTDES atomic.Bool
	reencipherAES  atomic.Bool
	oaep           atomic.Uint32 // oaepUntried until a wrapping pair is made
}

// The self-test's keys and data. They are public; the parts of the TDES key differ.
var (
	testValue = unhex("0123456789ABCDEFFEDCBA987654321089ABCDEF01234567FEDCBA9876543210")
	testData  = unhex("00112233445566778899AABBCCDDEEFFFFEEDDCCBBAA99887766554433221100")
	testIV    = unhex("0F1E2D3C4B5A69788796A5B4C3D2E1F0")

	// RFC 3394, section 4.1.
	wrapKEK   = unhex("000102030405060708090A0B0C0D0E0F")
	wrapValue = unhex("00112233445566778899AABBCCDDEEFF")
	wrapped   = unhex("1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5")
)

func unhex(digits string) []byte {
	raw, err := hex.DecodeString(digits)
	if err != nil {
		panic(err) // a constant of this file is no hexadecimal number
	}
	return raw
}

// selfTest tries everything that keyd needs of the module with known answers,
// in a session that is closed afterwards, and finds out what it does not
// enforce. It returns [ErrSelfTest] for a wrong answer.
func (t *Token) selfTest(e *epoch) error {
	began := time.Now()
	queue := newQueue(false)
	defer e.finish(queue)
	if !e.spawn(queue, e.newSession(0)) {
		return errStale
	}
	c := t.newCall("self-test", manageDeadlines*t.cfg.Deadline)
	defer t.free(c)
	p := &probe{}
	err := e.perform(c, queue, func(s *session) error {
		p.s = s
		return p.run()
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSelfTest, err)
	}
	if t.cfg.RequireEnforcement && len(p.findings) > 0 {
		return fmt.Errorf("%w: the module does not enforce what the configuration demands: %q", ErrSelfTest, p.findings)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.can.tdesCMAC.Store(p.works(TDESCMAC))
	t.can.reencipherTDES.Store(p.works(ReencipherTDES))
	t.can.reencipherAES.Store(p.works(ReencipherAES))
	if p.works(Standing) {
		t.mod.keepOpen(t.slot, t.cfg.Standing)
	}
	t.info.Trials, t.info.Findings, t.info.SelfTest = p.trials, p.findings, time.Since(began)
	return nil
}

// probe is one self-test.
type probe struct {
	s        *session
	trials   []Trial
	findings []string
}

func (p *probe) run() error {
	for _, a := range []keys.Algorithm{keys.TDES2, keys.TDES3, keys.AES128, keys.AES192, keys.AES256} {
		if err := p.cipher(a); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	steps := []struct {
		name string
		run  func() error
	}{
		{"HMAC-SHA-256", func() error { return p.hmac(keys.HMACSHA256, sha256.New, keys.HMACSHA256.KeyBytes()) }},
		{"derivation", p.derivation},
		{"key wrap", p.wrapping},
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := p.functions(); err != nil {
		return err
	}
	if err := p.enforcement(); err != nil {
		return fmt.Errorf("enforcement: %w", err)
	}
	return nil
}

func (p *probe) key(a keys.Algorithm, r rights) (pkcs11.ObjectHandle, error) {
	return p.keyOf(a, r, testValue[:a.KeyBytes()])
}

func (p *probe) keyOf(a keys.Algorithm, r rights, value []byte) (pkcs11.ObjectHandle, error) {
	h, err := p.s.mod.create(p.s.handle, keyTemplate(a, r), value)
	if err != nil {
		return 0, p.s.failure("C_CreateObject", err)
	}
	return h, nil
}

// answer does an operation and compares its output.
func (p *probe) answer(name string, op operation, mech uint, iv []byte, h pkcs11.ObjectHandle, in, want []byte) error {
	got, err := p.s.once(name, op, mech, iv, h, in, len(want))
	if err != nil {
		return err
	}
	if !same(got, want) {
		return fmt.Errorf("%s: %w", name, errAnswer)
	}
	return nil
}

func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// cipher tries ECB and CBC both ways, and the CMAC of AES.
func (p *probe) cipher(a keys.Algorithm) error {
	soft, err := softCipher(a, testValue[:a.KeyBytes()])
	if err != nil {
		return err
	}
	h, err := p.key(a, rights{encrypt: true, decrypt: true, sign: true})
	if err != nil {
		return err
	}
	mech, iv := mechsOf(a), testIV[:a.BlockSize()]
	for _, mode := range []struct {
		mech uint
		iv   []byte
	}{{mech.ecb, nil}, {mech.cbc, iv}} {
		want, err := soft.Encrypt(mode.iv, testData)
		if err != nil {
			return err
		}
		if err := p.answer("encrypt", encrypting, mode.mech, mode.iv, h, testData, want); err != nil {
			return err
		}
		if err := p.answer("decrypt", decrypting, mode.mech, mode.iv, h, want, testData); err != nil {
			return err
		}
	}
	if !a.IsAES() {
		return nil
	}
	want, err := chainCMAC(soft, testData[:20])
	if err != nil {
		return err
	}
	return p.answer("CMAC", signing, mech.cmac, nil, h, testData[:20], want)
}

func softCipher(a keys.Algorithm, value []byte) (secret.Cipher, error) {
	if a.IsTDES() {
		return secret.NewTDES(value)
	}
	return secret.NewAES(value)
}

// derivation tries ECB_ENCRYPT_DATA of both ciphers.
func (p *probe) derivation() error {
	for _, a := range []keys.Algorithm{keys.TDES2, keys.AES256} {
		base, err := p.key(a, rights{derive: true})
		if err != nil {
			return err
		}
		attrs := append(keyTemplate(keys.AES128, rights{encrypt: true}), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16))
		h, err := p.s.mod.derive(p.s.handle, mechsOf(a).derive, base, testData[:16], attrs)
		if err != nil {
			return p.s.failure("C_DeriveKey", err)
		}
		parent, err := softCipher(a, testValue[:a.KeyBytes()])
		if err != nil {
			return err
		}
		value, err := parent.Encrypt(nil, testData[:16])
		if err != nil {
			return err
		}
		if err := p.encrypts("the derived key", h, value); err != nil {
			return err
		}
	}
	return nil
}

// wrapping tries RFC 3394 both ways.
func (p *probe) wrapping() error {
	kek, err := p.keyOf(keys.AES128, rights{wrap: true, unwrap: true}, wrapKEK)
	if err != nil {
		return err
	}
	h, err := p.keyOf(keys.AES128, rights{extractable: true}, wrapValue)
	if err != nil {
		return err
	}
	got, err := p.s.mod.WrapKey(p.s.handle, keyWrap(), kek, h)
	if err != nil {
		return p.s.failure("C_WrapKey", err)
	}
	if !same(got, wrapped) {
		return fmt.Errorf("C_WrapKey: wrong answer")
	}
	if h, err = p.s.mod.UnwrapKey(p.s.handle, keyWrap(), kek, wrapped, keyTemplate(keys.AES128, rights{encrypt: true})); err != nil {
		return p.s.failure("C_UnwrapKey", err)
	}
	return p.encrypts("the unwrapped key", h, wrapValue)
}

// encrypts tries a key whose value is known: it must encrypt as the software does.
func (p *probe) encrypts(what string, key pkcs11.ObjectHandle, value []byte) error {
	soft, err := secret.NewAES(value)
	if err != nil {
		return err
	}
	want, err := soft.Encrypt(nil, testData)
	if err != nil {
		return err
	}
	return p.answer("encrypt under "+what, encrypting, pkcs11.CKM_AES_ECB, nil, key, testData, want)
}

// enforcement tries what must not go, and notes what goes all the same.
func (p *probe) enforcement() error {
	mute, err := p.key(keys.AES256, rights{})
	if err != nil {
		return err
	}
	kek, err := p.keyOf(keys.AES128, rights{wrap: true}, wrapKEK)
	if err != nil {
		return err
	}
	open, err := p.keyOf(keys.AES128, rights{extractable: true}, wrapValue)
	if err != nil {
		return err
	}
	s := p.s
	for _, try := range []struct {
		finding string
		run     func() error
	}{
		{"wraps a key that is not extractable", func() error {
			_, err := s.mod.WrapKey(s.handle, keyWrap(), kek, mute)
			return err
		}},
		{"shows the value of a sensitive key", func() error {
			_, err := s.mod.GetAttributeValue(s.handle, mute, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
			return err
		}},
		{"enciphers with a key that may not", func() error {
			_, err := s.once("encrypt", encrypting, pkcs11.CKM_AES_ECB, nil, mute, testData, len(testData))
			return err
		}},
		{"makes MACs with a key that may not", func() error {
			_, err := s.once("CMAC", signing, pkcs11.CKM_AES_CMAC, nil, mute, testData, 16)
			return err
		}},
		{"derives from a key that may not", func() error {
			attrs := append(keyTemplate(keys.AES128, rights{}), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16))
			_, err := s.mod.derive(s.handle, aesMechs.derive, mute, testData[:16], attrs)
			return err
		}},
		{"deciphers with a key that may only wrap", func() error {
			_, err := s.once("decrypt", decrypting, pkcs11.CKM_AES_ECB, nil, kek, testData, len(testData))
			return err
		}},
		{"unwraps with a key that may only wrap", func() error {
			_, err := s.mod.UnwrapKey(s.handle, keyWrap(), kek, wrapped, keyTemplate(keys.AES128, rights{}))
			return err
		}},
		{"wraps with a key that may not", func() error {
			_, err := s.mod.WrapKey(s.handle, keyWrap(), mute, open)
			return err
		}},
	} {
		if try.run() == nil {
			p.findings = append(p.findings, try.finding)
		}
	}
	return nil
}
