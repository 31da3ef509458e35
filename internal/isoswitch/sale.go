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

// sale works on a 0100, 0200 or 0220: authenticate, journal, forward, wait,
// journal, answer. What undoes it is durable before it leaves, and no
// answer leaves before its outcome is durable.
func (s *Switch) sale(ctx context.Context, r *request) {
	if v := s.authenticate(ctx, r); v != nil {
		s.refuse(ctx, r, audit.SaleRefuse, *v)
		return
	}
	card, v := s.card(ctx, r)
	if v != nil {
		s.refuse(ctx, r, audit.SaleRefuse, *v)
		return
	}
	in, err := s.acceptSale(ctx, r, card)
	if err != nil {
		s.log.Error("a sale could not be journalled", "corr", r.corr, "error", err)
		s.refuse(ctx, r, audit.SaleRefuse, cannot(err))
		return
	}
	switch {
	case in.refused != nil:
		s.refuse(ctx, r, audit.SaleRefuse, *in.refused)
	case in.stored != nil:
		s.repeatSale(ctx, r, in.stored)
	case in.joined != nil:
		r.turn.end()
		s.joinSale(ctx, r, in.joined)
	default:
		s.forwardSale(ctx, r, in.txn, in.live)
	}
}

// forwardSale sends a journalled sale upstream and brings back its outcome.
func (s *Switch) forwardSale(ctx context.Context, r *request, t *Txn, flight *live) {
	accepted := r.note(audit.SaleAccept, verdict{})
	accepted.Outcome = audit.OutcomeOK
	if !r.speech.byBatch() && skewed(r.msg, r.at, r.rules.Timers.ClockSkew) { // told, where it is not refused
		accepted.Reason = audit.ReasonAgeExceeded
		s.observe(Event{Name: "clock", Code: "skewed"})
	}
	r.act.Note(accepted)
	open, err := s.dispatchSale(ctx, r, t, flight)
	r.turn.end()
	if err != nil {
		s.finishSale(ctx, r, flight, s.undispatched(r, flight, err))
		return
	}
	r.act.Suspend() // the room in the log is not kept while upstream takes its time
	reply, cause := s.awaitSale(ctx, r, t, open)
	if err = r.act.Resume(ctx); err != nil {
		s.finishUnrecorded(ctx, r, flight, err)
		return
	}
	res := result{kind: unknownResult, cause: cause, code: r.speech.silence()}
	if reply != nil {
		res = s.judge(ctx, r.act, r.host, t, reply)
	}
	s.finishSale(ctx, r, flight, res)
}

// undispatched is the result of a sale that could not be handed to the link
// whole.
func (s *Switch) undispatched(r *request, flight *live, err error) result {
	switch {
	case errors.Is(err, errPINRefused):
		return result{kind: neverLeft, code: codeSecurity}
	case errors.Is(err, errLinkDown):
		return result{kind: neverLeft, code: codeUnreachable}
	case flight.gone():
		s.log.Warn("the link broke while a sale was sent", "corr", r.corr, "error", err)
		return result{kind: unknownResult, cause: ByLinkLoss, code: r.speech.silence()}
	}
	s.log.Error("a sale could not be forwarded", "corr", r.corr, "error", err)
	return result{kind: neverLeft, code: codeCannot}
}

// errPINRefused: the PIN block was not accepted.
var errPINRefused = errors.New("isoswitch: the PIN block was not accepted")

// dispatchSale translates the PIN, builds and seals the message for upstream,
// makes the records durable and hands the message to the link. Whether
// something has left after an error, the flight knows.
func (s *Switch) dispatchSale(ctx context.Context, r *request, t *Txn, flight *live) (*exchange, error) {
	h := r.host
	b := h.build(r.msg.MTI()).
		Copy(r.msg, 2, 3, 4, 12, 13, 14, 22, 25, 32, 35, 41, 42, 49, 55).
		Set(7, t.UpSent).Set(11, t.UpSTAN).Set(37, t.RRN)
	r.fillUpstream(b, t)
	if t.UpAcquirer != "" {
		b.Set(32, t.UpAcquirer)
	}
	if r.about != nil { // as upstream knows it (W-08)
		names, err := upstreamName(r.about)
		if err != nil {
			return nil, err
		}
		b.Set(90, names)
	}
	if r.msg.Has(52) || r.msg.Has(63) && r.terminal.Scheme != MasterKey {
		block, err := s.translatePIN(ctx, r)
		if err != nil {
			return nil, err
		}
		b.Set(52, fmt.Sprintf("%X", block))
	}
	msg, err := h.seal(ctx, r.act, b)
	if err != nil {
		return nil, err
	}
	receipt, err := r.act.Commit(ctx)
	if err != nil {
		return nil, err
	}
	open := h.open.start(match{stan: t.UpSTAN, sent: t.UpSent, class: t.MTI[1], tid: t.TID})
	if err := h.send(receipt, open, msg, flight.depart); err != nil {
		h.open.end(open)
		return nil, err
	}
	return open, nil
}

// translatePIN takes the PIN block from under the terminal's key to under the
// zone PIN key (W-07, W-08).
func (s *Switch) translatePIN(ctx context.Context, r *request) ([]byte, error) {
	in := custody.PINSide{
		Key:    custody.Ref{Alias: r.terminal.BDK},
		DUKPT:  &custody.DUKPT{KSN: r.serial.bytes},
		Format: custody.ISO0,
		PAN:    r.pan,
	}
	block := r.msg.Bytes(52)
	switch r.terminal.Scheme {
	case AESDUKPT:
		in.Format, block = custody.ISO4, r.msg.Bytes(63)
	case MasterKey:
		var err error
		if in, err = r.masterPIN(); err != nil {
			return nil, err
		}
	}
	out, err := r.act.TranslatePIN(ctx, custody.TranslatePIN{
		In:    in,
		Out:   custody.PINSide{Key: r.host.zone.Load().pin, Format: custody.ISO0, PAN: r.pan},
		Block: block,
	})
	if errors.Is(err, custody.ErrPINBlock) || errors.Is(err, custody.ErrTooMany) {
		return nil, fmt.Errorf("%w: %w", errPINRefused, err)
	}
	if err != nil {
		return nil, fmt.Errorf("translating the PIN: %w", err)
	}
	return out.Block, nil
}

// awaitSale waits for the answer from upstream, or says why there is none.
func (s *Switch) awaitSale(ctx context.Context, r *request, t *Txn, open *exchange) (reply *iso8583.Message, cause Cause) {
	timer := time.NewTimer(r.rules.Timers.Upstream)
	defer timer.Stop()
	select {
	case reply = <-open.reply:
		return reply, ""
	case <-timer.C:
		cause = ByTimeout
		r.host.silence(open)
	case <-open.lost:
		cause = ByLinkLoss
	case <-ctx.Done():
		cause = ByRestart
	}
	s.expireSale(r.host, t, open, r.rules.Timers.Stray)
	return nil, cause
}

// expireSale keeps an exchange for a late answer. It is not given the request: for
// T_stray that would keep the card number, its track and the PIN block in memory.
func (s *Switch) expireSale(h *host, t *Txn, open *exchange, stray time.Duration) {
	h.open.expire(open, s.now().Add(stray), func(m *iso8583.Message) { s.lateAnswer(s.life, h, t, m) })
}

// finishUnrecorded ends a sale whose answer cannot be recorded: whatever
// upstream said is undone, and the terminal gets 96 (L-130).
func (s *Switch) finishUnrecorded(ctx context.Context, r *request, flight *live, cause error) {
	res := result{kind: unknownResult, cause: ByUndelivered, code: codeCannot}
	if _, _, err := s.settleSale(ctx, flight, res); err != nil && !errors.Is(err, errSettled) {
		s.background.Go(func() { s.settleLater(flight) })
	} else {
		s.flights.end(flight)
		s.wake()
	}
	s.answerUnrecorded(r, cause)
}

// finishSale journals the outcome and gives it to the terminal.
func (s *Switch) finishSale(ctx context.Context, r *request, flight *live, res result) {
	t, out, err := s.settleSale(ctx, flight, res)
	switch {
	case errors.Is(err, errSettled): // recalled by a reversal: no 0210 (D-20)
		s.flights.end(flight)
		s.noteSuppressed(ctx, r, t)
		return
	case err != nil:
		s.log.Error("the outcome of a sale could not be journalled", "corr", r.corr, "error", err)
		s.background.Go(func() { s.settleLater(flight) })
		s.refuse(ctx, r, audit.SaleRefuse, cannot(err))
		return
	}
	if out.reverse {
		rec := noteOf(r.act, audit.ReversalAccept, t, r.pan)
		rec.Reason = reasonFor(out.cause)
		r.act.Note(rec)
		s.wake()
	}
	if out.suppress {
		s.flights.end(flight)
		s.noteSuppressed(ctx, r, t)
		return
	}
	s.deliverSale(ctx, r, flight, t)
}

// settleSale writes the outcome, and lets those know who wait for it.
func (s *Switch) settleSale(ctx context.Context, flight *live, res result) (t *Txn, out settlement, err error) {
	num := number{}
	if res.kind == unknownResult || res.kind == approvedResult && flight.refers {
		if num, err = s.numbers.take(ctx); err != nil {
			return nil, out, err
		}
	}
	now := s.now().UTC()
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		t, out, err = settleTxn(tx, flight.oid, res, num, now)
		return err
	})
	if err != nil && !errors.Is(err, errSettled) {
		return nil, out, err
	}
	flight.txn, flight.outcome = t, out
	flight.outcome.suppress = out.suppress || err != nil
	close(flight.done)
	if err == nil && out.reverse && !out.suppress {
		s.automatic(out.cause)
	}
	return t, out, err
}

// settleLater tries again until the journal takes the outcome. Nobody has got
// an answer but 96, so whatever upstream said is undone.
func (s *Switch) settleLater(flight *live) {
	defer s.flights.end(flight)
	res := result{kind: unknownResult, cause: ByUndelivered, code: codeCannot}
	for wait := time.Second; s.life.Err() == nil; wait = min(2*wait, 30*time.Second) {
		sleep(s.life, wait)
		if _, _, err := s.settleSale(s.life, flight, res); hopeless(err) {
			s.wake()
			return
		}
	}
}

// deliverSale answers the terminal with a journalled outcome. An approval that
// nobody gets is reversed (section 7.4).
func (s *Switch) deliverSale(ctx context.Context, r *request, flight *live, t *Txn) {
	r.act.Note(r.saleNote(t, false))
	a := answerOf(t)
	a.emv = flight.outcome.emv
	err := s.reply(ctx, r, verdict{}, a)
	if err != nil {
		s.log.Warn("the answer to a sale was not delivered", "corr", r.corr, "error", err)
	}
	s.leave(flight, err == nil)
	if errors.Is(err, errUnsealed) {
		s.refuse(ctx, r, audit.SaleRefuse, *r.refusal("D-05"))
	}
}

// leave says that a request no longer waits for the sale, and whether its peer
// got the answer. The last one reverses an approval that nobody got.
func (s *Switch) leave(flight *live, delivered bool) {
	if !flight.took(delivered) {
		if delivered {
			s.flights.end(flight)
		}
		return
	}
	if flight.txn == nil || flight.txn.State != Approved {
		s.flights.end(flight)
		return
	}
	s.background.Go(func() { s.reverseAbandoned(flight) })
}

// reverseAbandoned reverses an approval that reached nobody. A repeat of the
// sale that came in the meantime takes the answer instead.
func (s *Switch) reverseAbandoned(flight *live) {
	for wait := time.Second; s.life.Err() == nil; wait = min(2*wait, 30*time.Second) {
		t, err := s.reverseUndelivered(flight)
		if err == nil {
			s.automatic(ByUndelivered)
			s.noteUndelivered(t)
			s.wake()
			return
		}
		if hopeless(err) {
			return
		}
		s.log.Error("an approval that reached nobody could not be reversed yet", "error", err)
		sleep(s.life, wait)
	}
}

func (s *Switch) reverseUndelivered(flight *live) (t *Txn, err error) {
	num, err := s.numbers.take(s.life)
	if err != nil {
		return nil, err
	}
	err = s.cfg.Journal.Update(s.life, func(tx Tx) (err error) {
		if !flight.abandoned() {
			return errSettled
		}
		t, err = reverseUndelivered(tx, flight.oid, num, s.now().UTC())
		return err
	})
	if err == nil || t != nil {
		s.flights.end(flight)
	}
	return t, err
}
