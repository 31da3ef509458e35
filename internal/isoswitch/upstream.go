package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// seal gives a message for the host its MAC under the zone key (W-08).
func (h *host) seal(ctx context.Context, act *custody.Act, b *iso8583.Builder) ([]byte, error) {
	open, err := b.Pack()
	if err != nil {
		return nil, fmt.Errorf("building the message for upstream: %w", err)
	}
	made, err := act.GenerateMAC(ctx, custody.GenerateMAC{
		Key:       h.zone.Load().mac,
		Algorithm: h.algorithm,
		Padding:   h.padding,
		Message:   open.MACInput(),
		Length:    h.bytes,
		Expected:  h.macName,
	})
	if err != nil {
		return nil, fmt.Errorf("sealing the message for upstream: %w", err)
	}
	var mac [8]byte
	copy(mac[:], made.MAC)
	return open.Seal(mac), nil
}

// verify verifies an answer over the bytes as received (M-12). A wrong
// or absent MAC is custody.ErrMAC, with what was found in the verdict.
func (h *host) verify(ctx context.Context, act *custody.Act, m *iso8583.Message) (audit.MAC, error) {
	found := audit.MAC{Alg: h.macName, Len: h.bytes, Verdict: audit.VerdictOK}
	mac, err := m.MAC()
	if err != nil {
		found.Verdict = absence(err)
		return found, fmt.Errorf("%w: %w", custody.ErrMAC, err)
	}
	_, err = act.VerifyMAC(ctx, custody.VerifyMAC{
		Key:       h.zone.Load().mac,
		Algorithm: h.algorithm,
		Padding:   h.padding,
		Message:   m.MACInput(),
		MAC:       mac[:h.bytes],
		Length:    h.bytes,
		Expected:  h.macName,
	})
	switch {
	case errors.Is(err, custody.ErrMAC):
		found.Verdict = audit.VerdictBad
	case err != nil:
		found.Verdict = audit.VerdictError
	}
	return found, err
}

// judge is the success predicate of section 9 over an answer that came in time.
func (s *Switch) judge(ctx context.Context, act *custody.Act, h *host, t *Txn, m *iso8583.Message) result {
	bad := result{kind: unknownResult, cause: ByBadAnswer, code: s.speechOf(t).distrusted()}
	found, err := h.verify(ctx, act, m)
	if err != nil {
		act.Note(responseNote(m, t, found, distrust(err)))
		s.log.Error("an answer from upstream is not authentic", "stan", t.UpSTAN, "error", err)
		s.observe(Event{Name: "response", Code: "mac"})
		return bad
	}
	if !echoes(m, string(iso8583.MTI(t.MTI).Response()), t, t.UpSTAN) {
		act.Note(responseNote(m, t, found, audit.ReasonAttributeMismatch))
		s.log.Error("an answer from upstream is not that of its request", "stan", t.UpSTAN)
		s.observe(Event{Name: "response", Code: "echo"})
		return bad
	}
	approved, told := h.verdict(m.Text(39), s.speechOf(t))
	res := result{kind: declinedResult, code: told, approval: m.Text(38), emv: m.Bytes(55)}
	if approved {
		res.kind = approvedResult
	}
	return res
}

// distrust is why an answer was not believed: its MAC, or that it could not be
// verified.
func distrust(err error) audit.Reason {
	if errors.Is(err, custody.ErrMAC) {
		return audit.ReasonUpstreamMACInvalid
	}
	return audit.ReasonHSMUnavailable
}

// echoes reports whether an answer has the expected MTI and repeats DE 3, 4,
// 11, 41, 42 and 49 of its request.
func echoes(m *iso8583.Message, mti string, t *Txn, stan string) bool {
	amount, ok := m.Amount()
	return ok && amount == t.Amount && string(m.MTI()) == mti && m.Text(3) == t.Processing &&
		m.Text(11) == stan && m.Text(41) == t.TID && m.Text(42) == t.MID && m.Text(49) == t.Currency
}

// responseNote is the record of an answer from upstream that was not believed.
// t is the original that it seems to belong to, or nil.
func responseNote(m *iso8583.Message, t *Txn, found audit.MAC, why audit.Reason) audit.Record {
	rec := describe(m)
	rec.Action, rec.Outcome, rec.Reason = audit.ResponseRefuse, audit.OutcomeRefused, why
	rec.ISO.DE39, rec.ISO.Alert = m.Text(39), audit.AlertSecurity
	rec.MAC = found
	if t != nil {
		rec.ISO.Terminal, rec.ISO.Merchant = audit.Registered(t.TID), audit.Registered(t.MID)
	}
	if m.MTI().Class() == '4' {
		rec.ISO.Rule = "D-33"
	}
	return rec
}

// lateAnswer meets an answer to a sale whose time is over (section 7.1): it is
// never given to the terminal, and it changes nothing of the reversal but its
// DE 38. What it says is journalled, for it shows whether the issuer debited.
func (s *Switch) lateAnswer(ctx context.Context, h *host, t *Txn, m *iso8583.Message) {
	act, err := s.custody.Begin(ctx, h.caller(), "late."+t.UpSTAN)
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	found, err := h.verify(ctx, act, m)
	switch {
	case err != nil:
		act.Note(responseNote(m, t, found, distrust(err)))
	case !echoes(m, string(iso8583.MTI(t.MTI).Response()), t, t.UpSTAN):
		act.Note(responseNote(m, t, found, audit.ReasonAttributeMismatch))
	default:
		kept := t
		err = s.cfg.Journal.Update(ctx, func(tx Tx) (err error) {
			kept, err = keepLate(tx, t.OID, m.Text(39), m.Text(38))
			return err
		})
		if err != nil {
			s.log.Error("a late answer could not be journalled", "stan", t.UpSTAN, "error", err)
		} else if kept.State == ReversedUnknown && s.debitedLate(kept) {
			s.noteDebited(act, kept, m, found)
		}
		rec := noteOf(act, audit.SaleAnswer, t, "")
		rec.Outcome, rec.Reason = audit.OutcomeRefused, audit.ReasonTimeout
		rec.ISO.DE39, rec.MAC = m.Text(39), found
		act.Note(rec)
	}
	if _, err := act.Commit(ctx); err != nil {
		s.log.Error("a late answer could not be recorded", "stan", t.UpSTAN, "error", err)
	}
	s.observe(Event{Name: "late", Code: m.Text(39)})
}

// keepLate journals a late answer. Its DE 38 goes into the reversal unless that
// has been sent: what a reversal says does not change between its tries.
func keepLate(tx Tx, oid OID, code, approval string) (*Txn, error) {
	t, err := tx.Txn(oid)
	if err != nil {
		return nil, err
	}
	rev, err := optional(tx.Reversal(fullRID(oid)))
	if err != nil {
		return nil, err
	}
	t.Late = strings.TrimSpace(code + " " + approval)
	if rev == nil || rev.FirstSent.IsZero() {
		t.Approval = orDefault(approval, t.Approval)
	}
	return t, tx.UpdateTxn(t)
}

// debitedLate reports whether an authentic late answer to the sale was an approval.
func (s *Switch) debitedLate(t *Txn) bool {
	code, _, _ := strings.Cut(t.Late, " ")
	h := s.hostOf(t)
	if code == "" || h == nil {
		return false
	}
	approved, _ := h.verdict(code, s.speechOf(t))
	return approved
}

// noteDebited tells of a sale that upstream has approved after it closed the
// reversal as one of a sale that it does not know. No state leads back from there
// (section 2.2): an operator must undo the debit.
func (s *Switch) noteDebited(act *custody.Act, t *Txn, m *iso8583.Message, found audit.MAC) {
	s.log.Error("a sale was approved after upstream did not know it: an operator must look at it", "stan", t.UpSTAN, "tid", t.TID)
	rec := noteOf(act, audit.ReversalFail, t, "")
	rec.ISO.DE39, rec.ISO.Rule, rec.ISO.Alert, rec.MAC = m.Text(39), "D-30", audit.AlertSecurity, found
	rec.Outcome, rec.Reason = audit.OutcomeError, audit.ReasonUpstreamUnknown
	act.Note(rec)
	s.observe(Event{Name: "forward", Code: "failed", Rule: "D-30"})
}

// refuseUnexpected meets an answer that nobody asked for (A-06.T2).
func (s *Switch) refuseUnexpected(ctx context.Context, l *link, conn net.Conn, m *iso8583.Message) {
	act, err := s.custody.Begin(ctx, l.caller(conn), "unexpected."+m.Text(11))
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	rec := responseNote(m, nil, audit.MAC{Alg: l.h.macName, Len: l.h.bytes, Verdict: audit.VerdictNoKey}, audit.ReasonUnexpectedResponse)
	rec.ISO.Rule = "D-01"
	act.Note(rec)
	if _, err := act.Commit(ctx); err != nil {
		s.log.Error("a refusal could not be recorded", "error", err)
	}
	s.log.Warn("an answer from upstream that nobody asked for", "message", m)
	s.observe(Event{Name: "response", Code: "unexpected"})
}

// refuseUpstreamFrame records a frame from upstream that cannot be read.
func (s *Switch) refuseUpstreamFrame(ctx context.Context, l *link, conn net.Conn, m *iso8583.Message, cause error) {
	s.log.Warn("a frame from upstream was not read", "error", cause)
	s.recordFrame(ctx, l.caller(conn), "upstream", m)
}
