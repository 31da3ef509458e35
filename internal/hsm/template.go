package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// abilities returns what the object of a stored key may do in the token: only
// what its usage and mode need. A base derivation key may derive and nothing
// else, because encryption would give every derived key away. A PIN key whose
// policy lets no clear secret out of the token may move PIN blocks and nothing
// else.
func abilities(b *keys.Block) keys.Ability {
	a := b.Attributes
	tdes := a.Algorithm.IsTDES()
	if a.Usage == keys.UsagePIN && b.TokenOnly() {
		return sides(a.Mode, keys.CanUnwrap, keys.CanWrap)
	}
	switch a.Usage {
	case keys.UsageBDK, keys.UsageInitialKey:
		if tdes {
			return keys.CanEncrypt // the initial key is two encryptions; the walk is the process's
		}
		return keys.CanDerive
	case keys.UsageKEK, keys.UsageKBPK:
		return keys.CanEncrypt | keys.CanDerive // L of the CMAC, and the block keys
	case keys.UsageMACISO16609, keys.UsageMACAlg1, keys.UsageMACAlg3, keys.UsageCVK:
		return keys.CanEncrypt
	case keys.UsageCMAC, keys.UsageHMAC:
		return keys.CanMAC
	}
	return sides(a.Mode, keys.CanDecrypt, keys.CanEncrypt)
}

// sides returns what a mode of use admits of an incoming and an outgoing ability.
func sides(m keys.Mode, in, out keys.Ability) keys.Ability {
	switch m {
	case keys.ModeEncrypt:
		return out
	case keys.ModeDecrypt:
		return in
	}
	return in | out
}

// admits reports whether an object of the stored key may have the abilities,
// which are fewer or others than those of [abilities]: a PIN key's for one side
// of a translation in the token. Format 4 is two encipherments with the PAN
// between them, so that an AES key needs the right to the outer one as well.
func admits(b *keys.Block, can keys.Ability) bool {
	a := b.Attributes
	if a.Usage != keys.UsagePIN {
		return false
	}
	in, out := keys.CanUnwrap, keys.CanWrap
	if a.Algorithm.IsAES() {
		in, out = in|keys.CanDecrypt, out|keys.CanEncrypt
	}
	admitted := sides(a.Mode, in, out)
	return (can == in || can == out) && can&^admitted == 0
}

// checkAbilities refuses an object that could wrap another key and decipher
// the result, and one that could encipher a value and unwrap it: either would
// let whoever holds the session choose or learn the value of an object.
func checkAbilities(can keys.Ability) error {
	for _, both := range []keys.Ability{keys.CanWrap | keys.CanDecrypt, keys.CanUnwrap | keys.CanEncrypt} {
		if can&both == both {
			return fmt.Errorf("%w: no key may both wrap and decipher, or unwrap and encipher", keys.ErrAttributes)
		}
	}
	return nil
}

// rights are the usage attributes of a key object.
type rights struct {
	encrypt, decrypt, sign, verify, wrap, unwrap, derive bool
	extractable                                          bool
}

// attributes returns the rights that the abilities need of this module.
func (t *Token) attributes(a keys.Algorithm, can keys.Ability) rights {
	r := rights{
		encrypt: can&keys.CanEncrypt != 0,
		decrypt: can&keys.CanDecrypt != 0,
		sign:    can&keys.CanMAC != 0,
		derive:  can&keys.CanDerive != 0,
		wrap:    can&keys.CanWrap != 0,
		unwrap:  can&keys.CanUnwrap != 0,
	}
	if a.IsTDES() && r.sign && !t.can.tdesCMAC.Load() {
		r.sign, r.encrypt = false, true // the chain of 5.2 in place of the mechanism
	}
	r.verify = r.sign
	return r
}

func (r rights) list() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, r.encrypt),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, r.decrypt),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, r.sign),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, r.verify),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, r.wrap),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, r.unwrap),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, r.derive),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, r.extractable),
	}
}

// keyTemplate is the template of a session object that holds a secret key.
func keyTemplate(a keys.Algorithm, r rights) []*pkcs11.Attribute {
	return secretTemplate(keyType(a), r)
}

func secretTemplate(kind uint, r rights) []*pkcs11.Attribute {
	return append(r.list(),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
	)
}

// keyType returns the type of the object that holds a key of a.
func keyType(a keys.Algorithm) uint {
	switch {
	case a == keys.TDES2:
		return pkcs11.CKK_DES2
	case a == keys.TDES3:
		return pkcs11.CKK_DES3
	case a.IsAES():
		return pkcs11.CKK_AES
	}
	return pkcs11.CKK_GENERIC_SECRET
}

// generation returns the mechanism that makes a key of a.
func generation(a keys.Algorithm) uint {
	switch {
	case a == keys.TDES2:
		return pkcs11.CKM_DES2_KEY_GEN
	case a == keys.TDES3:
		return pkcs11.CKM_DES3_KEY_GEN
	case a.IsAES():
		return pkcs11.CKM_AES_KEY_GEN
	}
	return pkcs11.CKM_GENERIC_SECRET_KEY_GEN
}

// needsLength reports whether making a key of a must state its length.
func needsLength(a keys.Algorithm) bool { return !a.IsTDES() }
