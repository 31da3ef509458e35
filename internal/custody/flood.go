package custody

import (
	"context"
	"fmt"
	"slices"

	"keyd.dev/keyd/audit"
)

// Refusal is a message that was refused before it could have an effect.
type Refusal struct {
	Reason audit.Reason
	// PerSecond is how many refusals of one client in a second have records of
	// their own, ten times as many after a silence; 0 is 50.
	PerSecond int
	// Wait is called before the caller must wait for the others of its window;
	// may be nil.
	Wait func()
}

// CommitRefusal is [Act.Commit] for an act that refuses a message. Above the
// refusal's rate one record stands for all that the client was refused in a tenth
// of a second, with exact numbers by reason, and CommitRefusal returns when that
// record is durable (L-14); it stands for the act's own records too, which are
// let go, where they tell of nothing but a MAC that was wrong, and of the refusal.
func (a *Act) CommitRefusal(ctx context.Context, q Refusal) (Receipt, error) {
	if !a.harmless() {
		return a.Commit(ctx)
	}
	window := a.c.flood.take(a.record(q), q.rate())
	if window == nil {
		return a.Commit(ctx)
	}
	a.empty()
	return window.await(q)
}

// harmless reports whether a number may stand for the act's records: nothing was
// committed of it, and it did nothing but find a MAC wrong, make one for the
// answer, and refuse.
func (a *Act) harmless() bool {
	return !a.committed && !slices.ContainsFunc(a.pending, func(r audit.Record) bool {
		return r.Outcome == audit.OutcomeOK && r.Action != audit.MACGenerate
	})
}

// empty gives the room in the log back while a window lasts.
func (a *Act) empty() {
	a.pending = a.pending[:0]
	a.release()
}

// ShareRefusal is [Act.CommitRefusal] where the refusal need not be described
// before it is known that it has a record of its own. It returns false, and has
// done nothing, while the client is below the rate, and for an act whose records
// may not be let go.
func (a *Act) ShareRefusal(q Refusal) (r Receipt, shared bool, err error) {
	if !a.harmless() {
		return Receipt{}, false, nil
	}
	window := a.c.flood.join(a.record(q), q.rate())
	if window == nil {
		return Receipt{}, false, nil
	}
	a.empty()
	r, err = window.await(q)
	return r, true, err
}

// Shared is a refusal that is counted in a record with others.
type Shared struct{ of *share }

// JoinRefusal is [Act.ShareRefusal] for a message that no act was begun for, and
// for who has something to do before the record is durable. It returns false, and
// has done nothing, while the client is below the rate.
func (c *Custody) JoinRefusal(caller Caller, q Refusal) (Shared, bool) {
	window := c.flood.join((&Act{c: c, caller: caller}).record(q), q.rate())
	return Shared{window}, window != nil
}

// Receipt returns when the record is durable, or cannot be, and it is the
// refusal's turn to be answered. It returns [ErrUnavailable] for one that cannot.
func (s Shared) Receipt() (Receipt, error) { return s.of.receipt() }

// RecordRefusal is [Custody.Record] of a refusal of which anybody can cause any
// number: above the rate one record stands for many of the caller's name, with
// their exact number, and RecordRefusal returns when that one is durable. alone
// reports whether it has a record of its own.
func (c *Custody) RecordRefusal(ctx context.Context, caller Caller, corr string, r audit.Record, q Refusal) (alone bool, err error) {
	window := c.flood.take((&Act{c: c, caller: caller}).record(q), q.rate())
	if window == nil {
		return true, c.Record(ctx, caller, corr, r)
	}
	_, err = window.await(q)
	return false, err
}

// record is what the window's record has of its first refusal, and whose it is: each
// of the certificates of a client with {tid} has a rate and a name of its own.
func (a *Act) record(q Refusal) audit.Record {
	r := a.signed(audit.Record{Reason: q.Reason})
	if own := a.caller.Terminal; own != "" {
		r.Actor.ID += "/" + own
	}
	return r
}

func (q Refusal) rate() rate {
	if q.PerSecond <= 0 {
		q.PerSecond = denialRate
	}
	return rate{second: float64(q.PerSecond), burst: 10 * float64(q.PerSecond)}
}

func (s *share) await(q Refusal) (Receipt, error) {
	if q.Wait != nil {
		q.Wait()
	}
	return s.receipt()
}

func (s *share) receipt() (Receipt, error) {
	if err := s.wait(); err != nil {
		return Receipt{}, fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	return Receipt{durable: true}, nil
}
