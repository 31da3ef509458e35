package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
)

// simFraudCmd runs the catalogue of attacks against a running switch.
type simFraudCmd struct {
	Dir      string        `help:"Folder of a running keyd dev: attacks its switch, and looks at its issuer's book and its files." type:"path"`
	Terminal string        `help:"File of a test terminal of any switch, as for keyd sim pos: the victim." type:"path" placeholder:"FILE"`
	Thief    string        `help:"File of a second test terminal of the same switch: the attacker's. Both DUKPT, or the victim alone of tmk." type:"path" placeholder:"FILE"`
	State    string        `help:"Folder in which the terminals of --terminal and --thief keep their counters." type:"path" placeholder:"DIR"`
	Switch   string        `help:"Address in place of that of dev.json or of the file: of a gateway before the switch, say." placeholder:"ADDR"`
	Only     []string      `help:"Only these attacks or tests: A-08,A-12.T1." placeholder:"ID"`
	Wait     time.Duration `help:"How long to wait for an answer." default:"10s"`
	JSON     bool          `help:"Print JSON lines." name:"json"`
}

// fraudMemory is what the simulated terminals of the attacks must not forget, by TID.
type fraudMemory map[string]fraudTerminal

// fraudTerminal is the KSN of the next message and the last STAN; or of a UnionPay
// terminal the last batch.
type fraudTerminal struct {
	KSN   string `json:"ksn,omitempty"`
	STAN  int    `json:"stan,omitempty"`
	Batch int    `json:"batch,omitempty"`
}

// Run attacks, prints what came of it, and fails where something got through or
// could not be tried.
func (c *simFraudCmd) Run(p *program) error {
	tests, err := c.tests()
	if err != nil {
		return err
	}
	lab, err := c.lab(p)
	if err != nil {
		return err
	}
	f := sim.NewFraud(lab.FraudConfig)
	if err := f.Settle(p.ctx); err != nil {
		return advise(fmt.Errorf("an honest message before the attacks: %w", err), "the switch must serve the terminals of the trial")
	}
	var found []sim.Finding
	for _, t := range tests {
		found = append(found, lab.run(p.ctx, f, t))
		if err := lab.keep(); err != nil {
			return err
		}
	}
	f.Review(found)
	return c.report(p, found)
}

// report prints what was found, and fails where something got through or was not
// tried.
func (c *simFraudCmd) report(p *program, all []sim.Finding) error {
	out := newTable(p.stdout, c.JSON, "TEST", "WHAT", "SEEN", "EFFECT", "STOPPED BY", "VERDICT")
	var bad []string
	count := make(map[sim.Verdict]int)
	for _, found := range all {
		count[found.Verdict]++
		if found.Verdict == sim.FraudThrough || found.Verdict == sim.FraudFailed {
			bad = append(bad, found.Test)
		}
		stopped := found.Stopped
		if found.Covered != "" {
			stopped += "; see " + found.Covered
		}
		out.row(found, found.Test, found.Title, strings.Join(found.Seen, ", "), found.Effect, stopped, string(found.Verdict))
	}
	if err := out.flush(); err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintf(p.stdout, "\n%d refused without effect, %d refused with the effect not seen, %d got through, %d could not be carried out, %d not run from here\n",
			count[sim.FraudRefused], count[sim.FraudUnseen], count[sim.FraudThrough], count[sim.FraudFailed], count[sim.FraudNotRun])
	}
	switch {
	case len(bad) > 0:
		return fmt.Errorf("not refused without effect: %s", strings.Join(bad, ", "))
	case count[sim.FraudRefused] == 0 && count[sim.FraudUnseen] > 0:
		return errors.New("nothing was proved: the effect of what was tried stands in the issuer's book, which is not at hand")
	case count[sim.FraudRefused] == 0:
		return errors.New("nothing was tried: no attack that was asked for can be run from here")
	}
	return nil
}

// tests are those of the catalogue that were asked for.
func (c *simFraudCmd) tests() ([]sim.FraudTest, error) {
	all := sim.FraudTests()
	if len(c.Only) == 0 {
		return all, nil
	}
	var wanted []sim.FraudTest
	for _, id := range c.Only {
		before := len(wanted)
		for _, t := range all {
			if t.Test == id || strings.HasPrefix(t.Test, id+".") {
				wanted = append(wanted, t)
			}
		}
		if len(wanted) == before {
			return nil, usageError("--only: there is no attack or test %q; they are A-01 to A-27, A-01.T1 and so on", id)
		}
	}
	return wanted, nil
}

// fraudLab is the equipment of an attacker.
type fraudLab struct {
	sim.FraudConfig
	dev    *devReport // nil: a switch of somebody's
	dir    string
	memory string

	masterTID string
}

func (c *simFraudCmd) lab(p *program) (*fraudLab, error) {
	switch {
	case c.Dir != "" && c.Terminal == "" && c.Thief == "":
		return c.devLab(p)
	case c.Dir == "" && c.Terminal != "":
		return c.fileLab()
	}
	return nil, usageError("want --dir=DIR of a running keyd dev, or --terminal=FILE of a test terminal, and with DUKPT --thief=FILE")
}

// The terminals of `keyd dev` for attacks: the last of those for load.
const (
	fraudVictim = "T0000148"
	fraudThief  = "T0000149"
	fraudMaster = "20000109"
)

// devLab attacks a development daemon.
func (c *simFraudCmd) devLab(*program) (*fraudLab, error) {
	dev, err := readDev(c.Dir)
	if err != nil {
		return nil, err
	}
	lab := &fraudLab{dev: dev, dir: c.Dir, memory: filepath.Join(c.Dir, "fraud.json")}
	victim, err := devSite(dev, c.Dir, fraudVictim)
	if err != nil {
		return nil, err
	}
	thief, err := devSite(dev, c.Dir, fraudThief)
	if err != nil {
		return nil, err
	}
	if err := c.dukpt(lab, victim, thief); err != nil {
		return nil, err
	}
	if dev.UnionPay != "" {
		master, err := devSite(dev, c.Dir, fraudMaster)
		if err == nil {
			err = c.master(lab, master)
		}
		if err != nil {
			return nil, err
		}
	}
	nobody, err := devTLS(dev, "nobody")
	if err != nil {
		return nil, err
	}
	lab.DialStranger = c.dialer(victim.addr, nobody)
	if _, err := os.Stat(dev.Issuer.Book); err == nil {
		lab.Book = func() ([]sim.Entry, error) { return sim.ReadBook(dev.Issuer.Book) }
		lab.Late = 95
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	lab.Settled = c.settled
	return lab, nil
}

// settled asks until it is so: what is queued goes upstream in its own time.
func (c *simFraudCmd) settled(done func() (bool, error)) error {
	const pause = 100 * time.Millisecond
	for end := time.Now().Add(c.Wait + 20*time.Second); ; time.Sleep(pause) {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return errors.New("it has not in the time there is")
		}
	}
}

// fileLab attacks the switch of one or two test terminals.
func (c *simFraudCmd) fileLab() (*fraudLab, error) {
	if c.State == "" {
		return nil, usageError("--terminal needs --state: the folder in which the terminals keep their counters")
	}
	if err := sim.MakeFolder(c.State); err != nil {
		return nil, err
	}
	lab := &fraudLab{memory: filepath.Join(c.State, "fraud.json")}
	victim, err := (&posFlags{Terminal: c.Terminal, State: c.State}).site()
	if err != nil {
		return nil, err
	}
	if victim.Scheme == "tmk" {
		return lab, c.master(lab, victim)
	}
	if c.Thief == "" {
		return nil, usageError("--thief: a second terminal of the switch, whose keys an attacker has")
	}
	thief, err := (&posFlags{Terminal: c.Thief, State: c.State}).site()
	if err != nil {
		return nil, err
	}
	return lab, c.dukpt(lab, victim, thief)
}

// dukpt equips the lab with two terminals.
func (c *simFraudCmd) dukpt(lab *fraudLab, victim, thief *posSite) error {
	memory, err := lab.recall()
	if err != nil {
		return err
	}
	for site, at := range map[*posSite]**sim.Terminal{victim: &lab.Victim, thief: &lab.Thief} {
		kept, known := memory[site.TID]
		if !known || len(kept.KSN) != len(site.KSN) {
			kept = fraudTerminal{KSN: site.KSN, STAN: int(time.Now().Unix() % 900_000)} // STANs that nobody has used today
		}
		t, err := sim.NewTerminal(sim.TerminalConfig{TID: site.TID, MID: site.MID, BDK: site.key, KSN: kept.KSN, Currency: site.Currency}, kept.STAN)
		if err != nil {
			return err
		}
		*at = t
	}
	lab.VictimID, lab.ThiefID = [2]string{victim.TID, victim.MID}, [2]string{thief.TID, thief.MID}
	lab.Card = victim.card()
	lab.Dial = c.dialer(victim.addr, victim.tls)
	return nil
}

// master equips the lab with a UnionPay terminal. Its first batch is of the time, so
// that nobody has used it.
func (c *simFraudCmd) master(lab *fraudLab, site *posSite) error {
	speaks, err := profile.Find(site.Profile)
	if err != nil {
		return err
	}
	memory, err := lab.recall()
	if err != nil {
		return err
	}
	batch := memory[site.TID].Batch
	if batch == 0 {
		batch = int(time.Now().Unix()/10%900_000) + 1
	}
	lab.masterTID = site.TID
	lab.Master, err = sim.NewCUP(sim.UnionPayConfig{
		TID: site.TID, MID: site.MID, TMK: site.key, Currency: site.Currency, Form: site.SignIn,
		Dialect: speaks.Dialect, Algorithm: string(speaks.MAC[profile.Master].Algorithm),
		ReversalDE3: speaks.Rules.DE3, DE61Always: speaks.Rules.DE61Always, Approvals: speaks.Codes.Approvals,
		Batch: batch,
	})
	if err != nil {
		return err
	}
	lab.DialMaster = c.dialer(site.addr, site.tls)
	if lab.Card == "" {
		lab.Card = site.card()
	}
	return nil
}

func (c *simFraudCmd) dialer(addr string, config *tls.Config) func(context.Context) (*sim.Link, error) {
	if c.Switch != "" {
		addr = c.Switch
	}
	return func(ctx context.Context) (*sim.Link, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Wait)
		defer cancel()
		return sim.Dial(ctx, addr, config, c.Wait)
	}
}

// recall reads them.
func (l *fraudLab) recall() (fraudMemory, error) {
	text, err := os.ReadFile(l.memory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var m fraudMemory
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return nil, advise(fmt.Errorf("memory of the terminals: %w", err), "remove the file to begin anew")
	}
	return m, nil
}

// keep writes KSNs and STANs down.
func (l *fraudLab) keep() error {
	m := make(fraudMemory)
	if l.Victim != nil {
		for tid, t := range map[string]*sim.Terminal{l.VictimID[0]: l.Victim, l.ThiefID[0]: l.Thief} {
			ksn, stan := t.State()
			m[tid] = fraudTerminal{KSN: ksn, STAN: stan}
		}
	}
	if l.Master != nil {
		m[l.masterTID] = fraudTerminal{Batch: l.Master.Batch()}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFile(l.memory, append(text, '\n'), 0o600)
}
