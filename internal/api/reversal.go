package api

import (
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// The operations on the queue of reversals, which only keyd has.

// Reversal is a reversal with its original in answers: the states have the names
// of docs/SWITCH.md, times are RFC 3339, a card number is masked.
type Reversal struct {
	Reversal   string // its name
	State      string
	Original   string `json:",omitempty"` // state of the original
	Unreadable bool   `json:",omitempty"`

	Cause  string `json:",omitempty"`
	Reason string `json:",omitempty"`
	Rest   *int64 `json:",omitempty"` // of a partial reversal

	MTI       string `json:"Mti,omitempty"` // of the original, as the next rows
	TID       string `json:"Tid,omitempty"`
	MID       string `json:"Mid,omitempty"`
	STAN      string `json:"Stan,omitempty"`
	DateTime  string `json:",omitempty"`
	RRN       string `json:"Rrn,omitempty"`
	Amount    int64
	Currency  string `json:",omitempty"`
	PAN       string `json:"Pan,omitempty"`
	OwnSTAN   string `json:"OwnStan,omitempty"` // of the message that asked
	Upstream  string `json:",omitempty"`
	UpSTAN    string `json:"UpstreamStan,omitempty"`
	Tries     int
	Declines  int
	Errors    int
	AnswerIs  string     `json:"Answer,omitempty"`         // DE 39 to the terminal
	UpAnswer  string     `json:"UpstreamAnswer,omitempty"` // DE 39 of upstream
	LateIs    string     `json:"LateAnswer,omitempty"`
	Case      string     `json:",omitempty"`
	Received  *time.Time `json:",omitempty"`
	Built     *time.Time `json:",omitempty"`
	FirstSent *time.Time `json:",omitempty"`
	LastSent  *time.Time `json:",omitempty"`
	Answered  *time.Time `json:",omitempty"`
	Closed    *time.Time `json:",omitempty"`
	Next      *time.Time `json:",omitempty"` // only while it waits
	Resolved  *time.Time `json:",omitempty"`
}

// unreadable is the state of a record that cannot be read.
const unreadable = "UNREADABLE"

// ReversalStates are the states of a reversal, in the order of its life.
func ReversalStates() []string {
	return []string{"WAITING", "QUEUED", "SENT", "HELD", "PARKED", "FAILED", "CONFIRMED", "CLOSED"}
}

func wireReversal(e custody.ReversalEntry) Reversal {
	if e.Unreadable {
		return Reversal{Reversal: e.Name, State: unreadable, Unreadable: true}
	}
	out := Reversal{
		Reversal: e.Name, State: e.State, Original: e.Original, Cause: e.Cause, Reason: e.Reason,
		MTI: e.MTI, TID: e.TID, MID: e.MID, STAN: e.STAN, DateTime: e.DateTime, RRN: e.RRN,
		Amount: e.Amount, Currency: e.Currency, OwnSTAN: e.OwnSTAN, Upstream: e.Upstream, UpSTAN: e.UpSTAN,
		Tries: e.Tries, Declines: e.Declines, Errors: e.Errors,
		AnswerIs: e.Answer, UpAnswer: e.UpAnswer, LateIs: e.Late, Case: e.Case,
		Received: moment(e.Received), Built: moment(e.Built), FirstSent: moment(e.FirstSent), LastSent: moment(e.LastSent),
		Answered: moment(e.Answered), Closed: moment(e.Closed), Resolved: moment(e.Resolved),
	}
	if !e.Full {
		out.Rest = &e.Rest
	}
	if e.Pan != "" {
		out.PAN = e.Pan.String()
	}
	if e.State == "QUEUED" || e.State == "SENT" {
		out.Next = moment(e.Next)
	}
	return out
}

// listReversals is ListReversals: those that need work, with All the others too,
// the oldest first.
func (c *call) listReversals() error {
	const most, usual = 1000, 100
	f := &c.form
	q := custody.ReversalQuery{Limit: f.int(0, "MaxResults", 1, most)}
	if q.Limit == 0 {
		q.Limit = usual
	}
	all, _ := f.bool(0, "All", optional)
	if at, state := f.string(0, "State", optional); at >= 0 {
		if q.State = string(state); !slices.Contains(ReversalStates(), q.State) {
			f.failAt(at, "must be "+strings.Join(ReversalStates(), ", "))
		}
	}
	q.Open = !all && q.State != "CONFIRMED" && q.State != "CLOSED"
	q.TID = c.digitsOr("Tid", 8, false)
	q.STAN = c.digitsOr("Stan", 6, true)
	q.Date = c.digitsOr("Date", 4, true)
	_, link := f.string(0, "Upstream", optional)
	q.Upstream = string(link)
	if seconds := f.int(0, "OlderThanSeconds", 0, 10*365*24*3600); seconds > 0 {
		q.Before = c.clock().Add(-time.Duration(seconds) * time.Second)
	}
	if err := c.check(); err != nil {
		return err
	}
	list, err := c.custody.Reversals(c.ctx, c.caller, c.id, q)
	if err != nil {
		return err
	}
	out := struct{ Reversals []Reversal }{make([]Reversal, 0, len(list))}
	for _, e := range list {
		out.Reversals = append(out.Reversals, wireReversal(e))
	}
	return c.answerJSON(out)
}

// digitsOr reads an optional member of just so many characters.
func (c *call) digitsOr(name string, length int, digits bool) string {
	at, text := c.form.string(0, name, optional)
	if at < 0 {
		return ""
	}
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' }
	odd := strings.ContainsFunc(string(text), func(r rune) bool { return r < ' ' || r > '~' || digits && !isDigit(r) })
	if len(text) != length || odd {
		kind := "characters"
		if digits {
			kind = "digits"
		}
		c.form.failAt(at, "must be "+[]string{4: "four", 6: "six", 8: "eight"}[length]+" "+kind)
		return ""
	}
	return string(text)
}

// reversalName reads the member Reversal.
func (c *call) reversalName() string {
	at, text := c.form.string(0, "Reversal", required)
	if at < 0 {
		return ""
	}
	odd := strings.ContainsFunc(string(text), func(r rune) bool { return r < 'k' || r > 'z' })
	if len(text) != 24 || odd {
		c.form.failAt(at, "must be the name of a reversal, 24 letters k to z")
		return ""
	}
	c.asked = string(text)
	return c.asked
}

// getReversal is GetReversal.
func (c *call) getReversal() error {
	name := c.reversalName()
	if err := c.check(); err != nil {
		return err
	}
	e, err := c.custody.ReversalOf(c.ctx, c.caller, c.id, name)
	if err != nil {
		return err
	}
	return c.answerJSON(struct{ Reversal Reversal }{wireReversal(e)})
}

// retryReversal is RetryReversal.
func (c *call) retryReversal() error { return c.orderReversal(custody.RetryReversal) }

// parkReversal is ParkReversal.
func (c *call) parkReversal() error { return c.orderReversal(custody.ParkReversal) }

// resolveReversal is ResolveReversal, with the case in the member Case.
func (c *call) resolveReversal() error { return c.orderReversal(custody.ResolveReversal) }

// releaseReversal is ReleaseReversal.
func (c *call) releaseReversal() error { return c.orderReversal(custody.ReleaseReversal) }

// rejectReversal is RejectReversal.
func (c *call) rejectReversal() error { return c.orderReversal(custody.RejectReversal) }

func (c *call) orderReversal(act custody.ReversalAct) error {
	name := c.reversalName()
	o := custody.ReversalOrder{Act: act}
	if act == custody.ResolveReversal {
		_, text := c.form.string(0, "Case", required)
		o.Case = string(text)
	}
	if err := c.check(); err != nil {
		return err
	}
	e, err := c.custody.OrderReversal(c.ctx, c.caller, c.id, name, o)
	if err != nil {
		return err
	}
	return c.answerJSON(struct{ Reversal Reversal }{wireReversal(e)})
}
