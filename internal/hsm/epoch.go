package hsm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

var (
	errStale = fmt.Errorf("hsm: the session of the key ended: %w", keys.ErrUnavailable)
	errRenew = fmt.Errorf("hsm: the token's own keys have changed: %w", keys.ErrUnavailable)
	errStuck = fmt.Errorf("hsm: calls into the module do not return: %w", keys.ErrUnavailable)
)

// epoch is the life of one keeper session. The keeper owns every object that
// outlives a call, and its login is everybody's; when it is lost, every handle
// is dead, the workers leave, and a new epoch finds everything again. No call
// of an epoch begins after its end, so that a handle number which the module
// gives out anew is never used for another key.
type epoch struct {
	t       *Token
	number  uint64
	keeper  *session
	queue   *queue // to the workers
	keeping *queue // to the keeper: calls that make and destroy objects

	mu      sync.Mutex
	queues  map[*queue]struct{} // these two, and those of one purpose
	ended   bool
	left    []*session // open, of workers that have left
	workers sync.WaitGroup
	adrift  atomic.Bool // the keeper is stuck in a call

	masters atomic.Pointer[masters] // never nil
	looking sync.Mutex              // held by who looks for the generations anew
	looked  time.Time               // when somebody did, under looking
}

func (e *epoch) newSession(flags uint) *session {
	return &session{mod: e.t.mod, slot: e.t.slot, flags: flags}
}

// begin starts an epoch: keeper, login, own keys, workers.
func (t *Token) begin() (_ *epoch, err error) {
	e := &epoch{
		t: t, number: t.stats.epochs.Add(1),
		queue: newQueue(true), keeping: newQueue(false), queues: make(map[*queue]struct{}),
	}
	e.masters.Store(new(masters))
	e.keeper = e.newSession(0)
	e.keeper.keep = true
	if err := e.keeper.ensure(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.keeper.close()
		}
	}()
	if err := t.enter(e.keeper); err != nil {
		return nil, err
	}
	if err := e.findMasters(e.keeper); err != nil {
		return nil, err
	}
	e.spawn(e.keeping, e.keeper)
	for range t.cfg.Sessions {
		e.spawn(e.queue, e.newSession(0))
	}
	return e, nil
}

// enter sees to it that the user is logged in.
func (t *Token) enter(s *session) error {
	in, err := s.loggedIn(t.cfg.NoPIN)
	if err != nil || in {
		return err
	}
	info, err := t.mod.GetTokenInfo(t.slot)
	if err != nil {
		return fmt.Errorf("hsm: C_GetTokenInfo: %w", err)
	}
	if err := checkPINFlags(info, t.cfg.FinalTry); err != nil {
		return err
	}
	pin, keep, err := t.pinForLogin()
	if err != nil {
		return err
	}
	if !keep {
		defer pin.Clear()
	}
	t.stats.logins.Add(1)
	return logIn(t.mod, s.handle, pin)
}

// pinForLogin returns the PIN, and whether it is kept.
func (t *Token) pinForLogin() (secret.Bytes, bool, error) {
	if t.kept.pin.Len() > 0 {
		return t.kept.pin, true, nil
	}
	if t.entered && !t.cfg.RetainPIN {
		return secret.Bytes{}, false, fmt.Errorf("%w: the login was lost and the PIN is not kept; an operator must start keyd again", ErrPIN)
	}
	pin, err := t.cfg.PIN()
	if err != nil {
		return secret.Bytes{}, false, fmt.Errorf("%w: get the PIN: %w", ErrPIN, err)
	}
	t.entered = true
	if !t.cfg.RetainPIN || pin.Len() == 0 {
		return pin, false, nil
	}
	if err := t.kept.keep(pin); err != nil {
		pin.Clear()
		return secret.Bytes{}, false, err
	}
	return t.kept.pin, true, nil
}

// end stops the workers and waits for them. Stuck ones have been struck off,
// and close their sessions when they come back. The others stay open until
// closeSessions, and with them the login.
func (e *epoch) end() {
	e.mu.Lock()
	e.ended = true
	for q := range e.queues {
		q.close()
	}
	e.mu.Unlock()
	e.workers.Wait()
}

// closeSessions closes what end has left. The keeper's objects go with it.
func (e *epoch) closeSessions() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.left {
		s.close()
	}
	e.left = nil
}
