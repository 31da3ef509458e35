package hsm

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

const (
	reloadEvery  = 30 * time.Second
	firstBackoff = 250 * time.Millisecond
	mostBackoff  = 30 * time.Second
)

// condition is what callers see: an epoch to work in, or why there is none, or
// neither while a new one begins. changed closes when it is no longer true.
type condition struct {
	epoch   *epoch
	down    error
	changed chan struct{}
}

// suspicion asks the supervisor to look at an epoch. It closes settled when
// the condition can be relied upon again.
type suspicion struct {
	epoch   *epoch
	grave   bool // no question: the epoch is over. Under the token's mutex.
	over    bool // settled is closed. Under the token's mutex.
	settled chan struct{}
}

// publish makes a condition known.
func (t *Token) publish(e *epoch, down error) {
	old := t.condition.Swap(&condition{epoch: e, down: down, changed: make(chan struct{})})
	if old != nil {
		close(old.changed)
	}
}

// up returns the epoch to work in, and waits for one that is about to begin
// until the deadline of c.
func (t *Token) up(c *call) (*epoch, error) {
	for {
		now := t.condition.Load()
		switch {
		case now.epoch != nil:
			return now.epoch, nil
		case now.down != nil:
			return nil, now.down
		}
		select {
		case <-now.changed:
		case <-c.timer.C:
			return nil, fmt.Errorf("hsm: %s: the token was not back before the deadline: %w", c.name, keys.ErrUnavailable)
		}
	}
}

// suspect reports a failure in e to the supervisor and returns what closes
// when that has dealt with it. One report an epoch is under way at a time.
func (t *Token) suspect(e *epoch, err error) <-chan struct{} {
	grave := lostHandle(codeOf(err)) || errors.Is(err, errRenew)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspected != nil && t.suspected.epoch == e {
		t.suspected.grave = t.suspected.grave || grave
		return t.suspected.settled
	}
	s := &suspicion{epoch: e, grave: grave, settled: make(chan struct{})}
	select {
	case t.suspicions <- s:
		t.suspected = s
	default: // the supervisor has one of another epoch to deal with first
		close(s.settled)
	}
	return s.settled
}

// try does f in an epoch, and once more where that helps. f must be safe to repeat.
func (t *Token) try(c *call, f func(*epoch) error) error {
	for attempt := 0; ; attempt++ {
		e, err := t.up(c)
		if err == nil {
			err = f(e)
		}
		if err == nil || attempt > 0 || !t.mended(c, e, err) {
			return err
		}
	}
}

// mended reports whether what failed in e is worth doing once more: where a
// session, a login or a handle was lost, after the supervisor has looked at it.
func (t *Token) mended(c *call, e *epoch, err error) bool {
	if e == nil || c.state.Load() == abandoned {
		return false
	}
	code := codeOf(err)
	switch {
	case errors.Is(err, errStale), code == pkcs11.CKR_OPERATION_ACTIVE:
		return true // a new epoch, or a new session of the worker
	case !lost(code):
		return false
	}
	select {
	case <-t.suspect(e, err):
		return true
	case <-c.timer.C:
		return false
	}
}

// supervise keeps the sessions alive and brings the token back after a loss.
func (t *Token) supervise() {
	defer close(t.gone)
	tick := time.NewTicker(t.cfg.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
			if e := t.condition.Load().epoch; e != nil && t.ail(e) {
				t.renew(e)
			}
		case s := <-t.suspicions:
			if t.condition.Load().epoch == s.epoch && (t.isGrave(s) || t.ail(s.epoch) || !t.dismiss(s)) {
				t.renew(s.epoch)
			}
			t.settle(s)
		}
	}
}

// isGrave reports whether an epoch is over without a look at its keeper.
func (t *Token) isGrave(s *suspicion) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.grave(s)
}

func (t *Token) grave(s *suspicion) bool {
	return s.grave || s.epoch.adrift.Load() || int(t.stuck.Load()) >= t.cfg.Sessions
}

// dismiss settles a suspicion that came to nothing, unless a grave one has
// joined it meanwhile.
func (t *Token) dismiss(s *suspicion) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grave(s) {
		return false
	}
	t.settleLocked(s)
	return true
}

// settle lets those go on who have reported a failure.
func (t *Token) settle(s *suspicion) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settleLocked(s)
}

func (t *Token) settleLocked(s *suspicion) {
	if s == nil || s.over {
		return
	}
	s.over = true
	close(s.settled)
	if t.suspected == s {
		t.suspected = nil
	}
}

// ail reports whether the keeper or its login is lost.
func (t *Token) ail(e *epoch) bool {
	c := t.newCall("keep alive", t.cfg.Deadline)
	defer t.free(c)
	healthy := false
	err := e.perform(c, e.keeping, func(s *session) error {
		in, err := s.loggedIn(t.cfg.NoPIN)
		healthy = in
		return err
	})
	return err != nil || !healthy
}

// renew ends an epoch and begins another, for as long as that takes.
func (t *Token) renew(old *epoch) {
	t.publish(nil, nil)
	old.end()
	backoff := firstBackoff
	for {
		e, err := t.recover(old)
		if err == nil {
			t.rise(e)
			return
		}
		t.fall(err)
		if errors.Is(err, ErrPIN) {
			return // for good: nobody may try again
		}
		select {
		case <-t.stop:
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, mostBackoff)
	}
}

// fall raises the down flag: callers are answered at once from now on. The
// operators hear of it once for an outage.
func (t *Token) fall(why error) {
	t.publish(nil, fmt.Errorf("hsm: token is down: %w: %w", keys.ErrUnavailable, why))
	t.mu.Lock()
	t.settleLocked(t.suspected)
	t.mu.Unlock()
	if !t.fallen && t.cfg.OnState != nil {
		t.cfg.OnState(why)
	}
	t.fallen = true
}

// rise ends an outage.
func (t *Token) rise(e *epoch) {
	t.publish(e, nil)
	if t.fallen && t.cfg.OnState != nil {
		t.cfg.OnState(nil)
	}
	t.fallen = false
}

// recover begins an epoch, by a new session or, where that does not help, by
// loading the module anew: at most once in 30 s, and never under a call that
// is still inside.
func (t *Token) recover(old *epoch) (*epoch, error) {
	if int(t.stuck.Load()) >= t.cfg.Sessions {
		return nil, errStuck
	}
	e, err := t.within(func() (*epoch, error) {
		// First the new session, then the end of the old one: the login lives
		// as long as there is a session.
		defer old.closeSessions()
		return t.begin()
	})
	if err == nil || errors.Is(err, ErrPIN) || !t.owner || t.stuck.Load() > 0 {
		return e, err
	}
	if now := t.now(); now.Sub(t.reloaded) < reloadEvery {
		return nil, err
	} else {
		t.reloaded = now
	}
	t.stats.reloads.Add(1)
	return t.within(t.reload)
}

// reload finalises the module and starts it again.
func (t *Token) reload() (*epoch, error) {
	if err := t.mod.Finalize(); err != nil && !coded(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		return nil, fmt.Errorf("%w: C_Finalize: %w", ErrModule, err)
	}
	if _, err := start(t.mod, t.cfg); err != nil {
		return nil, err
	}
	slot, info, err := findToken(t.mod, t.cfg.TokenLabel)
	if err != nil {
		return nil, err
	}
	if info.SerialNumber != t.info.Serial {
		return nil, fmt.Errorf("%w: token %q came back with another serial number", ErrToken, t.cfg.TokenLabel)
	}
	t.slot = slot
	t.mu.Lock()
	t.info = describe(t.mod, t.cfg, info) // the firmware may be another now
	t.mu.Unlock()
	e, err := t.begin()
	if err != nil {
		return nil, err
	}
	if err := t.selfTest(e); err != nil {
		e.end()
		e.closeSessions()
		return nil, err
	}
	return e, nil
}

// within runs f, which calls into the module on a goroutine of its own. When
// that takes long, the token is down until it does return.
func (t *Token) within(f func() (*epoch, error)) (*epoch, error) {
	type outcome struct {
		e   *epoch
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		e, err := f()
		done <- outcome{e, err}
	}()
	timer := time.NewTimer(t.cfg.Deadline)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.e, o.err
	case <-timer.C:
	}
	t.stuck.Add(1)
	t.fall(errStuck)
	select {
	case o := <-done:
		t.stuck.Add(-1)
		return o.e, o.err
	case <-t.stop:
		return nil, ErrClosed // and it stays counted: the module is not finalised under it
	}
}

// unstick counts a stuck call that has come back after all.
func (t *Token) unstick() { t.stuck.Add(-1) }
