package hsm

import (
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// session is one session of the module, used by one goroutine.
type session struct {
	mod    cryptoki
	slot   uint
	flags  uint
	handle pkcs11.SessionHandle
	open   bool
	keep   bool // the keeper is never closed by a failed call: the epoch ends instead
	opened time.Time
	used   time.Time
}

// ensure opens the session where it is not open.
func (s *session) ensure() error {
	if s.open {
		return nil
	}
	s.opened = time.Now()
	s.used = s.opened
	handle, err := s.mod.OpenSession(s.slot, pkcs11.CKF_SERIAL_SESSION|s.flags)
	if err != nil {
		return s.failure("C_OpenSession", err)
	}
	s.handle, s.open = handle, true
	return nil
}

// close closes the session, and with it the objects made in it.
func (s *session) close() {
	if s.open {
		_ = s.mod.CloseSession(s.handle)
		s.open = false
	}
}

// replace gives the session up for a new one, which it opens first: the login
// lives as long as there is a session.
func (s *session) replace() {
	old := s.handle
	s.open = false
	_ = s.ensure() // or at the next call
	_ = s.mod.CloseSession(old)
}

// serve makes a call, and gives the session up where it may not be used again:
// after a loss, and after an operation that failed between its beginning and
// its end, because some modules then keep it open for ever.
func (w *worker) serve(c *call) error {
	s := w.s
	if err := s.ensure(); err != nil {
		return err
	}
	var err error
	begun := false
	switch {
	case c.do != nil:
		err = c.do(s)
	case len(c.joined) > 0:
		begun, err = w.gather(c)
	default:
		begun, err = s.use(c)
	}
	if err != nil {
		code := codeOf(err)
		err = s.failure(c.name, err)
		if !s.keep && (begun || lost(code) || code == pkcs11.CKR_OPERATION_ACTIVE) {
			s.replace()
		}
	}
	s.used = time.Now()
	return err
}

// use does the one-part operation of a call with its key, or with each of two.
func (s *session) use(c *call) (begun bool, err error) {
	out, n := c.out, 0
	if c.on[1] != 0 {
		out = c.out[:len(c.in)]
	}
	for _, h := range c.on {
		if h == 0 {
			continue
		}
		n, begun, err = s.mod.once(s.handle, c.operation, c.mech, c.iv, h, c.in, out)
		if err != nil {
			return begun, err
		}
		c.n += n
		out = c.out[len(out):]
	}
	return false, nil
}

// failure makes a module's answer a [CallError]; other errors pass as they are.
func (s *session) failure(op string, err error) error {
	code, ok := err.(pkcs11.Error)
	if !ok {
		return err
	}
	now := time.Now()
	return &CallError{Op: op, Code: code, Age: now.Sub(s.opened), Idle: now.Sub(s.used), kind: kind(code)}
}

// loggedIn reports whether the session is one of the user, or needs nobody.
func (s *session) loggedIn(noPIN bool) (bool, error) {
	info, err := s.mod.GetSessionInfo(s.handle)
	if err != nil {
		return false, s.failure("C_GetSessionInfo", err)
	}
	return noPIN || info.State == pkcs11.CKS_RO_USER_FUNCTIONS || info.State == pkcs11.CKS_RW_USER_FUNCTIONS, nil
}

// find returns the objects that match.
func (s *session) find(match []*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := s.mod.FindObjectsInit(s.handle, match); err != nil {
		return nil, s.failure("C_FindObjectsInit", err)
	}
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := s.mod.FindObjects(s.handle, 16)
		if err != nil {
			_ = s.mod.FindObjectsFinal(s.handle)
			return nil, s.failure("C_FindObjects", err)
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	if err := s.mod.FindObjectsFinal(s.handle); err != nil {
		return nil, s.failure("C_FindObjectsFinal", err)
	}
	return all, nil
}

// once does a one-part operation and returns its output.
func (s *session) once(name string, do operation, mech uint, iv []byte, key pkcs11.ObjectHandle, in []byte, most int) ([]byte, error) {
	out := make([]byte, most)
	n, _, err := s.mod.once(s.handle, do, mech, iv, key, in, out)
	if err != nil {
		return nil, s.failure(name, err)
	}
	return out[:n], nil
}

// sweep destroys an object that was made on the way to something else.
func (s *session) sweep(h pkcs11.ObjectHandle, err *error) {
	if e := s.mod.DestroyObject(s.handle, h); e != nil && *err == nil {
		*err = fmt.Errorf("hsm: clear up: %w", s.failure("C_DestroyObject", e))
	}
}
