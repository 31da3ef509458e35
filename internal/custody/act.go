package custody

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyd.dev/keyd/audit"
)

// actRoom is how many records an act reserves at a time: those of the longest
// request, a sale (verify, translate, generate, decision).
const actRoom = 6

// Act is the work for one request of one caller. Its operations leave records;
// [Act.Commit] makes them durable. An Act is for one goroutine at a time and
// must be closed.
type Act struct {
	c       *Custody
	caller  Caller
	corr    string
	ticket  *audit.Ticket
	left    int // records that the ticket still has room for
	pending []audit.Record
	denied  []audit.Record // of the log sec
	// verified is the place in pending, from 1, of the last verification of a MAC
	// where it was right and no decision has taken it in; else 0.
	verified int
	pan      PAN // the last one that was described
	panSeen  audit.PAN

	committed bool // records are durable already

	transaction transaction
}

// Receipt proves that every record of an act up to its commit is durable.
// Whatever sends bytes to a peer asks for one, so that nothing can leave
// without.
type Receipt struct{ durable bool }

// Valid reports whether the receipt came from a commit.
func (r Receipt) Valid() bool { return r.durable }

// Begin opens an act and reserves room in the log before any key is used. corr
// is the request id of the records. It returns [ErrUnavailable] when the log
// cannot take records; then nothing may be done (L-131).
func (c *Custody) Begin(ctx context.Context, caller Caller, corr string) (*Act, error) {
	a := &Act{c: c, caller: caller, corr: corr}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// BeginTransaction is Begin for one message of a terminal and its answer: the act
// remembers the transaction key of a TDES DUKPT message until it is closed, so
// that it is derived once and not for each of the message's uses.
func (c *Custody) BeginTransaction(ctx context.Context, caller Caller, corr string) (*Act, error) {
	a, err := c.Begin(ctx, caller, corr)
	if err != nil {
		return nil, err
	}
	a.transaction.wanted = true
	return a, nil
}

// Suspend gives the reserved room back while the caller waits for somebody, as
// [Act.Close] does. Of a DUKPT message only the key that answers is remembered.
func (a *Act) Suspend() {
	a.transaction.narrow()
	a.release()
}

// Resume reserves room again. Its errors are those of [Custody.Begin].
func (a *Act) Resume(ctx context.Context) error { return a.reserve(ctx) }

// reserve sees to it that one more record has room.
func (a *Act) reserve(ctx context.Context) error {
	if a.left > len(a.pending) {
		return nil
	}
	ticket, err := a.c.log.Reserve(ctx, audit.Ops, len(a.pending)+actRoom)
	if err != nil {
		return fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	if a.ticket != nil {
		a.ticket.Release()
	}
	a.ticket, a.left = ticket, len(a.pending)+actRoom
	return nil
}

// Note adds a record of the caller's own: the switch's decisions. Actor, source
// and request id are the act's. One by which a message was accepted, its MAC being
// right, takes in the record of that verification: decision 0057.
func (a *Act) Note(r audit.Record) {
	if r.Outcome == audit.OutcomeOK && r.MAC.Verdict == audit.VerdictOK {
		a.takeIn(&r)
	}
	a.leave(r)
}

// leave keeps a record for the commit. There is room at once for those of a sale up
// to its leaving, when its verification is taken in.
func (a *Act) leave(r audit.Record) {
	if a.pending == nil {
		a.pending = make([]audit.Record, 0, 3)
	}
	a.pending = append(a.pending, a.signed(r))
}

// takeIn moves into a decision what the record of the verification before it says
// of key, mechanism, token and time. No use of a key is without a record: one that
// no decision takes in has its own.
func (a *Act) takeIn(r *audit.Record) {
	if a.verified == 0 {
		return
	}
	v := a.pending[a.verified-1]
	a.pending = slices.Delete(a.pending, a.verified-1, a.verified)
	a.verified = 0
	r.MAC, r.Keys, r.Mech, r.Custody, r.HSM, r.Duration = v.MAC, v.Keys, v.Mech, v.Custody, v.HSM, v.Duration
	if r.KSN == "" {
		r.KSN = v.KSN
	}
}

// Commit makes all records so far durable, in one append. It returns
// [ErrUnavailable] when it cannot; then no result of the act may leave. The act
// may go on after a commit.
func (a *Act) Commit(ctx context.Context) (Receipt, error) {
	if err := a.commitDenied(ctx); err != nil {
		return Receipt{}, err
	}
	if len(a.pending) == 0 {
		return Receipt{durable: true}, nil
	}
	if a.left < len(a.pending) {
		if err := a.reserve(ctx); err != nil {
			return Receipt{}, err
		}
	}
	_, err := a.ticket.Append(a.pending...)
	a.left -= len(a.pending) // also of a log that failed: its ticket is used up
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	a.pending, a.verified, a.committed = a.pending[:0], 0, true
	return Receipt{durable: true}, nil
}

func (a *Act) commitDenied(ctx context.Context) error {
	for len(a.denied) > 0 {
		if err := a.c.denials.record(ctx, a.denied[0]); err != nil {
			return err
		}
		a.denied = a.denied[1:]
	}
	return nil
}

// Close gives the reserved room back. Records that were not committed are
// written all the same: what was done is done.
func (a *Act) Close() {
	a.transaction.forget()
	a.release()
}

func (a *Act) release() {
	if len(a.pending)+len(a.denied) > 0 {
		// Nothing waits for these; a log that fails has raised its own alarm.
		_, _ = a.Commit(context.Background())
	}
	if a.ticket != nil {
		a.ticket.Release()
		a.ticket, a.left = nil, 0
	}
}

// PAN returns what a record may hold of a card number. Where the token key
// cannot be used the operation must be refused (L-103).
func (a *Act) PAN(pan PAN) (audit.PAN, error) {
	if pan == "" {
		return audit.PAN{}, nil
	}
	if pan == a.pan {
		return a.panSeen, nil
	}
	seen, err := a.c.log.PAN([]byte(pan))
	if errors.Is(err, audit.ErrFormat) {
		return seen, fmt.Errorf("%w: not a PAN", ErrRequest)
	}
	if err != nil {
		return seen, fmt.Errorf("%w: making the PAN's token: %w", ErrUnavailable, err)
	}
	a.pan, a.panSeen = pan, seen
	return seen, nil
}

// Stranger returns the keyed token of a terminal id that is not registered;
// records hold no identifier from the wire as it is (L-93).
func (a *Act) Stranger(tid string) audit.Name {
	name, err := a.c.log.UnregisteredTerminal([]byte(tid))
	if err != nil {
		return audit.Name{}
	}
	return name
}

// StrangeMerchant is Stranger for a merchant id.
func (a *Act) StrangeMerchant(mid string) audit.Name {
	name, err := a.c.log.UnregisteredMerchant([]byte(mid))
	if err != nil {
		return audit.Name{}
	}
	return name
}

// operate runs one operation under its record: room first, then the work, then
// what became of it.
func (a *Act) operate(ctx context.Context, op Operation, r *audit.Record, work func() error) error {
	if err := a.reserve(ctx); err != nil {
		return err
	}
	if r.Action == audit.MACVerify {
		a.verified = 0
	}
	start := time.Now()
	err := work()
	r.Duration = time.Since(start)
	a.c.observe(Measure{Operation: op, Custody: r.Custody, Took: r.Duration})
	if errors.Is(err, ErrDenied) {
		a.denied = append(a.denied, a.c.denial(a.caller, a.corr, op))
		return err
	}
	r.HSM = audit.HSM{Serial: a.c.serial}
	describe(r, err)
	if failed, ok := a.c.tokenFailed(*r, a.corr); ok {
		a.denied = append(a.denied, failed)
	}
	a.leave(*r)
	if r.Action == audit.MACVerify && err == nil {
		a.verified = len(a.pending)
	}
	return err
}

// signed fills in who, from where and for which request.
func (a *Act) signed(r audit.Record) audit.Record {
	r.Actor = audit.Actor{ID: a.caller.Name, Kind: a.caller.Kind}
	r.Src = audit.Source{Addr: a.caller.Addr, Conn: a.caller.Conn}
	r.Corr = a.corr
	return r
}
