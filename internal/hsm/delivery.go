package hsm

import (
	"context"
	"fmt"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Deliver puts a terminal's working keys under its master key, each half for
// itself by TDES in ECB: the form of UnionPay's sign-in answer. Where the
// module can wrap so, no clear value leaves the token; inProcess reports that
// it could not, and the values crossed this process. Working keys are PIN, MAC
// and data keys of two-key TDES, which may leave so whatever their
// exportability says: for this they were made.
//
// It returns [keys.ErrForbidden] for a master key that is none and for keys of
// another usage, [keys.ErrCustody] where the policy of one forbids what the
// module would need, and otherwise the errors of [Token.Load].
func (m *Manager) Deliver(ctx context.Context, master *keys.Block, list []*keys.Block) (out []keys.Cryptogram, inProcess bool, err error) {
	if err := deliverable(master, list); err != nil {
		return nil, false, err
	}
	inProcess = !m.t.Info().Can(ReencipherTDES)
	for _, b := range append([]*keys.Block{master}, list...) {
		if inProcess && b.TokenOnly() {
			return nil, false, fmt.Errorf("hsm: deliver key %s: %w: the module wraps nothing by TDES in ECB", b.ID, keys.ErrCustody)
		}
	}
	master, list = cloneBlock(master), cloneBlocks(list)
	made := make([]keys.Cryptogram, len(list))
	err = m.t.manage(ctx, "deliver working keys", 0, func(e *epoch, s *session) (err error) {
		can := keys.CanWrap
		if inProcess {
			can = keys.CanEncrypt
		}
		under, err := m.openOnce(e, s, master, keyTemplate(master.Attributes.Algorithm, m.t.attributes(master.Attributes.Algorithm, can)))
		if err != nil {
			return fmt.Errorf("master key %s: %w", master.ID, err)
		}
		defer s.sweep(under, &err)
		for i, b := range list {
			if made[i], err = m.cryptogram(e, s, under, b, inProcess); err != nil {
				return fmt.Errorf("key %s: %w", b.ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, inProcess, fmt.Errorf("hsm: deliver: %w", err)
	}
	return made, inProcess, nil
}

// WorkingValue returns the clear value of a terminal's working key, for the
// caller to put under the terminal's master key at once and to clear: a key
// block of TR-31 is made over the clear value. Errors are those of Deliver.
func (m *Manager) WorkingValue(ctx context.Context, master, b *keys.Block) (secret.Bytes, error) {
	if master.Attributes.Usage != keys.UsageKEK || !working(b.Attributes.Usage) {
		return secret.Bytes{}, fmt.Errorf("hsm: deliver key %s: %w: usage %s under usage %s", b.ID, keys.ErrForbidden, b.Attributes.Usage, master.Attributes.Usage)
	}
	if b.TokenOnly() {
		return secret.Bytes{}, fmt.Errorf("hsm: deliver key %s: %w: a key block is made over the clear value", b.ID, keys.ErrCustody)
	}
	value, err := m.read(ctx, b)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("hsm: deliver key %s: %w", b.ID, err)
	}
	return value, nil
}

// working reports whether keys of the usage are what a terminal works with.
func working(u keys.Usage) bool {
	switch u {
	case keys.UsagePIN, keys.UsageData, keys.UsageMACISO16609, keys.UsageMACAlg1, keys.UsageMACAlg3, keys.UsageCMAC:
		return true
	}
	return false
}

func deliverable(master *keys.Block, list []*keys.Block) error {
	if a := master.Attributes; a.Usage != keys.UsageKEK || !a.Algorithm.IsTDES() {
		return fmt.Errorf("hsm: deliver: %w: a master key has usage %s and is TDES; key %s is %s", keys.ErrForbidden, keys.UsageKEK, master.ID, a)
	}
	for _, b := range list {
		if a := b.Attributes; !working(a.Usage) || a.Algorithm != keys.TDES2 {
			return fmt.Errorf("hsm: deliver: %w: key %s is no working key of two-key TDES but %s", keys.ErrForbidden, b.ID, a)
		}
	}
	return nil
}

func cloneBlocks(list []*keys.Block) []*keys.Block {
	all := make([]*keys.Block, len(list))
	for i, b := range list {
		all[i] = cloneBlock(b)
	}
	return all
}

// openOnce verifies a block and makes an object of it in the session at hand.
func (m *Manager) openOnce(e *epoch, s *session, b *keys.Block, attrs []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := s.checkMAC(e, b); err != nil {
		return 0, err
	}
	return s.unwrapBlock(e, b, attrs)
}

// cryptogram is one key under the master key, and its check value.
func (m *Manager) cryptogram(e *epoch, s *session, under pkcs11.ObjectHandle, b *keys.Block, inProcess bool) (c keys.Cryptogram, err error) {
	a := b.Attributes.Algorithm
	h, err := m.openOnce(e, s, b, keyTemplate(a, m.t.attributes(a, keys.CanEncrypt)))
	if err != nil {
		return c, err
	}
	defer s.sweep(h, &err)
	if c.Check, err = keys.CheckUnionPay(direct{m.t, s, h, a}); err != nil {
		return c, err
	}
	// A type without parity: DES types may come out with other parity bits.
	attrs := secretTemplate(pkcs11.CKK_GENERIC_SECRET, rights{extractable: true})
	if inProcess {
		attrs = insensitive(attrs)
	}
	value, err := s.unwrapBlock(e, b, attrs)
	if err != nil {
		return c, err
	}
	defer s.sweep(value, &err)
	var sealed []byte
	if inProcess {
		sealed, err = s.encipherValue(under, value)
	} else if sealed, err = s.mod.WrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_DES3_ECB, nil)}, under, value); err != nil {
		err = s.failure("C_WrapKey", err)
	}
	if err == nil && copy(c.Value[:], sealed) != len(c.Value) {
		err = fmt.Errorf("%w: a cryptogram of %d bytes", errAnswer, len(sealed))
	}
	return c, err
}

// insensitive lets the value of an object be read.
func insensitive(attrs []*pkcs11.Attribute) []*pkcs11.Attribute {
	for _, a := range attrs {
		if a.Type == pkcs11.CKA_SENSITIVE {
			a.Value = pkcs11.NewAttribute(a.Type, false).Value
		}
	}
	return attrs
}

// encipherValue is the wrap of a module that has none by TDES in ECB.
func (s *session) encipherValue(under, h pkcs11.ObjectHandle) ([]byte, error) {
	got, err := s.mod.GetAttributeValue(s.handle, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil {
		return nil, s.failure("C_GetAttributeValue", err)
	}
	defer secret.Clear(got[0].Value)
	return s.once("encrypt", encrypting, pkcs11.CKM_DES3_ECB, nil, under, got[0].Value, len(got[0].Value))
}
