package hsm

import (
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// keptPIN is the PIN for the life of a [Token]: the only secret that the process
// keeps so long. It stands in a page of its own, C-16. The zero value is empty.
type keptPIN struct {
	pin  secret.Bytes
	page []byte
	kind string
}

// keep moves pin into a page and clears the original.
func (k *keptPIN) keep(pin secret.Bytes) error {
	page, kind, err := newPage()
	if err != nil {
		return err
	}
	if pin.Len() > len(page) {
		return fmt.Errorf("%w: it has %d bytes", ErrPIN, pin.Len())
	}
	n := copy(page, pin.Reveal())
	pin.Clear()
	k.pin, k.page, k.kind = secret.Within(page[:n:n]), page, kind
	return nil
}

// drop clears the PIN and gives the page back.
func (k *keptPIN) drop() error {
	k.pin.Clear()
	page := k.page
	*k = keptPIN{}
	if page == nil {
		return nil
	}
	return freePage(page)
}

// PINMemory says in what memory the PIN is kept: "memfd_secret", "locked", "not
// locked", or "" where it is not kept. It is fixed by Open.
func (t *Token) PINMemory() string { return t.pinMemory }
