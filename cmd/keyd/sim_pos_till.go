package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// pos is a terminal at work.
type pos struct {
	*sim.Device
	site  *posSite
	dukpt *sim.DUKPT // nil: a UnionPay terminal
	p     *program
}

// posOpening is what a terminal is opened with beside its site.
type posOpening struct {
	wait   time.Duration
	form   string    // of a UnionPay sign-in
	strict bool      // believe refusals with a MAC alone
	kill   sim.Stage // where the process ends itself; "" nowhere
}

// openSite takes up where the terminal stopped.
func openSite(p *program, s *posSite, o posOpening) (*pos, error) {
	if err := s.inherit(); err != nil {
		return nil, err
	}
	speaker, dukpt, err := s.speaker(o.form, o.strict)
	if err != nil {
		return nil, err
	}
	device, err := sim.NewDevice(sim.DeviceConfig{Speaker: speaker, Dir: s.state, Dial: s.dial(o.wait), At: func(at sim.Stage) error {
		if at == o.kill {
			return syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return &pos{Device: device, site: s, dukpt: dukpt, p: p}, nil
}

// openPos opens a terminal of `keyd dev`.
func openPos(p *program, dev *devReport, dir, tid string, wait time.Duration) (*pos, error) {
	s, err := devSite(dev, dir, tid)
	if err != nil {
		return nil, err
	}
	return openSite(p, s, posOpening{wait: wait})
}

// terminal is the registered test terminal of a TID.
func (d *devReport) terminal(tid string) (testTerminal, error) {
	for _, t := range d.Terminals {
		if t.TID == tid {
			return t, nil
		}
	}
	if i := slices.IndexFunc(masterTerminals(), func(t testTerminal) bool { return t.TID == tid }); i >= 0 {
		return testTerminal{}, advise(fmt.Errorf("terminal %q speaks UnionPay, which this keyd dev does not", tid), "start it with --unionpay")
	}
	return testTerminal{}, fmt.Errorf("no terminal %q; keyd dev has T0000001 (TDES), T0000002 (AES), T0000003 (TDES) and T0000100 to T0000149 (TDES), and with --unionpay 10000198 and 20000100 to 20000109", tid)
}

func (t *pos) close() { _ = t.Close() }

// outcome is what came of a message, with an error where it must not be believed.
func outcome(r *sim.Result, err error) (*sim.Sent, *iso8583.Message, error) {
	if r == nil {
		return nil, nil, err
	}
	return r.Sent, r.Answer, errors.Join(err, r.Fault)
}

// exchange sends a message that was built, and returns its answer.
func (t *pos) exchange(sent *sim.Sent) (*iso8583.Message, error) {
	_, answer, err := outcome(t.Send(t.p.ctx, func() (*sim.Sent, error) { return sent, nil }))
	return answer, err
}

// sell sends a sale.
func (t *pos) sell(amount int64, card sim.Card) (*sim.Sent, *iso8583.Message, error) {
	return outcome(t.Do(t.p.ctx, sim.Order{Do: sim.DoSale, Amount: amount, Card: card}))
}

// reverse sends a reversal of the last approved sale.
func (t *pos) reverse(mti iso8583.MTI) (*sim.Sent, *iso8583.Message, error) {
	return outcome(t.Reverse(t.p.ctx, mti, -1))
}

// errNoForgery is returned for a terminal whose forgeries are not among those here.
var errNoForgery = errors.New("these forgeries are of DUKPT terminals")

func (t *pos) lastSale() (*sim.Sent, error) {
	if t.dukpt == nil {
		return nil, errNoForgery
	}
	if t.State().Sale == nil {
		return nil, advise(errors.New("this terminal has no approved sale"), "send one: keyd sim pos sale")
	}
	return t.dukpt.Recall(*t.State().Sale)
}

// forge sends a forged reversal of the last approved sale.
func (t *pos) forge(f sim.Forgery, dev *devReport) (*sim.Result, error) {
	sale, err := t.lastSale()
	if err != nil {
		return nil, err
	}
	reversal := sale
	if t.State().Reversal != nil {
		if reversal, err = t.dukpt.Recall(*t.State().Reversal); err != nil {
			return nil, err
		}
	} else if f.Name == "reversal-of-reversal" {
		return nil, advise(errors.New("this terminal has no honoured reversal"), "send one: keyd sim pos reversal")
	}
	other, err := attacker(dev)
	if err != nil {
		return nil, err
	}
	return t.Send(t.p.ctx, func() (*sim.Sent, error) { return f.Make(t.dukpt.Terminal, other, sale, reversal) })
}

// attacker is another terminal of the same kind, whose keys an attacker has.
func attacker(dev *devReport) (*sim.Terminal, error) {
	fixed, err := dev.terminal("T0000003")
	if err != nil {
		return nil, err
	}
	return sim.NewTerminal(sim.TerminalConfig{
		TID: fixed.TID, MID: fixed.MID, BDK: dev.TestKeys[fixed.BDK],
		KSN: fixed.KSN[:len(fixed.KSN)-5] + "10000", // far from what the real one has used
	}, 500000)
}

// testCards are numbers that card schemes and standards publish for trials.
func testCards() []string {
	return []string{"4012345678909", "4012888888881881", "4111111111111111", "5105105105105100", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000", cupCard}
}

// defaultTID is the terminal that is meant where none is named: the UnionPay
// terminal where the daemon has none but UnionPay terminals.
func (d *devReport) defaultTID() string {
	if d.UnionPay != "" && d.UnionPay == d.SwitchAddr {
		return masterTID
	}
	return "T0000001"
}
