package hsm

import (
	"slices"

	"github.com/miekg/pkcs11"
)

// logKeyKind is a kind of key pair that can sign the log's checkpoints.
type logKeyKind struct {
	pair, sign uint // mechanisms
	keyType    uint
	params     []byte // CKA_EC_PARAMS
}

// logKeyKinds are the kinds in the order of preference: P-256 is for modules
// that have no Ed25519. SoftHSM knows Ed25519 by its name as a PrintableString,
// others by its object identifier.
var logKeyKinds = [...]logKeyKind{
	{ckmECEdwardsKeyPair, ckmEDDSA, ckkECEdwards, []byte("\x13\x0cedwards25519")},
	{ckmECEdwardsKeyPair, ckmEDDSA, ckkECEdwards, []byte{0x06, 0x03, 0x2B, 0x65, 0x70}},
	{pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA, pkcs11.CKK_EC, []byte{0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07}},
}

// templates are those of the two halves, as token or session objects.
func (k logKeyKind) templates(stored bool, label string) (public, private []*pkcs11.Attribute) {
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, k.keyType),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, stored),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(label)),
	}
	public = append(slices.Clone(both),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, k.params),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	)
	private = append(slices.Clone(both),
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
	)
	return public, private
}

// pair makes a key pair.
func (s *session) pair(k logKeyKind, stored bool, label string) (public, private pkcs11.ObjectHandle, err error) {
	pub, priv := k.templates(stored, label)
	mech := []*pkcs11.Mechanism{pkcs11.NewMechanism(k.pair, nil)}
	if public, private, err = s.mod.GenerateKeyPair(s.handle, mech, pub, priv); err != nil {
		return 0, 0, s.failure("C_GenerateKeyPair", err)
	}
	return public, private, nil
}

// makeLogKey makes the log's key pair.
func (t *Token) makeLogKey(s *session) error { return t.makeLogKeyAs(s, t.label(labelLog)) }

// makeLogKeyAs makes a key pair for the log under a label.
func (t *Token) makeLogKeyAs(s *session, label string) error {
	var last error
	for _, kind := range logKeyKinds {
		if _, _, last = s.pair(kind, true, label); last == nil {
			return nil
		}
	}
	return last
}
