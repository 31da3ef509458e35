package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DrillConfig is what a script runs with.
type DrillConfig struct {
	// Open takes up where the terminal stopped; it is called again after each loss
	// of power.
	Open func() (*Device, error)
	Card Card // of steps that name none
	// Known refuses card numbers that must not be used; nil: none.
	Known func(pan string) error
	// Report is told of each step when it is done.
	Report func(DrillReport)
}

// DrillReport is what became of a step.
type DrillReport struct {
	Step     int           `json:"step"` // from 1
	Name     string        `json:"name,omitempty"`
	Do       string        `json:"do"`
	STAN     string        `json:"stan,omitempty"`
	Expect   string        `json:"expect,omitempty"`
	Code     string        `json:"code,omitempty"` // DE 39 that was believed, or none
	MAC      MACState      `json:"mac,omitempty"`
	Owed     string        `json:"owed,omitempty"`     // reason of the reversal that is pending now
	Reversal string        `json:"reversal,omitempty"` // what became of the one that went first
	Tries    int           `json:"reversal_tries,omitempty"`
	Took     time.Duration `json:"took_ns"`
	OK       bool          `json:"ok"`
	Why      string        `json:"why,omitempty"` // what is not as it must be
}

// run is a script on its way.
type drilling struct {
	cfg   DrillConfig
	d     *Device
	named map[string]*Memory // approved, by the name of the step
}

// Run carries the steps out, one after the other, also after one that failed. It
// returns how many did. The error is for what ends the run: a folder that cannot be
// used, or a context that ended.
func (s *Drill) Run(ctx context.Context, cfg DrillConfig) (failed int, err error) {
	w := &drilling{cfg: cfg, named: make(map[string]*Memory)}
	if w.d, err = cfg.Open(); err != nil {
		return 0, err
	}
	defer func() {
		if w.d != nil {
			err = errors.Join(err, w.d.Close())
		}
	}()
	for i, step := range s.Steps {
		report, err := w.step(ctx, step)
		if err != nil {
			return failed, fmt.Errorf("step %d: %w", i+1, err)
		}
		report.Step, report.Name, report.Do, report.Expect = i+1, step.Name, step.Do, step.Expect
		report.OK = report.Why == ""
		if !report.OK {
			failed++
		}
		cfg.Report(report)
	}
	return failed, nil
}

// step does one step. An error ends the run.
func (w *drilling) step(ctx context.Context, s DrillStep) (DrillReport, error) {
	switch s.Do {
	case drillPause:
		d, _ := time.ParseDuration(s.For) // parsed before
		return DrillReport{}, rest(ctx, d)
	case drillRestart:
		return DrillReport{}, w.reopen()
	}
	o, err := w.order(s)
	if err != nil {
		return DrillReport{Why: err.Error()}, nil
	}
	r, err := w.d.Do(ctx, o)
	report := DrillReport{Code: expectNone}
	if r != nil {
		report.take(r)
	}
	switch {
	case err == nil, errors.Is(err, ErrOrder), errors.Is(err, ErrUnreachable), errors.Is(err, ErrSignIn), errors.Is(err, ErrWorkingKeys):
	case errors.Is(err, ErrPower):
		if err := w.reopen(); err != nil {
			return report, err
		}
		err = nil
	default:
		return report, err
	}
	if err == nil || errors.Is(err, ErrPower) {
		report.Why = report.judge(s, o)
	} else {
		report.Why = err.Error()
	}
	if r != nil && report.Why == "" && s.Name != "" && r.Answer != nil && w.d.cfg.Speaker.approves(r.Code) {
		m := r.Sent.Remember(r.Answer)
		w.named[s.Name] = &m
	}
	return report, nil
}

// reopen is what a loss of power and its return do.
func (w *drilling) reopen() error {
	err := w.d.Close()
	w.d = nil
	if err != nil {
		return err
	}
	w.d, err = w.cfg.Open()
	return err
}

// order is a step as the terminal is given it.
func (w *drilling) order(s DrillStep) (Order, error) {
	o := Order{Do: Kind(s.Do), Amount: s.Amount, Card: w.cfg.Card}
	if s.Card != "" {
		o.Card.PAN = s.Card
	}
	if w.cfg.Known != nil && o.Do.transaction() && !o.Do.names() {
		if err := w.cfg.Known(o.Card.PAN); err != nil {
			return o, err
		}
	}
	o.Card.Chip = s.Chip || o.Card.Chip && !o.Do.names()
	if s.PIN != nil && !*s.PIN {
		o.Card.PIN = ""
	}
	if o.Do.names() {
		if o.Of = w.named[s.Of]; o.Of == nil {
			return o, fmt.Errorf("step %q was not approved", s.Of)
		}
		if o.Amount == 0 {
			o.Amount = o.Of.Amount()
		}
	}
	o.Faults.Delay, _ = time.ParseDuration(s.Delay) // parsed before, as the others
	o.Faults.PowerAt = Stage(s.Power)
	for _, name := range s.Fault {
		_ = o.Faults.Set(name)
	}
	return o, nil
}

// take fills in what became of an order.
func (p *DrillReport) take(r *Result) {
	if r.Sent != nil {
		p.STAN = r.Sent.Message.Text(11)
	}
	if r.Code != "" {
		p.Code = r.Code
	}
	p.MAC, p.Owed, p.Took = r.MAC, r.Owed, r.Took
	if b := r.Before; b != nil {
		p.Reversal, p.Tries = orNone(b.Code), b.Tries
		if b.GivenUp {
			p.Reversal = expectGivenUp
		}
	}
}

// judge says what is not as the step expects it, or "".
func (p *DrillReport) judge(s DrillStep, o Order) string {
	meets := func(want, got string) bool { return want == "" || slices.Contains(strings.Fields(want), got) }
	spoilt := o.Faults.AnswerMAC || o.Faults.Garble
	most, _ := time.ParseDuration(s.Within) // parsed before
	switch {
	case !meets(s.Expect, p.Code):
		return fmt.Sprintf("DE 39 is %s, must be %s", p.Code, s.Expect)
	case !meets(s.Reversal, orNone(p.Reversal)):
		return fmt.Sprintf("the reversal before it ended with %s, must end with %s", orNone(p.Reversal), s.Reversal)
	case most > 0 && p.Took > most:
		return fmt.Sprintf("the answer took %s, may take %s", p.Took.Round(time.Millisecond), most)
	case p.MAC == MACWrong && !spoilt:
		return "the answer has a wrong MAC"
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return expectNone
	}
	return s
}
