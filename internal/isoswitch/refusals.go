package isoswitch

import (
	"context"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// A flood of forgeries must cost little and harm nobody. What is refused in the
// stages before a message is believed takes no number that others need; a locked
// TID is refused before anything is begun; and above a rate of one client its
// refusals share records, with exact numbers (L-14).

// noReference is DE 37 of a refusal before the message was believed: a reference
// is one of the numbers of keyd's own messages, of which there are a million a day.
const noReference = "000000000000"

// early reports whether a verdict is on a message that nobody believed, of which a
// stranger may send what he likes, as often as he likes. The rule alone does not
// say it: what has a good MAC can be refused under the same ones.
func (r *request) early(v verdict) bool {
	return r.macKey == "" && ("D-01" <= v.rule && v.rule <= "D-06" || v.reason == audit.ReasonQueueFull)
}

// shareable is what custody needs to know of one.
func (r *request) shareable(v verdict) custody.Refusal {
	return custody.Refusal{Reason: v.reason, PerSecond: r.rules.Lockout.Records, Wait: func() {
		if r.turn != nil {
			r.turn.end() // the next of its lane need not wait for the record
		}
	}}
}

// commit makes the records of an answer durable: in a shared one, where too much
// is refused.
func (s *Switch) commit(ctx context.Context, r *request, v verdict) (custody.Receipt, error) {
	var receipt custody.Receipt
	var err error
	if !r.early(v) || v.reason == 0 {
		receipt, err = r.act.Commit(ctx)
	} else {
		receipt, err = r.act.CommitRefusal(ctx, r.shareable(v))
	}
	if err == nil {
		s.summarize(r, v)
	}
	return receipt, err
}

// shed is a refusal that a shared record tells of, and that waits for it.
type shed struct {
	r      *request
	v      verdict
	shared custody.Shared
}

// shed refuses a message of a TID that is locked on its connection, while its
// client is refused too much, at the cost of nothing but the answer. It returns
// false for all else.
func (s *Switch) shed(r *request) (shed, bool) {
	mti := r.msg.MTI()
	if mti.IsResponse() || mti == iso8583.NetworkRequest || !r.peer.lockout.locked(r.msg.Text(41)) {
		return shed{}, false
	}
	v := r.speech.spoken(*lockedOut(), r.advice())
	shared, is := s.custody.JoinRefusal(r.peer.caller, r.shareable(v))
	if !is {
		return shed{}, false
	}
	r.turn.end() // the next of its lane need not wait for the record
	if mti.Class() == '4' {
		r.refusedReversal()
	}
	return shed{r, v, shared}, true
}

// answerShed answers messages of one connection in one write, when the records
// that tell of them are durable.
func (s *Switch) answerShed(p *peer, all ...shed) {
	var frames []byte
	for _, one := range all {
		receipt, err := one.shared.Receipt()
		msg := s.sharedAnswer(one.r, one.v, err)
		if msg == nil {
			continue
		}
		if frames, err = framed(frames, receipt, msg); err != nil {
			s.log.Error("a refusal cannot be sent", "corr", one.r.corr, "error", err)
		}
	}
	if len(frames) == 0 {
		return
	}
	if err := p.put(frames); err != nil {
		s.log.Debug("refusals were not delivered", "conn", p.id, "n", len(all), "error", err)
	}
}

// share is shed for a refusal whose answer has no MAC: it is described in no
// record of its own, where that is so much.
func (s *Switch) share(r *request, v verdict) bool {
	if !r.early(v) || r.keyed && v.reason != audit.ReasonLocked {
		return false
	}
	receipt, shared, err := r.act.ShareRefusal(r.shareable(v))
	if !shared {
		return false
	}
	if msg := s.sharedAnswer(r, v, err); msg != nil {
		if err := r.peer.send(receipt, msg); err != nil {
			s.log.Debug("a refusal was not delivered", "corr", r.corr, "rule", v.rule, "error", err)
		}
	}
	return true
}

// sharedAnswer ends a refusal that a shared record tells of, or could not tell of
// for err. It returns the answer, or nil where there is none to send.
func (s *Switch) sharedAnswer(r *request, v verdict, err error) []byte {
	if err != nil {
		s.answerUnrecorded(r, err)
		return nil
	}
	s.summarize(r, v)
	e := Event{Name: "frame", Rule: v.rule}
	if r.msg != nil && r.msg.MTI() != "" {
		e = Event{Name: flowOf(r.msg.MTI()), Code: v.code, Rule: v.rule, Took: s.now().Sub(r.at)}
		if r.msg.MTI().Class() == '4' {
			e.Outcome = Refused
		}
	}
	s.observe(e)
	if r.msg == nil || !r.msg.Answerable() {
		return nil
	}
	if !r.speech.Codes.BareRefusals && r.msg.MTI().Class() != '8' {
		_ = r.peer.conn.Close()
		return nil
	}
	msg, err := s.bareAnswer(r, v)
	if err != nil {
		s.log.Error("a refusal cannot be answered", "corr", r.corr, "rule", v.rule, "error", err)
		return nil
	}
	return msg
}

func (s *Switch) bareAnswer(r *request, v verdict) ([]byte, error) {
	b := r.msg.Answer(v.code)
	if r.msg.MTI().Class() != '8' {
		if !b.Has(37) {
			b.Set(37, noReference)
		}
		r.speech.fillTimes(b, s.now())
	}
	msg, err := b.PackWithoutMAC()
	if err != nil {
		return nil, fmt.Errorf("building the answer: %w", err)
	}
	return msg, nil
}

// lockedOut is the verdict on all messages of a locked TID but a sign-on.
func lockedOut() *verdict {
	return &verdict{rule: "D-04", code: codeSecurity, reason: audit.ReasonLocked, alert: audit.AlertSecurity}
}

// slow is how long a frame of the connection waits before it is looked at.
func (p *peer) slow() time.Duration {
	slow := p.s.floods.delay(p.cert)
	if slow == 0 || !p.lockout.suspect() {
		return 0
	}
	return slow
}
