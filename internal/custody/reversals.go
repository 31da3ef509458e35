package custody

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"keyd.dev/keyd/audit"
)

// The errors of a [ReversalDesk].
var (
	// ErrNoReversal: the journal has no reversal of this name.
	ErrNoReversal = errors.New("custody: no such reversal")
	// ErrReversalState: the reversal's state does not admit the act.
	ErrReversalState = errors.New("custody: the state of the reversal does not admit this")
)

// ReversalEntry is a reversal as operators see it, with its original. States
// have the names of the switch. Times are UTC, zero where there is none.
type ReversalEntry struct {
	Name       string // 24 letters, by which it is named in requests
	Unreadable bool   // the record cannot be read; then nothing follows

	State    string // of the reversal
	Original string // state of the original
	Cause    string
	Reason   string // DE 39 of the 0420
	Full     bool
	Rest     int64 // of a partial one: what stays valid, minor units

	MTI, TID, MID        string // of the original, as the next rows
	STAN, DateTime, RRN  string // DE 11, DE 7, DE 37
	Processing, Currency string // DE 3, DE 49
	Amount               int64  // minor units
	Card                 Card   // sealed
	Pan                  PAN    // prints masked; only where one reversal was asked for
	OwnSTAN              string // of the message that asked; empty for keyd's own
	Upstream             string // name of the link
	UpSTAN               string // DE 11 of every try

	Tries, Declines, Errors          int
	Received                         time.Time // the original
	Built, FirstSent, LastSent       time.Time
	Answered, Closed, Next, Resolved time.Time

	Answer   string // DE 39 for the terminal
	UpAnswer string // DE 39 of upstream's last answer
	Late     string // DE 39 of an answer to the original that came too late
	Case     string // with which an operator closed it
}

// ReversalQuery selects reversals; empty members select all.
type ReversalQuery struct {
	State    string
	Open     bool // not those that are confirmed, closed, or settled with a case
	TID      string
	STAN     string // of the original, or of the message that asked
	Date     string // MMDD of the original's DE 7
	Upstream string
	Before   time.Time // built before
	Limit    int
}

// ReversalAct is what an operator can order.
type ReversalAct string

// The acts.
const (
	RetryReversal   ReversalAct = "retry"   // send it again: now, and with all its tries where it was given up
	ParkReversal    ReversalAct = "park"    // take it out of the queue until it is retried
	ResolveReversal ReversalAct = "resolve" // close it with a case; nothing is sent
	ReleaseReversal ReversalAct = "release" // let one that a rule held go on
	RejectReversal  ReversalAct = "reject"  // end one that a rule held; its original is valid
)

// ReversalOrder is an act with the case of a resolution.
type ReversalOrder struct {
	Act  ReversalAct
	Case string
}

// ReversalDesk is the queue of reversals as operators see it. It returns
// [ErrNoReversal], [ErrReversalState] or [ErrUnavailable].
type ReversalDesk interface {
	// Reversals lists those that fit, the oldest first.
	Reversals(ctx context.Context, q ReversalQuery) ([]ReversalEntry, error)
	// Reversal returns the one of this name.
	Reversal(ctx context.Context, name string) (ReversalEntry, error)
	// Order carries an act out, durably.
	Order(ctx context.Context, name string, o ReversalOrder) (ReversalEntry, error)
	// CloseBatch closes batches, durably, and returns up to when they are closed.
	CloseBatch(ctx context.Context, q BatchClosing) (time.Time, error)
}

// Reversals lists reversals. It returns [ErrDenied] or [ErrUnavailable].
func (c *Custody) Reversals(ctx context.Context, caller Caller, corr string, q ReversalQuery) ([]ReversalEntry, error) {
	if !caller.may(OpListReversals) {
		return nil, c.refuse(ctx, caller, corr, OpListReversals, notTheirs(OpListReversals))
	}
	if c.reversals == nil {
		return nil, fmt.Errorf("%w: no journal", ErrUnavailable)
	}
	return c.reversals.Reversals(ctx, q)
}

// ReversalOf returns one reversal, with its card number for a masked display. It
// returns [ErrDenied], [ErrNoReversal] or [ErrUnavailable].
func (c *Custody) ReversalOf(ctx context.Context, caller Caller, corr, name string) (ReversalEntry, error) {
	if !caller.may(OpGetReversal) {
		return ReversalEntry{}, c.refuse(ctx, caller, corr, OpGetReversal, notTheirs(OpGetReversal))
	}
	if c.reversals == nil {
		return ReversalEntry{}, fmt.Errorf("%w: no journal", ErrUnavailable)
	}
	e, err := c.reversals.Reversal(ctx, name)
	if err != nil || e.Unreadable {
		return e, err
	}
	// A card that does not decipher is shown as none: the rest must be seen.
	e.Pan, _, _ = c.Reveal(ctx, e.Card)
	return e, nil
}

// reversalOps are the operations by their act.
var reversalOps = map[ReversalAct]Operation{
	RetryReversal: OpRetryReversal, ParkReversal: OpParkReversal, ResolveReversal: OpResolveReversal,
	ReleaseReversal: OpReleaseReversal, RejectReversal: OpRejectReversal,
}

// OrderReversal carries out what an operator orders, between its intent and its
// outcome in the log. A resolution, a release and a rejection need a second person
// . It returns
// [ErrDenied], [ErrRequest] for a case that is none, [ErrNoReversal],
// [ErrReversalState], [ErrApproval] or [ErrUnavailable].
func (c *Custody) OrderReversal(ctx context.Context, caller Caller, corr, name string, o ReversalOrder) (ReversalEntry, error) {
	op := reversalOps[o.Act]
	if !caller.may(op) {
		return ReversalEntry{}, c.refuse(ctx, caller, corr, op, notTheirs(op))
	}
	if err := o.check(); err != nil {
		return ReversalEntry{}, err
	}
	if c.reversals == nil {
		return ReversalEntry{}, fmt.Errorf("%w: no journal", ErrUnavailable)
	}
	e, err := c.reversals.Reversal(ctx, name)
	if err == nil && e.Unreadable {
		err = fmt.Errorf("%w: its record cannot be read", ErrReversalState)
	}
	if err != nil {
		return ReversalEntry{}, after(c.noSuchOrder(ctx, caller, corr, op, name, err), err)
	}
	r := c.manualRecord(caller, corr, e, o)
	if o.Act != RetryReversal && o.Act != ParkReversal {
		what := "reversal " + e.Name + " of " + e.TID
		if o.Case != "" {
			what += ", case " + o.Case
		}
		r.Approvals, err = c.approved(ctx, caller, corr, op, what)
		if err != nil {
			return ReversalEntry{}, err
		}
	}
	err = c.intended(ctx, r, func(*audit.Record) error {
		e, err = c.reversals.Order(ctx, name, o)
		return err
	})
	return e, err
}

// caseForm is the number of a case: short, and unlike a card number or a key.
var (
	caseForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	caseDigits = regexp.MustCompile(`[0-9](?:[._-]*[0-9]){11}|[0-9A-Fa-f]{16}`)
)

func (o ReversalOrder) check() error {
	if o.Act != ResolveReversal {
		return nil
	}
	if !caseForm.MatchString(o.Case) || caseDigits.MatchString(o.Case) {
		return fmt.Errorf("%w: a case has 1 to 32 letters, digits, dots and dashes, of which no twelve digits in a row", ErrRequest)
	}
	return nil
}

// manualRecord is the record of an order, about the original.
func (c *Custody) manualRecord(caller Caller, corr string, e ReversalEntry, o ReversalOrder) audit.Record {
	object := "reversal/" + e.Name + "/" + string(o.Act)
	if o.Case != "" {
		object += "/" + o.Case
	}
	r := c.changeRecord(caller, corr, audit.ReversalManual, audit.ChangeTerminal, object)
	amount := e.Amount
	r.ISO = audit.ISO{
		MTI: e.MTI, STAN: e.STAN, RRN: e.RRN, Proc: e.Processing, Amount: &amount, Currency: e.Currency,
		Terminal: audit.Registered(e.TID), Merchant: audit.Registered(e.MID),
		Orig: audit.Orig{MTI: e.MTI, STAN: e.STAN, DateTime: e.DateTime},
	}
	if len(e.DateTime) != len("MMDDhhmmss") { // by batch, which is no date
		r.ISO.Orig.DateTime = ""
	}
	return r
}

// noSuchOrder records an order about a reversal that is not there: there is no
// original that its record could name.
func (c *Custody) noSuchOrder(ctx context.Context, caller Caller, corr string, op Operation, name string, why error) error {
	object := string(op) + "/" + idForm(name)
	r := c.changeRecord(caller, corr, audit.AdminExecute, audit.ChangeTerminal, object[:min(len(object), mostID)])
	describe(&r, why)
	return c.record(ctx, r)
}
