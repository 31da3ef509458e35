package hsm

import (
	"context"

	"github.com/miekg/pkcs11"
)

// LoseLog destroys the objects of a label and a class: what happens to a token,
// not what keyd does. It returns how many there were.
func (m *Manager) LoseLog(ctx context.Context, label string, class uint) (lost int, err error) {
	err = m.t.manage(ctx, "lose "+label, pkcs11.CKF_RW_SESSION, func(_ *epoch, s *session) error {
		found, err := s.find([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		})
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.mod.DestroyObject(s.handle, h); err != nil {
				return s.failure("C_DestroyObject", err)
			}
		}
		lost = len(found)
		return nil
	})
	return lost, err
}
