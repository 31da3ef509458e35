package hsm

import (
	"context"

	"github.com/miekg/pkcs11"
)

// create answers for "C_CreateObject".
func (f *Faulty) create(s pkcs11.SessionHandle, attrs []*pkcs11.Attribute, value []byte) (pkcs11.ObjectHandle, error) {
	if err := f.before("C_CreateObject"); err != nil {
		return 0, err
	}
	return f.cryptoki.create(s, attrs, value)
}

// WrapKey answers for "C_WrapKey". An error of [Wrongly] lets the module wrap
// another key instead.
func (f *Faulty) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, by, key pkcs11.ObjectHandle) ([]byte, error) {
	err := f.before("C_WrapKey")
	if err == Wrongly {
		if key, err = f.cryptoki.create(s, secretTemplate(pkcs11.CKK_AES, rights{extractable: true}), testValue[:16]); err != nil {
			return nil, err
		}
		defer func() { _ = f.cryptoki.DestroyObject(s, key) }()
	}
	if err != nil {
		return nil, err
	}
	return f.cryptoki.WrapKey(s, m, by, key)
}

// Wrongly is what a hook returns to have a wrong result and no error.
const Wrongly = pkcs11.Error(0xFFFF0001)

// Renew begins a new epoch.
func (t *Token) Renew(ctx context.Context) error { return t.renewed(ctx) }
