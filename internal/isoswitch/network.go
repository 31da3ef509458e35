package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

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

// greet signs on upstream and asks for an echo when the link is idle. A peer
// that answered once and answers no more is gone, and the link is made anew. One
// that never answers an 0800 is left alone: each of its answers to a sale has a
// MAC of its own.
func (l *link) greet(ctx context.Context, conn net.Conn) {
	code := signOn
	for ctx.Err() == nil {
		err := l.manage(ctx, conn, code)
		switch {
		case err == nil:
			l.signedOn.Store(true)
			code = echo
		case l.signedOn.Load() && l.idle() >= l.s.rules().Timers.Upstream && ctx.Err() == nil:
			l.s.log.Warn("upstream link: no answer to an echo", "link", l.cfg.Name, "error", err)
			_ = conn.Close()
			return
		case ctx.Err() == nil:
			l.s.log.Warn("upstream link: 0800 not answered", "link", l.cfg.Name, "code", code, "error", err)
		}
		for idle := l.idle(); idle < l.s.rules().Timers.Echo && ctx.Err() == nil; idle = l.idle() {
			sleep(ctx, l.s.rules().Timers.Echo-idle)
		}
	}
}

// idle is the time since the last frame from upstream.
func (l *link) idle() time.Duration {
	return max(0, l.s.now().Sub(time.Unix(0, l.heard.Load())))
}

// manage sends an 0800 and waits for an 0810 with a good MAC and 00.
func (l *link) manage(ctx context.Context, conn net.Conn, code string) error {
	s := l.s
	num, err := s.numbers.take(ctx)
	if err != nil {
		return err
	}
	act, err := s.custody.Begin(ctx, l.caller(conn), "signon."+num.stan)
	if err != nil {
		return err
	}
	defer act.Close()
	msg, err := s.sealUpstream(ctx, act, s.dialect.Build(iso8583.NetworkRequest, iso8583.SideUpstream).
		Set(7, num.sent).Set(11, num.stan).Set(41, l.cfg.TID).Set(42, l.cfg.MID).Set(70, code))
	if err != nil {
		return err
	}
	receipt, err := act.Commit(ctx)
	if err != nil {
		return err
	}
	open := l.open.start(match{stan: num.stan, sent: num.sent, class: '8', tid: l.cfg.TID})
	if err := l.send(receipt, msg, func() bool { return true }); err != nil {
		l.open.end(open)
		return err
	}
	m, err := l.await(ctx, open)
	if err != nil {
		l.open.expire(open, s.now().Add(s.rules().Timers.Stray), func(*iso8583.Message) {})
		return err
	}
	found, err := s.verifyUpstream(ctx, act, m)
	rec := describe(m)
	rec.Action, rec.Outcome, rec.MAC, rec.ISO.DE39 = audit.SigninAccept, audit.OutcomeOK, found, m.Text(39)
	switch {
	case err != nil:
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeRefused, audit.ReasonUpstreamMACInvalid
		rec.ISO.Alert = audit.AlertSecurity
	case m.Text(39) != codeApproved || m.Text(70) != code:
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeRefused, audit.ReasonUpstreamDeclined
		err = fmt.Errorf("isoswitch: upstream answered %q to 0800 %s", m.Text(39), code)
	}
	act.Note(rec)
	if _, failed := act.Commit(ctx); failed != nil {
		return failed
	}
	return err
}

// await waits for the answer to a message of keyd's own.
func (l *link) await(ctx context.Context, open *exchange) (*iso8583.Message, error) {
	timer := time.NewTimer(l.s.rules().Timers.Upstream)
	defer timer.Stop()
	select {
	case m := <-open.reply:
		return m, nil
	case <-timer.C:
		return nil, errSilent
	case <-open.lost:
		return nil, errLinkDown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errSilent: upstream gave no answer in time.
var errSilent = errors.New("isoswitch: no answer from upstream in time")

// upstreamRequest meets a request from upstream. An 0800 whose MAC verifies is
// answered; nothing else may come from there.
func (s *Switch) upstreamRequest(ctx context.Context, l *link, conn net.Conn, m *iso8583.Message) {
	act, err := s.custody.Begin(ctx, l.caller(conn), "upstream."+m.Text(11))
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	rec := describe(m)
	rec.Action, rec.Outcome, rec.Reason = audit.FrameRefuse, audit.OutcomeRefused, audit.ReasonProfileDenied
	var answer []byte
	if m.MTI() == iso8583.NetworkRequest {
		found, err := s.verifyUpstream(ctx, act, m)
		rec.Action, rec.Reason, rec.MAC = audit.SigninRefuse, audit.ReasonUpstreamMACInvalid, found
		if err == nil {
			answer, err = s.sealUpstream(ctx, act, m.Answer(codeApproved))
		}
		if err == nil {
			rec.Action, rec.Outcome, rec.Reason, rec.ISO.DE39 = audit.SigninAccept, audit.OutcomeOK, 0, codeApproved
		}
	}
	act.Note(rec)
	receipt, err := act.Commit(ctx)
	if err != nil || answer == nil {
		return
	}
	if err := l.send(receipt, answer, func() bool { return true }); err != nil {
		s.log.Warn("an 0810 was not sent upstream", "error", err)
	}
}
