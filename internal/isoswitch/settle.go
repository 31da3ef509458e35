package isoswitch

import (
	"errors"
	"fmt"
	"time"
)

// result is how the upstream part of a sale ended.
type result struct {
	kind     resultKind
	cause    Cause  // of an unknown result
	code     string // DE 39 for the terminal
	approval string // DE 38
	emv      []byte // DE 55
}

type resultKind uint8

const (
	approvedResult resultKind = iota + 1 // the success predicate holds (section 9)
	declinedResult                       // a valid answer that is no approval
	unknownResult                        // no answer that could be believed
	neverLeft                            // nothing was handed to the link
)

// reasonOf is DE 39 of the 0420 for each cause. Section 11.2.
func reasonOf(c Cause) string {
	switch c {
	case ByTimeout, ByLinkLoss, ByRestart:
		return "68"
	}
	return "06"
}

// settlement is what follows from a result.
type settlement struct {
	state    State
	code     string // DE 39 for the terminal
	suppress bool   // no 0210 goes to the terminal, whatever it says (D-18)
	reverse  bool   // the full reversal goes into the queue
	close    bool   // the waiting reversal ends without effect
	answer   string // DE 39 of the waiting reversal, if it has none yet
	emv      []byte // DE 55 for the terminal, also what is not stored
	cause    Cause  // of the reversal
}

// settle decides what a result means for an original in flight. Section 2.2.
func settle(t *Txn, r result) settlement {
	s := settlement{code: r.code, suppress: t.ReverseOnCompletion, emv: r.emv, cause: r.cause}
	switch {
	case r.kind == approvedResult && !t.ReverseOnCompletion:
		s.state = Approved
	case r.kind == declinedResult || r.kind == neverLeft:
		s.state = Declined
		s.close, s.answer = t.ReverseOnCompletion, codeInvalid
	case !reversible(t.Processing):
		s.state = Declined // nothing that could be undone
	default:
		s.state, s.reverse, s.answer = ReversalPending, true, codeApproved
	}
	return s
}

// errSettled says that the original has an outcome already.
var errSettled = errors.New("isoswitch: the original is settled")

// settleTxn writes the outcome of the original oid: its state, and in the same
// transaction the reversal that follows (I-4). up numbers that reversal, should
// it be keyd's own. It returns the original and what was decided; errSettled
// when there was nothing to decide any more.
func settleTxn(tx Tx, oid OID, r result, up number, now time.Time) (*Txn, settlement, error) {
	t, err := tx.Txn(oid)
	if err != nil {
		return nil, settlement{}, fmt.Errorf("reading the original: %w", err)
	}
	if !t.inFlight() {
		return t, settlement{}, errSettled
	}
	s := settle(t, r)
	if s.state == Approved {
		err = takeEffect(tx, t)
	}
	if errors.Is(err, errRelation) { // it must not stand beside what became of the other
		r = result{kind: unknownResult, cause: ByUndelivered, code: codeState}
		s, err = settle(t, r), nil
	}
	if err != nil {
		return nil, s, err
	}
	t.State, t.Answer, t.Approval, t.Finished = s.state, s.code, r.approval, now
	t.IssuerDE55 = storable(r.emv)
	if err := tx.UpdateTxn(t); err != nil {
		return nil, s, fmt.Errorf("writing the outcome: %w", err)
	}
	switch {
	case t.ReverseOnCompletion:
		err = releaseWaiting(tx, t, s, now)
	case s.reverse:
		err = tx.InsertReversal(ownReversal(t, s.cause, up, now))
	}
	if err != nil {
		return nil, s, fmt.Errorf("writing the reversal: %w", err)
	}
	return t, s, nil
}

// releaseWaiting sends the reversal that waited for its original on, or ends it.
func releaseWaiting(tx Tx, t *Txn, s settlement, now time.Time) error {
	rev, err := tx.Reversal(fullRID(t.OID))
	if err != nil {
		return err
	}
	if rev.State != Waiting {
		return nil
	}
	rev.State, rev.Next = Queued, now
	if s.close {
		rev.State, rev.Closed = Closed, now
	}
	if rev.Answer == "" {
		rev.Answer = s.answer
		if rev.Answer == codeApproved {
			rev.Approval = t.Approval
		}
	}
	return tx.UpdateReversal(rev)
}

// ownReversal is the full reversal that keyd starts itself.
func ownReversal(t *Txn, cause Cause, up number, now time.Time) *Reversal {
	return &Reversal{
		RID:    fullRID(t.OID),
		OID:    t.OID,
		Link:   t.Link,
		Cause:  cause,
		Full:   true,
		TID:    t.TID,
		Built:  now,
		UpSTAN: up.stan,
		UpSent: up.sent,
		State:  Queued,
		Reason: reasonOf(cause),
		Next:   now,
	}
}

// reverseUndelivered turns an approval that reached nobody into a reversal
// (section 7.4). It does nothing when the original is no longer simply approved.
func reverseUndelivered(tx Tx, oid OID, up number, now time.Time) (*Txn, error) {
	t, err := tx.Txn(oid)
	if err != nil {
		return nil, fmt.Errorf("reading the original: %w", err)
	}
	if t.State != Approved || t.ReversedAmount > 0 || t.Refunded || !reversible(t.Processing) {
		return t, errSettled
	}
	live, err := optionalTxn(tx.Live(oid))
	if err != nil {
		return nil, fmt.Errorf("looking for what refers to the original: %w", err)
	}
	if live != nil && live.inFlight() { // who voids it has had its answer
		return t, errSettled
	}
	t.State = ReversalPending
	if err := tx.UpdateTxn(t); err != nil {
		return nil, fmt.Errorf("writing the original: %w", err)
	}
	if err := giveBack(tx, t); err != nil {
		return nil, err
	}
	if err := tx.InsertReversal(ownReversal(t, ByUndelivered, up, now)); err != nil {
		return nil, fmt.Errorf("writing the reversal: %w", err)
	}
	return t, nil
}
