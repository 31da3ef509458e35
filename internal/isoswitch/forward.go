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

// forwardAll is the store-and-forward loop of a host: it sends every reversal in
// its queue until the host has answered it, whatever it was that put it there. It ends
// with ctx.
func (h *host) forwardAll(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-h.ready(): // a link that is down uses up no tries
		case <-ctx.Done():
			return
		}
		again, err := h.forwardDue(ctx)
		if err != nil {
			h.s.log.Error("the queue of reversals cannot be read", "error", err)
			sleep(ctx, time.Second)
			continue
		}
		if !again {
			h.rest(ctx)
		}
	}
}

// forwardDue begins what is due, as far as there is room and the breaker allows.
// It reports whether it passed over some whose terminal had its share, behind
// whom others may be due.
func (h *host) forwardDue(ctx context.Context) (again bool, err error) {
	retry := h.s.rules().Retry
	n, full := h.claims.taken(retry.Share)
	room := min(retry.InFlight-n, h.breaker.allows())
	if room <= 0 {
		return false, nil
	}
	due, err := h.due(ctx, full)
	if err != nil {
		return false, err
	}
	for _, rev := range due {
		if room == 0 {
			break
		}
		ok, share := h.claims.claim(rev.OID, rev.TID, retry.Share)
		again = again || share
		if !ok {
			continue
		}
		if !h.breaker.begin(rev.RID) {
			h.claims.release(rev.OID)
			return false, nil
		}
		room--
		h.s.background.Go(func() {
			defer h.unclaim(rev.OID)
			defer h.breaker.end(rev.RID)
			h.forward(ctx, rev.RID)
		})
	}
	return again && room > 0, nil
}

// due returns reversals whose time has come, but for those of some terminals.
func (h *host) due(ctx context.Context, except []string) (due []*Reversal, err error) {
	err = h.s.cfg.Journal.View(ctx, func(tx Tx) (err error) {
		due, err = tx.Due(h.cfg.Name, h.s.now(), 2*h.s.rules().Retry.InFlight, except)
		return err
	})
	return due, err
}

// rest waits until a reversal may be due, the queue has changed or ctx ends.
func (h *host) rest(ctx context.Context) {
	const longest = time.Minute
	wait := longest
	err := h.s.cfg.Journal.View(ctx, func(tx Tx) error {
		next, err := tx.NextDue(h.cfg.Name)
		if err == nil {
			wait = min(longest, max(20*time.Millisecond, next.Sub(h.s.now())))
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		wait = time.Second
	}
	wait = max(wait, min(longest, h.breaker.rests()))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-h.woken:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (h *host) unclaim(oid OID) {
	h.claims.release(oid)
	h.wake()
}

// forward makes one try at one reversal: journal the try, send, wait, believe
// or not, journal what came of it. Section 8, D-30 to D-33.
func (h *host) forward(ctx context.Context, rid RID) {
	rev, t, err := h.s.startTry(ctx, rid)
	if err != nil {
		h.s.log.Error("a try could not be journalled", "error", err)
		sleep(ctx, time.Second)
		return
	}
	if rev == nil {
		return // not its turn, or its tries are used up
	}
	act, err := h.s.custody.Begin(ctx, h.caller(), "saf."+rev.UpSTAN)
	if err != nil {
		h.s.log.Error("the audit log takes no records", "error", err)
		h.s.returnTry(ctx, rev)
		return
	}
	defer act.Close()
	open, sent, err := h.dispatchReversal(ctx, act, rev, t)
	switch {
	case errors.Is(err, errPoison):
		h.s.park(ctx, act, rev, t, err)
		return
	case err != nil && !sent:
		h.s.log.Warn("a reversal was not sent", "stan", rev.UpSTAN, "error", err)
		h.s.returnTry(ctx, rev)
		return
	case err != nil:
		h.s.log.Warn("the link broke while a reversal was sent", "stan", rev.UpSTAN, "error", err)
		h.unheard(ctx, rid)
		return
	}
	reply, err := h.await(ctx, open)
	// The answers to two tries are alike: the second is expected, and late.
	until := h.s.now().Add(h.s.rules().Timers.Stray)
	h.open.expire(open, until, func(m *iso8583.Message) { h.s.lateConfirmation(h.s.life, h, rid, m) })
	if ctx.Err() != nil {
		return // keyd ends: that was no silence, and the try stands as sent
	}
	if err != nil {
		h.s.noteSilence(ctx, act, rev, t)
		h.unheard(ctx, rid)
		return
	}
	h.s.confirm(ctx, h, act, rev, t, reply)
}

// startTry journals that the reversal is about to be sent, so that after a crash
// it is known to have left: the next try is a 0421. It returns nil without an
// error when nothing is to be sent now.
func (s *Switch) startTry(ctx context.Context, rid RID) (rev *Reversal, t *Txn, err error) {
	now := s.now().UTC()
	overdue := false
	err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
		rev, err = tx.Reversal(rid)
		if err != nil {
			return err
		}
		if t, err = tx.Txn(rev.OID); err != nil {
			return err
		}
		if rev.State != Queued && rev.State != Sent || rev.Next.After(now) {
			rev = nil
			return nil
		}
		earlier, err := openBefore(tx, rev)
		if err != nil {
			return err
		}
		if earlier {
			rev.Next = now.Add(s.rules().Retry.First)
			err, rev = tx.UpdateReversal(rev), nil
			return err
		}
		if overdue = s.exhausted(rev, now); overdue {
			return fail(tx, rev, t, now)
		}
		rev.State = Sent
		rev.Tries++
		rev.LastSent = now
		if rev.FirstSent.IsZero() {
			rev.FirstSent = now
		}
		rev.Next = now.Add(s.rules().Timers.Upstream + jitter(s.rules().Retry.backoff(rev.Tries)))
		return tx.UpdateReversal(rev)
	})
	if errors.Is(err, custody.ErrTampered) {
		return nil, nil, s.parkTampered(ctx, rid, err)
	}
	if err == nil && overdue {
		s.noteFailed(ctx, rev, t, audit.ReasonUpstreamSilent)
		rev = nil
	}
	return rev, t, err
}

// openBefore reports whether another reversal must go first: an earlier one of the
// original, or that of a void which brings the original back.
func openBefore(tx Tx, rev *Reversal) (bool, error) {
	open, err := tx.OpenBefore(rev.OID, rev.Built)
	if err != nil || open {
		return open, err
	}
	live, err := optionalTxn(tx.Live(rev.OID))
	if err != nil || live == nil {
		return false, err
	}
	return tx.OpenBefore(live.OID, rev.Built)
}

// exhausted reports whether a reversal has used up its tries or its time.
func (s *Switch) exhausted(rev *Reversal, now time.Time) bool {
	p := s.rules().Retry
	since := rev.Built
	if rev.Renewed.After(since) {
		since = rev.Renewed
	}
	return p.Tries > 0 && rev.Tries-rev.Granted >= p.Tries || now.Sub(since) > p.TTL
}

// fail gives a reversal up: an operator must look at it.
func fail(tx Tx, rev *Reversal, t *Txn, now time.Time) error {
	rev.State, rev.Closed = Failed, now
	if err := tx.UpdateReversal(rev); err != nil {
		return err
	}
	if !rev.Full {
		return nil
	}
	t.State = ReversalFailed
	return tx.UpdateTxn(t)
}

// returnTry takes a try back that never left, so that the first message upstream
// sees is a 0420.
func (s *Switch) returnTry(ctx context.Context, rev *Reversal) {
	err := s.cfg.Journal.Update(ctx, func(tx Tx) error {
		now, err := tx.Reversal(rev.RID)
		if err != nil || now.State != Sent || now.Tries != rev.Tries {
			return err
		}
		now.Tries--
		if now.Next = s.now().UTC().Add(s.rules().Retry.First); now.Tries == 0 {
			now.State, now.FirstSent, now.LastSent = Queued, time.Time{}, time.Time{}
		}
		return tx.UpdateReversal(now)
	})
	if err != nil {
		s.log.Error("a try could not be taken back", "stan", rev.UpSTAN, "error", err)
	}
}

// errPoison: a reversal that cannot be built from the journal.
var errPoison = errors.New("isoswitch: the reversal cannot be built")

// dispatchReversal builds the 0420 or 0421 from the journal alone, and
// hands it to the link once its records are durable. sent says whether some of
// it may have left.
func (h *host) dispatchReversal(ctx context.Context, act *custody.Act, rev *Reversal, t *Txn) (open *exchange, sent bool, err error) {
	pan, expiry, err := h.s.custody.Reveal(ctx, t.Card)
	if err != nil {
		if errors.Is(err, custody.ErrUnavailable) {
			return nil, false, err
		}
		return nil, false, fmt.Errorf("%w: %w", errPoison, err)
	}
	b, err := h.buildReversal(rev, t, pan, expiry)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errPoison, err)
	}
	rec := noteOf(act, audit.ReversalForward, t, pan)
	rec.ISO.MTI, rec.ISO.STAN = string(reversalMTI(rev)), rev.UpSTAN
	rec.ISO.Orig = audit.Orig{MTI: t.MTI, STAN: t.UpSTAN, DateTime: t.UpSent}
	act.Note(rec)
	msg, err := h.seal(ctx, act, b)
	if err != nil {
		return nil, false, err
	}
	receipt, err := act.Commit(ctx)
	if err != nil {
		return nil, false, err
	}
	open = h.open.start(match{stan: rev.UpSTAN, sent: rev.UpSent, class: '4', tid: t.TID})
	if err := h.send(receipt, open, msg, func() bool { sent = true; return true }); err != nil {
		h.open.end(open)
		return nil, sent, err
	}
	h.s.observe(Event{Name: "forward", Code: string(reversalMTI(rev))})
	return open, true, nil
}

// reversalMTI is 0420 for the first try and 0421 for every other.
func reversalMTI(rev *Reversal) iso8583.MTI {
	if rev.Tries <= 1 {
		return iso8583.ReversalAdvice
	}
	return iso8583.ReversalAdviceRepeat
}

// upstreamName is DE 90 for a message that keyd sent upstream.
func upstreamName(t *Txn) (string, error) {
	return iso8583.OriginalData{MTI: iso8583.MTI(t.MTI), STAN: t.UpSTAN, DateTime: t.UpSent, Acquirer: orDefault(t.UpAcquirer, t.Acquirer)}.Text()
}

// buildReversal is section 12.6 with W-08: copied from the journal, STAN and
// DE 7 its own and the same in every try, DE 90 naming the message that keyd
// sent upstream.
func (h *host) buildReversal(rev *Reversal, t *Txn, pan custody.PAN, expiry string) (*iso8583.Builder, error) {
	names, err := upstreamName(t)
	if err != nil {
		return nil, err
	}
	amount, err := iso8583.AmountText(t.Amount)
	if err != nil {
		return nil, err
	}
	b := h.build(reversalMTI(rev)).
		Set(2, string(pan)).Set(3, t.Processing).Set(4, amount).
		Set(7, rev.UpSent).Set(11, rev.UpSTAN).Set(12, t.Time).Set(13, t.Date).
		Set(22, t.Entry).Set(25, t.Condition).Set(37, t.RRN).Set(39, rev.Reason).
		Set(41, t.TID).Set(42, t.MID).Set(49, t.Currency).Set(90, names)
	for de, value := range map[int]string{14: expiry, 32: orDefault(t.UpAcquirer, t.Acquirer), 38: t.Approval} {
		if value != "" {
			b.Set(de, value)
		}
	}
	if !rev.Full {
		rest, err := iso8583.ReplacementText(rev.Rest)
		if err != nil {
			return nil, err
		}
		b.Set(95, rest)
	}
	_, err = b.Pack()
	return b, err
}
