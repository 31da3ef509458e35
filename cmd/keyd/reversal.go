package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
)

type reversalCmd struct {
	Ls      reversalLsCmd      `cmd:"" help:"List the reversals that need work, or others."`
	Show    reversalShowCmd    `cmd:"" help:"Show the whole life of a reversal."`
	Retry   reversalRetryCmd   `cmd:"" help:"Send a reversal now; one that was given up or parked gets all its tries again."`
	Park    reversalParkCmd    `cmd:"" help:"Take a reversal out of the queue until it is retried."`
	Resolve reversalResolveCmd `cmd:"" help:"Close a reversal that was given up with the number of a case; a second person approves."`
	Release reversalReleaseCmd `cmd:"" help:"Let a reversal that a rule held go on; a second person approves."`
	Reject  reversalRejectCmd  `cmd:"" help:"End a reversal that a rule held, so that its sale is valid; a second person approves."`
}

type reversalLsCmd struct {
	State    string        `placeholder:"STATE" enum:",WAITING,QUEUED,SENT,HELD,PARKED,FAILED,CONFIRMED,CLOSED" default:"" help:"Only those in this state, WAITING to CLOSED as in docs/SWITCH.md."`
	Older    time.Duration `name:"older-than" placeholder:"TIME" help:"Only those taken longer ago: 90s, 15m, 2h."`
	TID      string        `name:"tid" placeholder:"TID" help:"Only those of this terminal."`
	Upstream string        `placeholder:"NAME" help:"Only those for this upstream link."`
	All      bool          `help:"Also those that are confirmed, closed, or settled with a case."`
	Limit    int           `default:"100" help:"How many at most; default ${default}."`
	JSON     bool          `help:"Print JSON lines."`
	doorFlags
}

// Run lists reversals, the oldest first.
func (c *reversalLsCmd) Run(p *program) error {
	if c.Limit < 1 || c.Limit > 1000 {
		return usageError("--limit=%d: 1 to 1000", c.Limit)
	}
	query := map[string]any{"MaxResults": c.Limit}
	for name, value := range map[string]string{"State": c.State, "Tid": c.TID, "Upstream": c.Upstream} {
		if value != "" {
			query[name] = value
		}
	}
	if c.All {
		query["All"] = true
	}
	if c.Older >= time.Second {
		query["OlderThanSeconds"] = int(c.Older / time.Second)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	list, err := reversals(p.ctx, d, query)
	if err != nil {
		return err
	}
	out := newTable(p.stdout, c.JSON, "REVERSAL", "STATE", "ORIGINAL", "TID", "STAN", "AMOUNT", "UPSTREAM", "TAKEN", "TRIES", "CASE")
	for _, r := range list {
		out.row(r, r.Reversal, r.State, r.Original, r.TID, r.STAN, money(r), r.Upstream, moment(r.Built), strconv.Itoa(r.Tries), r.Case)
	}
	return out.flush()
}

func reversals(ctx context.Context, d *door, query map[string]any) ([]api.Reversal, error) {
	var out struct{ Reversals []api.Reversal }
	err := d.own(ctx, string(custody.OpListReversals), query, &out)
	return out.Reversals, err
}

// money is an amount with its currency.
func money(r api.Reversal) string {
	if r.Unreadable {
		return ""
	}
	return fmt.Sprintf("%d %s", r.Amount, r.Currency)
}

type reversalShowCmd struct {
	Name string `arg:"" optional:"" help:"The name of the reversal, as ls has it."`
	TID  string `name:"tid" placeholder:"TID" help:"In place of the name: the terminal, with --stan."`
	STAN string `name:"stan" placeholder:"STAN" help:"STAN of the sale or of the reversal message."`
	Date string `placeholder:"MMDD" help:"With --tid and --stan: the date of the sale's DE 7."`
	JSON bool   `help:"Print JSON lines."`
	doorFlags
}

// Run shows one reversal, or those that a terminal's numbers find.
func (c *reversalShowCmd) Run(p *program) error {
	byNumbers := c.TID != "" && c.STAN != ""
	if (c.Name == "") != byNumbers || c.Date != "" && !byNumbers {
		return usageError("name a reversal, or give --tid and --stan, with --date where the STAN has come round")
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	names := []string{c.Name}
	if byNumbers {
		if names, err = c.search(p.ctx, d); err != nil {
			return err
		}
	}
	for i, name := range names {
		var out struct{ Reversal api.Reversal }
		if err := d.own(p.ctx, string(custody.OpGetReversal), map[string]string{"Reversal": name}, &out); err != nil {
			return err
		}
		if c.JSON {
			err = json.NewEncoder(p.stdout).Encode(out.Reversal)
		} else {
			if i > 0 {
				fmt.Fprintln(p.stdout)
			}
			err = showReversal(p.stdout, out.Reversal)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// search finds the names of the reversals that have these numbers.
func (c *reversalShowCmd) search(ctx context.Context, d *door) (names []string, err error) {
	query := map[string]any{"All": true, "Tid": c.TID, "Stan": c.STAN, "MaxResults": 20}
	if c.Date != "" {
		query["Date"] = c.Date
	}
	list, err := reversals(ctx, d, query)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		names = append(names, r.Reversal)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there is no reversal of terminal %s with STAN %s; it was never accepted, and nothing was reversed", c.TID, c.STAN)
	}
	return names, nil
}

func showReversal(out io.Writer, r api.Reversal) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	line("reversal", "%s", r.Reversal)
	line("state", "%s", r.State)
	if r.Unreadable {
		return w.Flush()
	}
	line("original", "%s: %s of terminal %s, merchant %s, STAN %s, DE 7 %s, RRN %s", r.Original, r.MTI, r.TID, r.MID, r.STAN, r.DateTime, harmless(r.RRN))
	whole := "the whole"
	if r.Rest != nil {
		whole = fmt.Sprintf("all but %d", *r.Rest)
	}
	line("amount", "%s of %s", whole, money(r))
	if r.PAN != "" {
		line("card", "%s", r.PAN)
	}
	line("cause", "%s, reason %s", r.Cause, r.Reason)
	if r.AnswerIs != "" {
		line("answer", "%s to the terminal", r.AnswerIs)
	}
	line("upstream", "%s, STAN %s, %s", r.Upstream, r.UpSTAN, counted(r))
	for _, at := range []struct {
		name string
		time *time.Time
	}{
		{"received", r.Received}, {"built", r.Built}, {"sent", r.FirstSent}, {"sent last", r.LastSent},
		{"answered", r.Answered}, {"closed", r.Closed}, {"next try", r.Next}, {"resolved", r.Resolved},
	} {
		if at.time != nil {
			line(at.name, "%s", at.time.UTC().Format(time.RFC3339Nano))
		}
	}
	if r.Case != "" {
		line("case", "%s", r.Case)
	}
	return w.Flush()
}

// counted is what has come of the tries.
func counted(r api.Reversal) string {
	parts := []string{fmt.Sprintf("%d tries", r.Tries)}
	if r.Declines > 0 {
		parts = append(parts, fmt.Sprintf("%d declined", r.Declines))
	}
	if r.Errors > 0 {
		parts = append(parts, fmt.Sprintf("%d could not be built", r.Errors))
	}
	if r.UpAnswer != "" {
		parts = append(parts, "last answer "+r.UpAnswer)
	}
	if r.LateIs != "" {
		parts = append(parts, "late answer to the original "+r.LateIs)
	}
	return strings.Join(parts, ", ")
}

// reversalFlags name one reversal.
type reversalFlags struct {
	Name string `arg:"" help:"The name of the reversal, as ls has it."`
	doorFlags
}

// order calls an operation on the reversal and says what it is now.
func (f *reversalFlags) order(p *program, op custody.Operation, more map[string]string) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	body := map[string]string{"Reversal": f.Name}
	for name, value := range more {
		body[name] = value
	}
	var out struct{ Reversal api.Reversal }
	if err := d.own(p.ctx, string(op), body, &out); err != nil {
		return err
	}
	r := out.Reversal
	_, err = fmt.Fprintf(p.stdout, "reversal %s: %s, original %s\n", r.Reversal, r.State, r.Original)
	return err
}

type reversalRetryCmd struct{ reversalFlags }

// Run puts a reversal to the front of its queue.
func (c *reversalRetryCmd) Run(p *program) error { return c.order(p, custody.OpRetryReversal, nil) }

type reversalParkCmd struct{ reversalFlags }

// Run takes a reversal out of the queue.
func (c *reversalParkCmd) Run(p *program) error { return c.order(p, custody.OpParkReversal, nil) }

type reversalResolveCmd struct {
	Case string `required:"" placeholder:"ID" help:"The number under which the case is kept: letters, digits, dots and dashes, at most 32."`
	reversalFlags
}

// Run closes a reversal for good.
func (c *reversalResolveCmd) Run(p *program) error {
	return c.order(p, custody.OpResolveReversal, map[string]string{"Case": c.Case})
}

type reversalReleaseCmd struct{ reversalFlags }

// Run lets a held reversal go on.
func (c *reversalReleaseCmd) Run(p *program) error {
	return c.order(p, custody.OpReleaseReversal, nil)
}

type reversalRejectCmd struct{ reversalFlags }

// Run ends a held reversal.
func (c *reversalRejectCmd) Run(p *program) error { return c.order(p, custody.OpRejectReversal, nil) }
