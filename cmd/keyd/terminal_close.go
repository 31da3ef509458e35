package main

import (
	"encoding/json"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
)

type terminalCloseBatchCmd struct {
	TID   string        `arg:"" optional:"" help:"The terminal."`
	All   bool          `help:"All terminals, in place of one."`
	Older time.Duration `name:"older-than" placeholder:"TIME" help:"Only what was sold longer ago: 90s, 15m, 2h."`
	JSON  bool          `help:"Print JSON lines."`
	doorFlags
}

// Run closes the batches of a terminal, or of all: what was sold up to a moment
// can be neither reversed nor voided by its terminal any more.
func (c *terminalCloseBatchCmd) Run(p *program) error {
	if (c.TID == "") != c.All {
		return usageError("name a terminal, or give --all")
	}
	if c.Older < 0 {
		return usageError("--older-than=%s: must not be negative", c.Older)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	query := map[string]any{"OlderThanSeconds": int(c.Older / time.Second)}
	if c.TID != "" {
		query["Tid"] = c.TID
	} else {
		query["All"] = true
	}
	var out struct {
		TID   string `json:"Tid,omitempty"`
		Until time.Time
	}
	if err := d.own(p.ctx, string(custody.OpCloseBatch), query, &out); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(out)
	}
	whose := "all terminals"
	if out.TID != "" {
		whose = "terminal " + out.TID
	}
	_, err = fmt.Fprintf(p.stdout, "batches of %s are closed up to %s\n", whose, out.Until.Format(time.RFC3339))
	return err
}
