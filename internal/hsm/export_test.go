package hsm

import (
	"context"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// Faulty stands in front of a real module. Before is asked before each call of
// the kinds below; an error that it returns is the module's answer, and while
// it does not return the call hangs.
type Faulty struct {
	cryptoki
	Before func(call string) error
	Begun  bool // an injected error of a one-part operation comes after its beginning
	Wrong  uint // the mechanism whose answers are wrong
	Left   bool // an injected error of a re-encipherment is that of destroying its object

	mu     sync.Mutex
	counts map[string]int
}

func (f *Faulty) before(call string) error {
	f.mu.Lock()
	f.counts[call]++
	hook := f.Before
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(call)
}

// Set changes the hook.
func (f *Faulty) Set(before func(call string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Before = before
}

// Count returns how often a call was made.
func (f *Faulty) Count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[call]
}

func (f *Faulty) Initialize(o ...pkcs11.InitializeOption) error {
	if err := f.before("C_Initialize"); err != nil {
		return err
	}
	return f.cryptoki.Initialize(o...)
}

func (f *Faulty) Finalize() error {
	if err := f.before("C_Finalize"); err != nil {
		return err
	}
	return f.cryptoki.Finalize()
}

func (f *Faulty) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	if err := f.before("C_OpenSession"); err != nil {
		return 0, err
	}
	return f.cryptoki.OpenSession(slot, flags)
}

func (f *Faulty) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := f.cryptoki.GetTokenInfo(slot)
	if before := f.before("C_GetTokenInfo"); before != nil {
		if flags, ok := before.(Flags); ok {
			info.Flags |= uint(flags)
			return info, nil
		}
		return info, before
	}
	return info, err
}

// Flags is what a hook returns to add flags to the token's information.
type Flags uint

func (Flags) Error() string { return "flags" }

func (f *Faulty) GetSessionInfo(s pkcs11.SessionHandle) (pkcs11.SessionInfo, error) {
	if err := f.before("C_GetSessionInfo"); err != nil {
		return pkcs11.SessionInfo{}, err
	}
	return f.cryptoki.GetSessionInfo(s)
}

func (f *Faulty) GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, a, b []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	if err := f.before("C_GenerateKeyPair"); err != nil {
		return 0, 0, err
	}
	return f.cryptoki.GenerateKeyPair(s, m, a, b)
}

func (f *Faulty) CopyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := f.before("C_CopyObject"); err != nil {
		return 0, err
	}
	return f.cryptoki.CopyObject(s, h, a)
}

func (f *Faulty) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := f.before("C_UnwrapKey"); err != nil {
		return 0, err
	}
	return f.cryptoki.UnwrapKey(s, m, by, wrapped, a)
}

func (f *Faulty) once(s pkcs11.SessionHandle, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle, in, out []byte) (int, bool, error) {
	if mech == pkcs11.CKM_DES3_CMAC {
		if err := f.before("TDES CMAC"); err != nil {
			return 0, false, err
		}
	}
	if err := f.before("one-part"); err != nil {
		return 0, f.Begun, err
	}
	if len(in) > 2*sizeOf(mech) && (mech == pkcs11.CKM_DES3_ECB || mech == pkcs11.CKM_AES_ECB) {
		if err := f.before("many blocks"); err != nil {
			return 0, f.Begun, err
		}
	}
	n, begun, err := f.cryptoki.once(s, do, mech, iv, key, in, out)
	if err == nil && f.Wrong != 0 && mech == f.Wrong {
		out[0] ^= 1
	}
	return n, begun, err
}

func sizeOf(mech uint) int {
	if mech == pkcs11.CKM_DES3_ECB {
		return 8
	}
	return 16
}

func (f *Faulty) reencipher(s pkcs11.SessionHandle, mech uint, from, to pkcs11.ObjectHandle, in, out []byte) (int, bool, error) {
	err := f.before("re-encipher")
	if err != nil && !f.Left {
		return 0, false, err
	}
	if err != nil { // the object that stays
		if _, real := f.cryptoki.create(s, secretTemplate(pkcs11.CKK_GENERIC_SECRET, rights{}), testValue[:8]); real != nil {
			return 0, false, real
		}
		return 0, true, err
	}
	return f.cryptoki.reencipher(s, mech, from, to, in, out)
}

func (f *Faulty) login(s pkcs11.SessionHandle, user uint, pin []byte) error {
	if err := f.before("C_Login"); err != nil {
		return err
	}
	return f.cryptoki.login(s, user, pin)
}

func (f *Faulty) random(s pkcs11.SessionHandle, p []byte) error {
	if err := f.before("C_GenerateRandom"); err != nil {
		return err
	}
	return f.cryptoki.random(s, p)
}

// OpenWrong opens a token whose module gives wrong answers by a mechanism.
func OpenWrong(cfg Config, mech uint) (*Token, error) {
	t, err := open(cfg, func(path string) (cryptoki, error) {
		mod, err := load(path)
		return &Faulty{cryptoki: mod, Wrong: mech, counts: make(map[string]int)}, err
	})
	return t, err
}

// OpenFaulty opens a token through a Faulty.
func OpenFaulty(cfg Config, before func(call string) error) (*Token, *Faulty, error) {
	f := &Faulty{Before: before, counts: make(map[string]int)}
	t, err := open(cfg, func(path string) (cryptoki, error) {
		mod, err := load(path)
		f.cryptoki = mod
		return f, err
	})
	return t, f, err
}

// LoseKeeper closes the keeper's session behind the token's back.
func (t *Token) LoseKeeper() error {
	c := t.newCall("lose the keeper", t.cfg.Deadline)
	defer t.free(c)
	e, err := t.up(c)
	if err != nil {
		return err
	}
	return t.mod.CloseSession(e.keeper.handle)
}

// LoseAll closes every session behind the token's back, and with them the login.
func (t *Token) LoseAll() error {
	type closer interface{ CloseAllSessions(slot uint) error }
	mod := t.mod
	if f, ok := mod.(*Faulty); ok {
		mod = f.cryptoki
	}
	return mod.(closer).CloseAllSessions(t.slot)
}

// Objects returns the number of session objects in the token.
func (t *Token) Objects() (n int, err error) {
	err = t.manage(context.Background(), "count objects", 0, func(_ *epoch, s *session) error {
		all, err := s.find([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
		n = len(all)
		return err
	})
	return n, err
}

// Duplicate makes a second token object with a label of keyd's own.
func (t *Token) Duplicate(word string) error {
	return t.manage(context.Background(), "duplicate", pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		for _, k := range ownKeys {
			if k.word == word {
				attrs := t.ownTemplate(k)
				for _, a := range attrs {
					if a.Type == pkcs11.CKA_ID {
						a.Value = []byte("another") // softokn has one object for an id, and changes its value
					}
				}
				_, err := s.mod.create(s.handle, attrs, testValue)
				return err
			}
		}
		return errTemplate
	})
}

// Bypass uses a key's object for an operation without this package's own check.
func Bypass(k keys.Key, mac bool) error {
	var inner *key
	switch k := k.(type) {
	case *key:
		inner = k
	case hmacKey:
		inner = k.key
	}
	op, mech := encrypting, mechsOf(inner.spec.Algorithm).ecb
	if mac {
		op, mech = signing, mechsOf(inner.spec.Algorithm).cmac
	}
	_, err := inner.once("bypass", op, mech, nil, make([]byte, inner.BlockSize()), inner.BlockSize())
	return err
}

// Attributes reads attributes of a key's object in the token.
func Attributes(k keys.Key, types ...uint) (values map[uint]bool, err error) {
	inner, ok := k.(*key)
	if !ok {
		inner = k.(hmacKey).key
	}
	o := inner.o
	c := o.t.newCall("read attributes", time.Second)
	defer o.t.free(c)
	e, err := o.t.up(c)
	if err != nil {
		return nil, err
	}
	handles, err := o.in(c, e)
	if err != nil {
		return nil, err
	}
	values = make(map[uint]bool)
	return values, e.perform(c, e.queue, func(s *session) error {
		for _, typ := range types {
			got, err := s.mod.GetAttributeValue(s.handle, handles[inner.role], []*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
			if err != nil {
				return err
			}
			values[typ] = got[0].Value[0] == 1
		}
		return nil
	})
}

// ReadValue tries to read the value of a key's object.
func ReadValue(k keys.Key) error {
	_, err := Attributes(k, pkcs11.CKA_VALUE)
	return err
}

// InitTwin makes another token of a label, which InitToken refuses.
func InitTwin(module, label string) error {
	mod, err := load(module)
	if err != nil {
		return err
	}
	if err := mod.Initialize(); err != nil {
		return err
	}
	defer func() { _ = mod.Finalize() }()
	slot, err := freeSlot(mod, "")
	if err != nil {
		return err
	}
	return mod.InitToken(slot, "12345678", label)
}
