package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"keyd.dev/keyd/internal/custody"
)

type approvalsCmd struct {
	Ls approvalsLsCmd `cmd:"" help:"List the requests that wait for a second person."`
}

type approvalsLsCmd struct {
	doorFlags
	All  bool `help:"Also those that are rejected, spent or expired."`
	JSON bool `help:"Print JSON lines."`
}

type approveCmd struct {
	doorFlags
	Ref string `arg:"" help:"The reference, as the daemon gave it to who asked."`
	Yes bool   `help:"Do not ask for the reference again."`
}

type rejectCmd struct {
	doorFlags
	Ref string `arg:"" help:"The reference."`
}

// approvalPerson and approvalAnswer are a request for approval as the daemon
// tells it.
type approvalPerson struct {
	Name    string `json:"Name"`
	URI     string `json:"Uri"`
	Subject string `json:"Subject,omitempty"`
	Addr    string `json:"Addr,omitempty"`
}

type approvalAnswer struct {
	Reference   string          `json:"Reference"`
	State       string          `json:"State"`
	Operation   string          `json:"Operation"`
	Object      string          `json:"Object"`
	RequestHash string          `json:"RequestHash"`
	AskedBy     approvalPerson  `json:"AskedBy"`
	Asked       time.Time       `json:"Asked"`
	Deadline    time.Time       `json:"Deadline"`
	DecidedBy   *approvalPerson `json:"DecidedBy,omitempty"`
	Decided     *time.Time      `json:"Decided,omitempty"`
	Until       *time.Time      `json:"Until,omitempty"`
}

// Run lists requests.
func (c *approvalsLsCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	list, err := approvals(p.ctx, d, map[string]any{"All": c.All})
	if err != nil {
		return err
	}
	out := newTable(p.stdout, c.JSON, "REFERENCE", "STATE", "WHO", "OPERATION", "OBJECT", "ASKED", "DECIDED BY")
	for _, a := range list {
		second := ""
		if a.DecidedBy != nil {
			second = a.DecidedBy.Name
		}
		out.row(a, a.Reference, a.State, a.AskedBy.Name, a.Operation, harmless(a.Object), moment(&a.Asked), second)
	}
	return out.flush()
}

func approvals(ctx context.Context, d *door, query map[string]any) ([]approvalAnswer, error) {
	var out struct{ Approvals []approvalAnswer }
	err := d.own(ctx, string(custody.OpListApprovals), query, &out)
	return out.Approvals, err
}

// Run shows what is asked for, and by whom; who approves types the reference
// once more, having read it.
func (c *approveCmd) Run(p *program) error {
	d, a, err := find(p.ctx, &c.doorFlags, c.Ref)
	if err != nil {
		return err
	}
	if err := describeRequest(p.stdout, a); err != nil {
		return err
	}
	if !c.Yes {
		if err := c.confirm(p, a.Reference); err != nil {
			return err
		}
	}
	var out struct{ Approval approvalAnswer }
	if err := d.own(p.ctx, string(custody.OpApprove), map[string]string{"Reference": a.Reference}, &out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "approved: %s can give the same command again, once, before %s\n", a.AskedBy.Name, moment(out.Approval.Until))
	return err
}

// confirm reads the reference, so that nobody approves with a key pressed twice.
func (c *approveCmd) confirm(p *program, ref string) error {
	if _, err := fmt.Fprint(p.stdout, "To approve this, type the reference: "); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(p.stdin, 256)).ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("nothing was approved: reading the confirmation: %w", err)
	}
	if typed, ok := custody.ParseApprovalRef(strings.TrimSpace(line)); !ok || typed != ref {
		return fmt.Errorf("nothing was approved: that is not the reference %s", ref)
	}
	return nil
}

// Run closes a request, or takes an approval back.
func (c *rejectCmd) Run(p *program) error {
	d, a, err := find(p.ctx, &c.doorFlags, c.Ref)
	if err != nil {
		return err
	}
	if err := d.own(p.ctx, string(custody.OpReject), map[string]string{"Reference": a.Reference}, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "rejected: %s of %s by %s\n", a.Operation, a.Object, a.AskedBy.Name)
	return err
}

// find opens the door and looks a request up.
func find(ctx context.Context, flags *doorFlags, text string) (*door, approvalAnswer, error) {
	ref, ok := custody.ParseApprovalRef(text)
	if !ok {
		return nil, approvalAnswer{}, usageError("%q is not a reference: it has ten letters and digits", text)
	}
	d, err := flags.open()
	if err != nil {
		return nil, approvalAnswer{}, err
	}
	list, err := approvals(ctx, d, map[string]any{"Reference": ref})
	if err != nil {
		return nil, approvalAnswer{}, err
	}
	if len(list) == 0 {
		return nil, approvalAnswer{}, fmt.Errorf("there is no request %s; `keyd approvals ls --all` lists them", ref)
	}
	return d, list[0], nil
}

// describeRequest says what a second person consents to.
func describeRequest(w io.Writer, a approvalAnswer) error {
	_, err := fmt.Fprintf(w, "reference  %s, %s\n"+
		"who        %s, %s, certificate of %q\n"+
		"what       %s\n"+
		"object     %s\n"+
		"since      %s, open until %s\n"+
		"from       %s\n"+
		"request    SHA-256 %s\n",
		a.Reference, strings.ToLower(a.State), a.AskedBy.Name, a.AskedBy.URI, harmless(a.AskedBy.Subject),
		a.Operation, harmless(a.Object), moment(&a.Asked), moment(&a.Deadline), a.AskedBy.Addr, a.RequestHash)
	return err
}

// harmless is a text of somebody else's as it may be shown at a terminal.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// harmlessAll is [harmless] of several.
func harmlessAll(texts ...string) []string {
	for i := range texts {
		texts[i] = harmless(texts[i])
	}
	return texts
}

func moment(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
