package main

import (
	"context"
	"errors"
	"slices"
	"sync"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/hsm"
)

// tokenStory puts into the log sec what becomes of the token while the node runs:
// that it was lost and came back. The token tells of it from a goroutine that must
// not wait for the log, so the states wait here, in order and none of them dropped.
// The zero value is ready.
type tokenStory struct {
	mu      sync.Mutex
	waiting []error // why it was lost; nil: it is back
	wake    chan struct{}
	stop    chan struct{}
	done    chan struct{}
	last    hsm.Info
	logins  uint64
}

// told takes a state; nil is that the token is back.
func (s *tokenStory) told(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, why)
	if s.wake != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *tokenStory) take() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.waiting
	s.waiting = nil
	return all
}

// tokenStart are the records of a token that was opened: who it is, the login, and
// what the self-tests found. keyd does not start where one of them fails (L-63).
func (n *node) tokenStart() []audit.Record {
	records := []audit.Record{n.tokenRecord(audit.HSMOpen)}
	if !n.cfg.Token.NoPIN {
		records = append(records, n.tokenRecord(audit.HSMLogin))
	}
	return append(records, n.tokenRecord(audit.HSMInfo), n.tokenRecord(audit.HSMSelftest),
		audit.Record{Action: audit.SysSelftest, Actor: audit.System(), Outcome: audit.OutcomeOK})
}

func (n *node) tokenRecord(a audit.Action) audit.Record {
	info := n.token.Info()
	return audit.Record{Action: a, Actor: audit.System(), Outcome: audit.OutcomeOK,
		HSM: audit.HSM{Serial: info.Serial, Firmware: info.Firmware}}
}

// followToken records what becomes of the token until [node.leaveToken].
func (n *node) followToken() {
	s := &n.story
	s.last, s.logins = n.token.Info(), n.token.Stats().Logins
	s.mu.Lock()
	s.wake, s.stop, s.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	s.mu.Unlock()
	go func() {
		defer close(s.done)
		for {
			n.tellToken()
			select {
			case <-s.wake:
			case <-s.stop:
				n.tellToken()
				return
			}
		}
	}()
}

// tellToken records the states that wait.
func (n *node) tellToken() {
	for _, why := range n.story.take() {
		var records []audit.Record
		if why != nil {
			records = []audit.Record{n.tokenLost(why)}
		} else {
			records = n.tokenBack()
		}
		// A log that fails has raised its own alarm, and keyd answers nothing.
		if err := n.record(context.Background(), records...); err != nil {
			n.log.Error("what became of the token could not be recorded", "err", err)
		}
	}
}

func (n *node) tokenLost(why error) audit.Record {
	r := n.tokenRecord(audit.HSMLost)
	r.Outcome, r.Reason = audit.OutcomeError, audit.ReasonHSMUnavailable
	var answered *hsm.CallError
	if errors.As(why, &answered) {
		r.RC = answered.ReturnValue()
	}
	return r
}

// tokenBack are the records of a token that answers again: it may have been
// logged in to anew, and may no longer be as it was.
func (n *node) tokenBack() []audit.Record {
	s := &n.story
	records := []audit.Record{n.tokenRecord(audit.HSMBack)}
	if logins := n.token.Stats().Logins; logins != s.logins {
		s.logins = logins
		records = append(records, n.tokenRecord(audit.HSMLogin))
	}
	now := n.token.Info()
	if drifted(s.last, now) {
		r := n.tokenRecord(audit.HSMDrift)
		r.Outcome, r.Reason = audit.OutcomeError, audit.ReasonHSMError
		records = append(records, r)
		n.log.Error("the token came back as another than it was", "was", s.last.Firmware, "is", now.Firmware, "findings", now.Findings)
	}
	s.last = now
	return records
}

// drifted reports whether a token is not what it was: its firmware, its library,
// or what it enforces of the attributes of keys.
func drifted(was, now hsm.Info) bool {
	return was.Firmware != now.Firmware || was.Hardware != now.Hardware || was.Library != now.Library ||
		was.Model != now.Model || !slices.Equal(was.Findings, now.Findings)
}

// leaveToken ends the story: the login is given up as soon as the log has its
// last signature. It does nothing where followToken was not called.
func (n *node) leaveToken(ctx context.Context) {
	s := &n.story
	if s.stop == nil {
		return
	}
	close(s.stop)
	<-s.done
	s.stop = nil
	if n.cfg.Token.NoPIN {
		return
	}
	if err := n.record(ctx, n.tokenRecord(audit.HSMLogout)); err != nil {
		n.log.Error("the logout could not be recorded", "err", err) // the close of the log ends in an error of its own
	}
}
