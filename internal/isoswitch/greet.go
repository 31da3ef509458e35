package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
)

const (
	signOnAgain = time.Second     // wait after a sign-on that was refused, doubled each time up to the time of an echo
	signOffWait = 2 * time.Second // for the answer to a sign-off
)

// errNotSignedOn: the host's answer to an 0800 is authentic and refuses it.
var errNotSignedOn = errors.New("isoswitch: the host refuses the 0800")

// greet signs on upstream and asks for an echo when the link is idle. A host that
// answered once and answers no more is gone, and the link is made anew. One that
// never answers an 0800 is left alone: each of its answers to a sale has a MAC of
// its own. One that refuses the sign-on, or has signed off, gets nothing over this
// link until it takes one.
func (l *link) greet(ctx context.Context, conn net.Conn) {
	wait := signOnAgain
	for ctx.Err() == nil {
		code := echo
		if l.signState() != signedOn {
			code = signOn
		}
		err := l.manage(ctx, conn, code)
		switch {
		case err == nil:
			if code == signOn {
				l.signs(conn, signedOn)
			}
			wait = signOnAgain
		case errors.Is(err, errNotSignedOn):
			l.refused(conn, code, err)
			sleep(ctx, jitter(wait))
			wait = min(2*wait, max(wait, l.h.cfg.Echo))
			continue
		case code == echo && l.idle() >= l.s.rules().Timers.Upstream && ctx.Err() == nil:
			l.s.log.Warn("upstream link: no answer to an echo", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "error", err)
			l.failed(fmt.Errorf("no answer to an echo: %w", err))
			_ = conn.Close()
			return
		case ctx.Err() == nil:
			l.failed(err)
			l.s.log.Warn("upstream link: 0800 not answered", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "code", code, "error", err)
		}
		l.pause(ctx)
	}
}

// refused follows a refusal of an 0800: of a sign-on nothing goes over the link
// any more, after that of an echo the next is a sign-on.
func (l *link) refused(conn net.Conn, code string, err error) {
	l.s.log.Warn("upstream link: 0800 refused", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "code", code, "error", err)
	l.s.observe(Event{Name: "link", Code: "refused"})
	l.failed(err)
	next := signedOff
	if code == echo {
		next = unsigned
	}
	l.signs(conn, next)
}

// pause waits until the link has been idle for the time of an echo, or one is
// wanted before.
func (l *link) pause(ctx context.Context) {
	for idle := l.idle(); idle < l.h.cfg.Echo && ctx.Err() == nil; idle = l.idle() {
		timer := time.NewTimer(l.h.cfg.Echo - idle)
		select {
		case <-timer.C:
		case <-l.ask:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// idle is the time since the last frame from upstream.
func (l *link) idle() time.Duration {
	return max(0, l.s.now().Sub(time.Unix(0, l.heard.Load())))
}

// signOff tells the hosts that nothing more will come, each by each of its links.
func (s *Switch) signOff(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, signOffWait)
	defer cancel()
	var all sync.WaitGroup
	for _, h := range s.hosts {
		for _, l := range h.links {
			conn := l.current()
			if conn == nil || l.signState() != signedOn {
				continue
			}
			all.Go(func() {
				if err := l.manage(ctx, conn, signOff); err != nil {
					s.log.Info("upstream link: sign-off not answered", "upstream", h.cfg.Name, "link", l.cfg.Name, "error", err)
				}
			})
		}
	}
	all.Wait()
}

// manage sends an 0800, with what more says besides, and waits for an 0810 with a
// good MAC and 00. It returns errNotSignedOn for one with another code.
func (l *link) manage(ctx context.Context, conn net.Conn, code string, more ...func(*iso8583.Builder)) error {
	s, h := l.s, l.h
	num, err := s.numbers.take(ctx)
	if err != nil {
		return err
	}
	act, err := s.custody.Begin(ctx, l.caller(conn), "signon."+num.stan)
	if err != nil {
		return err
	}
	defer act.Close()
	b := h.build(iso8583.NetworkRequest).
		Set(7, num.sent).Set(11, num.stan).Set(41, h.cfg.TID).Set(42, h.cfg.MID).Set(70, code)
	for _, add := range more {
		add(b)
	}
	msg, err := h.seal(ctx, act, b)
	if err != nil {
		return err
	}
	receipt, err := act.Commit(ctx)
	if err != nil {
		return err
	}
	name := match{stan: num.stan, sent: num.sent, class: '8', tid: h.cfg.TID}
	s.managed(name)
	open := h.open.start(name)
	if err := h.sendOver(l, receipt, open, msg, func() bool { return true }); err != nil {
		h.open.end(open)
		return err
	}
	m, err := h.await(ctx, open)
	if err != nil {
		h.open.expire(open, s.now().Add(s.rules().Timers.Stray), func(*iso8583.Message) {})
		return err
	}
	found, err := h.verify(ctx, act, m)
	rec := describe(m)
	rec.Action, rec.Outcome, rec.MAC, rec.ISO.DE39 = audit.SigninAccept, audit.OutcomeOK, found, m.Text(39)
	switch {
	case err != nil:
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeRefused, audit.ReasonUpstreamMACInvalid
		rec.ISO.Alert = audit.AlertSecurity
	case m.Text(39) != codeApproved || m.Text(70) != code:
		rec.Action, rec.Outcome, rec.Reason = audit.SigninRefuse, audit.OutcomeRefused, audit.ReasonUpstreamDeclined
		err = fmt.Errorf("%w %s with %q", errNotSignedOn, code, m.Text(39))
	}
	act.Note(rec)
	if _, failed := act.Commit(ctx); failed != nil {
		return failed
	}
	return err
}

// await waits for the answer to a message of keyd's own.
func (h *host) await(ctx context.Context, open *exchange) (*iso8583.Message, error) {
	timer := time.NewTimer(h.s.rules().Timers.Upstream)
	defer timer.Stop()
	select {
	case m := <-open.reply:
		return m, nil
	case <-timer.C:
		h.silence(open)
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
// answered, unless keyd made it; nothing else may come from there. One that signs
// off has its way: nothing goes over this link until a sign-on of keyd's is taken.
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
		found, err := l.h.verify(ctx, act, m)
		rec.Action, rec.Reason, rec.MAC = audit.SigninRefuse, audit.ReasonUpstreamMACInvalid, found
		if err == nil && s.own.has(matchOf(m)) {
			err, rec.Reason = errReflected, audit.ReasonDuplicate
		}
		if err == nil {
			answer, err = l.respond(ctx, act, conn, m, &rec)
		} else {
			rec.ISO.Alert = audit.AlertSecurity
			s.observe(Event{Name: "response", Code: "mac"})
		}
		if err != nil {
			s.log.Warn("an 0800 from upstream was not answered", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "error", err)
		}
	}
	act.Note(rec)
	receipt, err := act.Commit(ctx)
	if err != nil || answer == nil {
		return
	}
	if m.Text(70) == signOff && rec.Outcome == audit.OutcomeOK {
		l.signs(conn, signedOff)
		l.askNow()
	}
	if err := l.send(receipt, answer, func() bool { return true }); err != nil {
		s.log.Warn("an 0810 was not sent upstream", "error", err)
	}
}
