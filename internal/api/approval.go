package api

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// The operations of a second person, section 5.1 of the API.

// person is who asked or decided, in answers.
type person struct {
	Name    string
	URI     string `json:"Uri"`
	Subject string `json:",omitempty"`
	Cert    string `json:",omitempty"`
	Addr    string `json:",omitempty"`
}

// approval is a request for approval, in answers. Times are RFC 3339.
type approval struct {
	Reference   string
	State       string
	Operation   string
	Object      string
	RequestHash string
	AskedBy     person
	Asked       time.Time
	Deadline    time.Time
	DecidedBy   *person    `json:",omitempty"`
	Decided     *time.Time `json:",omitempty"`
	Until       *time.Time `json:",omitempty"`
}

func wireApproval(a custody.Approval) approval {
	out := approval{
		Reference: a.Ref, State: string(a.State), Operation: string(a.Operation), Object: a.Object,
		RequestHash: hex.EncodeToString(a.Request[:]), AskedBy: person(a.Asker), Asked: a.Asked, Deadline: a.Deadline,
	}
	if !a.Decided.IsZero() {
		second := person(a.Second)
		out.DecidedBy, out.Decided = &second, &a.Decided
	}
	if !a.Until.IsZero() {
		out.Until = &a.Until
	}
	return out
}

// listApprovals is ListApprovals: the requests that wait or are approved, with
// All also those that are closed, with Reference only that one.
func (c *call) listApprovals() error {
	all, _ := c.form.bool(0, "All", optional)
	ref, named := c.reference(optional)
	if err := c.check(); err != nil {
		return err
	}
	list, err := c.custody.Approvals(c.ctx, c.caller, c.id, all || named)
	if err != nil {
		return err
	}
	out := struct{ Approvals []approval }{[]approval{}}
	for _, a := range list {
		if !named || a.Ref == ref {
			out.Approvals = append(out.Approvals, wireApproval(a))
		}
	}
	return c.answerJSON(out)
}

// approve is Approve.
func (c *call) approve() error { return c.decide(c.custody.Approve) }

// reject is Reject.
func (c *call) reject() error { return c.decide(c.custody.Reject) }

func (c *call) decide(do decider) error {
	ref, _ := c.reference(required)
	if err := c.check(); err != nil {
		return err
	}
	a, err := do(c.ctx, c.caller, c.id, ref)
	if err != nil {
		c.asked = ref
		return err
	}
	return c.answerJSON(struct{ Approval approval }{wireApproval(a)})
}

// reference reads the member Reference in the form that is stored.
func (c *call) reference(need bool) (ref string, there bool) {
	at, text := c.form.string(0, "Reference", need)
	if at < 0 {
		return "", false
	}
	ref, ok := custody.ParseApprovalRef(string(text))
	if !ok {
		c.form.failAt(at, "must be a reference of ten letters and digits")
	}
	return ref, true
}

// answerJSON answers with a value of this package's own types.
func (c *call) answerJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("api: writing the answer: %w", err)
	}
	c.out = append(c.out, text...)
	return nil
}
