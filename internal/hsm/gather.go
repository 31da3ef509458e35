package hsm

import (
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/secret"
)

// Uses of a key that wait for a session share one call: of at most so many
// bytes, each of at most so many.
const (
	mostGathered = 4096
	mostJoining  = 64
)

// gathering is what uses of keys have in common that can share a call.
type gathering struct {
	operation operation
	mech      uint
	on        pair
}

// joins reports whether each block of the call's output depends on that block of
// its input alone, so that blocks of others can stand beside it.
func (c *call) joins() bool {
	if c.do != nil || c.alone || len(c.iv) > 0 || len(c.in) == 0 || len(c.in) > mostJoining {
		return false
	}
	switch c.mech {
	case pkcs11.CKM_DES3_ECB:
		return len(c.in)%8 == 0
	case pkcs11.CKM_AES_ECB:
		return len(c.in)%16 == 0
	}
	return false
}

func (c *call) gathering() gathering { return gathering{c.operation, c.mech, c.on} }

// gather does one call for all who share it: their blocks stand one behind the
// other, and each gets what became of its own. The buffers are the worker's,
// who clears them before anybody is answered.
func (w *worker) gather(c *call) (begun bool, err error) {
	w.in = append(w.in[:0], c.in...)
	for _, other := range c.joined {
		w.in = append(w.in, other.in...)
	}
	w.out = slices.Grow(w.out[:0], len(w.in))[:len(w.in)]
	defer func() { secret.Clear(w.in, w.out) }()
	c.n = 0
	for _, other := range c.joined {
		other.n = 0
	}
	at := 0
	for _, h := range c.on {
		if h == 0 {
			continue
		}
		n, begun, err := w.s.mod.once(w.s.handle, c.operation, c.mech, nil, h, w.in, w.out)
		if err != nil {
			return begun, err
		}
		if n != len(w.in) {
			return false, fmt.Errorf("hsm: %s: the module gave %d bytes, want %d", c.name, n, len(w.in))
		}
		part := c.part(w.out, at)
		for _, other := range c.joined {
			part = other.part(part, at)
		}
		at++
	}
	return false, nil
}

// part takes the call's own part off the output of a shared one, that of the
// key that is number at of its pair.
func (c *call) part(out []byte, at int) (rest []byte) {
	n := len(c.in)
	copy(c.out[at*n:(at+1)*n], out[:n])
	c.n += n
	return out[n:]
}
