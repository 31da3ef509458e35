package isoswitch

import (
	"context"
	"slices"
	"strings"

	"keyd.dev/keyd/audit"
)

// permitSale is what a sale's own content decides: its type, amount, currency
// and PIN field. It returns the refusal, or nil. W-06, W-09.
func (s *Switch) permitSale(r *request) *verdict {
	m := r.msg
	amount, _ := m.Amount()
	_, names := r.speech.names(m)
	kind := kindOf(m.MTI(), m.Text(3), names)
	if v := r.permitType(); v != nil {
		return v
	}
	switch {
	case kind == noKind:
		return &verdict{code: codeInvalid, reason: audit.ReasonProfileDenied}
	case !slices.Contains(r.rules.Limits.Currencies, m.Text(49)):
		return &verdict{code: codeInvalid, reason: audit.ReasonProfileDenied}
	case amount == 0 && kind != balanceKind:
		return &verdict{code: codeAmount, reason: audit.ReasonFormatError}
	case kind != voidKind && (amount > r.rules.Limits.MaxAmount || r.terminal.Most > 0 && amount > r.terminal.Most):
		return &verdict{code: codeLimit, reason: audit.ReasonProfileDenied}
	case m.Has(35) && trackPAN(m.Text(35)) != panOf(m):
		return &verdict{code: codePAN, reason: audit.ReasonPANMismatch}
	case r.terminal.Scheme == TDESDUKPT && m.Has(63), r.terminal.Scheme == AESDUKPT && m.Has(52):
		return &verdict{rule: "D-01", code: codeFormat, reason: audit.ReasonPINFormat}
	}
	if v := s.quarantined(r, kind); v != nil {
		return v
	}
	if _, ok := r.sentAt(); !ok {
		return &verdict{rule: "D-01", code: codeFormat, reason: audit.ReasonFormatError}
	}
	return r.rules.door.permits(r, kind, amount, r.rules.Timers.ClockSkew)
}

// trackPAN is the card number in track 2, which ends at its separator.
func trackPAN(track string) string {
	if i := strings.IndexAny(track, "=D"); i >= 0 {
		return track[:i]
	}
	return ""
}

// saleNote is the record of an outcome that is given to a terminal.
func (r *request) saleNote(t *Txn, again bool) audit.Record {
	rec := r.note(audit.SaleAnswer, verdict{code: t.Answer})
	rec.Outcome, rec.Reason = audit.OutcomeOK, 0
	rec.ISO.RRN = t.RRN
	rec.Replay = again
	switch {
	case t.State == ReversalPending && (t.Answer == codeCannot || t.Answer == r.speech.distrusted()):
		rec.Outcome, rec.Reason = audit.OutcomeUnknown, audit.ReasonUpstreamMACInvalid
	case t.State == ReversalPending:
		rec.Outcome, rec.Reason = audit.OutcomeUnknown, audit.ReasonTimeout
	}
	return rec
}

// noteSuppressed records that a terminal gets no answer to a sale, for it asked
// to reverse the sale in the meantime (D-18, D-20).
func (s *Switch) noteSuppressed(ctx context.Context, r *request, t *Txn) {
	rec := r.note(audit.SaleAnswer, verdict{rule: "D-18", code: t.Answer})
	if t.State == LocalVoid {
		rec.ISO.Rule = "D-20"
	}
	rec.Outcome, rec.Reason = audit.OutcomeRefused, audit.ReasonAlreadyReversed
	rec.ISO.RRN = t.RRN
	r.act.Note(rec)
	if _, err := r.act.Commit(ctx); err != nil {
		s.log.Error("a suppressed answer could not be recorded", "corr", r.corr, "error", err)
	}
	s.observe(Event{Name: "sale", Rule: rec.ISO.Rule, Took: s.now().Sub(r.at)})
}

// noteUndelivered records the reversal of an approval that reached nobody.
func (s *Switch) noteUndelivered(t *Txn) {
	act, err := s.custody.Begin(s.life, s.self(), "undelivered")
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	rec := noteOf(act, audit.ReversalAccept, t, "")
	rec.Reason = audit.ReasonAnswerUndelivered
	act.Note(rec)
	if _, err := act.Commit(s.life); err != nil {
		s.log.Error("a reversal could not be recorded", "error", err)
	}
	s.observe(Event{Name: "sale", Code: "undelivered"})
}

// reasonFor is the log's reason for a reversal that keyd starts itself.
func reasonFor(c Cause) audit.Reason {
	switch c {
	case ByTimeout:
		return audit.ReasonTimeout
	case ByBadAnswer:
		return audit.ReasonUpstreamMACInvalid
	case ByLinkLoss:
		return audit.ReasonUpstreamSilent
	case ByRestart:
		return audit.ReasonCrash
	}
	return audit.ReasonAnswerUndelivered
}
