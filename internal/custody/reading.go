package custody

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

const (
	readingLife = 10 * time.Minute
	mostOpen    = 16 // readings of one client; one more ends the oldest
)

// LogQuery is what somebody is about to read of the audit log.
type LogQuery struct {
	Command audit.QueryCmd // but for QueryToken
	Filter  string         // a card stands in it by its token alone
	Log     string         // "" is all
}

// action is what the log calls the query.
func (q LogQuery) action() (audit.Action, bool) {
	switch q.Command {
	case audit.QueryList, audit.QueryGet, audit.QueryFind, audit.QueryReport:
		return audit.LogRead, true
	case audit.QueryVerify:
		return audit.LogVerify, true
	case audit.QueryProve:
		return audit.LogProve, true
	case audit.QueryExport:
		return audit.LogExport, true
	}
	return audit.LogRead, false
}

// Reading lets one client, with one certificate, fetch files of the audit log
// until it ends.
type Reading struct {
	ID    string // 26 characters, drawn
	Until time.Time
	Seq   uint64 // of its own record, in sec
}

// readings are those that are open. They live in memory: after a restart they
// are opened, and so recorded, anew.
type readings struct {
	mu   sync.Mutex
	open map[string][]heldReading // by client
}

type heldReading struct {
	Reading
	cert string
}

// OpenReading records that the caller reads the log, durably, and then lets it
// (L-180). It returns [ErrDenied], [ErrRequest], or [ErrUnavailable] where it
// cannot be recorded.
func (c *Custody) OpenReading(ctx context.Context, caller Caller, corr string, q LogQuery) (Reading, error) {
	if err := c.Permit(ctx, caller, corr, OpGetAuditLog); err != nil {
		return Reading{}, err
	}
	action, known := q.action()
	if !known {
		return Reading{}, fmt.Errorf("%w: no command that reads the log", ErrRequest)
	}
	pos, err := c.recordAt(ctx, caller, corr, audit.Record{
		Action: action, Outcome: audit.OutcomeOK,
		Query: &audit.Query{Cmd: q.Command, Filter: q.Filter, Log: q.Log},
	})
	if err != nil {
		return Reading{}, err
	}
	r := Reading{ID: rand.Text(), Until: c.clock().Add(readingLife), Seq: pos.Seq}
	c.readings.add(caller, r, c.clock())
	return r, nil
}

// add keeps a reading, and forgets those that have ended.
func (o *readings) add(caller Caller, r Reading, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = make(map[string][]heldReading)
	}
	own := slices.DeleteFunc(o.open[caller.Name], func(h heldReading) bool { return !now.Before(h.Until) })
	if len(own) >= mostOpen {
		own = slices.Delete(own, 0, 1+len(own)-mostOpen)
	}
	o.open[caller.Name] = append(own, heldReading{r, caller.Cert})
}

// Read lets the caller fetch files under a reading that it opened. Another
// client's, or one of another certificate, is [ErrDenied], with a record; one
// that has ended, or never was, is [ErrNoReading].
func (c *Custody) Read(ctx context.Context, caller Caller, corr, id string) error {
	if err := c.Permit(ctx, caller, corr, OpGetAuditLog); err != nil {
		return err
	}
	held, name := c.readings.find(id)
	switch {
	case name == "" || !c.clock().Before(held.Until):
		return ErrNoReading
	case name != caller.Name || held.cert != caller.Cert:
		return c.refuse(ctx, caller, corr, OpGetAuditLog, fmt.Errorf("%w: the reading is not the caller's", ErrDenied))
	}
	return nil
}

// find returns a reading and whose it is; "" for none. An id is drawn from 128
// bits, so that the time of the comparison tells nobody another's.
func (o *readings) find(id string) (heldReading, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, own := range o.open {
		for _, h := range own {
			if h.ID == id {
				return h, name
			}
		}
	}
	return heldReading{}, ""
}

// recordAt is [Custody.Record], and says where the record is.
func (c *Custody) recordAt(ctx context.Context, caller Caller, corr string, r audit.Record) (audit.Pos, error) {
	r.Actor = actorSec(caller)
	r.Src = audit.Source{Addr: caller.Addr, Conn: caller.Conn}
	r.Corr = corr
	ticket, err := c.log.Reserve(ctx, r.Action.Log(), 1)
	if err != nil {
		return audit.Pos{}, fmt.Errorf("%w: no room in the audit log: %w", ErrUnavailable, err)
	}
	defer ticket.Release()
	at, err := ticket.Append(r)
	if err != nil {
		return audit.Pos{}, fmt.Errorf("%w: writing the audit log: %w", ErrUnavailable, err)
	}
	return at[0], nil
}
