package isoswitch

import (
	"fmt"
	"slices"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
)

// Under a linear MAC (cup_ecb) eight bytes that may be anything turn the MAC of one
// message into that of another. So a reversal has its effect by itself only
// where each of its bytes is compared with the original, the registry or a short
// list; else persons decide on it. What refers to another transaction, a void say,
// is refused then.

// Check returns [ErrConfig] for an action that would let such a reversal go on.
func (a VelocityAction) Check() error {
	if a != Hold && a != Refuse {
		return fmt.Errorf("%w: %q is neither %s nor %s", ErrConfig, a, Hold, Refuse)
	}
	return nil
}

// linear reports whether the MAC of the message fits others too.
func (r *request) linear() bool { return r.speech.linear(r.terminal.Scheme) }

// content is what a repeat of a sale has in common with it, W-16; under a linear MAC
// also what its reversal copies (U-64), so that nothing of that has to be stored.
func (r *request) content(token string) Hash {
	if !r.linear() {
		return saleContent(r.msg, token)
	}
	return boundContent(r.msg, token, r.msg.Text(3), r.msg.Has(61))
}

func boundContent(m *iso8583.Message, token, processing string, names bool) Hash {
	parts := []string{token, processing}
	for _, de := range []int{4, 11, 12, 13, 14, 22, 23, 25, 41, 42, 49, 60} {
		parts = append(parts, m.Text(de))
	}
	if names {
		parts = append(parts, m.Text(61))
	}
	return digest("keyd-sale-2", parts...)
}

// fieldsIn reports whether a message has no fields but these and its MAC.
func fieldsIn(m *iso8583.Message, list ...int) bool {
	for de := 2; de <= 128; de++ {
		if m.Has(de) && de != 64 && de != 128 && !slices.Contains(list, de) {
			return false
		}
	}
	return true
}

// vouched reports whether a field is not there, or has a value that is known.
func vouched(m *iso8583.Message, de int, known string) bool {
	return !m.Has(de) || known != "" && m.Text(de) == known
}

// unchecked reports whether a reversal with a linear MAC has bytes that nothing is
// compared with. What the decision table compares is not looked at again.
func (r *request) unchecked(q question, o *Txn) bool {
	if o == nil || !r.linear() {
		return false
	}
	m, refers := r.msg, o.RefersTo != OID{}
	switch {
	case !fieldsIn(m, 2, 3, 4, 11, 14, 22, 23, 25, 32, 37, 38, 39, 41, 42, 49, 60, 61):
	case !q.full, !slices.Contains(r.speech.Rules.Reasons, r.reason()):
	case !vouched(m, 32, orDefault(o.Acquirer, r.rules.policy.acquirer)):
	case !vouched(m, 37, o.RRN), !vouched(m, 38, o.Approval):
	case !refers && m.Has(61) && !dated61(m, o):
	default:
		return o.Content != boundContent(m, q.token, o.Processing, refers)
	}
	return true
}

// uncheckedReference is the same of what refers to o.
func (r *request) uncheckedReference(o *Txn) bool {
	m := r.msg
	if !r.linear() {
		return false
	}
	text := m.Text(60)
	switch {
	case !fieldsIn(m, 2, 3, 4, 11, 22, 25, 32, 37, 38, 41, 42, 49, 60, 61):
	case m.Text(22) != o.Entry:
	case len(text) != 13 || text[8:11] != "000": // U-37: then chip or not, two digits
	case !vouched(m, 32, orDefault(o.Acquirer, r.rules.policy.acquirer)):
	case !vouched(m, 37, o.RRN), !vouched(m, 38, o.Approval), !dated61(m, o):
	default:
		return false
	}
	return true
}

// dated61 reports whether DE 61 ends after batch and STAN, or with the date of o.
func dated61(m *iso8583.Message, o *Txn) bool {
	const date = "0102"
	text := m.Text(61)
	tail := text[min(12, len(text)):]
	return slices.Contains([]string{"", "0000", o.Received.Format(date), o.Finished.Format(date)}, tail)
}

// unbound is the refusal of what refers to another transaction and has bytes that
// nothing is compared with.
func unbound() *verdict {
	v := ruling("D-15", false)
	v.reason, v.alert = audit.ReasonMACPolicy, audit.AlertSecurity
	return &v
}

// unbound is what becomes of a reversal that has such bytes: it is held for two
// persons, or refused. One of a sale in flight cannot be held; its terminal sends it
// again, and then there is an outcome.
func (p policy) unbound(v verdict, q question, f facts) verdict {
	v.reason, v.alert = audit.ReasonMACPolicy, audit.AlertSecurity
	switch {
	case p.unbind == Refuse, !q.full, f.tooMany && p.over == Refuse:
	case f.original.inFlight():
		v.code = codeCannot
	default:
		v.code, v.effect = codeApproved, holdReversal
	}
	return v
}
