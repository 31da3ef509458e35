package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// posLoadCmd lets many terminals sell at once, each with its journal.
type posLoadCmd struct {
	Dir       string        `help:"Folder of a running keyd dev." required:"" type:"path" placeholder:"DIR"`
	Terminals int           `help:"How many: of DUKPT at most 50 (T0000100 and on), of UnionPay at most 10 (20000100 and on)." default:"10"`
	UnionPay  bool          `help:"UnionPay terminals; keyd dev runs with --unionpay." name:"unionpay"`
	Rate      float64       `help:"Sales a second, of all together." default:"20"`
	For       time.Duration `help:"How long." default:"10s"`
	Amount    int64         `help:"Minor units of each." default:"1000"`
	Lose      int           `help:"Lose the answer of every so many-th sale, so that it is reversed; 0 loses none." default:"0"`
	State     string        `help:"Folder of the terminals' folders; that of keyd dev by default." type:"path" placeholder:"DIR"`
	Wait      time.Duration `help:"How long to wait for an answer." default:"15s"`
	JSON      bool          `help:"Print JSON." name:"json"`
}

// Run lets them work, and prints what came of it.
func (c *posLoadCmd) Run(p *program) error {
	if !sim.FleetRate(c.Rate) {
		return usageError("--rate=%v: from %v to %v sales a second", c.Rate, sim.FleetLeastRate, sim.FleetMostRate)
	}
	if c.For <= 0 || c.Lose < 0 || c.Amount <= 0 {
		return usageError("--for and --amount are above zero, and --lose not below")
	}
	dev, err := readDev(c.Dir)
	if err != nil {
		return err
	}
	tills, err := c.open(p, dev)
	defer func() {
		for _, t := range tills {
			t.close()
		}
	}()
	if err != nil {
		return err
	}
	cfg := sim.FleetConfig{Rate: c.Rate, For: c.For, Order: func(n int) sim.Order {
		o := sim.Order{Do: sim.DoSale, Amount: c.Amount, Card: sim.Card{PAN: tills[0].site.card(), PIN: testPIN}}
		o.Faults.LoseAnswer = c.Lose > 0 && n%c.Lose == c.Lose-1
		return o
	}}
	for _, t := range tills {
		cfg.Devices = append(cfg.Devices, t.Device)
	}
	report, err := sim.RunFleet(p.ctx, cfg)
	return errors.Join(c.print(p, report), err)
}

// open opens the terminals.
func (c *posLoadCmd) open(p *program, dev *devReport) ([]*pos, error) {
	scheme := isoswitch.TDESDUKPT
	if c.UnionPay {
		scheme = isoswitch.MasterKey
	}
	var fit []testTerminal
	for _, t := range dev.Terminals {
		if t.Scheme == scheme && t.TID[:2] != "T0" || t.Scheme == scheme && t.TID >= "T0000100" {
			fit = append(fit, t)
		}
	}
	if c.UnionPay && len(fit) > 0 {
		fit = fit[1:] // the first is for single commands
	}
	if c.Terminals < 1 || c.Terminals > len(fit) {
		return nil, usageError("--terminals=%d: this keyd dev has %d terminals for it", c.Terminals, len(fit))
	}
	var all []*pos
	for _, t := range fit[:c.Terminals] {
		s, err := devSite(dev, c.Dir, t.TID)
		if err != nil {
			return all, err
		}
		if c.State != "" {
			s.state = filepath.Join(c.State, "pos-"+t.TID)
		}
		one, err := openSite(p, s, posOpening{wait: c.Wait})
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (c *posLoadCmd) print(p *program, r sim.FleetReport) error {
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(r)
	}
	fmt.Fprintf(p.stdout, "%d terminals: %d sales sent, %d not sent in time\n", c.Terminals, r.Sent, r.Late)
	for _, code := range slices.Sorted(maps.Keys(r.Codes)) {
		fmt.Fprintf(p.stdout, "  DE 39 = %s  %d (%s)\n", code, r.Codes[code], meaning(code))
	}
	_, err := fmt.Fprintf(p.stdout, "  no valid answer  %d\n  reversals  %d answered, %d given up, %d sent\n  p50 %s, p99 %s\n",
		r.Unknown, r.Reversed, r.GivenUp, r.Sends, r.P50.Round(10*time.Microsecond), r.P99.Round(10*time.Microsecond))
	return err
}
