package hsm

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Function is something that keyd may ask of a module.
type Function string

// The functions that the self-test tries. Without one of the first group there
// is no keyd; of the second, keyd uses what there is; those of the third it does
// not use, and tells of them because they say what else the module could do.
const (
	TDES      Function = "TDES, ECB and CBC"
	AES       Function = "AES, ECB and CBC"
	AESCMAC   Function = "CMAC, AES"
	HMAC256   Function = "HMAC, SHA-256"
	DeriveECB Function = "derive by ECB of data, TDES and AES"
	KeyWrap   Function = "wrap and unwrap keys, RFC 3394"

	TDESCMAC       Function = "CMAC, TDES"
	HMAC224        Function = "HMAC, SHA-224"
	HMAC384        Function = "HMAC, SHA-384"
	HMAC512        Function = "HMAC, SHA-512"
	ReencipherTDES Function = "unwrap and wrap 8 secret bytes, TDES ECB"
	ReencipherAES  Function = "unwrap and wrap 16 secret bytes, AES ECB"
	Standing       Function = "encipher in parts, each whole and at once"
	Ed25519        Function = "sign, Ed25519"
	P256           Function = "sign, ECDSA P-256"

	SingleDES  Function = "single DES"
	ShortHMAC  Function = "HMAC, SHA-256, key of 16 bytes"
	KeyWrapPad Function = "wrap and unwrap keys, RFC 5649"
	XORData    Function = "derive by XOR with data"
	ConcatData Function = "derive by concatenation with data"
)

// Trial is a function and what became of it when the self-test tried it, by a
// call with a known answer. The mechanism list is not asked: modules list what
// they refuse, and do what they do not list.
type Trial struct {
	Function Function
	Works    bool
	Answer   string // of the module where it does not: "CKR_MECHANISM_INVALID"
}

// Can reports whether the self-test found the function to work.
func (i Info) Can(f Function) bool {
	return slices.ContainsFunc(i.Trials, func(t Trial) bool { return t.Function == f && t.Works })
}

// needed are the functions that have worked where the self-test goes on.
var needed = [...]Function{TDES, AES, AESCMAC, HMAC256, DeriveECB, KeyWrap}

var errAnswer = errors.New("wrong answer")

// functions tries what keyd can do without. A refusal is an answer like any
// other; the session in which something failed is given up, since an operation
// may be open in it still. A wrong answer is fatal where keyd would believe it all
// the same.
func (p *probe) functions() error {
	for _, f := range needed {
		p.trials = append(p.trials, Trial{Function: f, Works: true})
	}
	for _, try := range []struct {
		function Function
		used     bool
		run      func() error
	}{
		{TDESCMAC, true, p.cmacTDES},
		{HMAC224, true, func() error { return p.hmac(keys.HMACSHA224, sha256.New224, keys.HMACSHA224.KeyBytes()) }},
		{HMAC384, true, func() error { return p.hmac(keys.HMACSHA384, sha512.New384, keys.HMACSHA384.KeyBytes()) }},
		{HMAC512, true, func() error { return p.hmac(keys.HMACSHA512, sha512.New, keys.HMACSHA512.KeyBytes()) }},
		{ReencipherTDES, false, func() error { return p.reencipher(keys.TDES2, 0, 0) }},
		{ReencipherAES, false, func() error { return p.reencipher(keys.AES128, keys.CanDecrypt, keys.CanEncrypt) }},
		{Standing, false, p.standsOpen},
		{Ed25519, true, func() error { return p.signs(logKeyKinds[:2]...) }},
		{P256, true, func() error { return p.signs(logKeyKinds[2]) }},
		{SingleDES, false, p.singleDES},
		{ShortHMAC, false, func() error { return p.hmac(keys.HMACSHA256, sha256.New, 16) }},
		{KeyWrapPad, false, p.wrapPad},
		{XORData, false, func() error { return p.combine(pkcs11.CKM_XOR_BASE_AND_DATA, xored) }},
		{ConcatData, false, func() error { return p.combine(pkcs11.CKM_CONCATENATE_BASE_AND_DATA, joined) }},
	} {
		t := Trial{Function: try.function}
		err := try.run()
		if try.used && (errors.Is(err, errAnswer) || errors.Is(err, errSignature)) {
			return fmt.Errorf("%s: %w", try.function, err)
		}
		if err != nil {
			t.Answer = err.Error()
			if code := codeOf(err); code != 0 {
				t.Answer = code.Error()
				t.Answer = t.Answer[strings.LastIndexByte(t.Answer, ' ')+1:] // CKR_… alone
			}
			p.s.replace()
		} else {
			t.Works = true
		}
		p.trials = append(p.trials, t)
	}
	return nil
}

func (p *probe) works(f Function) bool { return Info{Trials: p.trials}.Can(f) }

func (p *probe) cmacTDES() error {
	soft, err := softCipher(keys.TDES2, testValue[:16])
	if err != nil {
		return err
	}
	want, err := chainCMAC(soft, testData[:20])
	if err != nil {
		return err
	}
	h, err := p.key(keys.TDES2, rights{sign: true})
	if err != nil {
		return err
	}
	return p.answer("CMAC", signing, tdesMechs.cmac, nil, h, testData[:20], want)
}

// hmac tries an HMAC with a key of n bytes.
func (p *probe) hmac(a keys.Algorithm, h func() hash.Hash, n int) error {
	value := slices.Concat(testValue, testValue)[:n]
	key, err := p.keyOf(a, rights{sign: true}, value)
	if err != nil {
		return err
	}
	soft := hmac.New(h, value)
	soft.Write(testData)
	mech, _ := hmacMech(a)
	return p.answer("HMAC", signing, mech, nil, key, testData, soft.Sum(nil))
}

// reencipher moves a block from one key to another, with the rights that such
// keys have, and no others.
func (p *probe) reencipher(a keys.Algorithm, alsoIn, alsoOut keys.Ability) error {
	n := a.BlockSize()
	other := testValue[16:32]
	from, err := p.key(a, rights{unwrap: true, decrypt: alsoIn != 0})
	if err != nil {
		return err
	}
	to, err := p.keyOf(a, rights{wrap: true, encrypt: alsoOut != 0}, other)
	if err != nil {
		return err
	}
	got := make([]byte, n)
	if _, err := p.s.reencipher("re-encipher", mechsOf(a).ecb, from, to, testData[:n], got); err != nil {
		return err
	}
	in, err := softCipher(a, testValue[:a.KeyBytes()])
	if err != nil {
		return err
	}
	out, err := softCipher(a, other)
	if err != nil {
		return err
	}
	clear, err := in.Decrypt(nil, testData[:n])
	if err != nil {
		return err
	}
	want, err := out.Encrypt(nil, clear)
	if err != nil {
		return err
	}
	if !same(got, want) {
		return errAnswer
	}
	return nil
}

// signs makes a key pair of the first kind that there is, and a signature.
func (p *probe) signs(kinds ...logKeyKind) error {
	var public, private pkcs11.ObjectHandle
	var err error
	var used logKeyKind
	for _, used = range kinds {
		if public, private, err = p.s.pair(used, false, "keyd-self-test"); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	half, err := p.s.publicOf(public)
	if err != nil {
		return err
	}
	raw, err := p.s.once("sign", signing, used.sign, nil, private, testData, 64)
	if err != nil {
		return err
	}
	switch half := half.(type) {
	case ed25519.PublicKey:
		if !ed25519.Verify(half, testData, raw) {
			return errSignature
		}
	case *ecdsa.PublicKey:
		_, err = signatureDER(half, testData, raw)
	}
	return err
}

func (p *probe) singleDES() error {
	h, err := p.s.mod.create(p.s.handle, secretTemplate(pkcs11.CKK_DES, rights{encrypt: true}), testValue[:8])
	if err != nil {
		return p.s.failure("C_CreateObject", err)
	}
	soft, err := secret.NewTDES(testValue[:8])
	if err != nil {
		return err
	}
	want, err := soft.Encrypt(nil, testData[:8])
	if err != nil {
		return err
	}
	return p.answer("encrypt", encrypting, pkcs11.CKM_DES_ECB, nil, h, testData[:8], want)
}

// wrapPad tries RFC 5649, the examples of which have a key of 192 bits, with
// what its text says of a 16-byte value.
func (p *probe) wrapPad() error {
	kek, err := p.keyOf(keys.AES128, rights{wrap: true, unwrap: true}, wrapKEK)
	if err != nil {
		return err
	}
	h, err := p.keyOf(keys.AES128, rights{extractable: true}, wrapValue)
	if err != nil {
		return err
	}
	got, err := p.s.mod.WrapKey(p.s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, kek, h)
	if err != nil {
		return p.s.failure("C_WrapKey", err)
	}
	if len(got) != 24 {
		return errAnswer // NSS has a format of its own: 32 bytes
	}
	h, err = p.s.mod.UnwrapKey(p.s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, kek, got,
		keyTemplate(keys.AES128, rights{encrypt: true}))
	if err != nil {
		return p.s.failure("C_UnwrapKey", err)
	}
	return p.encrypts("the unwrapped key", h, wrapValue)
}

func xored(base, data []byte) []byte {
	out := slices.Clone(base)
	for i := range out {
		out[i] ^= data[i]
	}
	return out
}

func joined(base, data []byte) []byte { return slices.Concat(base, data)[:16] }

// combine derives an AES key from a generic secret and data.
func (p *probe) combine(mech uint, expect func(base, data []byte) []byte) error {
	base, err := p.keyOf(keys.HMACSHA256, rights{derive: true}, testValue[:16])
	if err != nil {
		return err
	}
	attrs := append(keyTemplate(keys.AES128, rights{encrypt: true}), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16))
	h, err := p.s.mod.derive(p.s.handle, mech, base, testData[:16], attrs)
	if err != nil {
		return p.s.failure("C_DeriveKey", err)
	}
	soft, err := secret.NewAES(expect(testValue[:16], testData[:16]))
	if err != nil {
		return err
	}
	want, err := soft.Encrypt(nil, testData)
	if err != nil {
		return err
	}
	return p.answer("encrypt under the derived key", encrypting, pkcs11.CKM_AES_ECB, nil, h, testData, want)
}
