package custody

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// approved returns who has approved that the caller does op to object with
// this very request, and spends the approval: it is good for one time, and gone
// when keyd stops between here and the act. Where none is needed it returns
// nothing; where one is needed and not there it files the request and returns a
// [Pending]. Keys of which usages are touched decides whether one is needed; see
// [twoPersons]. Section 5.1 of the API.
func (c *Custody) approved(ctx context.Context, caller Caller, corr string, op Operation, object string, usages ...keys.Usage) ([]audit.Approval, error) {
	if len(caller.Quorum) > 0 {
		if err := c.quorum(caller); err != nil {
			return nil, c.refuse(ctx, caller, corr, op, err)
		}
		return caller.Quorum, nil
	}
	if !c.dual.policy.On || !twoPersons(usages) {
		return nil, nil
	}
	return c.consent(ctx, caller, corr, op, object)
}

// consent is the part of [Custody.approved] that needs a second person, whatever
// the policy.
func (c *Custody) consent(ctx context.Context, caller Caller, corr string, op Operation, object string) ([]audit.Approval, error) {
	if caller.Request == [32]byte{} {
		err := fmt.Errorf("%w: %s needs a second person, and a request that can be approved", ErrDenied, op)
		return nil, c.refuse(ctx, caller, corr, op, err)
	}
	object = shownObject(object)
	c.dual.mu.Lock()
	defer c.dual.mu.Unlock()
	a, err := c.dual.store.OpenApproval(ctx, caller.Name, op, object, caller.Request)
	switch {
	case errors.Is(err, ErrNoApproval):
		return nil, c.file(ctx, caller, corr, op, object)
	case err != nil:
		return nil, storeError("looking for an approval", err)
	}
	if err := c.usable(caller, a); err != nil {
		return nil, c.unspendable(ctx, caller, corr, a, err)
	}
	return c.spend(ctx, caller, corr, a)
}

// mostObject is the length of what a request is about, in bytes.
const mostObject = 500

// shownObject is an object as it is stored and shown: printable, and not longer
// than anybody reads. What is cut off is still bound by the hash of the request.
func shownObject(text string) string {
	shown := []byte(text[:min(len(text), mostObject)])
	for i, c := range shown {
		if c < ' ' || c > '~' {
			shown[i] = '?'
		}
	}
	return string(shown)
}

// quorum checks the custodians of a ceremony, who stand in for the second
// person: at least two, each a configured client of that role, none the caller.
func (c *Custody) quorum(caller Caller) error {
	seen := map[string]bool{caller.Name: true}
	for _, a := range caller.Quorum {
		client, ok := c.clients.named(a.ID)
		if !ok || !client.Has(RoleCustodian) || seen[a.ID] {
			return fmt.Errorf("%w: the custodians of a ceremony are different clients of the role %s", ErrDenied, RoleCustodian)
		}
		seen[a.ID] = true
	}
	if len(caller.Quorum) < 2 {
		return fmt.Errorf("%w: one custodian is no quorum", ErrDenied)
	}
	return nil
}

// errNotYet and errNoMore say why an open request cannot be spent.
var (
	errNotYet = errors.New("nobody has approved it")
	errNoMore = errors.New("the approval is no longer good")
)

// usable decides whether an open request is one that the caller can spend now.
func (c *Custody) usable(caller Caller, a Approval) error {
	state := a.at(c.clock())
	second, known := c.clients.of(a.Second.URI)
	switch {
	case a.Asker.URI != caller.URI || state == ApprovalExpired:
		return errNoMore
	case state == ApprovalWaiting:
		return errNotYet
	case !known || second.Name != a.Second.Name || !second.may(OpApprove):
		return errNoMore
	case a.Second.same(personOf(caller)):
		return errNoMore
	}
	return nil
}

// unspendable answers for a request that waits, and replaces one that is over.
func (c *Custody) unspendable(ctx context.Context, caller Caller, corr string, a Approval, why error) error {
	if errors.Is(why, errNotYet) {
		pending := &Pending{Ref: a.Ref}
		return after(c.executed(ctx, caller, corr, a, pending), pending)
	}
	over := a
	over.State = ApprovalExpired
	if err := c.dual.change(ctx, a, over); err != nil {
		return err
	}
	if err := c.executed(ctx, caller, corr, a, why); err != nil {
		return err
	}
	return c.file(ctx, caller, corr, a.Operation, a.Object)
}

// spend uses an approval up, durably, before the act.
func (c *Custody) spend(ctx context.Context, caller Caller, corr string, a Approval) ([]audit.Approval, error) {
	used := a
	used.State = ApprovalSpent
	if err := c.dual.change(ctx, a, used); err != nil {
		return nil, err
	}
	if err := c.executed(ctx, caller, corr, used, nil); err != nil {
		return nil, err
	}
	return used.approvals(), nil
}

// approvals is the second person's consent as records have it.
func (a Approval) approvals() []audit.Approval {
	if a.State != ApprovalApproved && a.State != ApprovalSpent {
		return nil
	}
	return []audit.Approval{{ID: a.Second.Name, At: a.Decided, Ref: a.Record}}
}

// executed records that a request came back: carried out, or not yet or no
// longer approved.
func (c *Custody) executed(ctx context.Context, caller Caller, corr string, a Approval, why error) error {
	r := c.decisionRecord(caller, corr, audit.AdminExecute, a)
	r.Approvals = a.approvals()
	describe(&r, why)
	if errors.Is(why, errNoMore) {
		r.Outcome, r.Reason = audit.OutcomeRefused, audit.ReasonExpired
	}
	return c.record(ctx, r)
}

// file records a request, stores it, and returns its [Pending].
func (c *Custody) file(ctx context.Context, caller Caller, corr string, op Operation, object string) error {
	if err := c.roomFor(ctx, caller); err != nil {
		return err
	}
	now := c.clock().UTC()
	a := Approval{
		Ref: newRef(), Operation: op, Object: object, Request: caller.Request, Asker: personOf(caller),
		Asked: now, Deadline: now.Add(c.dual.policy.Wait), State: ApprovalWaiting,
	}
	r := c.decisionRecord(caller, corr, audit.AdminRequest, a)
	r.Outcome = audit.OutcomeOK
	if err := c.record(ctx, r); err != nil {
		return err
	}
	if err := c.dual.store.AddApproval(ctx, a); err != nil {
		return storeError("filing a request for approval", err)
	}
	return &Pending{Ref: a.Ref}
}

// roomFor closes the requests that have expired, and refuses another one where
// too many wait.
func (c *Custody) roomFor(ctx context.Context, caller Caller) error {
	open, err := c.dual.store.Approvals(ctx, ApprovalQuery{Open: true, Limit: mostApprovals})
	if err != nil {
		return storeError("counting requests for approval", err)
	}
	own, all := 0, 0
	for _, a := range open {
		switch {
		case a.at(c.clock()) == ApprovalExpired:
			over := a
			over.State = ApprovalExpired
			if err := c.dual.change(ctx, a, over); err != nil {
				return err
			}
		case a.Asker.Name == caller.Name:
			own++
			all++
		default:
			all++
		}
	}
	if own >= mostWaiting || all >= mostApprovals {
		return fmt.Errorf("%w: too many requests wait for approval; have some decided first", ErrConflict)
	}
	return nil
}

// Crockford's base32 has no letters that are mistaken for digits or each other;
// ten of them are 50 bits.
const (
	refAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	refLength   = 10
)

func newRef() string {
	var draw [refLength]byte
	_, _ = rand.Read(draw[:]) // never fails; it ends the process instead
	for i, b := range draw {
		draw[i] = refAlphabet[b%32]
	}
	return string(draw[:])
}
