package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// key is a key object as a [keys.Key]. The token enforces what it may do; the
// same is checked here first, because some modules enforce less than they say.
type key struct {
	o    *object
	role int // 0: the key, 1: its companion
	spec keys.Spec
}

// hmacKey is a key that can also compute an HMAC.
type hmacKey struct{ *key }

func newKey(o *object, role int, spec keys.Spec) keys.Key {
	k := &key{o, role, spec}
	if spec.Algorithm.IsHMAC() {
		return hmacKey{k}
	}
	return k
}

// cipherMechs are the mechanisms of a block cipher.
type cipherMechs struct{ ecb, cbc, cmac, derive uint }

var (
	tdesMechs = cipherMechs{pkcs11.CKM_DES3_ECB, pkcs11.CKM_DES3_CBC, pkcs11.CKM_DES3_CMAC, pkcs11.CKM_DES3_ECB_ENCRYPT_DATA}
	aesMechs  = cipherMechs{pkcs11.CKM_AES_ECB, pkcs11.CKM_AES_CBC, pkcs11.CKM_AES_CMAC, pkcs11.CKM_AES_ECB_ENCRYPT_DATA}
)

func mechsOf(a keys.Algorithm) cipherMechs {
	if a.IsTDES() {
		return tdesMechs
	}
	return aesMechs
}

// BlockSize implements [keys.Key]. It is 0 for an HMAC key.
func (k *key) BlockSize() int { return k.spec.Algorithm.BlockSize() }

// Encrypt implements [keys.Key].
func (k *key) Encrypt(iv, src []byte) ([]byte, error) {
	return k.crypt("encrypt", encrypting, keys.CanEncrypt, iv, src)
}

// Decrypt implements [keys.Key].
func (k *key) Decrypt(iv, src []byte) ([]byte, error) {
	return k.crypt("decrypt", decrypting, keys.CanDecrypt, iv, src)
}

func (k *key) crypt(name string, op operation, need keys.Ability, iv, src []byte) ([]byte, error) {
	if err := k.checkBlocks(name, need, iv, src); err != nil {
		return nil, err
	}
	mech := mechsOf(k.spec.Algorithm).ecb
	if iv != nil {
		mech = mechsOf(k.spec.Algorithm).cbc
	}
	return k.once(name, op, mech, iv, src, len(src))
}

// checkBlocks reports whether the key may do this with src, which is whole blocks.
func (k *key) checkBlocks(name string, need keys.Ability, iv, src []byte) error {
	if err := k.may(name, need); err != nil {
		return err
	}
	switch size := k.BlockSize(); {
	case iv != nil && len(iv) != size:
		return fmt.Errorf("hsm: %s: initial vector of %d bytes, want %d", name, len(iv), size)
	case len(src) == 0 || len(src)%size != 0:
		return fmt.Errorf("hsm: %s: %d bytes, want whole blocks of %d", name, len(src), size)
	}
	return nil
}

// CMAC implements [keys.Key].
func (k *key) CMAC(msg []byte) ([]byte, error) {
	if err := k.may("CMAC", keys.CanMAC); err != nil {
		return nil, err
	}
	if k.spec.Algorithm.IsHMAC() {
		return nil, fmt.Errorf("hsm: CMAC: %w: %s is no block cipher", keys.ErrForbidden, k.spec.Algorithm)
	}
	if k.spec.Algorithm.IsTDES() && !k.o.t.can.tdesCMAC.Load() {
		return chainCMAC(chaining{k}, msg)
	}
	return k.once("CMAC", signing, mechsOf(k.spec.Algorithm).cmac, nil, msg, k.BlockSize())
}

// chainCMAC computes a CMAC where the module has no mechanism for it: the two
// subkeys in the process, the cipher in the token. NIST SP 800-38B, 6.2.
func chainCMAC(k keys.BlockEncrypter, msg []byte) ([]byte, error) {
	size := k.BlockSize()
	zero := make([]byte, size)
	subkey, err := k.Encrypt(nil, zero)
	if err != nil {
		return nil, err
	}
	defer secret.Clear(subkey)
	whole := slices.Clone(msg)
	double(subkey)
	if len(msg) == 0 || len(msg)%size != 0 {
		double(subkey)
		whole = append(whole, 0x80)
		whole = append(whole, make([]byte, (size-len(whole)%size)%size)...)
	}
	last := whole[len(whole)-size:]
	for i := range last {
		last[i] ^= subkey[i]
	}
	defer secret.Clear(last)
	chain, err := k.Encrypt(zero, whole)
	if err != nil {
		return nil, err
	}
	return chain[len(chain)-size:], nil
}

// chaining lets chainCMAC encipher with a key that may make CMACs: on such a
// module its object can encipher.
type chaining struct{ *key }

func (k chaining) Encrypt(iv, src []byte) ([]byte, error) {
	mech := mechsOf(k.spec.Algorithm).ecb
	if iv != nil {
		mech = mechsOf(k.spec.Algorithm).cbc
	}
	return k.once("CMAC", encrypting, mech, iv, src, len(src))
}

// double multiplies by x in GF(2^64) or GF(2^128), in constant time. SP 800-38B, 6.1.
func double(p []byte) {
	reduce := byte(0x87)
	if len(p) == 8 {
		reduce = 0x1B
	}
	carry := p[0] >> 7
	for i := range len(p) - 1 {
		p[i] = p[i]<<1 | p[i+1]>>7
	}
	p[len(p)-1] = p[len(p)-1]<<1 ^ reduce*carry
}

// HMAC implements [keys.HMACKey].
func (k hmacKey) HMAC(msg []byte) ([]byte, error) {
	if err := k.may("HMAC", keys.CanMAC); err != nil {
		return nil, err
	}
	mech, size := hmacMech(k.spec.Algorithm)
	return k.once("HMAC", signing, mech, nil, msg, size)
}

// hmacMech returns the mechanism of an HMAC and the length of its output.
func hmacMech(a keys.Algorithm) (uint, int) {
	switch a {
	case keys.HMACSHA224:
		return pkcs11.CKM_SHA224_HMAC, 28
	case keys.HMACSHA384:
		return pkcs11.CKM_SHA384_HMAC, 48
	case keys.HMACSHA512:
		return pkcs11.CKM_SHA512_HMAC, 64
	}
	return pkcs11.CKM_SHA256_HMAC, 32
}

// Derive implements [keys.Key].
func (k *key) Derive(data []byte, as keys.Spec) (keys.Derived, error) {
	if err := checkDerivation(k.spec.Algorithm, data, as); err != nil {
		return nil, fmt.Errorf("hsm: derive: %w", err)
	}
	data = slices.Clone(data)
	o := &object{t: k.o.t, build: func(c *call, e *epoch) (pair, error) { return k.derive(c, e, data, as) }}
	if err := k.o.t.stand(o, "derive"); err != nil {
		return nil, err
	}
	return newDerived(o, as), nil
}

func newDerived(o *object, as keys.Spec) keys.Derived {
	d := derived{newKey(o, 0, as), o}
	if h, ok := d.Key.(hmacKey); ok {
		return derivedHMAC{d, h}
	}
	return d
}

// derive makes the object whose value is ECB(k, data) in e.
func (k *key) derive(c *call, e *epoch, data []byte, as keys.Spec) (pair, error) {
	if err := k.may("derive", keys.CanDerive); err != nil {
		return pair{}, err
	}
	handles, err := k.o.in(c, e)
	if err != nil {
		return pair{}, err
	}
	mech := mechsOf(k.spec.Algorithm).derive
	attrs := named(keyTemplate(as.Algorithm, k.o.t.attributes(as.Algorithm, as.Can)), k.o.id)
	if !as.Algorithm.IsTDES() {
		attrs = append(attrs, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, as.Algorithm.KeyBytes()))
	}
	return c.make(e, func(s *session) (pkcs11.ObjectHandle, error) {
		h, err := s.mod.derive(s.handle, mech, handles[k.role], data, attrs)
		if err != nil {
			return 0, s.failure("C_DeriveKey", err)
		}
		return h, nil
	})
}

// make makes one object in the keeper's session.
func (c *call) make(e *epoch, f func(*session) (pkcs11.ObjectHandle, error)) (pair, error) {
	var made pair
	err := e.perform(c, e.keeping, func(s *session) (err error) {
		if made[0], err = f(s); err == nil {
			e.t.stats.made.Add(1)
		}
		return err
	})
	if err != nil {
		return pair{}, err
	}
	return made, nil
}

// checkDerivation reports whether data can make a key.
func checkDerivation(base keys.Algorithm, data []byte, as keys.Spec) error {
	size, want := base.BlockSize(), as.Algorithm.KeyBytes()
	switch {
	case size == 0:
		return fmt.Errorf("%w: an HMAC key derives nothing", keys.ErrForbidden)
	case want == 0:
		return fmt.Errorf("%w: a key of an unknown algorithm", keys.ErrAttributes)
	case len(data) == 0 || len(data)%size != 0 || len(data) < want:
		return fmt.Errorf("%w: %d bytes of derivation data; a %s key from %s takes whole blocks of %d, at least %d bytes",
			keys.ErrAttributes, len(data), as.Algorithm, base, size, want)
	}
	return checkAbilities(as.Can)
}

// derived is a key made by Derive.
type derived struct {
	keys.Key
	o *object
}

type derivedHMAC struct {
	derived
	keys.HMACKey
}

// Close implements [keys.Derived].
func (d derived) Close() error {
	d.o.destroy()
	return nil
}

func (k *key) may(name string, need keys.Ability) error {
	if k.spec.Can&need == 0 {
		return fmt.Errorf("hsm: %s: %w", name, keys.ErrForbidden)
	}
	return nil
}

// EncryptBoth implements [keys.Twin].
func (k *key) EncryptBoth(companion keys.Key, src []byte) (own, other []byte, err error) {
	twin, ok := companion.(*key)
	if !ok || twin.o != k.o || twin.role == k.role || twin.spec != k.spec {
		return nil, nil, fmt.Errorf("hsm: encrypt: %w: the other key is no companion of this one", keys.ErrForbidden)
	}
	if err := k.checkBlocks("encrypt", keys.CanEncrypt, nil, src); err != nil {
		return nil, nil, err
	}
	out := make([]byte, 2*len(src))
	err = k.use("encrypt", func(c *call, e *epoch) error {
		handles, err := k.o.in(c, e)
		if err != nil {
			return err
		}
		if handles[k.role] == 0 || handles[twin.role] == 0 {
			return fmt.Errorf("hsm: encrypt: %w: the key has no companion", keys.ErrNoKey)
		}
		return e.once(c, encrypting, mechsOf(k.spec.Algorithm).ecb, pair{handles[k.role], handles[twin.role]}, nil, src, out)
	})
	if err != nil {
		return nil, nil, err
	}
	return out[:len(src):len(src)], out[len(src):], nil
}

// once does a one-part operation with the key and returns its output.
func (k *key) once(name string, op operation, mech uint, iv, in []byte, most int) ([]byte, error) {
	out := make([]byte, most)
	err := k.use(name, func(c *call, e *epoch) error {
		handles, err := k.o.in(c, e)
		if err != nil {
			return err
		}
		return e.once(c, op, mech, pair{handles[k.role]}, iv, in, out)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// use does f in an epoch, and once more where that helps; and alone, where it
// failed together with others: what is wrong with their part is not the caller's.
func (k *key) use(name string, f func(*call, *epoch) error) error {
	t := k.o.t
	c := t.newCall(name, t.cfg.Deadline)
	defer t.free(c)
	for attempt := 0; ; attempt++ {
		e, err := t.up(c)
		if err == nil {
			err = f(c, e)
		}
		switch {
		case err == nil:
			return nil
		case attempt == 0 && t.mended(c, e, err):
		case c.sharedFailure():
			c.alone = true
		default:
			return err
		}
	}
}

// once does a one-part operation on a worker, with one key or with each of two.
// It fills out, and refuses an output of another length.
func (e *epoch) once(c *call, op operation, mech uint, on pair, iv, in, out []byte) error {
	c.operation, c.mech, c.on, c.n = op, mech, on, 0
	c.iv = append(c.iv[:0], iv...)
	c.in = append(c.in[:0], in...)
	c.out = slices.Grow(c.out[:0], len(out))[:len(out)]
	if err := e.give(c, e.queue); err != nil {
		return err
	}
	if c.n != len(out) {
		return fmt.Errorf("hsm: %s: the module gave %d bytes, want %d", c.name, c.n, len(out))
	}
	copy(out, c.out)
	return nil
}
