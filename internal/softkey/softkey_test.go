package softkey

import (
	"errors"
	"testing"

	"keyd.dev/keyd/keys"
)

// TestAbilities asks a derived key for what it may not do.
func TestAbilities(t *testing.T) {
	parent, err := New(keys.AES128, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 16)
	for name, c := range map[string]struct {
		can keys.Ability
		do  func(keys.Derived) error
	}{
		"encrypt": {keys.CanEncrypt, func(k keys.Derived) error { _, err := k.Encrypt(nil, block); return err }},
		"decrypt": {keys.CanDecrypt, func(k keys.Derived) error { _, err := k.Decrypt(nil, block); return err }},
		"MAC":     {keys.CanMAC, func(k keys.Derived) error { _, err := k.CMAC(block); return err }},
		"derive":  {keys.CanDerive, func(k keys.Derived) error { _, err := k.Derive(block, keys.Spec{Algorithm: keys.AES128}); return err }},
	} {
		able, err := parent.Derive(block, keys.Spec{Algorithm: keys.AES128, Can: c.can})
		if err != nil {
			t.Fatal(err)
		}
		unable, err := parent.Derive(block, keys.Spec{Algorithm: keys.AES128, Can: ^c.can})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(able); err != nil {
			t.Errorf("M-30 %s: %v", name, err)
		}
		if err := c.do(unable); !errors.Is(err, keys.ErrForbidden) {
			t.Errorf("M-30 %s without the right to: %v, want %v", name, err, keys.ErrForbidden)
		}
		if err := able.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.do(able); !errors.Is(err, keys.ErrForbidden) {
			t.Errorf("M-30 %s after Close: %v, want %v", name, err, keys.ErrForbidden)
		}
	}
	hmac, err := New(keys.HMACSHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hmac.Encrypt(nil, block); !errors.Is(err, keys.ErrForbidden) {
		t.Errorf("an HMAC key enciphers: %v", err)
	}
	if _, err := parent.HMAC(block); !errors.Is(err, keys.ErrForbidden) {
		t.Errorf("an AES key has an HMAC: %v", err)
	}
	if _, err := parent.Derive(block, keys.Spec{Algorithm: keys.AES256}); !errors.Is(err, keys.ErrMaterial) {
		t.Errorf("16 bytes of data for a 32-byte key: %v, want %v", err, keys.ErrMaterial)
	}
	for _, a := range append(keys.Algorithms(), 0) {
		if _, err := New(a, make([]byte, 9)); (err == nil) != a.IsHMAC() {
			t.Errorf("%s of 9 bytes: %v", a, err)
		}
	}
}
