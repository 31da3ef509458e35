package isoswitch

import (
	"context"
	"errors"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
)

// The network management codes of DE 70. W-05.
const (
	signOn  = "001"
	signOff = "002"
	echo    = "301"
)

// network works on an 0800 of a terminal. Without keys it changes nothing; a
// sign-on with a valid MAC clears the lock-out count (W-05).
func (s *Switch) network(ctx context.Context, r *request) {
	if v := s.register(ctx, r); v != nil {
		s.refuse(ctx, r, audit.SigninRefuse, *v)
		return
	}
	if v := s.offLink(r); v != nil {
		s.refuse(ctx, r, audit.SigninRefuse, *v)
		return
	}
	if form := keysWanted(r); form != "" {
		s.signIn(ctx, r, form)
		return
	}
	ruled := verdict{code: codeApproved}
	if code := networkCode(r.msg); code != signOn && code != signOff && code != echo {
		ruled = verdict{code: codeNoFunction, reason: audit.ReasonProfileDenied}
	}
	_, absent := r.msg.MAC()
	if errors.Is(absent, iso8583.ErrMACAbsent) && !r.msg.Has(r.msg.KSNField()) {
		r.checked.Verdict = audit.VerdictAbsent
		s.answerNetwork(ctx, r, ruled)
		return
	}
	if v := s.authenticate(ctx, r); v != nil {
		s.refuse(ctx, r, audit.SigninRefuse, *v)
		return
	}
	var refused *verdict
	err := s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		refused, err = s.admit(tx, r)
		return err
	})
	switch {
	case err != nil:
		s.log.Error("a sign-on could not be journalled", "corr", r.corr, "error", err)
		v := cannot(err)
		refused = &v
	case refused == nil && !r.again && networkCode(r.msg) == signOn:
		// A recorded sign-on sent again proves nothing of who sends it.
		r.peer.lockout.clear(r.terminal.TID)
		s.cleared(r)
	}
	if refused != nil {
		s.refuse(ctx, r, audit.SigninRefuse, *refused)
		return
	}
	s.answerNetwork(ctx, r, ruled)
}

func (s *Switch) answerNetwork(ctx context.Context, r *request, v verdict) {
	action := audit.SigninAccept
	if v.code != codeApproved {
		action = audit.SigninRefuse
	}
	r.act.Note(r.note(action, v))
	if err := s.reply(ctx, r, v, answer{code: v.code}); err != nil {
		s.log.Info("an answer to an 0800 was not delivered", "corr", r.corr, "error", err)
	}
}
