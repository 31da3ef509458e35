package main

import (
	"context"

	"keyd.dev/keyd/internal/sim"
)

// forger sends what must have no effect: reversals of a terminal's own sales
// without a MAC, with a wrong one, with a stranger's, with a valid one and
// another amount.
type forger struct {
	dice     *dice
	stranger *sim.Terminal
	wire     *wire // of the last forgery
	bad      int   // wrong MACs by this connection
}

// mostBadMACs is below what locks a terminal on a connection (W-19): a locked one
// gets answers that it cannot believe, and would never end.
const mostBadMACs = 3

func newForger(dev *devReport, d *dice) (*forger, error) {
	fixed, err := dev.terminal("T0000003")
	if err != nil {
		return nil, err
	}
	other, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	return &forger{dice: d, stranger: other}, err
}

// try forges a reversal of one of the terminal's standing sales.
func (f *forger) try(ctx context.Context, t *till) {
	d := t.pick(func(d *deal) bool { return d.code == "00" && !d.asked && !d.abandoned })
	if d == nil {
		return
	}
	names := []string{"changed-amount", "foreign-key"}
	if t.wire != f.wire {
		f.wire, f.bad = t.wire, 0
	}
	if f.bad < mostBadMACs {
		names = append(names, "no-mac", "wrong-mac", "tampered-amount")
	}
	forgery, err := sim.ForgeryByName(names[f.dice.below(len(names))])
	if err != nil {
		t.fault("%v", err)
		return
	}
	if forgery.Row == "D-03" || forgery.Row == "D-04" {
		f.bad++
	}
	sent, err := forgery.Make(t.Terminal, f.stranger, d.sale, nil)
	if err != nil {
		t.fault("building the forgery %s: %v", forgery.Name, err)
		return
	}
	t.exchange(ctx, message{deal: d, sent: sent, forged: forgery.Code}, t.patience())
}
