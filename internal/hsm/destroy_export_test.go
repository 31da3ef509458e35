package hsm

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// ErrLie is what a hook returns to make the module say that it did what it did
// not do.
var ErrLie = errors.New("a lie")

func (f *Faulty) DestroyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	switch err := f.before("C_DestroyObject"); {
	case errors.Is(err, ErrLie):
		return nil
	case err != nil:
		return err
	}
	return f.cryptoki.DestroyObject(s, h)
}
