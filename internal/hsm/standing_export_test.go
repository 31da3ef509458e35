package hsm

import "github.com/miekg/pkcs11"

// StandingOpen returns how many operations stand open.
func (t *Token) StandingOpen() int {
	mod := t.mod
	if f, ok := mod.(*Faulty); ok {
		mod = f.cryptoki
	}
	s := &mod.(*native).standing
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// StandingSessions returns the sessions of all standing operations, and a
// question whether the module still has one.
func (t *Token) StandingSessions() (all []pkcs11.SessionHandle, alive func(pkcs11.SessionHandle) bool) {
	m := t.mod.(*native)
	m.standing.mu.Lock()
	defer m.standing.mu.Unlock()
	for _, o := range m.standing.open {
		all = append(all, o.session)
	}
	return all, func(s pkcs11.SessionHandle) bool {
		_, err := m.GetSessionInfo(s)
		return err == nil
	}
}

// LoseStanding closes the sessions of all standing operations behind the
// token's back.
func (t *Token) LoseStanding() (lost int, err error) {
	sessions, _ := t.StandingSessions()
	for _, s := range sessions {
		if err := t.mod.(*native).Ctx.CloseSession(s); err != nil {
			return 0, err
		}
	}
	return len(sessions), nil
}
