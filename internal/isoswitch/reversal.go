package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// reversal works on a 0400, 0401, 0420 or 0421: authenticate, decide and write
// the effect in one transaction, record, answer. Sending it upstream is the
// work of the store-and-forward loop.
func (s *Switch) reversal(ctx context.Context, r *request) {
	if v := s.authenticate(ctx, r); v != nil {
		s.refuse(ctx, r, audit.ReversalRefuse, *v)
		return
	}
	card, v := s.card(ctx, r)
	if v != nil {
		s.refuse(ctx, r, audit.ReversalRefuse, *v)
		return
	}
	s.noteReason(r)
	d, err := s.decideReversal(ctx, r, card)
	if err != nil {
		s.log.Error("a reversal could not be journalled", "corr", r.corr, "error", err)
		s.refuse(ctx, r, audit.ReversalRefuse, cannot(err))
		return
	}
	if d.refused {
		s.refuse(ctx, r, audit.ReversalRefuse, d.verdict)
		return
	}
	if d.queued {
		s.wake()
	}
	if d.stranded {
		s.noteStranded(r, d)
	}
	s.lookAbroad(ctx, r, &d, card)
	if d.verdict.code == "" {
		s.answerHeld(ctx, r, d)
		return
	}
	s.answerReversal(ctx, r, d)
}

// decision is what became of a reversal.
type decision struct {
	verdict  verdict
	refused  bool // before anything was looked up: its KSN, its DE 7
	queued   bool // something is to be sent upstream
	accepted bool // a reversal was accepted, whatever follows from it
	unknown  bool // no original has its look-up key
	stranded bool // accepted, and its upstream is configured no more
	rid      RID
	answer   answer
	flight   *live // of an original in flight
}

// decideReversal does stages 6 to 15 in one transaction of the journal: what it
// decides, the effect, the stored answer and the queue entry are durable
// together, or not at all (I-4).
func (s *Switch) decideReversal(ctx context.Context, r *request, card custody.Card) (decision, error) {
	num, err := s.numbers.take(ctx)
	if err != nil {
		return decision{}, err
	}
	q, readable := s.ask(r, card.Token)
	counts := r.rules.Limits.Velocity.tallies(r.terminal, card.Token, r.reason())
	var d decision
	counted := false
	err = s.cfg.Journal.Update(ctx, func(tx Tx) error {
		refused, err := s.admit(tx, r)
		if refused != nil {
			d = decision{verdict: *refused, refused: true}
		}
		if err != nil || refused != nil {
			return err
		}
		if !readable {
			d = decision{verdict: ruling("D-01", r.advice()), refused: true}
			return nil
		}
		f, err := s.look(tx, r, q)
		if err != nil {
			return fmt.Errorf("looking for the original: %w", err)
		}
		f.tooMany = s.rates.over(counts)
		f.loose = r.unchecked(q, f.original)
		if d, err = s.apply(tx, r, q, f, card, num); err == nil && d.accepted {
			s.rates.add(counts) // here: of two at once the second sees the first
			counted = true
		}
		return err
	})
	if err != nil {
		if counted {
			s.rates.takeBack(counts)
		}
		return decision{}, err
	}
	s.suspect(r, &d)
	return d, nil
}

// ask makes the question of a message. It is false where DE 7 is no date, and
// where DE 90 names nothing.
func (s *Switch) ask(r *request, token string) (question, bool) {
	m := r.msg
	names, named := r.speech.original(m)
	amount, _ := m.Amount()
	sent, dated := r.sentAt()
	rest, partial := m.Rest()
	return question{
		advice:     r.advice(),
		full:       !partial,
		rest:       rest,
		names:      names,
		type60:     typeOf60(m),
		named61:    m.Text(61),
		byBatch:    r.speech.byBatch(),
		current:    s.batches.open(m.Text(41), batchOf(m)),
		key:        s.lookupKey(m.Text(42), m.Text(41), names.DateTime, names.STAN, names.MTI.Class()),
		token:      token,
		processing: m.Text(3),
		amount:     amount,
		currency:   m.Text(49),
		condition:  m.Text(25),
		acquirer:   m.Text(32),
		rrn:        m.Text(37),
		approval:   m.Text(38),
		content:    digest("keyd-reversal-1", token, m.Text(3), m.Text(4), m.Text(49), m.Text(95)),
		sent:       sent,
		now:        r.at,
	}, dated && named
}

// look collects the facts. It is the first that touches the journal, and only a
// message with a valid MAC and a fresh KSN comes here.
func (s *Switch) look(tx Tx, r *request, q question) (facts, error) {
	var f facts
	var err error
	f.original, err = tx.Newest(q.key, r.at.Add(-r.rules.Timers.LookBack))
	if errors.Is(err, ErrNotFound) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := closeBatch(tx, f.original); err != nil {
		return f, err
	}
	if f.live, err = optionalTxn(tx.Live(f.original.OID)); err != nil {
		return f, err
	}
	if f.original.RefersTo != (OID{}) {
		if f.refers, err = tx.Txn(f.original.RefersTo); err != nil {
			return f, err
		}
	}
	if f.full, err = optional(tx.Reversal(fullRID(f.original.OID))); err != nil {
		return f, err
	}
	f.same = f.full
	if !q.full {
		f.same, err = optional(tx.Reversal(partialRID(f.original.OID, q.rest, r.msg.Text(11))))
	}
	flight := s.flights.find(f.original.OID)
	f.left = flight == nil || flight.gone()
	return f, err
}

func optional(rev *Reversal, err error) (*Reversal, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return rev, err
}

// apply decides, and writes what the decision does.
func (s *Switch) apply(tx Tx, r *request, q question, f facts, card custody.Card, num number) (decision, error) {
	v := r.speech.spoken(r.speech.judges(r.rules.policy).decide(q, f), q.advice)
	d := decision{verdict: v, answer: answer{code: v.code}, unknown: f.original == nil}
	if f.original != nil {
		d.flight = s.flights.find(f.original.OID)
		d.rid = fullRID(f.original.OID)
		d.answer.rrn = f.original.RRN
	}
	if v.effect == voidLocally && !d.flight.recall() { // it left just now
		v = ruling("D-18", q.advice)
		d.verdict, d.answer.code = v, v.code
	}
	switch v.effect {
	case repeatAnswer, waitForAnswer:
		d.rid = f.same.RID
		d.answer.rrn, d.answer.approval = f.same.RRN, f.same.Approval
		return d, nil
	case joinRunning:
		return d, joinReversal(tx, &d, q, f)
	case addTombstone:
		t := s.newTombstone(r, card, num)
		d.answer.rrn = t.RRN
		if err := tx.InsertTxn(t); err != nil {
			return d, fmt.Errorf("writing the tombstone: %w", err)
		}
		return d, s.insertReversal(tx, r, q, &d, t, num)
	case reverseLater, voidLocally, reverseWhole, reversePart, holdReversal:
		t := f.original
		mark(t, v.effect, q)
		if err := tx.UpdateTxn(t); err != nil {
			return d, fmt.Errorf("writing the original: %w", err)
		}
		if v.effect == reverseWhole {
			if err := giveBack(tx, t); err != nil {
				return d, err
			}
		}
		return d, s.insertReversal(tx, r, q, &d, t, num)
	}
	return d, nil
}

// mark writes the effect of a reversal into the original.
func mark(t *Txn, e effect, q question) {
	switch e {
	case reverseLater:
		t.ReverseOnCompletion = true
	case voidLocally:
		t.State = LocalVoid
	case reverseWhole:
		t.State = ReversalPending
	case reversePart:
		t.ReversedAmount = t.Amount - q.rest
	case holdReversal:
		t.State = ReversalHeld
	}
}

// joinReversal stores the terminal's answer with the reversal that keyd itself
// is at (D-19).
func joinReversal(tx Tx, d *decision, q question, f facts) error {
	d.answer.approval = f.original.Approval
	f.full.Answer, f.full.RRN, f.full.Approval = d.verdict.code, d.answer.rrn, d.answer.approval
	f.full.Content = q.content
	if err := tx.UpdateReversal(f.full); err != nil {
		return fmt.Errorf("writing the answer to the reversal: %w", err)
	}
	return nil
}

// insertReversal writes the reversal, its stored answer and its place in the
// queue.
func (s *Switch) insertReversal(tx Tx, r *request, q question, d *decision, t *Txn, num number) error {
	rev := &Reversal{
		RID:     fullRID(t.OID),
		OID:     t.OID,
		Link:    t.Link,
		Cause:   ByTerminal,
		Full:    q.full,
		Rest:    q.rest,
		MTI:     string(r.msg.MTI()),
		STAN:    r.msg.Text(11),
		TID:     t.TID,
		KSN:     r.serial.text,
		Raw:     r.raw,
		Built:   r.at,
		Answer:  d.verdict.code,
		RRN:     d.answer.rrn,
		Content: q.content,
		Reason:  r.reason(),
		Next:    r.at,
		State:   Queued,
		UpSTAN:  num.stan,
		UpSent:  num.sent,
	}
	if !q.full {
		rev.RID = partialRID(t.OID, q.rest, rev.STAN)
	}
	d.accepted = d.verdict.effect != addTombstone
	switch d.verdict.effect {
	case reverseLater:
		rev.State = Waiting
	case holdReversal:
		rev.State, rev.Approval = Held, t.Approval
	case addTombstone, voidLocally:
		rev.State, rev.Closed, rev.UpSTAN, rev.UpSent = Closed, r.at, "", ""
	default:
		rev.Approval = t.Approval
		if d.queued = s.hostOf(t) != nil; !d.queued { // for operators: it goes nowhere else
			rev.State, rev.Closed, d.stranded = Parked, r.at, true
		}
	}
	d.rid, d.answer.approval = rev.RID, rev.Approval
	if err := tx.InsertReversal(rev); err != nil {
		return fmt.Errorf("writing the reversal: %w", err)
	}
	return nil
}

// newTombstone stands where the original of a reversal would (section 7.3): if
// that comes, it is refused.
func (s *Switch) newTombstone(r *request, card custody.Card, num number) *Txn {
	m := r.msg
	names, _ := r.speech.original(m)
	amount, _ := m.Amount()
	key := s.lookupKey(m.Text(42), m.Text(41), names.DateTime, names.STAN, names.MTI.Class())
	return &Txn{
		OID:        newOID(key, r.at),
		Key:        key,
		Link:       s.route(r).name(),
		Profile:    r.speech.Name,
		Received:   r.at,
		MTI:        string(names.MTI),
		Card:       card,
		Processing: m.Text(3),
		Amount:     amount,
		Sent:       names.DateTime,
		STAN:       names.STAN,
		Condition:  m.Text(25),
		Acquirer:   m.Text(32),
		TID:        m.Text(41),
		MID:        m.Text(42),
		Currency:   m.Text(49),
		KSN:        r.serial.text,
		MACKey:     r.macKey,
		Raw:        r.raw,
		State:      Tombstone,
		RRN:        orDefault(m.Text(37), num.rrn),
		Finished:   r.at,
	}
}

// lookAbroad raises the fraud alarm when a reversal without an original fits one
// of another terminal (W-15, D-12). It changes neither decision nor answer.
func (s *Switch) lookAbroad(ctx context.Context, r *request, d *decision, card custody.Card) {
	if !d.unknown {
		return
	}
	amount, _ := r.msg.Amount()
	var foreign bool
	err := s.cfg.Journal.View(ctx, func(tx Tx) (err error) {
		foreign, err = tx.Foreign(ForeignQuery{
			TID:      r.terminal.TID,
			RRN:      r.msg.Text(37),
			Approval: r.msg.Text(38),
			PANToken: card.Token,
			Amount:   amount,
			Since:    r.at.Add(-r.rules.Timers.LookBack),
		})
		return err
	})
	if err != nil {
		s.log.Error("other terminals' originals could not be searched", "corr", r.corr, "error", err)
	}
	tombs := []tally{{r.terminal.TID, r.rules.Limits.Tombstones}}
	s.tombs.add(tombs)
	if s.tombs.over(tombs) { // a forger could block sales with them (note D-10)
		d.verdict.alert = audit.AlertSecurity
	}
	if foreign {
		d.verdict.reason, d.verdict.alert = audit.ReasonForeignOriginal, audit.AlertFraud
	}
}

// answerReversal records the decision and answers it.
func (s *Switch) answerReversal(ctx context.Context, r *request, d decision) {
	rec := r.note(reversalAction(d.verdict), d.verdict)
	if rec.Action == audit.ReversalRefuse {
		r.refusedReversal()
	}
	rec.Replay = d.verdict.effect == repeatAnswer
	r.act.Note(rec)
	if err := s.reply(ctx, r, d.verdict, d.answer); err != nil {
		s.undelivered(r, d.verdict, err)
	}
}

func reversalAction(v verdict) audit.Action {
	switch {
	case v.effect == repeatAnswer, v.effect == waitForAnswer:
		return audit.ReversalRepeat
	case v.code == "", v.effect == holdReversal:
		return audit.ReversalHold
	case v.code == codeApproved:
		return audit.ReversalAccept
	}
	return audit.ReversalRefuse
}

// undelivered records that the terminal has gone (D-36): the effect stays, and
// a repeat gets the stored answer.
func (s *Switch) undelivered(r *request, v verdict, cause error) {
	s.log.Warn("the answer to a reversal was not delivered", "corr", r.corr, "error", cause)
	rec := r.note(audit.ReversalAnswer, verdict{rule: "D-36", code: v.code, reason: audit.ReasonAnswerUndelivered})
	rec.Outcome = audit.OutcomeError
	r.act.Note(rec)
}

// answerHeld answers a reversal of a sale in flight when the sale is finished,
// at the latest when T_hold ends (D-18, D-08). The reversal is durable all the
// while.
func (s *Switch) answerHeld(ctx context.Context, r *request, d decision) {
	r.act.Note(r.note(reversalAction(d.verdict), d.verdict))
	if _, err := r.act.Commit(ctx); err != nil {
		s.answerUnrecorded(r, err)
		return
	}
	r.act.Suspend()
	r.turn.end()
	if d.flight != nil {
		timer := time.NewTimer(r.rules.Timers.Hold)
		defer timer.Stop()
		select {
		case <-d.flight.done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := r.act.Resume(ctx); err != nil {
		s.answerUnrecorded(r, err)
		return
	}
	rev, err := s.heldAnswer(ctx, d.rid)
	if err != nil {
		s.log.Error("the answer to a reversal could not be journalled", "corr", r.corr, "error", err)
		v := cannot(err)
		v.rule = d.verdict.rule
		s.refuse(ctx, r, audit.ReversalRefuse, v)
		return
	}
	v := verdict{rule: d.verdict.rule, code: rev.Answer, effect: d.verdict.effect}
	r.act.Note(r.note(audit.ReversalAnswer, v))
	if err := s.reply(ctx, r, v, answer{code: rev.Answer, rrn: rev.RRN, approval: rev.Approval}); err != nil {
		s.undelivered(r, v, err)
	}
}

// heldAnswer returns the reversal with the answer for the terminal: the one that
// the end of the sale has brought, or 00 because the reversal is durable.
func (s *Switch) heldAnswer(ctx context.Context, rid RID) (rev *Reversal, err error) {
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		rev, err = tx.Reversal(rid)
		if err != nil || rev.Answer != "" {
			return err
		}
		rev.Answer = codeApproved
		return tx.UpdateReversal(rev)
	})
	return rev, err
}
