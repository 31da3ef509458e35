package isoswitch

import (
	"slices"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
)

// question is a reversal whose MAC is valid, ready to be decided on.
type question struct {
	advice bool
	full   bool
	rest   int64 // of a partial: DE 95, what stays valid, minor units
	names  iso8583.OriginalData
	key    LookupKey // of the original that it names, in the sender's own space

	byBatch bool   // it names its original by batch
	current bool   // and is of the batch that its terminal is in
	type60  string // DE 60.1
	named61 string // DE 61

	token      string // of the PAN, keyed
	processing string
	amount     int64 // minor units
	currency   string
	condition  string
	acquirer   string // DE 32, or empty
	rrn        string // DE 37, or empty
	approval   string // DE 38, or empty
	content    Hash   // section 4.5

	sent time.Time // DE 7 of the reversal
	now  time.Time
}

// facts are what the journal and the running process know about a question.
type facts struct {
	original *Txn      // the newest with its look-up key within look-back, tombstones too; or nil
	full     *Reversal // the full reversal of that original, or nil
	same     *Reversal // the reversal with the question's RID, or nil
	left     bool      // of an original in flight: it was handed to the link
	refers   *Txn      // what that original refers to, or nil
	live     *Txn      // what refers to that original and has its effect, or may have it; or nil
	tooMany  bool      // the sender is over its rate
	loose    bool      // its MAC is linear, and nothing is compared with some of its bytes
}

// policy is the part of the configuration that decides.
type policy struct {
	acquirer string
	partials []string // DE 3 types
	lookBack time.Duration
	maxAge   time.Duration
	skew     time.Duration
	over     VelocityAction // D-35
	unbind   VelocityAction // the same of what is loose
	profile  profile.Rules

	completion int // most of a pre-authorization that a completion may be, percent
}

// decide is the decision table, stages 7 to 14 of section 5. The order is
// fixed; the first stage that decides, decides. It changes nothing.
func (p policy) decide(q question, f facts) verdict {
	stages := []func(question, facts) string{
		p.identity, p.equality, p.join, p.typeAndAge, p.state, p.partial, p.velocity, p.effect,
	}
	for _, stage := range stages {
		if row := stage(q, f); row != "" {
			return p.rule(row, q, f)
		}
	}
	return ruling("", q.advice)
}

// rule is the row's ruling with what only this question can say.
func (p policy) rule(row string, q question, f facts) verdict {
	late := p.needsCase(row, q, f)
	if late && f.loose { // whose advice it is comes first
		row = "D-35"
	}
	v := ruling(row, q.advice)
	switch {
	case row == "D-07":
		v.code = f.same.Answer
	case row == "D-09" && !q.advice && q.token != f.original.Card.Token:
		v.code = codePAN
	case row == "D-09" && !q.advice && q.amount != f.original.Amount:
		v.code = codeOriginalSum
	case row == "D-10" && f.original != nil:
		v.effect = noEffect // the tombstone is there
	}
	if row == "D-35" && f.loose {
		return p.unbound(v, q, f)
	}
	if row == "D-35" && p.over == Hold && q.full {
		v.code, v.effect = codeApproved, holdReversal
	}
	if row == "D-10" && !q.full {
		v.code = codeNoOriginal
	}
	if late {
		v.effect = holdReversal
	}
	if f.tooMany && v.effect.accepts() {
		v.alert = audit.AlertFraud // D-35, observed
	}
	return v
}

// needsCase reports whether an advice of what came too late is for two persons to
// decide on: the terminal is told 00 and will not come again, and what it undid
// stands with the host. A part cannot be held.
func (p policy) needsCase(row string, q question, f facts) bool {
	if !q.advice || !q.full || row != "D-25" && row != "D-34" || f.original.State != Approved {
		return false
	}
	was := p.state(q, f)
	return was == "" || was == "D-25"
}

// identity is stage 7: which original, and was this reversal seen before.
func (p policy) identity(q question, f facts) string {
	switch q.names.MTI {
	case iso8583.AuthorizationRequest, iso8583.FinancialRequest, iso8583.FinancialAdvice:
	default:
		if q.names.MTI.Class() == '4' {
			return "D-28"
		}
		return "D-17"
	}
	if f.same != nil && !f.same.unanswered() {
		switch {
		case f.same.Content != q.content:
			return "D-09"
		case f.same.Answer == "":
			return "D-08"
		}
		return "D-07"
	}
	if f.original != nil {
		return ""
	}
	if q.byBatch {
		if !q.current {
			return "D-11"
		}
		return "D-10"
	}
	named, ok := timeOf(q.names.DateTime, q.now)
	if !ok || q.now.Sub(named) > p.lookBack || named.Sub(q.now) > p.skew {
		return "D-11"
	}
	if !q.full {
		return "D-11" // what stays valid of a sale that is not known cannot be said
	}
	return "D-10"
}

// equality is stage 8: the attributes of section 4.3.
func (p policy) equality(q question, f facts) string {
	o := f.original
	acquirer := orDefault(o.Acquirer, p.acquirer)
	switch {
	case q.token != o.Card.Token:
		return "D-13"
	case q.amount != o.Amount, q.currency != o.Currency:
		return "D-14"
	case !q.full && (o.kind() == voidKind || !slices.Contains(p.partials, typeOf(o.Processing))):
		return "D-14"
	case q.processing != p.reversedProcessing(o), q.condition != o.Condition, string(q.names.MTI) != o.MTI:
		return "D-15"
	case q.byBatch && o.State != Tombstone && q.type60 != type60Of(iso8583.MTI(o.MTI), o.Processing, o.Condition):
		return "D-15"
	case q.byBatch && o.State != Tombstone && !p.fits61(q, f.refers):
		return "D-15"
	case q.names.DateTime != o.Sent: // W-15
		return "D-15"
	case differ(q.rrn, o.RRN), differ(q.approval, o.Approval), differ(q.acquirer, acquirer):
		return "D-15"
	case !q.names.Matches(acquirer, ""):
		return "D-15"
	}
	return ""
}

// join is stage 9: keyd itself is reversing the original.
func (p policy) join(q question, f facts) string {
	if q.full && f.full != nil && f.full.unanswered() {
		return "D-19"
	}
	return ""
}

// typeAndAge is stage 10.
func (p policy) typeAndAge(q question, f facts) string {
	switch {
	case !p.mayReverse(f.original):
		return "D-17"
	case q.now.Sub(f.original.Received) > p.maxAge, q.sent.Sub(q.now) > p.skew:
		return "D-34"
	}
	return ""
}

// state is stage 11: what became of the original.
func (p policy) state(q question, f facts) string {
	o := f.original
	switch {
	case o.State == Declined:
		return "D-16"
	case o.State == Completed, f.underWay() && f.live.kind() == completeKind:
		return "D-24"
	case o.State == Voided, o.Refunded, f.underWay():
		return "D-23"
	case o.State == Tombstone:
		return "D-10"
	case q.full && o.ReversedAmount > 0:
		return "D-22"
	case o.BatchClosed && !o.inFlight(): // what has no outcome is in no settlement
		return "D-25"
	case o.State == Approved, o.inFlight() && q.full:
		return ""
	case !q.full:
		return "D-27"
	}
	return "D-22"
}

// partial is stage 12: a partial reversal names what stays valid (note D-26).
func (p policy) partial(q question, f facts) string {
	if q.full {
		return ""
	}
	if present := f.original.Amount - f.original.ReversedAmount; q.rest <= 0 || q.rest >= present {
		return "D-27"
	}
	return ""
}

// velocity is stage 13. Where the policy only observes, rule raises the alert.
func (p policy) velocity(q question, f facts) string {
	switch {
	case f.loose:
		return "D-35"
	case !f.tooMany, p.over == Observe, p.over == "":
		return ""
	case p.over == Hold && f.original.inFlight():
		return ""
	}
	return "D-35"
}

// effect is stage 14.
func (p policy) effect(q question, f facts) string {
	switch {
	case f.original.inFlight() && !f.left:
		return "D-20"
	case f.original.inFlight():
		return "D-18"
	case q.full && f.original.kind() == voidKind:
		return "D-29"
	case q.full:
		return "D-21"
	}
	return "D-26"
}

// unanswered reports whether keyd started the reversal itself and no terminal
// has had an answer to it yet; then a terminal's is its first, not a repeat.
func (r *Reversal) unanswered() bool { return r.Cause != ByTerminal && r.Answer == "" }

// inFlight reports whether the original has no outcome yet.
func (t *Txn) inFlight() bool { return t.State == Received || t.State == Forwarded }

// differ reports whether both values are there and not equal.
func differ(a, b string) bool { return a != "" && b != "" && a != b }
