package main

import (
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// testPIN is the PIN of every simulated card.
const testPIN = "1234"

// simPosCmd is a terminal in the field: DUKPT or UnionPay, one command an exchange.
type simPosCmd struct {
	Sale     posSaleCmd     `cmd:"" help:"Send a sale (0200)."`
	Preauth  posPreauthCmd  `cmd:"" help:"Send a pre-authorisation (0100)."`
	Complete posCompleteCmd `cmd:"" help:"Complete the terminal's last pre-authorisation (0200)."`
	Void     posVoidCmd     `cmd:"" help:"Void the terminal's last sale, pre-authorisation or completion."`
	Refund   posRefundCmd   `cmd:"" help:"Refund the terminal's last sale (0220)."`
	Balance  posBalanceCmd  `cmd:"" help:"Ask for a balance (0200)."`
	Reversal posReversalCmd `cmd:"" help:"Reverse the terminal's last approved sale (0400), or repeat that (0401)."`
	Resume   posResumeCmd   `cmd:"" help:"Send the reversal that is pending, and nothing else."`
	Forge    posForgeCmd    `cmd:"" help:"Send a forged reversal of the terminal's last sale."`
	Echo     posEchoCmd     `cmd:"" help:"Send an echo test."`
	Signin   posSigninCmd   `cmd:"" help:"Sign in: a UnionPay terminal gets its working keys."`
	Signoff  posSignoffCmd  `cmd:"" help:"Sign off."`
	Settle   posSettleCmd   `cmd:"" help:"Close the terminal's batch."`
	Status   posStatusCmd   `cmd:"" help:"Show what the terminal remembers, and its slips."`
	Run      posRunCmd      `cmd:"" help:"Carry out a script of steps and compare what comes with what must."`
	Load     posLoadCmd     `cmd:"" help:"Let many terminals sell at once."`
}

// posFlags are what every command of a terminal takes.
type posFlags struct {
	Dir      string        `help:"Folder of a running keyd dev." type:"path" placeholder:"DIR"`
	Terminal string        `help:"A terminal of another switch: a TOML file with its address, keys and numbers, in place of --dir." type:"path" placeholder:"FILE"`
	TID      string        `help:"Terminal of keyd dev; by default T0000001, or 10000198 where all speak UnionPay." name:"tid" placeholder:"TID"`
	State    string        `help:"Folder in which the terminal keeps its counters, its working keys and its pending reversal; by default pos-TID in the folder of keyd dev." type:"path" placeholder:"DIR"`
	Wait     time.Duration `help:"How long to wait for an answer." default:"15s"`
	Strict   bool          `help:"Believe a refusal with a valid MAC alone; fielded UnionPay terminals believe any."`
	JSON     bool          `help:"Print JSON." name:"json"`
}

// posFaults are what goes wrong in one exchange.
type posFaults struct {
	LoseAnswer bool          `help:"Lose the answer." name:"lose-answer" group:"faults"`
	Cut        bool          `help:"Close the connection when the request has left." group:"faults"`
	BadMAC     bool          `help:"Send a wrong MAC." name:"bad-mac" group:"faults"`
	Replay     bool          `help:"Send the same bytes twice; the second answer counts." group:"faults"`
	AnswerMAC  bool          `help:"Turn a bit of the answer's MAC." name:"answer-mac" group:"faults"`
	Garble     bool          `help:"Cut the answer short." group:"faults"`
	CardGone   bool          `help:"Let the card refuse after an approval." name:"card-gone" group:"faults"`
	Delay      time.Duration `help:"Hold the message back so long, after it was written down." group:"faults"`
	CrashAfter string        `help:"Kill the terminal (SIGKILL) after this stage: write, send, answer, reversal-write, reversal-send, reversal-answer." name:"crash-after" enum:",write,send,answer,reversal-write,reversal-send,reversal-answer" default:"" placeholder:"STAGE" group:"faults"`
}

func (f posFaults) faults() sim.Faults {
	return sim.Faults{
		Delay: f.Delay, BadMAC: f.BadMAC, Replay: f.Replay, Cut: f.Cut, LoseAnswer: f.LoseAnswer, AnswerMAC: f.AnswerMAC, Garble: f.Garble, CardGone: f.CardGone,
	}
}

// posCard is the card of a transaction.
type posCard struct {
	PAN   string `help:"Number of a published test card; by default 4012345678909, of a UnionPay terminal 6224242900000113." name:"pan" placeholder:"PAN"`
	NoPIN bool   `help:"Without PIN." name:"no-pin"`
	Chip  bool   `help:"Read the card by its chip: with DE 55."`
}

// card is the card for a terminal. It takes no genuine one: keys and numbers are
// in the clear on file.
func (c posCard) card(s *posSite) (sim.Card, error) {
	card := sim.Card{PAN: c.PAN, PIN: testPIN, Chip: c.Chip}
	if c.NoPIN {
		card.PIN = ""
	}
	if card.PAN == "" {
		card.PAN = s.card()
		return card, nil
	}
	if err := s.known(card.PAN); err != nil {
		return card, usageError("--pan: %w", err)
	}
	return card, nil
}

type posSaleCmd struct {
	posFlags
	posFaults
	posCard
	Amount int64 `help:"Minor units." default:"1000"`
}

// Run sends a sale.
func (c *posSaleCmd) Run(p *program) error {
	return c.trade(p, c.posFaults, c.posCard, sim.Order{Do: sim.DoSale, Amount: c.Amount})
}

type posPreauthCmd struct {
	posFlags
	posFaults
	posCard
	Amount int64 `help:"Minor units." default:"1000"`
}

// Run sends a pre-authorisation.
func (c *posPreauthCmd) Run(p *program) error {
	return c.trade(p, c.posFaults, c.posCard, sim.Order{Do: sim.DoPreauth, Amount: c.Amount})
}

type posBalanceCmd struct {
	posFlags
	posFaults
	posCard
}

// Run asks for a balance.
func (c *posBalanceCmd) Run(p *program) error {
	return c.trade(p, c.posFaults, c.posCard, sim.Order{Do: sim.DoBalance})
}

type posCompleteCmd struct {
	posFlags
	posFaults
	Amount int64 `help:"Minor units; by default those of the pre-authorisation." default:"-1"`
}

// Run completes a pre-authorisation.
func (c *posCompleteCmd) Run(p *program) error {
	return c.follow(p, c.posFaults, sim.DoComplete, "preauth", c.Amount)
}

type posVoidCmd struct {
	posFlags
	posFaults
	Of string `help:"What to void: sale, preauth or completion." enum:"sale,preauth,completion" default:"sale"`
}

// Run voids a transaction.
func (c *posVoidCmd) Run(p *program) error {
	return c.follow(p, c.posFaults, sim.DoVoid, c.Of, -1)
}

type posRefundCmd struct {
	posFlags
	posFaults
	Amount int64 `help:"Minor units; by default those of the sale." default:"-1"`
}

// Run refunds a sale.
func (c *posRefundCmd) Run(p *program) error {
	return c.follow(p, c.posFaults, sim.DoRefund, "sale", c.Amount)
}

type posReversalCmd struct {
	posFlags
	MTI  string `help:"0400, 0401, 0420 or 0421." default:"0400" enum:"0400,0401,0420,0421" name:"mti"`
	Rest int64  `help:"Reverse in part: what stays valid, in minor units." default:"-1"`
}

// Run sends a reversal.
func (c *posReversalCmd) Run(p *program) error {
	return c.with(p, "", func(t *pos) (*sim.Result, error) {
		if t.State().Sale == nil {
			return nil, advise(errors.New("this terminal has no approved sale"), "send one: keyd sim pos sale")
		}
		return t.Reverse(p.ctx, iso8583.MTI(c.MTI), c.Rest)
	})
}

type posResumeCmd struct {
	posFlags
	posFaults
}

// Run sends what is pending.
func (c *posResumeCmd) Run(p *program) error {
	return c.order(p, c.posFaults, sim.Order{Do: sim.DoResume})
}

type posForgeCmd struct {
	posFlags
	Name string `arg:"" help:"Which: no-mac, wrong-mac, tampered-amount, changed-amount, foreign-key, replayed-ksn, unknown-original, reversal-of-reversal."`
}

// Run sends a forgery.
func (c *posForgeCmd) Run(p *program) error {
	f, err := sim.ForgeryByName(c.Name)
	if err != nil {
		return usageError("%w", err)
	}
	if c.Dir == "" {
		return usageError("missing flag: --dir=DIR of a running keyd dev")
	}
	dev, err := readDev(c.Dir)
	if err != nil {
		return err
	}
	return c.with(p, "", func(t *pos) (*sim.Result, error) { return t.forge(f, dev) })
}

type posEchoCmd struct {
	posFlags
	posFaults
}

// Run sends an echo test.
func (c *posEchoCmd) Run(p *program) error { return c.order(p, c.posFaults, sim.Order{Do: sim.DoEcho}) }

type posSigninCmd struct {
	posFlags
	posFaults
	Form string `help:"UnionPay: which keys to ask for, field 60.3: 001 single length, 003 double length, 004 with a key for track data; default 003." enum:",001,003,004" default:"" placeholder:"FORM"`
}

// Run signs in.
func (c *posSigninCmd) Run(p *program) error {
	return c.opened(p, posOpening{wait: c.Wait, form: c.Form, strict: c.Strict, kill: sim.Stage(c.CrashAfter)}, func(t *pos) (*sim.Result, error) {
		return t.Do(p.ctx, sim.Order{Do: sim.DoSignIn, Faults: c.faults()})
	})
}

type posSignoffCmd struct {
	posFlags
	posFaults
}

// Run signs off.
func (c *posSignoffCmd) Run(p *program) error {
	return c.order(p, c.posFaults, sim.Order{Do: sim.DoSignOff})
}

type posSettleCmd struct {
	posFlags
	posFaults
}

// Run closes the batch.
func (c *posSettleCmd) Run(p *program) error {
	return c.order(p, c.posFaults, sim.Order{Do: sim.DoSettle})
}

// trade carries out a transaction with a card.
func (f *posFlags) trade(p *program, faults posFaults, c posCard, o sim.Order) error {
	if f.Terminal == "" && c.PAN != "" {
		if err := new(posSite).known(c.PAN); err != nil {
			return usageError("--pan: %w", err)
		}
	}
	return f.with(p, faults.CrashAfter, func(t *pos) (*sim.Result, error) {
		card, err := c.card(t.site)
		if err != nil {
			return nil, err
		}
		o.Card, o.Faults = card, faults.faults()
		return t.Do(p.ctx, o)
	})
}

// follow carries out a transaction that names the terminal's last one of a kind.
func (f *posFlags) follow(p *program, faults posFaults, do sim.Kind, of string, amount int64) error {
	return f.with(p, faults.CrashAfter, func(t *pos) (*sim.Result, error) {
		s := t.State()
		named := map[string]*sim.Memory{"sale": s.Sale, "preauth": s.Preauth, "completion": s.Completion}[of]
		if named == nil {
			return nil, advise(fmt.Errorf("this terminal has no approved %s", of), "send one first: keyd sim pos --help")
		}
		if amount < 0 {
			amount = named.Amount()
		}
		return t.Do(p.ctx, sim.Order{Do: do, Amount: amount, Of: named, Faults: faults.faults()})
	})
}

// order carries out what needs no card.
func (f *posFlags) order(p *program, faults posFaults, o sim.Order) error {
	return f.with(p, faults.CrashAfter, func(t *pos) (*sim.Result, error) {
		o.Faults = faults.faults()
		return t.Do(p.ctx, o)
	})
}

// with opens the terminal for one exchange and prints what came of it.
func (f *posFlags) with(p *program, kill string, do func(*pos) (*sim.Result, error)) error {
	return f.opened(p, posOpening{wait: f.Wait, strict: f.Strict, kill: sim.Stage(kill)}, do)
}

func (f *posFlags) opened(p *program, o posOpening, do func(*pos) (*sim.Result, error)) error {
	s, err := f.site()
	if err != nil {
		return err
	}
	t, err := openSite(p, s, o)
	if err != nil {
		return err
	}
	defer t.close()
	r, err := do(t)
	if errors.Is(err, sim.ErrUnreachable) && f.Dir != "" {
		err = advise(err, "is `keyd dev --dir %s` running?", f.Dir)
	}
	if r == nil {
		return err
	}
	return errors.Join(f.print(p, r), verdictOf(r, err))
}

// verdictOf is the end of a command: an answer that must not be believed, or none,
// is a failure; a refusal is none.
func verdictOf(r *sim.Result, err error) error {
	switch {
	case err != nil:
		return err
	case errors.Is(r.Fault, sim.ErrAnswer):
		return &exitError{code: exitVerify, err: r.Fault}
	case r.Fault != nil:
		return r.Fault
	case r.Do == sim.DoResume && r.Before != nil && r.Before.GivenUp:
		return errors.New("the reversal was given up: nobody has confirmed it")
	}
	return nil
}
