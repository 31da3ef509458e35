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

// sealUpstream gives a message for upstream its MAC under the zone key (W-08).
func (s *Switch) sealUpstream(ctx context.Context, act *custody.Act, b *iso8583.Builder) ([]byte, error) {
	open, err := b.Pack()
	if err != nil {
		return nil, fmt.Errorf("building the message for upstream: %w", err)
	}
	made, err := act.GenerateMAC(ctx, custody.GenerateMAC{
		Key:       s.cfg.Upstream.MACKey,
		Algorithm: custody.MACAlg3,
		Padding:   custody.Padding1,
		Message:   open.MACInput(),
		Length:    8,
	})
	if err != nil {
		return nil, fmt.Errorf("sealing the message for upstream: %w", err)
	}
	return open.Seal([8]byte(made.MAC)), nil
}

// verifyUpstream verifies an answer over the bytes as received (M-12). A wrong
// or absent MAC is custody.ErrMAC, with what was found in the verdict.
func (s *Switch) verifyUpstream(ctx context.Context, act *custody.Act, m *iso8583.Message) (audit.MAC, error) {
	found := audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictOK}
	mac, err := m.MAC()
	if err != nil {
		found.Verdict = absence(err)
		return found, fmt.Errorf("%w: %w", custody.ErrMAC, err)
	}
	_, err = act.VerifyMAC(ctx, custody.VerifyMAC{
		Key:       s.cfg.Upstream.MACKey,
		Algorithm: custody.MACAlg3,
		Padding:   custody.Padding1,
		Message:   m.MACInput(),
		MAC:       mac[:],
		Length:    8,
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
func (s *Switch) judge(ctx context.Context, act *custody.Act, t *Txn, m *iso8583.Message) result {
	bad := result{kind: unknownResult, cause: ByBadAnswer, code: s.distrusted()}
	found, err := s.verifyUpstream(ctx, act, m)
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
	res := result{kind: declinedResult, code: m.Text(39), approval: m.Text(38), emv: m.Bytes(55)}
	if s.approves(res.code) {
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
func (s *Switch) lateAnswer(ctx context.Context, t *Txn, m *iso8583.Message) {
	act, err := s.custody.Begin(ctx, s.link.caller(s.link.current()), "late."+t.UpSTAN)
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	found, err := s.verifyUpstream(ctx, act, m)
	switch {
	case err != nil:
		act.Note(responseNote(m, t, found, distrust(err)))
	case !echoes(m, string(iso8583.MTI(t.MTI).Response()), t, t.UpSTAN):
		act.Note(responseNote(m, t, found, audit.ReasonAttributeMismatch))
	default:
		err = s.cfg.Journal.Update(ctx, func(tx Tx) error { return keepLate(tx, t.OID, m.Text(39), m.Text(38)) })
		if err != nil {
			s.log.Error("a late answer could not be journalled", "stan", t.UpSTAN, "error", err)
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
func keepLate(tx Tx, oid OID, code, approval string) error {
	t, err := tx.Txn(oid)
	if err != nil {
		return err
	}
	rev, err := optional(tx.Reversal(fullRID(oid)))
	if err != nil {
		return err
	}
	t.Late = strings.TrimSpace(code + " " + approval)
	if rev == nil || rev.FirstSent.IsZero() {
		t.Approval = orDefault(approval, t.Approval)
	}
	return tx.UpdateTxn(t)
}

// refuseUnexpected meets an answer that nobody asked for (A-06.T2).
func (s *Switch) refuseUnexpected(ctx context.Context, l *link, conn net.Conn, m *iso8583.Message) {
	act, err := s.custody.Begin(ctx, l.caller(conn), "unexpected."+m.Text(11))
	if err != nil {
		s.log.Error("the audit log takes no records", "error", err)
		return
	}
	defer act.Close()
	rec := responseNote(m, nil, audit.MAC{Alg: audit.MACAlg3, Len: 8, Verdict: audit.VerdictNoKey}, audit.ReasonUnexpectedResponse)
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
