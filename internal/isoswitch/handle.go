package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// errCrowded: a terminal has more requests open than it may.
var errCrowded = errors.New("isoswitch: too many requests of one terminal")

// handle works on one message of a terminal. fault is why it could not be read
// whole, or nil.
func (s *Switch) handle(ctx context.Context, r *request, fault error) {
	if fault == nil {
		if one, is := s.shed(r); is {
			s.answerShed(r.peer, one)
			return
		}
	}
	s.handleWhole(ctx, r, fault)
}

// handleWhole is handle for a message that is not shed.
func (s *Switch) handleWhole(ctx context.Context, r *request, fault error) {
	act, err := s.custody.BeginTransaction(ctx, r.peer.caller, r.corr)
	if err != nil {
		s.answerUnrecorded(r, err)
		return
	}
	r.act = act
	defer act.Close()
	switch {
	case fault != nil:
		s.refuseFormat(ctx, r, fault)
	case r.msg.MTI().IsResponse():
		s.refuseResponse(ctx, r)
	case r.msg.MTI().Class() == '8':
		s.network(ctx, r)
	case r.msg.MTI().Class() == '4':
		s.reversal(ctx, r)
	default:
		s.sale(ctx, r)
	}
}

// answer is what goes back to a terminal besides the echo of its message.
type answer struct {
	code     string // DE 39
	rrn      string // DE 37, where the message had none
	approval string // DE 38, or empty
	emv      []byte // DE 55, or nil
	keys     string // DE 62, working keys in hexadecimal, or empty
}

// refuse records a refusal and answers it.
func (s *Switch) refuse(ctx context.Context, r *request, action audit.Action, v verdict) {
	if v.rule == "D-03" || v.rule == "D-04" && v.reason == audit.ReasonMACInvalid {
		s.countFailure(ctx, r)
	}
	v = r.speech.spoken(v, r.advice())
	if action == audit.ReversalRefuse {
		r.refusedReversal()
	}
	if s.share(r, v) {
		return
	}
	if v.rule == "D-06" {
		r.act.NoteKSN(ctx, custody.Ref{Alias: r.terminal.BDK}, r.ksnNote(v))
	}
	r.act.Note(r.note(action, v))
	if err := s.reply(ctx, r, v, answer{code: v.code, rrn: r.rrn}); err != nil {
		s.log.Warn("a refusal was not delivered", "corr", r.corr, "rule", v.rule, "error", err)
	}
}

// ksnNote is the record of a KSN that was refused, but for its key.
func (r *request) ksnNote(v verdict) audit.Record {
	rec := r.note(audit.KSNRefuse, v)
	rec.ISO.Rule, rec.MAC = "", audit.MAC{}
	rec.PAN = audit.PAN{}
	return rec
}

// reply makes the records durable and sends the answer. An approval without a
// MAC is never sent; a refusal goes without one where no key can be had (W-09).
func (s *Switch) reply(ctx context.Context, r *request, v verdict, a answer) error {
	msg, err := s.buildAnswer(ctx, r, v, a)
	if errors.Is(err, errBare) {
		s.commitOnly(ctx, r, "frame", v)
		_ = r.peer.conn.Close()
	}
	if err != nil {
		s.summarize(r, v) // its records are written all the same
		return err
	}
	receipt, err := s.commit(ctx, r, v)
	if err != nil {
		s.answerUnrecorded(r, err)
		return err
	}
	e := Event{Name: flowOf(r.msg.MTI()), Code: a.code, Rule: v.rule, Took: s.now().Sub(r.at)}
	if r.msg.MTI().Class() == '4' {
		e.Outcome = outcome(v.effect, a.code)
	}
	s.observe(e)
	return r.peer.send(receipt, msg)
}

func (s *Switch) buildAnswer(ctx context.Context, r *request, v verdict, a answer) ([]byte, error) {
	b := r.msg.Answer(a.code)
	if r.msg.MTI().Class() != '8' {
		if err := s.fillAnswer(ctx, r, b, a); err != nil {
			return nil, err
		}
	}
	if a.keys != "" {
		r.handOver(b, a.keys)
	}
	// A locked TID costs no call to the token; without the token there is no MAC.
	if r.keyed && v.reason != audit.ReasonLocked && v.rule != "D-05" {
		msg, err := s.sealAnswer(ctx, r, b)
		if err == nil || r.speech.approves(a.code) {
			return msg, unsealed(err)
		}
		s.log.Error("a refusal goes without a MAC", "corr", r.corr, "error", err)
	}
	if !r.speech.Codes.BareRefusals && r.msg.MTI().Class() != '8' {
		return nil, errBare
	}
	msg, err := b.PackWithoutMAC()
	if err != nil {
		return nil, fmt.Errorf("building the answer: %w", err)
	}
	return msg, nil
}

// errBare: there is no key for the answer's MAC, and the profile wants none
// without: the connection ends instead.
var errBare = errors.New("isoswitch: no answer goes without a MAC")

// errUnsealed: an approval could not be given its MAC, and nothing was sent.
var errUnsealed = errors.New("isoswitch: no MAC for the answer")

func unsealed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errUnsealed, err)
}

// fillAnswer adds what an answer has besides its echo. DE 37 is always there.
func (s *Switch) fillAnswer(ctx context.Context, r *request, b *iso8583.Builder, a answer) error {
	// What was approved has one reference, whatever a repeat says (D-07).
	if !b.Has(37) || a.rrn != "" && r.speech.approves(a.code) {
		if a.rrn == "" && r.macKey == "" {
			a.rrn = noReference
		}
		if a.rrn == "" {
			n, err := s.numbers.take(ctx)
			if err != nil {
				n.rrn = "000000000000" // the journal is away, and the refusal says so
			}
			a.rrn = n.rrn
		}
		b.Set(37, a.rrn)
	}
	r.speech.fillTimes(b, s.now())
	if a.approval != "" && r.speech.approves(a.code) {
		b.Set(38, a.approval)
	}
	if len(a.emv) > 0 {
		b.Set(55, fmt.Sprintf("%X", a.emv))
	}
	return nil
}

// answerUnrecorded is the one answer without a receipt: 96 says that nothing
// could be recorded, so nothing was done (L-130). It carries no MAC.
func (s *Switch) answerUnrecorded(r *request, cause error) {
	s.log.Error("the audit log takes no records", "corr", r.corr, "error", cause)
	s.observe(Event{Name: "frame", Code: codeCannot})
	if r.msg == nil || !r.msg.Answerable() {
		return
	}
	if !r.speech.Codes.BareRefusals {
		_ = r.peer.conn.Close()
		return
	}
	b := r.msg.Answer(codeCannot)
	if r.msg.MTI().Class() != '8' && !b.Has(37) {
		b.Set(37, "000000000000")
	}
	msg, err := b.PackWithoutMAC()
	if err != nil {
		return
	}
	if err := r.peer.write(msg); err != nil {
		s.log.Debug("an answer was not delivered", "corr", r.corr, "error", err)
	}
}

// refuseFormat answers a message that could not be read whole (D-01, W-01,
// W-18), or one too many of its terminal.
func (s *Switch) refuseFormat(ctx context.Context, r *request, fault error) {
	if r.msg != nil && r.msg.MTI().IsResponse() {
		s.refuseResponse(ctx, r)
		return
	}
	v := ruling("D-01", false)
	var f *iso8583.FormatError
	if errors.Is(fault, errCrowded) {
		v = verdict{code: codeCannot, reason: audit.ReasonQueueFull}
	}
	errors.As(fault, &f)
	if r.msg == nil || !r.msg.Answerable() {
		if s.share(r, v) {
			return
		}
		rec := audit.Record{Action: audit.FrameRefuse, Outcome: audit.OutcomeRefused, Reason: v.reason}
		if r.msg != nil && r.msg.MTI() != "" {
			rec.ISO = audit.ISO{MTI: string(r.msg.MTI()), Rule: v.rule}
		}
		r.act.Note(rec)
		s.commitOnly(ctx, r, "frame", v)
		return
	}
	if reg := s.register(ctx, r); reg != nil && reg.reason == audit.ReasonLocked {
		v = *reg
	}
	if f != nil && r.known && f.DE == r.msg.KSNField() { // W-18: a DUKPT terminal's KSN
		v = ruling("D-06", false)
		v.reason = audit.ReasonFormatError
	}
	v = r.speech.spoken(v, false)
	if s.share(r, v) {
		return
	}
	if f != nil {
		s.log.Info("a message was not read", "corr", r.corr, "fault", f)
	}
	r.act.Note(r.frameNote(v))
	if err := s.reply(ctx, r, v, answer{code: v.code}); err != nil {
		s.log.Info("a refusal was not delivered", "corr", r.corr, "rule", v.rule, "error", err)
	}
}

// frameNote is the record of a message that was refused before it was believed.
// It has no group for the MAC or the KSN.
func (r *request) frameNote(v verdict) audit.Record {
	rec := r.note(audit.FrameRefuse, v)
	rec.MAC, rec.KSN = audit.MAC{}, ""
	return rec
}

// refuseResponse meets an answer from a terminal: nobody asked it (A-14.T2).
func (s *Switch) refuseResponse(ctx context.Context, r *request) {
	v := verdict{rule: "D-01", reason: audit.ReasonUnexpectedResponse, alert: audit.AlertSecurity}
	if terminal, err := s.cfg.Journal.Terminal(ctx, r.msg.Text(41)); err == nil {
		r.terminal, r.known = terminal, true
	}
	rec := r.note(audit.ResponseRefuse, v)
	rec.MAC, rec.KSN = audit.MAC{}, ""
	r.act.Note(rec)
	s.commitOnly(ctx, r, "response", v)
}

// commitOnly makes the records durable where there is no answer.
func (s *Switch) commitOnly(ctx context.Context, r *request, name string, v verdict) {
	if _, err := s.commit(ctx, r, v); err != nil {
		s.log.Error("a refusal could not be recorded", "corr", r.corr, "error", err)
	}
	s.observe(Event{Name: name, Rule: v.rule})
}

// refuseFraming records why a connection is closed: its frames have no length
// that could be true (W-01, W-18).
func (s *Switch) refuseFraming(ctx context.Context, p *peer, cause error) {
	corr := fmt.Sprintf("%s.%d", p.id, p.count+1)
	s.log.Warn("terminal link: framing is lost", "conn", p.id, "error", cause)
	s.recordFrame(ctx, p.caller, corr, nil)
}

// recordFrame records a frame that has no answer.
func (s *Switch) recordFrame(ctx context.Context, caller custody.Caller, corr string, m *iso8583.Message) {
	rec := audit.Record{Action: audit.FrameRefuse, Outcome: audit.OutcomeRefused, Reason: audit.ReasonFormatError}
	if m != nil && m.MTI() != "" {
		rec.ISO = audit.ISO{MTI: string(m.MTI()), STAN: m.Text(11), Rule: "D-01"}
	}
	if m != nil && m.MTI().IsResponse() { // a request turned round, say
		rec.ISO.Alert = audit.AlertSecurity
	}
	act, err := s.custody.Begin(ctx, caller, corr)
	if err != nil {
		s.log.Error("the audit log takes no records", "corr", corr, "error", err)
		return
	}
	defer act.Close()
	act.Note(rec)
	if _, err := act.Commit(ctx); err != nil {
		s.log.Error("a refusal could not be recorded", "corr", corr, "error", err)
	}
	s.observe(Event{Name: "frame", Rule: "D-01"})
}

// countFailure counts an absent or wrong MAC. The fifth locks the TID on this
// connection; many locks behind one certificate slow it down and raise an alarm.
func (s *Switch) countFailure(ctx context.Context, r *request) {
	if !r.known || !r.peer.lockout.fail(r.terminal.TID) {
		return
	}
	s.log.Warn("a terminal is locked on its connection", "conn", r.peer.id, "tid", r.terminal.TID)
	change := &audit.Change{Kind: audit.ChangeTerminal, Object: r.terminal.TID}
	rec := audit.Record{Action: audit.AuthLock, Outcome: audit.OutcomeOK, Reason: audit.ReasonMACInvalid, Change: change}
	if err := s.custody.Record(ctx, r.peer.caller, r.corr, rec); err != nil {
		s.log.Error("a lock-out could not be recorded", "corr", r.corr, "error", err)
	}
	if !s.floods.count(r.peer.cert) {
		return
	}
	s.log.Error("many lock-outs behind one certificate", "client", r.peer.caller.Name)
	s.observe(Event{Name: "lockout_flood"})
	alarm := audit.Record{Action: audit.SysAlarm, Outcome: audit.OutcomeOK,
		Alarm: audit.Alarm{Code: "lockout_flood", Level: audit.LevelWarn}}
	if err := s.custody.Record(ctx, r.peer.caller, r.corr, alarm); err != nil {
		s.log.Error("an alarm could not be recorded", "corr", r.corr, "error", err)
	}
}

// flowOf names the flow of a message for metrics.
func flowOf(m iso8583.MTI) string {
	switch m.Class() {
	case '4':
		return "reversal"
	case '8':
		return "signin"
	}
	return "sale"
}

func (s *Switch) now() time.Time { return s.cfg.Clock() }
