package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kind is what an event tells of a reversal.
type Kind string

// The kinds.
const (
	Created Kind = "created" // it is in the queue; nothing was sent yet
	Done    Kind = "done"    // upstream has confirmed it, or knows no original
	Failed  Kind = "failed"  // it was given up or parked: an operator must look at it
)

// Event is a row of the outbox with what it is about. Times are UTC.
type Event struct {
	Seq  int64 // order in the outbox
	Kind Kind
	N    int // of its kind and reversal, from 1: one that was retried can fail again
	At   time.Time
	Sent int // deliveries so far

	Reversal string // its name
	State    string // of the reversal, when the event was written
	UpAnswer string // DE 39 of upstream's answer by then
	Tries    int    // by then
	Cause    string
	Reason   string // DE 39 of the 0420
	Full     bool
	Rest     int64 // of a partial one, minor units

	MTI, TID, MID       string // of the original, as the next rows
	STAN, DateTime, RRN string // DE 11, DE 7, DE 37
	Amount              int64  // minor units
	Currency            string // DE 49
}

// Outbox keeps events until they are acknowledged. It is safe for concurrent use;
// what it has accepted is durable when it returns.
type Outbox interface {
	// Undelivered returns up to limit events that are due, the oldest first: of
	// each original only the first that is not acknowledged.
	Undelivered(ctx context.Context, at time.Time, limit int) ([]Event, error)
	// Acknowledge takes the event out of what is undelivered.
	Acknowledge(ctx context.Context, seq int64, at time.Time) error
	// Postpone says that a delivery failed, and when the next one is due.
	Postpone(ctx context.Context, seq int64, next time.Time) error
}

// ID is the event's id: the same at each delivery, and never that of another.
func (e Event) ID() string {
	id := e.Reversal + "-" + string(e.Kind)
	if e.N > 1 {
		id += fmt.Sprintf("-%d", e.N)
	}
	return id
}

// Type is the event's type: reversal.created, reversal.done or reversal.failed.
func (e Event) Type() string { return "reversal." + string(e.Kind) }

// original is the state of the original that the event brings.
func (e Event) original() string {
	switch {
	case !e.Full:
		return "APPROVED"
	case e.Kind == Done && e.UpAnswer == "25":
		return "REVERSED_UNKNOWN"
	case e.Kind == Done:
		return "REVERSED"
	case e.Kind == Failed && e.State == "FAILED":
		return "REV_FAILED"
	}
	return "REVERSAL_PENDING"
}

// errEvent: an event that is none.
var errEvent = errors.New("hook: not an event")

// Body is the event as JSON, the same at each delivery.
func (e Event) Body() ([]byte, error) {
	if e.Reversal == "" || e.Kind != Created && e.Kind != Done && e.Kind != Failed || e.N < 1 {
		return nil, errEvent
	}
	type reversal struct {
		ID       string `json:"id"`
		State    string `json:"state"`
		Cause    string `json:"cause"`
		Reason   string `json:"reason"`
		Full     bool   `json:"full"`
		Rest     int64  `json:"rest,omitempty"`
		Tries    int    `json:"tries"`
		UpAnswer string `json:"upstream_answer,omitempty"`
	}
	type original struct {
		State    string `json:"state"`
		MTI      string `json:"mti"`
		TID      string `json:"tid"`
		MID      string `json:"mid"`
		STAN     string `json:"stan"`
		DateTime string `json:"date_time"`
		RRN      string `json:"rrn"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
	}
	return json.Marshal(struct {
		ID       string   `json:"id"`
		Type     string   `json:"type"`
		Time     string   `json:"time"`
		Reversal reversal `json:"reversal"`
		Original original `json:"original"`
	}{
		e.ID(), e.Type(), e.At.UTC().Format(time.RFC3339Nano),
		reversal{e.Reversal, e.State, e.Cause, e.Reason, e.Full, e.Rest, e.Tries, e.UpAnswer},
		original{e.original(), e.MTI, e.TID, e.MID, e.STAN, e.DateTime, e.RRN, e.Amount, e.Currency},
	})
}
