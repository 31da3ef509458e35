package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// demoCmd shows the main job: a daemon of its own, real in all but the cards.
type demoCmd struct {
	Dir string `help:"Keep everything in this folder, which must not exist; a temporary one otherwise." type:"path"`
}

// The amounts of the demonstration, in minor units; the simulated issuer
// approves even ones.
const (
	demoAmountTDES = 2500
	demoAmountAES  = 4200
	demoPANTDES    = "4012345678909"
	demoPANAES     = "4111111111111111"
)

// demo is one run of the demonstration.
type demo struct {
	*trial
	rows   int
	failed int
	start  time.Time
}

// Run shows it all and fails unless every line is as it must be.
func (c *demoCmd) Run(p *program) error {
	dir, clean, err := trialDir(c.Dir)
	if err != nil {
		return err
	}
	defer clean()
	d := &demo{start: time.Now()}
	if d.trial, err = startTrial(p, dir); err != nil {
		return err
	}
	defer d.stop()
	d.title()
	d.sales()
	d.reversals()
	d.forgeries()
	d.book()
	d.stop()
	d.log()
	return d.verdict()
}

func (d *demo) title() {
	fmt.Fprintf(d.p.stdout, `
keyd demo: a terminal, a switch with its keys in a PKCS#11 token, an issuer.
Real TLS, token, database and log; test cards and published test keys.

  %-3s %-50s %-9s  %-42s %s
`, "", "what is sent", "answer", "what it proves", "")
}

// line prints one row; problems are what is not as it must be.
func (d *demo) line(what, answer, proves string, problems ...string) {
	d.rows++
	mark := d.paint("32", "ok")
	if len(problems) > 0 {
		d.failed++
		mark = d.paint("31", "FAILED: "+strings.Join(problems, "; "))
	}
	fmt.Fprintf(d.p.stdout, "  %-3d %-50s %-9s  %-42s %s\n", d.rows, what, answer, proves, mark)
}

func (d *demo) heading(text string) { fmt.Fprintf(d.p.stdout, "\n  %s\n", d.paint("1", text)) }

func (d *demo) paint(code, text string) string {
	if !isTerminal(d.p.stdout) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// answered judges an exchange: the code, and the MAC of the answer.
func answered(answer *iso8583.Message, err error, want string) (code string, problems []string) {
	switch {
	case answer == nil && err != nil:
		return "none", []string{err.Error()}
	case err != nil:
		problems = append(problems, err.Error())
	}
	code = answer.Text(39)
	if code != want {
		problems = append(problems, fmt.Sprintf("DE 39 is %s (%s), must be %s", code, meaning(code), want))
	}
	return string(answer.MTI()) + " " + code, problems
}

// terminal opens a terminal for the time of work.
func (d *demo) terminal(tid string, work func(*pos)) {
	t, err := openPos(d.p, d.dev, d.devDir(), tid, 10*time.Second)
	if err != nil {
		d.line("terminal "+tid, "none", "", err.Error())
		return
	}
	defer t.close()
	work(t)
}

func (d *demo) sales() {
	d.heading("Sales with PIN and MAC")
	d.terminal("T0000001", func(t *pos) {
		_, answer, err := t.sell(demoAmountTDES, sim.Card{PAN: demoPANTDES, PIN: testPIN})
		code, problems := answered(answer, err, "00")
		d.line("sale 25.00, TDES DUKPT, PIN block ISO 0", code, "MAC verified, PIN moved to the zone key", append(problems, d.pinArrived("T0000001")...)...)
	})
	d.terminal("T0000002", func(t *pos) {
		_, answer, err := t.sell(demoAmountAES, sim.Card{PAN: demoPANAES, PIN: testPIN})
		code, problems := answered(answer, err, "00")
		d.line("sale 42.00, AES DUKPT, PIN block ISO 4", code, "PIN re-formatted from ISO 4 to ISO 0", append(problems, d.pinArrived("T0000002")...)...)
	})
}

// pinArrived asks the issuer's book whether the PIN was the right one.
func (d *demo) pinArrived(tid string) []string {
	for _, e := range d.issuer.Book() {
		if e.TID == tid && e.PIN == "right" {
			return nil
		}
	}
	return []string{"the issuer did not get the right PIN"}
}

func (d *demo) reversals() {
	d.heading("A genuine reversal, honoured once")
	d.terminal("T0000001", func(t *pos) {
		_, first, err := t.reverse(iso8583.ReversalRequest)
		code, problems := answered(first, err, "00")
		d.line("reversal of the sale over 25.00", code, "reversed at the issuer exactly once", append(problems, d.reversedOnce("T0000001")...)...)
		_, again, err := t.reverse(iso8583.ReversalRepeat)
		code, problems = answered(again, err, "00")
		if first != nil && again != nil && (first.Text(37) != again.Text(37) || first.Text(38) != again.Text(38)) {
			problems = append(problems, "the repeat got another reference")
		}
		d.line("the same reversal again (0401)", code, "the stored answer, nothing sent again", append(problems, d.reversedOnce("T0000001")...)...)
	})
}

// reversedOnce waits until the issuer has the reversal, and then has it once.
func (d *demo) reversedOnce(tid string) []string {
	const patience = 5 * time.Second
	for until := time.Now().Add(patience); ; {
		for _, e := range d.issuer.Book() {
			if e.TID != tid || e.Received == 0 {
				continue
			}
			if e.Received != 1 || e.Effective != 1 || e.State != "reversed" {
				return []string{fmt.Sprintf("the issuer's book says: %s, %d received, %d effective", e.State, e.Received, e.Effective)}
			}
			return nil
		}
		if time.Now().After(until) {
			return []string{"no reversal reached the issuer"}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (d *demo) forgeries() {
	d.heading("Forged reversals, refused")
	d.terminal("T0000001", func(t *pos) {
		honoured := t.State().Reversal
		if _, answer, err := t.sell(demoAmountTDES, sim.Card{PAN: demoPANTDES}); err != nil || answer.Text(39) != "00" {
			d.line("a second sale, to be attacked", "", "", "it was not approved")
			return
		}
		t.State().Reversal = honoured // of the first sale: the original of row D-28
		for _, f := range sim.Forgeries() {
			_, answer, err := outcome(t.forge(f, d.dev))
			code, problems := answered(answer, err, f.Code)
			d.line(f.About, code, f.Row+", "+meaning(f.Code), problems...)
		}
	})
	d.terminal("T0000003", func(t *pos) {
		// Receipt data are no authority: the victim's numbers under the
		// attacker's own key and name.
		sent, err := d.fromReceipt(t)
		if err != nil {
			d.line("another terminal, with the receipt's numbers", "", "", err.Error())
			return
		}
		answer, err := t.exchange(sent)
		code, problems := answered(answer, err, "25")
		d.line("another terminal, with the receipt's numbers", code, "A-01, original not found, fraud event", problems...)
	})
}

// fromReceipt is a reversal by another terminal, validly sealed, that names the
// victim's sale.
func (d *demo) fromReceipt(t *pos) (*sim.Sent, error) {
	victim, err := openPos(d.p, d.dev, d.devDir(), "T0000001", 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer victim.close()
	sale, err := victim.lastSale()
	if err != nil {
		return nil, err
	}
	known := victim.State().Sale
	return t.dukpt.Reversal(iso8583.ReversalRequest, sale, known.RRN, known.Approval, nil)
}

// book looks at the issuer's side: what was attacked stands.
func (d *demo) book() {
	d.heading("At the issuer")
	var standing, reversed, effective int
	for _, e := range d.issuer.Book() {
		switch e.State {
		case "approved":
			standing++
		case "reversed":
			reversed++
		}
		effective += e.Effective
	}
	var problems []string
	if standing != 2 || reversed != 1 || effective != 1 {
		problems = append(problems, "must be 2, 1, 1")
	}
	d.line("sales standing, reversed; effective reversals", fmt.Sprintf("%d, %d; %d", standing, reversed, effective), "no forgery had an effect", problems...)
}

// log verifies the audit log, then a copy with one byte changed.
func (d *demo) log() {
	d.heading("The audit log")
	code, out := d.self("audit", "verify", "--dir", d.dev.AuditDir, "--vkey", d.dev.AuditVkey)
	var problems []string
	if code != exitDone {
		problems = append(problems, fmt.Sprintf("exit status %d: %s", code, lastLine(out)))
	}
	d.line("the log as it is", fmt.Sprintf("exit %d", code), shorten(lastLine(out), 42), problems...)

	changed, err := d.tampered()
	if err != nil {
		d.line("a copy with one byte changed", "", "", err.Error())
		return
	}
	code, out = d.self("audit", "verify", "--dir", changed, "--vkey", d.dev.AuditVkey)
	problems = nil
	if code != auditExitFailed {
		problems = append(problems, fmt.Sprintf("exit status %d, must be %d: %s", code, auditExitFailed, lastLine(out)))
	}
	d.line("a copy with one byte of one record changed", fmt.Sprintf("exit %d", code), shorten(lastLine(out), 42), problems...)
}

// self runs another command of this program.
func (d *demo) self(args ...string) (code int, out string) {
	var stdout, stderr bytes.Buffer
	code = run(context.WithoutCancel(d.p.ctx), args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

// tampered copies the log and changes one digit in the record of a sale.
func (d *demo) tampered() (string, error) {
	copied := filepath.Join(d.dir, "tampered")
	if err := os.CopyFS(copied, os.DirFS(d.dev.AuditDir)); err != nil {
		return "", err
	}
	found := false
	err := filepath.WalkDir(copied, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || found || entry.IsDir() || !strings.Contains(path, filepath.Join("tile", "entries")) {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(raw, []byte(`"amt":2500`))
		if at < 0 {
			return nil
		}
		found = true
		raw[at+len(`"amt":`)] = '9'
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, raw, 0o600)
	})
	if err == nil && !found {
		err = errors.New("no record of the sale over 25.00 in the log")
	}
	return copied, err
}

func (d *demo) verdict() error {
	fmt.Fprintf(d.p.stdout, "\n  %d lines in %.1f s. ", d.rows, time.Since(d.start).Seconds())
	if d.failed > 0 {
		fmt.Fprintf(d.p.stdout, "%s\n\nWhat the daemon said:\n%s\n", d.paint("31", fmt.Sprintf("%d are not as they must be.", d.failed)), d.output.String())
		return &exitError{code: exitFailed}
	}
	fmt.Fprintln(d.p.stdout, d.paint("32", "All are as they must be."))
	fmt.Fprintln(d.p.stdout, "\n  Next: bin/keyd dev --dir DIR, then bin/keyd sim pos sale --dir DIR")
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most-3] + "..."
}
