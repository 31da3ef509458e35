package isoswitch

import (
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// reference is a message that names another transaction: a void, a completion, a
// refund of a sale.
type reference struct {
	kind  kind
	names iso8583.OriginalData
	t     *Txn // the message as it would be journalled
}

// about is what the journal knows of the transaction that is named.
type about struct {
	original *Txn // the newest with the look-up key, or nil
	live     *Txn // another that refers to it and has its effect, or may have it; or nil
}

// relate finds the transaction that t names, in the sender's own space and by the
// look-up key of a reversal, and says why t may not refer to it. Nil without a
// refusal: t refers to it now.
func (s *Switch) relate(tx Tx, r *request, t *Txn) (*verdict, error) {
	names, ok := r.speech.names(r.msg)
	switch {
	case !ok && !r.speech.byBatch() && r.msg.Has(90): // it refers to what cannot be read
		v := ruling("D-01", false)
		return &v, nil
	case !ok:
		return nil, nil
	}
	q := reference{kindOf(r.msg.MTI(), t.Processing, true), names, t}
	key := s.lookupKey(t.MID, t.TID, names.DateTime, names.STAN, names.MTI.Class())
	var a about
	var err error
	a.original, err = optionalTxn(tx.Newest(key, r.at.Add(-r.rules.Timers.LookBack)))
	if err == nil && a.original != nil {
		if err = closeBatch(tx, a.original); err != nil {
			return nil, err
		}
		a.live, err = optionalTxn(tx.Live(a.original.OID))
	}
	if err != nil {
		return nil, fmt.Errorf("looking for what a message refers to: %w", err)
	}
	if row := r.rules.policy.relation(q, a); row != "" {
		v := ruling(row, false)
		return &v, nil
	}
	if r.uncheckedReference(a.original) {
		return unbound(), nil
	}
	t.RefersTo, r.about = a.original.OID, a.original
	return nil, nil
}

func optionalTxn(t *Txn, err error) (*Txn, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return t, err
}

// relation is the row by which a message may not refer to what it names, or "".
// The matching key, the attributes that must be equal and the rows are those of a
// reversal; only what each kind adds is its own.
func (p policy) relation(q reference, a about) string {
	o := a.original
	if o == nil || o.State == Tombstone {
		return "D-11"
	}
	acquirer := orDefault(o.Acquirer, p.acquirer)
	switch {
	case q.t.Card.Token != o.Card.Token:
		return "D-13"
	case q.t.Currency != o.Currency, !p.amountFits(q, o):
		return "D-14"
	case string(q.names.MTI) != o.MTI, q.names.DateTime != o.Sent, !q.names.Matches(acquirer, ""):
		return "D-15"
	case differ(q.t.Acquirer, acquirer), q.t.Processing[2:] != o.Processing[2:]:
		return "D-15"
	case q.kind != refundKind && q.t.Condition != o.Condition:
		return "D-15"
	case !undoes(q.kind, q.t.MTI, o):
		return "D-17"
	case q.kind == voidKind && q.t.Received.Sub(o.Received) > p.maxAge:
		return "D-34"
	}
	return p.relationState(q, a)
}

// relationState is what became of the transaction that is named.
func (p policy) relationState(q reference, a about) string {
	o := a.original
	switch {
	case o.State == Declined:
		return "D-16"
	case o.State == Voided, o.Refunded, o.ReversedAmount > 0 && q.kind == voidKind:
		return "D-23"
	case o.State == Completed:
		return "D-24"
	case o.State != Approved:
		return "D-22"
	case a.live != nil: // one at a time, and not before the one before has come to nothing
		return "D-23"
	case o.BatchClosed && q.kind == voidKind:
		return "D-25"
	}
	return ""
}

// undoes reports whether a kind goes with the original: a void with a sale, a
// pre-authorization or a completion of its own class, a completion with a
// pre-authorization, a refund with what was booked.
func undoes(k kind, mti string, o *Txn) bool {
	of := o.kind()
	switch k {
	case voidKind:
		return mti == o.MTI && (of == saleKind || of == preauthKind || of == completeKind)
	case completeKind:
		return of == preauthKind
	case refundKind:
		return of == saleKind || of == completeKind
	}
	return false
}

// amountFits reports whether the amount goes with that of the original: a void
// has the same, a completion at most the part that the policy allows, a refund at
// most what is still valid.
func (p policy) amountFits(q reference, o *Txn) bool {
	switch q.kind {
	case completeKind:
		return q.t.Amount <= o.Amount*int64(p.completion)/100
	case refundKind:
		return q.t.Amount <= o.Amount-o.ReversedAmount
	}
	return q.t.Amount == o.Amount
}

// errRelation: what a void, completion or refund refers to is not in the state
// that its own demands.
var errRelation = errors.New("isoswitch: the transaction that is referred to is in another state")

// takeEffect does what the approval of t does to the transaction that it refers
// to, in the same commit (section 2.2). errRelation: nothing was done.
func takeEffect(tx Tx, t *Txn) error {
	if t.RefersTo == (OID{}) {
		return nil
	}
	o, err := tx.Txn(t.RefersTo)
	if err != nil {
		return fmt.Errorf("reading what a transaction refers to: %w", err)
	}
	if o.State != Approved || o.Refunded {
		return errRelation
	}
	switch t.kind() {
	case voidKind:
		o.State = Voided
	case completeKind:
		o.State = Completed
	case refundKind:
		o.Refunded = true
	}
	if err := tx.UpdateTxn(o); err != nil {
		return fmt.Errorf("writing what a transaction refers to: %w", err)
	}
	return nil
}

// giveBack takes that effect back, for t is being reversed (D-29).
func giveBack(tx Tx, t *Txn) error {
	if t.RefersTo == (OID{}) {
		return nil
	}
	o, err := tx.Txn(t.RefersTo)
	if err != nil {
		return fmt.Errorf("reading what a transaction refers to: %w", err)
	}
	switch k := t.kind(); {
	case k == voidKind && o.State == Voided, k == completeKind && o.State == Completed:
		o.State = Approved
	case k == refundKind && o.Refunded:
		o.Refunded = false
	default:
		return errRelation
	}
	if err := tx.UpdateTxn(o); err != nil {
		return fmt.Errorf("writing what a transaction refers to: %w", err)
	}
	return nil
}

// decline makes a record of a sale that is refused here: it is kept, so that its
// repeat gets the same answer and its reversal finds it (D-16).
func (t *Txn) decline(v *verdict, at time.Time) {
	t.State, t.Answer, t.Finished = Declined, v.code, at
	t.UpSTAN, t.UpSent = "", ""
}

// underWay reports whether a void or completion of the original waits for its
// answer: until it has come, nothing else can be done to the original.
func (f facts) underWay() bool { return f.live != nil && f.live.inFlight() }
