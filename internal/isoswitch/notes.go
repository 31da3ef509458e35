package isoswitch

import (
	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// advised is the action for what is told as done already: an advice (0220) is no
// question, and has actions of its own.
func (r *request) advised(action audit.Action) audit.Action {
	if !r.advice() {
		return action
	}
	switch action {
	case audit.SaleAccept:
		return audit.AdviceAccept
	case audit.SaleRefuse:
		return audit.AdviceRefuse
	}
	return action
}

// note is the record of a decision on a terminal's message. Section 7.2 of the
// audit log: what was asked, what was decided, by which rule.
func (r *request) note(action audit.Action, v verdict) audit.Record {
	rec := describe(r.msg)
	rec.Action = r.advised(action)
	rec.ISO.DE39 = v.code
	rec.ISO.Rule = v.rule
	rec.ISO.Alert = v.alert
	rec.Reason = v.reason
	rec.Outcome = audit.OutcomeRefused
	if v.code == codeApproved || v.effect != noEffect && v.effect != addTombstone {
		rec.Outcome = audit.OutcomeOK
	}
	rec.MAC = r.checked
	tid, mid := r.msg.Text(41), r.msg.Text(42)
	if r.known {
		rec.ISO.Terminal = audit.Registered(tid)
	} else if tid != "" {
		rec.ISO.Terminal = r.act.Stranger(tid)
	}
	if r.known && mid == r.terminal.MID {
		rec.ISO.Merchant = audit.Registered(mid)
	} else if mid != "" {
		rec.ISO.Merchant = r.act.StrangeMerchant(mid)
	}
	rec.KSN = r.serial.text
	rec.PAN, _ = r.act.PAN(r.pan) // a token that fails has refused the message before
	return rec
}

// describe is what a record may hold of any message: no PAN, no terminal.
func describe(m *iso8583.Message) audit.Record {
	var rec audit.Record
	if m == nil {
		return rec
	}
	rec.ISO = audit.ISO{
		MTI:      string(m.MTI()),
		STAN:     m.Text(11),
		RRN:      m.Text(37),
		Proc:     m.Text(3),
		Currency: m.Text(49),
		Acquirer: m.Text(32),
	}
	if minor, ok := m.Amount(); ok {
		rec.ISO.Amount = &minor
	}
	if o, ok := m.Original(); ok {
		rec.ISO.Orig = audit.Orig{MTI: string(o.MTI), STAN: o.STAN, DateTime: o.DateTime}
	}
	return rec
}

// noteOf is the record of something that concerns an original in the journal.
func noteOf(act *custody.Act, action audit.Action, t *Txn, pan custody.PAN) audit.Record {
	amount := t.Amount
	rec := audit.Record{
		Action:  action,
		Outcome: audit.OutcomeOK,
		ISO: audit.ISO{
			MTI:      t.MTI,
			STAN:     t.STAN,
			RRN:      t.RRN,
			Proc:     t.Processing,
			Amount:   &amount,
			Currency: t.Currency,
			Acquirer: t.Acquirer,
			Terminal: audit.Registered(t.TID),
			Merchant: audit.Registered(t.MID),
			Orig:     audit.Orig{MTI: t.MTI, STAN: t.STAN, DateTime: dateOf(t.Sent)},
		},
	}
	rec.PAN, _ = act.PAN(pan)
	return rec
}

// dateOf is DE 7 of an original for records, and nothing where a batch stands in
// its place.
func dateOf(sent string) string {
	if len(sent) != len(layoutDE7) {
		return ""
	}
	return sent
}
