package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// posRunCmd carries out a script: a certification run.
type posRunCmd struct {
	posFlags
	posCard
	Script string `arg:"" help:"TOML file with the steps (docs/SIMULATORS.md)." type:"path"`
	Check  bool   `help:"Read the script, say what is wrong with it, and send nothing."`
}

// drillVerdict ends the JSON lines of a run.
type drillVerdict struct {
	Script string `json:"script"`
	Steps  int    `json:"steps"`
	Failed int    `json:"failed"`
	OK     bool   `json:"ok"`
}

// Run carries the script out. It fails when a step's result is not what it expects.
func (c *posRunCmd) Run(p *program) error {
	text, err := os.ReadFile(c.Script)
	if err != nil {
		return fmt.Errorf("the script: %w", err)
	}
	script, err := sim.ParseDrill(c.Script, text)
	if err != nil {
		return err
	}
	if c.Check {
		_, err := fmt.Fprintf(p.stdout, "%s: %d steps\n", c.Script, len(script.Steps))
		return err
	}
	s, err := c.site()
	if err != nil {
		return err
	}
	card, err := c.card(s)
	if err != nil {
		return err
	}
	out := newTable(p.stdout, c.JSON, "STEP", "NAME", "DO", "STAN", "EXPECTED", "DE 39", "MAC", "REVERSAL BEFORE", "PENDING", "TOOK", "RESULT")
	failed, err := script.Run(p.ctx, sim.DrillConfig{
		Open: func() (*sim.Device, error) {
			t, err := openSite(p, s, posOpening{wait: c.Wait, strict: c.Strict})
			if err != nil {
				return nil, err
			}
			return t.Device, nil
		},
		Card: card, Known: s.known,
		Report: func(r sim.DrillReport) { reportStep(out, r) },
	})
	if err != nil {
		_ = out.flush() // the error says more
		return err
	}
	if err := out.flush(); err != nil {
		return err
	}
	return c.verdict(p, script, failed)
}

func reportStep(out *table, r sim.DrillReport) {
	result := "ok"
	if !r.OK {
		result = "FAILED: " + r.Why
	}
	reversal := r.Reversal
	if r.Tries > 0 {
		reversal = fmt.Sprintf("%s after %d", reversal, r.Tries)
	}
	out.row(r, fmt.Sprint(r.Step), r.Name, r.Do, r.STAN, r.Expect, r.Code, string(r.MAC), reversal, r.Owed, r.Took.Round(time.Millisecond).String(), result)
}

// verdict ends the report; a failed step is exit code 1.
func (c *posRunCmd) verdict(p *program, script *sim.Drill, failed int) error {
	v := drillVerdict{Script: script.Name, Steps: len(script.Steps), Failed: failed, OK: failed == 0}
	var err error
	switch {
	case c.JSON:
		err = json.NewEncoder(p.stdout).Encode(v)
	case v.OK:
		_, err = fmt.Fprintf(p.stdout, "PASSED: %d steps\n", v.Steps)
	default:
		_, err = fmt.Fprintf(p.stdout, "FAILED: %d of %d steps\n", v.Failed, v.Steps)
	}
	if err == nil && !v.OK {
		return &exitError{code: exitFailed}
	}
	return err
}
