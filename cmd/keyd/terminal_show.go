package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/internal/api"
)

type terminalShowCmd struct {
	TID  string `arg:"" name:"tid" help:"DE 41, 8 characters."`
	JSON bool   `help:"Print JSON."`
	doorFlags
}

// Run shows one terminal with its keys.
func (c *terminalShowCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	var answer struct{ Terminal api.Terminal }
	if err := d.own(p.ctx, "GetTerminal", map[string]string{"Tid": c.TID}, &answer); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(answer.Terminal)
	}
	return showTerminal(p.stdout, answer.Terminal)
}

func showTerminal(out io.Writer, t api.Terminal) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	line("terminal", "%s of merchant %s", t.TID, t.MID)
	status := t.Status
	if t.Since != nil {
		status += " since " + t.Since.Format(time.RFC3339)
	}
	if t.Reason != "" {
		status += ": " + t.Reason
	}
	line("status", "%s", status)
	if t.Scheme == "tmk" {
		line("scheme", "tmk, profile %s", t.Profile)
	} else {
		line("scheme", "%s under %s, device %s, MAC of %d bytes", t.Scheme, t.BDK, t.Device, t.MACBytes)
	}
	if t.MaximumAmount > 0 {
		line("largest sale", "%d minor units", t.MaximumAmount)
	}
	for _, k := range t.Keys {
		until := ""
		if k.Previous && t.Retires != nil {
			until = ", accepted until " + t.Retires.Format(time.RFC3339)
		}
		line(k.Slot, "version %d, KCV %s, %s%s", k.Version, k.KeyCheckValue, k.KeyArn, until)
	}
	if t.KeysMade != nil {
		text := "made " + t.KeysMade.Format(time.RFC3339)
		if t.KeysUntil != nil {
			text += ", too old from " + t.KeysUntil.Format(time.RFC3339)
		}
		if t.MaxMessages > 0 {
			text += fmt.Sprintf(", %d of %d messages verified", t.Messages, t.MaxMessages)
		}
		line("working keys", "%s", text)
	}
	return w.Flush()
}

// statusFlags are what a change of status needs.
type statusFlags struct {
	TID    string `arg:"" name:"tid" help:"DE 41, 8 characters."`
	Reason string `placeholder:"TEXT" help:"Why, for the registry; at most 200 characters."`
	doorFlags
}

func (f *statusFlags) set(p *program, status string, needed bool) error {
	if needed && f.Reason == "" {
		return usageError("--reason is missing: say why; it stays in the registry")
	}
	return f.change(p, f.TID, map[string]any{"Tid": f.TID, "Status": status, "Reason": f.Reason})
}

// change calls ChangeTerminal and says what the terminal is now.
func (f *doorFlags) change(p *program, tid string, body map[string]any) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	var answer struct{ Terminal api.Terminal }
	if err := d.own(p.ctx, "ChangeTerminal", body, &answer); err != nil {
		return err
	}
	limit := "no limit"
	if answer.Terminal.MaximumAmount > 0 {
		limit = fmt.Sprintf("sales up to %d minor units", answer.Terminal.MaximumAmount)
	}
	_, err = fmt.Fprintf(p.stdout, "terminal %s: %s, %s\n", tid, answer.Terminal.Status, limit)
	return err
}

type terminalSuspendCmd struct{ statusFlags }

// Run takes a terminal out of service until it is resumed.
func (c *terminalSuspendCmd) Run(p *program) error { return c.set(p, "SUSPENDED", true) }

type terminalResumeCmd struct{ statusFlags }

// Run takes a terminal back into service.
func (c *terminalResumeCmd) Run(p *program) error { return c.set(p, "IN_SERVICE", false) }

type terminalRetireCmd struct{ statusFlags }

// Run ends a terminal for good.
func (c *terminalRetireCmd) Run(p *program) error { return c.set(p, "RETIRED", true) }

type terminalLimitsCmd struct {
	TID string `arg:"" name:"tid" help:"DE 41, 8 characters."`
	Max *int64 `name:"max-amount" required:"" placeholder:"N" help:"Largest sale in minor units; 0 for no limit."`
	doorFlags
}

// Run changes the limit of a terminal.
func (c *terminalLimitsCmd) Run(p *program) error {
	if *c.Max < 0 {
		return usageError("--max-amount=%d: an amount is not negative", *c.Max)
	}
	return c.change(p, c.TID, map[string]any{"Tid": c.TID, "MaximumAmount": *c.Max})
}

// addByDoor registers one terminal by way of the API.
func addByDoor(p *program, f *doorFlags, t newTerminal) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	var answer addedTerminals
	if err := d.own(p.ctx, "AddTerminals", map[string]any{"Terminals": []newTerminal{t}}, &answer); err != nil {
		return err
	}
	if len(answer.Refused) > 0 {
		return errors.New("the terminal was not registered: " + answer.Refused[0].Message)
	}
	word := "registered"
	if answer.Unchanged > 0 {
		word = "was registered so already"
	}
	_, err = fmt.Fprintf(p.stdout, "terminal %s of merchant %s: %s\n", t.TID, t.MID, word)
	return err
}
