package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// testPIN is the PIN of every simulated card.
const testPIN = "1234"

// simPosCmd sends messages as one of the terminals of `keyd dev`.
type simPosCmd struct {
	Sale     posSaleCmd     `cmd:"" help:"Send a sale (0200)."`
	Reversal posReversalCmd `cmd:"" help:"Reverse the terminal's last sale (0400), or repeat that (0401)."`
	Forge    posForgeCmd    `cmd:"" help:"Send a forged reversal of the terminal's last sale."`
	Echo     posEchoCmd     `cmd:"" help:"Send an echo test (0800)."`
}

// posFlags are what every command of a terminal takes.
type posFlags struct {
	Dir  string        `help:"Folder of a running keyd dev." required:"" type:"path"`
	TID  string        `help:"Terminal." default:"T0000001" name:"tid"`
	Wait time.Duration `help:"How long to wait for an answer." default:"15s"`
	JSON bool          `help:"Print JSON." name:"json"`
}

type posSaleCmd struct {
	posFlags
	Amount int64  `help:"Minor units." default:"1000"`
	PAN    string `help:"Number of a published test card." default:"4012345678909" name:"pan"`
	NoPIN  bool   `help:"Without PIN." name:"no-pin"`
}

type posReversalCmd struct {
	posFlags
	MTI  string `help:"0400, 0401, 0420 or 0421." default:"0400" enum:"0400,0401,0420,0421" name:"mti"`
	Rest int64  `help:"Reverse in part: what stays valid, in minor units." default:"-1"`
}

type posForgeCmd struct {
	posFlags
	Name string `arg:"" help:"Which: no-mac, wrong-mac, tampered-amount, changed-amount, foreign-key, replayed-ksn, unknown-original, reversal-of-reversal."`
}

type posEchoCmd struct{ posFlags }

// pos is a terminal at work: what it remembers between commands is a file.
type pos struct {
	*sim.Terminal
	link  *sim.Link
	file  string
	state posState
}

// posState is the memory of a simulated terminal.
type posState struct {
	KSN      string      `json:"ksn"` // of the next message
	STAN     int         `json:"stan"`
	Sale     *sim.Memory `json:"sale,omitempty"`     // the last approved one
	Reversal *sim.Memory `json:"reversal,omitempty"` // the last honoured one
}

// openPos takes up where the terminal stopped and connects it.
func openPos(p *program, dev *devReport, dir, tid string, wait time.Duration) (*pos, error) {
	fixed, err := dev.terminal(tid)
	if err != nil {
		return nil, usageError("%w", err)
	}
	t := &pos{file: filepath.Join(dir, "pos-"+tid+".json"), state: posState{KSN: fixed.KSN}}
	raw, err := os.ReadFile(t.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := json.Unmarshal(raw, &t.state); err != nil {
			return nil, advise(fmt.Errorf("memory of the terminal %s: %w", t.file, err), "remove the file to begin anew")
		}
	}
	t.Terminal, err = sim.NewTerminal(sim.TerminalConfig{
		TID: fixed.TID, MID: fixed.MID, BDK: dev.TestKeys[fixed.BDK], KSN: t.state.KSN,
	}, t.state.STAN)
	if err != nil {
		return nil, err
	}
	config, err := devTLS(dev, "terminal")
	if err != nil {
		return nil, err
	}
	t.link, err = sim.Dial(p.ctx, dev.SwitchAddr, config, wait)
	if err != nil {
		return nil, advise(err, "is `keyd dev --dir %s` running?", dir)
	}
	return t, nil
}

// terminal is the registered test terminal of a TID.
func (d *devReport) terminal(tid string) (testTerminal, error) {
	for _, t := range d.Terminals {
		if t.TID == tid {
			return t, nil
		}
	}
	return testTerminal{}, fmt.Errorf("no terminal %q; keyd dev has T0000001 (TDES), T0000002 (AES), T0000003 (TDES) and T0000100 to T0000149 (TDES)", tid)
}

// exchange sends a message and returns its answer. What the terminal must not
// forget, its KSN above all, is on file before the message leaves.
func (t *pos) exchange(sent *sim.Sent) (*iso8583.Message, error) {
	if err := t.save(); err != nil {
		return nil, err
	}
	raw, err := t.link.Exchange(sent.Raw)
	if err != nil {
		return nil, err
	}
	return t.Answer(sent, raw)
}

func (t *pos) save() error {
	t.state.KSN, t.state.STAN = t.State()
	raw, err := json.MarshalIndent(t.state, "", "  ")
	if err != nil {
		return err
	}
	fresh := t.file + ".new"
	if err := os.WriteFile(fresh, append(raw, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, t.file)
}

func (t *pos) close() { _ = t.link.Close() }

// sell sends a sale and remembers it when it was approved.
func (t *pos) sell(amount int64, card sim.Card) (*sim.Sent, *iso8583.Message, error) {
	sent, err := t.Sale(amount, card, nil)
	if err != nil {
		return nil, nil, err
	}
	answer, err := t.exchange(sent)
	if err == nil && answer.Text(39) == "00" {
		memory := sent.Remember(answer)
		t.state.Sale, t.state.Reversal = &memory, nil
		err = t.save()
	}
	return sent, answer, err
}

// reverse sends a reversal of the last approved sale and remembers it.
func (t *pos) reverse(mti iso8583.MTI, draft sim.Draft) (*sim.Sent, *iso8583.Message, error) {
	sale, err := t.lastSale()
	if err != nil {
		return nil, nil, err
	}
	sent, err := t.Reversal(mti, sale, t.state.Sale.RRN, t.state.Sale.Approval, draft)
	if err != nil {
		return nil, nil, err
	}
	answer, err := t.exchange(sent)
	if err == nil && answer.Text(39) == "00" {
		memory := sent.Remember(answer)
		t.state.Reversal = &memory
		err = t.save()
	}
	return sent, answer, err
}

func (t *pos) lastSale() (*sim.Sent, error) {
	if t.state.Sale == nil {
		return nil, advise(errors.New("this terminal has no approved sale"), "send one: keyd sim pos sale")
	}
	return t.Recall(*t.state.Sale)
}

// forge sends a forged reversal of the last approved sale.
func (t *pos) forge(f sim.Forgery, dev *devReport) (*sim.Sent, *iso8583.Message, error) {
	sale, err := t.lastSale()
	if err != nil {
		return nil, nil, err
	}
	reversal := sale
	if t.state.Reversal != nil {
		if reversal, err = t.Recall(*t.state.Reversal); err != nil {
			return nil, nil, err
		}
	} else if f.Name == "reversal-of-reversal" {
		return nil, nil, advise(errors.New("this terminal has no honoured reversal"), "send one: keyd sim pos reversal")
	}
	other, err := t.stranger(dev)
	if err != nil {
		return nil, nil, err
	}
	sent, err := f.Make(t.Terminal, other, sale, reversal)
	if err != nil {
		return nil, nil, err
	}
	answer, err := t.exchange(sent)
	return sent, answer, err
}

// stranger is another terminal of the same kind, whose keys an attacker has.
func (t *pos) stranger(dev *devReport) (*sim.Terminal, error) {
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
	return []string{"4012345678909", "4012888888881881", "4111111111111111", "5105105105105100", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000"}
}

// Run sends a sale. It takes no genuine card: the keys of keyd dev are public,
// and the terminal keeps the number on file for the reversal.
func (c *posSaleCmd) Run(p *program) error {
	if !slices.Contains(testCards(), c.PAN) {
		return usageError("--pan: not the number of a published test card, and keyd dev is no place for another; use one of %s", strings.Join(testCards(), ", "))
	}
	return c.with(p, func(t *pos, _ *devReport) (*sim.Sent, *iso8583.Message, error) {
		card := sim.Card{PAN: c.PAN, PIN: testPIN}
		if c.NoPIN {
			card.PIN = ""
		}
		return t.sell(c.Amount, card)
	})
}

// Run sends a reversal.
func (c *posReversalCmd) Run(p *program) error {
	return c.with(p, func(t *pos, _ *devReport) (*sim.Sent, *iso8583.Message, error) {
		var draft sim.Draft
		if c.Rest >= 0 {
			text, err := iso8583.ReplacementText(c.Rest)
			if err != nil {
				return nil, nil, usageError("--rest: %w", err)
			}
			draft = func(b *iso8583.Builder) { b.Set(95, text) }
		}
		return t.reverse(iso8583.MTI(c.MTI), draft)
	})
}

// Run sends a forgery.
func (c *posForgeCmd) Run(p *program) error {
	f, err := sim.ForgeryByName(c.Name)
	if err != nil {
		return usageError("%w", err)
	}
	return c.with(p, func(t *pos, dev *devReport) (*sim.Sent, *iso8583.Message, error) { return t.forge(f, dev) })
}

// Run sends an echo test.
func (c *posEchoCmd) Run(p *program) error {
	return c.with(p, func(t *pos, _ *devReport) (*sim.Sent, *iso8583.Message, error) {
		sent, err := t.Network("301")
		if err != nil {
			return nil, nil, err
		}
		answer, err := t.exchange(sent)
		return sent, answer, err
	})
}

// with runs one exchange and prints it.
func (f *posFlags) with(p *program, do func(*pos, *devReport) (*sim.Sent, *iso8583.Message, error)) error {
	dev, err := readDev(f.Dir)
	if err != nil {
		return err
	}
	t, err := openPos(p, dev, f.Dir, f.TID, f.Wait)
	if err != nil {
		return err
	}
	defer t.close()
	sent, answer, err := do(t, dev)
	if answer == nil {
		return err
	}
	verified := err == nil
	if err != nil && !errors.Is(err, sim.ErrAnswer) {
		return err
	}
	if printed := f.print(p, sent, answer, verified); printed != nil {
		return printed
	}
	if !verified {
		return &exitError{code: exitVerify, err: err}
	}
	return nil
}

// posResult is an exchange as it is printed.
type posResult struct {
	Sent     string `json:"sent"`
	STAN     string `json:"stan"`
	KSN      string `json:"ksn"`
	Answer   string `json:"answer"`
	Code     string `json:"code"`
	Meaning  string `json:"meaning"`
	RRN      string `json:"rrn,omitempty"`
	Approval string `json:"approval,omitempty"`
	MAC      string `json:"mac"`
}

func (f *posFlags) print(p *program, sent *sim.Sent, answer *iso8583.Message, verified bool) error {
	r := posResult{
		Sent: string(sent.Message.MTI()), STAN: sent.Message.Text(11), KSN: sent.KSN,
		Answer: string(answer.MTI()), Code: answer.Text(39), Meaning: meaning(answer.Text(39)),
		RRN: answer.Text(37), Approval: answer.Text(38), MAC: "valid",
	}
	if !verified {
		r.MAC = "NOT VALID"
	}
	if f.JSON {
		return json.NewEncoder(p.stdout).Encode(r)
	}
	_, err := fmt.Fprintf(p.stdout, "%s STAN %s KSN %s -> %s DE 39 = %s (%s), RRN %s, MAC %s\n",
		r.Sent, r.STAN, r.KSN, r.Answer, r.Code, r.Meaning, orNone(r.RRN), r.MAC)
	return err
}

func orNone(s string) string {
	if strings.TrimSpace(s) == "" {
		return "none"
	}
	return s
}

// meaning says in words what an answer code of the dialect says (W-09).
func meaning(code string) string {
	if text, ok := map[string]string{
		"00": "approved", "03": "unknown merchant", "12": "invalid transaction or currency", "13": "amount",
		"14": "card number", "22": "the original's state forbids it", "25": "original not found", "30": "format",
		"40": "function not supported", "51": "declined by the issuer", "55": "wrong PIN",
		"58": "not permitted to terminal", "61": "over limit", "63": "security violation",
		"64": "amount differs from the original's", "68": "no answer from upstream in time",
		"91": "upstream not reachable", "94": "duplicate", "96": "keyd cannot, or upstream's answer is not authentic",
	}[code]; ok {
		return text
	}
	return "unknown code"
}
