package ceremony

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// Join seats a custodian. public is the key to which what is for it will be
// sealed. It returns its place, or [ErrDenied], [ErrSamePerson], [ErrStage] or
// [ErrEnded]; a refusal is recorded and does not end the ceremony.
func (e *Engine) Join(ctx context.Context, caller custody.Caller, id string, public []byte) (Place, error) {
	s, err := e.find(ctx, caller, id, custody.OpJoinCeremony)
	if err != nil {
		return Place{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.admit(caller)
	if err == nil && !validPublic(public) {
		err = fmt.Errorf("%w: the key to seal to", ErrRequest)
	}
	cer := audit.Cer{Step: audit.StepJoin, Custodian: caller.Name}
	if err != nil {
		// L-81: what was tried stands in the log.
		refused := audit.Record{Action: audit.CeremonyJoin, Outcome: audit.OutcomeRefused, Reason: reasonOf(err)}
		if noted := s.note(ctx, caller, refused, cer); noted != nil {
			return Place{}, noted
		}
		s.event("refused", caller.Name, "", plain(err))
		return Place{}, err
	}
	if err := s.note(ctx, caller, audit.Record{Action: audit.CeremonyJoin, Outcome: audit.OutcomeOK}, cer); err != nil {
		return Place{}, s.failure(ctx, caller, err)
	}
	t.caller, t.joined, t.public = caller, true, public
	s.event("join", caller.Name, "", caller.Subject)
	place := Place{
		Ceremony: s.id, Custodian: t.part.Name, Component: t.number, Public: s.lock.public(),
		Script: s.script.hash[:], Explanation: s.script.Explain(), Status: s.status(), Expected: t.part.CheckValue, File: t.part.File,
	}
	if s.script.brings() {
		place.Algorithm, place.Method = s.algorithm.String(), s.method.String()
	}
	if err := s.finish(ctx, t); err != nil {
		return Place{}, err
	}
	return place, nil
}

// admit decides whether the caller is who the script names, and somebody else
// than all who take part already.
func (s *session) admit(caller custody.Caller) (*seat, error) {
	switch {
	case s.stage.Ended():
		return nil, fmt.Errorf("%w: %s", ErrEnded, s.why)
	case s.stage != Joining:
		return nil, fmt.Errorf("%w: everybody has joined", ErrStage)
	}
	t := s.seat(caller.Name)
	if t == nil {
		return nil, fmt.Errorf("%w: the script names no custodian %q", ErrDenied, caller.Name)
	}
	if caller.Cert == "" || caller.Subject == "" || caller.URI == "" {
		return nil, fmt.Errorf("%w: a certificate with a subject is needed, since subjects tell persons apart", ErrDenied)
	}
	others := []custody.Caller{s.opener}
	for _, other := range s.seats {
		if other.joined {
			others = append(others, other.caller)
		}
	}
	for _, other := range others {
		if other.Name == caller.Name || other.URI == caller.URI || other.Cert == caller.Cert || other.Subject == caller.Subject {
			return nil, fmt.Errorf("%w: %s takes part as %s", ErrSamePerson, caller.Subject, other.Name)
		}
	}
	return t, nil
}

// act runs one step of a custodian who has joined, with the same certificate.
// An error of the work ends the ceremony; one of the moment does not.
func (e *Engine) act(ctx context.Context, caller custody.Caller, id string, stage Stage, work func(*session, *seat) error) (Status, error) {
	s, err := e.find(ctx, caller, id, custody.OpJoinCeremony)
	if err != nil {
		return Status{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seat(caller.Name)
	switch {
	case s.stage.Ended():
		return Status{}, fmt.Errorf("%w: %s", ErrEnded, s.why)
	case t == nil || !t.joined || t.caller.Cert != caller.Cert:
		return Status{}, fmt.Errorf("%w: join first, with the certificate of the other steps", ErrDenied)
	case s.stage != stage || t.fresh:
		return Status{}, fmt.Errorf("%w: it is at %q", ErrStage, s.stage)
	}
	if err := work(s, t); err != nil {
		return Status{}, s.failure(ctx, caller, err)
	}
	if err := s.finish(ctx, t); err != nil {
		return Status{}, err
	}
	return s.status(), nil
}

// Give takes a component or share, sealed to the ceremony's key, and the check
// value that the custodian has confirmed. Anything that does not fit ends the
// ceremony: [ErrSeal], [ErrComponent], [ErrCheck].
func (e *Engine) Give(ctx context.Context, caller custody.Caller, id string, sealed []byte, check string) (Status, error) {
	return e.act(ctx, caller, id, Giving, func(s *session, t *seat) error {
		if err := s.materialOut(ctx, t); err != nil {
			return err
		}
		cer := audit.Cer{Step: audit.StepEnter, Custodian: caller.Name, Component: t.number}
		return s.step(ctx, caller, audit.CeremonyEnter, cer, func(r *audit.Record) error {
			seen, err := s.look(t, sealed)
			if err != nil {
				return err
			}
			r.Cer.ComponentKCV = seen.String()
			if err := sameCheck(seen, check); err != nil {
				return fmt.Errorf("component %d, as confirmed: %w", t.number, err)
			}
			if err := sameCheck(seen, t.part.CheckValue); t.part.CheckValue != "" && err != nil {
				return fmt.Errorf("component %d, as the script has it: %w", t.number, err)
			}
			t.in, t.check = sealed, seen.String()
			s.event("enter", caller.Name, t.check, fmt.Sprintf("component %d", t.number))
			return nil
		})
	})
}

// sameCheck compares a check value with one that was typed or written.
func sameCheck(seen keys.KCV, text string) error {
	want, err := keys.ParseKCV(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCheck, err)
	}
	if !seen.Equal(want) {
		return fmt.Errorf("%w: %s, not %s", ErrCheck, seen, want)
	}
	return nil
}

// Take returns the custodian's component, sealed to the key that it joined with.
// It may be asked for again until it is confirmed.
func (e *Engine) Take(ctx context.Context, caller custody.Caller, id string) (Parcel, error) {
	s, err := e.find(ctx, caller, id, custody.OpJoinCeremony)
	if err != nil {
		return Parcel{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seat(caller.Name)
	switch {
	case s.stage.Ended():
		return Parcel{}, fmt.Errorf("%w: %s", ErrEnded, s.why)
	case t == nil || !t.joined || t.caller.Cert != caller.Cert:
		return Parcel{}, fmt.Errorf("%w: join first, with the certificate of the other steps", ErrDenied)
	case s.stage != Taking || t.fresh || t.out == nil:
		return Parcel{}, fmt.Errorf("%w: it is at %q", ErrStage, s.stage)
	}
	cer := audit.Cer{Step: audit.StepIssue, Custodian: caller.Name, Component: t.number, ComponentKCV: t.check}
	if err := s.step(ctx, caller, audit.CeremonyIssue, cer, func(*audit.Record) error { return nil }); err != nil {
		return Parcel{}, s.failure(ctx, caller, err)
	}
	s.event("issue", caller.Name, t.check, fmt.Sprintf("component %d", t.number))
	return Parcel{Sealed: t.out, Check: t.check, Component: t.number, Recipient: t.part.Recipient, Algorithm: s.algorithm.String(), Method: s.method.String()}, nil
}

// Took says that the custodian holds its component: it has typed its check
// value. A wrong one ends the ceremony with [ErrCheck].
func (e *Engine) Took(ctx context.Context, caller custody.Caller, id, check string) (Status, error) {
	return e.act(ctx, caller, id, Taking, func(s *session, t *seat) error {
		cer := audit.Cer{Step: audit.StepCheck, Custodian: caller.Name, Component: t.number, ComponentKCV: t.check}
		want, err := keys.ParseKCV(t.check)
		if err == nil {
			err = sameCheck(want, check)
		}
		r := audit.Record{Action: audit.CeremonyCheck, Outcome: audit.OutcomeOK}
		if err != nil {
			r.Outcome, r.Reason = audit.OutcomeRefused, audit.ReasonKCVMismatch
		}
		if noted := s.note(ctx, caller, r, cer); noted != nil {
			return noted
		}
		if err != nil {
			return err
		}
		s.event("take", caller.Name, t.check, fmt.Sprintf("component %d", t.number))
		return s.materialIn(ctx, t)
	})
}

// Confirm is the custodian's word for what happens next: object is what it has
// typed, check the check value that it was shown. The last word makes it
// happen. What does not fit ends the ceremony: [ErrConfirm], [ErrCheck].
func (e *Engine) Confirm(ctx context.Context, caller custody.Caller, id, object, check string) (Status, error) {
	return e.act(ctx, caller, id, Confirming, func(s *session, t *seat) error {
		if object != s.script.Object() {
			return fmt.Errorf("%w: typed was not %s", ErrConfirm, s.script.Object())
		}
		if subtle.ConstantTimeCompare([]byte(check), []byte(s.check)) != 1 {
			return fmt.Errorf("%w: confirmed for another", ErrCheck)
		}
		r := audit.Record{Action: audit.CeremonyCheck, Outcome: audit.OutcomeOK, ID: newUUID(time.Now())}
		if err := s.note(ctx, caller, r, audit.Cer{Step: audit.StepCheck, Custodian: caller.Name}); err != nil {
			return err
		}
		t.approval = audit.Approval{ID: caller.Name, At: time.Now().UTC(), Ref: r.ID}
		s.event("confirm", caller.Name, s.check, s.script.Object())
		return nil
	})
}

// finish marks a seat as done with the stage, and goes on to the next when it
// was the last.
func (s *session) finish(ctx context.Context, t *seat) error {
	t.fresh = true
	defer s.touch()
	for _, other := range s.seats {
		if !other.fresh {
			s.arm()
			return nil
		}
	}
	if err := s.turn(ctx, t.caller); err != nil {
		return s.failure(ctx, t.caller, err)
	}
	return nil
}

// turn does what stands between the stage that is over and the next.
func (s *session) turn(ctx context.Context, by custody.Caller) error {
	at := 0
	for s.stages[at] != s.stage {
		at++
	}
	next := Done
	if at+1 < len(s.stages) {
		next = s.stages[at+1]
	}
	if err := s.between(ctx, by, next); err != nil {
		return err
	}
	for _, t := range s.seats {
		t.fresh = false
	}
	if next == Done {
		s.complete(ctx, by)
		return nil
	}
	s.stage = next
	s.arm()
	return nil
}

// between is the work of a transition.
func (s *session) between(ctx context.Context, by custody.Caller, next Stage) error {
	switch {
	case s.stage == Giving:
		return s.combine(ctx, by)
	case s.stage == Joining && next == Taking:
		return s.create(ctx, by)
	case s.stage == Confirming:
		return s.commit(ctx, by)
	}
	return nil
}

// complete ends a ceremony that has reached its end.
func (s *session) complete(ctx context.Context, by custody.Caller) {
	s.materialBack(context.WithoutCancel(ctx))
	s.forget(Done)
	s.event("done", by.Name, s.made.Check, string(s.made.KeyID))
	s.sign(context.WithoutCancel(ctx))
}
