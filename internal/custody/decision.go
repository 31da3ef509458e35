package custody

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// mostApprovals bounds a listing.
const mostApprovals = 1000

// Approvals lists the requests that wait for a second person or are approved,
// with all also those that are closed, the newest first, at most 1000. A state
// that time has changed is shown as it is now. It returns [ErrDenied] or
// [ErrUnavailable].
func (c *Custody) Approvals(ctx context.Context, caller Caller, corr string, all bool) ([]Approval, error) {
	if !caller.may(OpListApprovals) {
		return nil, c.refuse(ctx, caller, corr, OpListApprovals, notTheirs(OpListApprovals))
	}
	list, err := c.dual.store.Approvals(ctx, ApprovalQuery{Open: !all, Limit: mostApprovals})
	if err != nil {
		return nil, storeError("listing requests for approval", err)
	}
	now := c.clock()
	shown := list[:0]
	for _, a := range list {
		if a.State = a.at(now); all || a.State != ApprovalExpired {
			shown = append(shown, a)
		}
	}
	return shown, nil
}

// Approve lets a second person consent to a request: then whoever asked can
// repeat it once. It returns [ErrDenied], [ErrNoApproval], [ErrSamePerson],
// [ErrConflict] where the request is closed or expired, or [ErrUnavailable].
func (c *Custody) Approve(ctx context.Context, caller Caller, corr, ref string) (Approval, error) {
	return c.decide(ctx, caller, corr, ref, OpApprove, ApprovalApproved)
}

// Reject closes a request. Whoever asked may reject it too. Its errors are those
// of [Custody.Approve].
func (c *Custody) Reject(ctx context.Context, caller Caller, corr, ref string) (Approval, error) {
	return c.decide(ctx, caller, corr, ref, OpReject, ApprovalRejected)
}

func (c *Custody) decide(ctx context.Context, caller Caller, corr, ref string, op Operation, to ApprovalState) (Approval, error) {
	if !caller.may(op) {
		return Approval{}, c.refuse(ctx, caller, corr, op, notTheirs(op))
	}
	ref, ok := ParseApprovalRef(ref)
	if !ok {
		return Approval{}, fmt.Errorf("%w: a reference has ten letters and digits", ErrRequest)
	}
	c.dual.mu.Lock()
	defer c.dual.mu.Unlock()
	a, err := c.dual.store.Approval(ctx, ref)
	if err != nil {
		return Approval{}, storeError("finding the request for approval", err)
	}
	r := c.decisionRecord(caller, corr, audit.AdminApprove, a)
	if to == ApprovalRejected {
		r.Action = audit.AdminReject
	}
	if err := c.decidable(ctx, caller, a, to); err != nil {
		describe(&r, err)
		if a.at(c.clock()) == ApprovalExpired {
			r.Reason = audit.ReasonExpired
		}
		return Approval{}, after(c.record(ctx, r), err)
	}
	return c.decided(ctx, caller, r, a, to)
}

// decidable says why a person cannot decide on a request. An approval can be
// taken back, by whoever asked as well.
func (c *Custody) decidable(ctx context.Context, caller Caller, a Approval, to ApprovalState) error {
	if to == ApprovalApproved && a.Asker.same(personOf(caller)) {
		return fmt.Errorf("%w: who asks cannot approve, nor can another certificate of the same subject", ErrSamePerson)
	}
	switch now := a.at(c.clock()); {
	case now == ApprovalApproved && to == ApprovalRejected:
		return nil
	case now == ApprovalExpired:
		return fmt.Errorf("%w: the request has expired", ErrConflict)
	case now != ApprovalWaiting:
		return fmt.Errorf("%w: the request was decided before", ErrConflict)
	}
	return c.mayDecide(ctx, caller, a.Object)
}

// mayDecide refuses who may not use the keys that the request is about: those
// whose ids its object names, else those of its aliases.
func (c *Custody) mayDecide(ctx context.Context, caller Caller, object string) error {
	found := false
	for _, word := range words(object) {
		k, err := c.book.find(ctx, Ref{ID: keys.ID(word)})
		if errors.Is(err, ErrNoKey) {
			continue
		}
		if err != nil {
			return err
		}
		if found = true; !caller.mayUse(k.Aliases) {
			return fmt.Errorf("%w: not for this key", ErrDenied)
		}
	}
	for _, word := range words(object) {
		if !found && ValidAlias(word) && !caller.mayUse([]string{word}) {
			return fmt.Errorf("%w: not for this alias", ErrDenied)
		}
	}
	return nil
}

// words are the parts of an object that could be names.
func words(object string) []string {
	return strings.FieldsFunc(object, func(r rune) bool { return strings.ContainsRune(" ,()", r) })
}

// decided records a decision and stores it. The record is first: what is not in
// the log approves nothing. Where the store fails after it, a second record says
// so.
func (c *Custody) decided(ctx context.Context, caller Caller, r audit.Record, a Approval, to ApprovalState) (Approval, error) {
	ticket, err := c.log.Reserve(ctx, audit.Sec, 2)
	if err != nil {
		return Approval{}, fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	r.Outcome = audit.OutcomeOK
	at, err := ticket.Append(r)
	if err != nil {
		return Approval{}, fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	was := a
	a.State, a.Second, a.Record = to, personOf(caller), at[0].ID
	a.Decided = c.clock().UTC()
	a.Until = time.Time{}
	if to == ApprovalApproved {
		a.Until = a.Decided.Add(c.dual.policy.Validity)
	}
	if err := c.dual.change(ctx, was, a); err != nil {
		describe(&r, err)
		_, failed := ticket.Append(r)
		return Approval{}, errors.Join(err, failed)
	}
	return a, nil
}

// decisionRecord is a record about a request: which operation, which reference,
// which object, and the hash of what was asked for.
func (c *Custody) decisionRecord(caller Caller, corr string, action audit.Action, a Approval) audit.Record {
	object := string(a.Operation) + "/" + a.Ref + "/" + idForm(a.Object)
	r := c.changeRecord(caller, corr, action, changeKind(a.Operation), object[:min(len(object), mostID)])
	r.Change.After = a.Request
	return r
}

// mostID is the length of an id in a record.
const mostID = 128

// idForm is a text as an id of a record: what an id cannot hold becomes a dash.
func idForm(text string) string {
	out := []byte(text)
	for i, c := range out {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '_', c == ':', c == '/', c == '@', c == '+', c == '[', c == ']':
		default:
			out[i] = '-'
		}
	}
	return string(out)
}

// after is the answer to a refusal: that it could not be recorded, or else why.
func after(recorded, why error) error {
	if recorded != nil {
		return recorded
	}
	return why
}

// notTheirs is the refusal of an operation that no role of the caller has.
func notTheirs(op Operation) error {
	return fmt.Errorf("%w: no role of the caller has %s", ErrDenied, op)
}
