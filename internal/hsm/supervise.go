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
	err     error
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
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.suspected != nil && t.suspected.epoch == e {
		return t.suspected.settled
	}
	s := &suspicion{epoch: e, err: err, settled: make(chan struct{})}
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
			if e := t.condition.Load().epoch; e != nil && t.ail(e, nil) {
				t.renew(e)
			}
		case s := <-t.suspicions:
			if t.condition.Load().epoch == s.epoch && t.ail(s.epoch, s.err) {
				t.renew(s.epoch)
			}
			t.mu.Lock()
			t.suspected = nil
			t.mu.Unlock()
			close(s.settled)
		}
	}
}

// ail reports whether the epoch has come to its end: the keeper or its login
// is lost, a handle of it is dead, or too many calls are stuck.
func (t *Token) ail(e *epoch, err error) bool {
	if int(t.stuck.Load()) >= t.cfg.Sessions || lostHandle(codeOf(err)) || errors.Is(err, errRenew) {
		return true
	}
	e.mu.Lock()
	adrift := e.adrift
	e.mu.Unlock()
	if adrift {
		return true
	}
	c := t.newCall("keep alive", t.cfg.Deadline)
	defer t.free(c)
	healthy := false
	c.do = func(s *session) error {
		in, err := s.loggedIn(t.cfg.NoPIN)
		healthy = in
		return err
	}
	if err := e.give(c, e.keeping); err != nil {
		return true
	}
	return !healthy
}

// renew ends an epoch and begins another, for as long as that takes.
func (t *Token) renew(old *epoch) {
	t.publish(nil, nil)
	old.end()
	var told bool
	backoff := firstBackoff
	for {
		e, err := t.recover(old)
		if err == nil {
			t.publish(e, nil)
			if told && t.cfg.OnState != nil {
				t.cfg.OnState(nil)
			}
			return
		}
		t.publish(nil, fmt.Errorf("hsm: token is down: %w: %w", keys.ErrUnavailable, err))
		if !told && t.cfg.OnState != nil {
			t.cfg.OnState(err)
		}
		told = true
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
		defer old.closeKeeper()
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
	e, err := t.begin()
	if err != nil {
		return nil, err
	}
	if err := t.selfTest(e); err != nil {
		e.end()
		e.closeKeeper()
		return nil, err
	}
	return e, nil
}

// within runs f, which calls into the module on a goroutine of its own. When
// that does not return, the token is down until it does.
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
	timer := time.NewTimer(recoverWithin * t.cfg.Deadline)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.e, o.err
	case <-timer.C:
	}
	t.stuck.Add(1)
	defer t.stuck.Add(-1)
	t.publish(nil, fmt.Errorf("hsm: token is down: %w", errStuck))
	select {
	case o := <-done:
		return o.e, o.err
	case <-t.stop:
		return nil, ErrClosed
	}
}

// recoverWithin is the number of deadlines that a recovery may take.
const recoverWithin = 10

// unstick counts a stuck call that has come back after all.
func (t *Token) unstick() { t.stuck.Add(-1) }
