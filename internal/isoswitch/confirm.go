package isoswitch

import (
	"context"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// upstreamNoOriginal is upstream's DE 39 for an original it does not know (D-30).
const upstreamNoOriginal = "25"

// confirm believes an answer to a reversal, or not, and journals what follows.
func (s *Switch) confirm(ctx context.Context, h *host, act *custody.Act, rev *Reversal, t *Txn, m *iso8583.Message) {
	found, err := h.verify(ctx, act, m)
	why := distrust(err)
	if err == nil && !echoes(m, string(iso8583.ReversalAdvice.Response()), t, rev.UpSTAN) {
		err, why = custody.ErrRequest, audit.ReasonAttributeMismatch
	}
	if err != nil { // D-33: as if nothing had come; the queue goes on
		act.Note(responseNote(m, t, found, why))
		s.log.Error("an answer to a reversal is not authentic", "stan", rev.UpSTAN, "error", err)
		s.commitAct(ctx, act)
		s.observe(Event{Name: "forward", Code: "mac", Rule: "D-33"})
		s.retrySoon(ctx, rev)
		h.unheard(ctx, rev.RID)
		return
	}
	h.heard(ctx)
	var c confirmation
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		c, err = s.settleReversal(tx, rev.RID, m.Text(39))
		return err
	})
	if err != nil {
		s.log.Error("the answer to a reversal could not be journalled", "stan", rev.UpSTAN, "error", err)
		return // the queue tries again, and upstream answers again
	}
	s.noteConfirmation(ctx, act, rev, t, m, found, c)
}

// retrySoon lets the next try wait for the back-off alone: upstream has answered,
// if not authentically, and need not be waited for any longer.
func (s *Switch) retrySoon(ctx context.Context, rev *Reversal) {
	err := s.cfg.Journal.Update(ctx, func(tx Tx) error {
		now, err := tx.Reversal(rev.RID)
		if err != nil || now.State != Sent || now.Tries != rev.Tries {
			return err
		}
		now.Next = s.now().UTC().Add(jitter(s.rules().Retry.backoff(now.Tries)))
		return tx.UpdateReversal(now)
	})
	if err != nil {
		s.log.Error("the next try could not be brought forward", "stan", rev.UpSTAN, "error", err)
	}
}

// confirmation is what an authentic answer to a reversal does.
type confirmation struct {
	rule   string
	reason audit.Reason
	closed bool // nothing more is sent
	failed bool // and an operator must look at it
	early  bool // upstream may not have met the original yet
}

// settleReversal is D-30, D-31 and the confirmation, in one transaction.
func (s *Switch) settleReversal(tx Tx, rid RID, code string) (c confirmation, err error) {
	rev, err := tx.Reversal(rid)
	if err != nil {
		return c, err
	}
	t, err := tx.Txn(rev.OID)
	if err != nil {
		return c, err
	}
	if rev.State != Sent && (rev.State != Parked || rev.Case != "") {
		return c, nil // settled before; one that an operator parked may have been on its way
	}
	now := s.now().UTC()
	c = judgeConfirmation(rev, code, s.rules().Retry.Declines)
	rev.Answered, rev.UpAnswer = now, code
	if until := s.underWay(rev, t); code == upstreamNoOriginal && now.Before(until) {
		rev.Granted++ // no try of those that are counted
		rev.Next = earliest(until, now.Add(jitter(s.rules().Retry.backoff(rev.Tries))))
		c.closed, c.early = false, true
		return c, tx.UpdateReversal(rev)
	}
	if code == upstreamNoOriginal && s.debitedLate(t) { // for an operator: upstream contradicts itself
		c.failed = true
	}
	if !c.closed {
		rev.Declines++
		rev.Next = now.Add(jitter(s.rules().Retry.backoff(rev.Tries)))
		return c, tx.UpdateReversal(rev)
	}
	if c.failed {
		rev.Declines++
		return c, fail(tx, rev, t, now)
	}
	rev.State, rev.Closed = Confirmed, now
	if err := tx.UpdateReversal(rev); err != nil || !rev.Full {
		return c, err
	}
	t.State = Reversed
	if code == upstreamNoOriginal {
		t.State = ReversedUnknown
	}
	return c, tx.UpdateTxn(t)
}

// underWay is until when an original of which upstream has said nothing may still
// be on its way there: T_stray after it was given up. A reversal can overtake it
// over another link, or another front end, and is then one of an original that
// upstream does not know yet. It is zero where upstream has met the original.
func (s *Switch) underWay(rev *Reversal, t *Txn) time.Time {
	switch rev.Cause {
	case ByTimeout, ByLinkLoss, ByRestart, ByBadAnswer:
	default: // of a terminal, while the original was in flight (D-18)
		if !t.ReverseOnCompletion || t.Approval != "" && t.Late == "" {
			return time.Time{}
		}
	}
	return t.Finished.Add(s.rules().Timers.Stray)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// judgeConfirmation decides on upstream's DE 39: 00 confirms, 25 leaves the
// reversal and a reconciliation item (D-30), another is tried again until it has
// come most times (D-31).
func judgeConfirmation(rev *Reversal, code string, most int) confirmation {
	switch code {
	case codeApproved:
		return confirmation{closed: true}
	case upstreamNoOriginal:
		return confirmation{rule: "D-30", reason: audit.ReasonUpstreamUnknown, closed: true}
	}
	last := rev.Declines+1 >= most
	return confirmation{rule: "D-31", reason: audit.ReasonUpstreamDeclined, closed: last, failed: last}
}

// noteConfirmation records upstream's answer, and the end of the reversal.
func (s *Switch) noteConfirmation(ctx context.Context, act *custody.Act, rev *Reversal, t *Txn, m *iso8583.Message, found audit.MAC, c confirmation) {
	rec := noteOf(act, audit.ReversalAnswer, t, "")
	rec.ISO.MTI, rec.ISO.STAN, rec.ISO.DE39 = string(m.MTI()), rev.UpSTAN, m.Text(39)
	rec.ISO.Orig = audit.Orig{MTI: t.MTI, STAN: t.UpSTAN, DateTime: t.UpSent}
	rec.ISO.Rule, rec.Reason, rec.MAC = c.rule, c.reason, found
	if c.rule == "D-31" || c.early || c.failed {
		rec.Outcome = audit.OutcomeRefused
	}
	act.Note(rec)
	if c.closed {
		end := rec
		end.Action = audit.ReversalClose
		if c.failed {
			end.Action = audit.ReversalFail
		}
		end.MAC = audit.MAC{}
		act.Note(end)
	}
	s.commitAct(ctx, act)
	code := m.Text(39)
	if c.early {
		code = "early"
	}
	s.observe(Event{Name: "forward", Code: code, Rule: c.rule})
	if c.failed {
		s.observe(Event{Name: "forward", Code: "failed", Rule: c.rule})
	}
}

// noteSilence records a try that upstream did not answer (D-32).
func (s *Switch) noteSilence(ctx context.Context, act *custody.Act, rev *Reversal, t *Txn) {
	rec := noteOf(act, audit.ReversalAnswer, t, "")
	rec.ISO.MTI, rec.ISO.STAN, rec.ISO.Rule = string(reversalMTI(rev)), rev.UpSTAN, "D-32"
	rec.Outcome, rec.Reason = audit.OutcomeUnknown, audit.ReasonUpstreamSilent
	act.Note(rec)
	s.commitAct(ctx, act)
	s.observe(Event{Name: "forward", Code: "silent", Rule: "D-32"})
}

// noteFailed records that a reversal was given up.
func (s *Switch) noteFailed(ctx context.Context, rev *Reversal, t *Txn, why audit.Reason) {
	s.log.Error("a reversal was given up: an operator must look at it", "stan", rev.UpSTAN, "tid", t.TID)
	act, err := s.custody.Begin(ctx, s.self(), "saf."+rev.UpSTAN)
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	rec := noteOf(act, audit.ReversalFail, t, "")
	rec.ISO.STAN, rec.ISO.Rule = rev.UpSTAN, "D-32"
	rec.Outcome, rec.Reason = audit.OutcomeError, why
	act.Note(rec)
	s.commitAct(ctx, act)
	s.observe(Event{Name: "forward", Code: "failed", Rule: "D-32"})
}

// park takes a reversal that cannot be built out of the queue once it has failed
// so often that it never will; it blocks no other.
func (s *Switch) park(ctx context.Context, act *custody.Act, rev *Reversal, t *Txn, cause error) {
	now := s.now().UTC()
	parked := false
	err := s.cfg.Journal.Update(ctx, func(tx Tx) error {
		at, err := tx.Reversal(rev.RID)
		if err != nil {
			return err
		}
		at.Errors++
		at.Next = now.Add(s.rules().Retry.First)
		if parked = at.Errors >= s.rules().Retry.Park; parked {
			at.State, at.Closed = Parked, now
		}
		return tx.UpdateReversal(at)
	})
	s.log.Error("a reversal cannot be built", "stan", rev.UpSTAN, "parked", parked, "error", cause, "journal", err)
	if !parked {
		return
	}
	rec := noteOf(act, audit.ReversalFail, t, "")
	rec.ISO.STAN = rev.UpSTAN
	rec.Outcome, rec.Reason = audit.OutcomeError, audit.ReasonInternal
	act.Note(rec)
	s.commitAct(ctx, act)
	s.observe(Event{Name: "forward", Code: "parked"})
}

// lateConfirmation meets an answer to a reversal that came after its try was
// over. Unlike a late approval it is welcome: what upstream has done, it has.
func (s *Switch) lateConfirmation(ctx context.Context, h *host, rid RID, m *iso8583.Message) {
	var rev *Reversal
	var t *Txn
	err := s.cfg.Journal.View(ctx, func(tx Tx) (err error) {
		if rev, err = tx.Reversal(rid); err == nil {
			t, err = tx.Txn(rev.OID)
		}
		return err
	})
	if err != nil {
		s.log.Error("a late answer to a reversal could not be looked up", "error", err)
		return
	}
	act, err := s.custody.Begin(ctx, h.caller(), "saf."+rev.UpSTAN)
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	s.confirm(ctx, h, act, rev, t, m)
}

// commitAct makes records durable on which nothing waits.
func (s *Switch) commitAct(ctx context.Context, act *custody.Act) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := act.Commit(ctx); err != nil {
		s.log.Error("records could not be written", "error", err)
	}
}
