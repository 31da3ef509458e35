package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// issuerKeys is what the file of an issuer's changed zone keys has behind the name
// of its book.
const issuerKeys = ".keys"

// simIssuerCmd runs an issuer, or prints the book of one.
type simIssuerCmd struct {
	Dir      string        `help:"Folder of keyd dev, started there with --no-sim: address, certificate and zone keys come from its dev.json." type:"path"`
	Book     bool          `help:"Print the issuer's book, and what a script made it do wrong, and end."`
	JSON     bool          `help:"Print the book as JSON lines."`
	BookFile string        `help:"File of the book; in the folder of keyd dev by default." type:"path"`
	Script   string        `help:"File of TOML that says step by step what to do wrong; see docs/SWITCH.md. It goes before all other rules." type:"path"`
	Check    bool          `help:"Print the script as it is understood, and end."`
	Listen   []string      `help:"Address to listen on, in place of that of dev.json; once for each link of the upstream." placeholder:"ADDR"`
	Profile  string        `help:"Profile that the upstream has in the configuration of keyd dev, where it is not ascii87; a file."`
	Rule     []string      `help:"SUFFIX=DO for amounts that end in SUFFIX: approve, decline:CODE, delay:DURATION, silent, lost, close, close-before, twice, wrong-mac, garbled, partial, other-stan, other-amount. With reversal: before it, for reversals. May be repeated; the first that fits counts; the rules of keyd dev come last."`
	Delay    time.Duration `help:"Delay the answer to every sale."`
	Silent   bool          `help:"Answer no sale."`
	WrongMAC bool          `help:"Answer every sale with a wrong MAC." name:"wrong-mac"`
	Decline  string        `help:"Decline every sale with this code."`
}

// Run serves until interrupted.
func (c *simIssuerCmd) Run(p *program) error {
	script, err := c.script()
	if err != nil {
		return err
	}
	if c.Check {
		if script == nil {
			return usageError("--check needs --script FILE")
		}
		return script.Print(p.stdout)
	}
	if c.Dir == "" {
		return usageError("missing flags: --dir=STRING")
	}
	if c.BookFile == "" {
		c.BookFile = filepath.Join(c.Dir, devBook)
	}
	if c.Book {
		return c.printBook(p)
	}
	dev, err := readDev(c.Dir)
	if err != nil {
		return err
	}
	issuer, err := c.issuer(p, dev, script)
	if err != nil {
		return err
	}
	addrs := c.Listen
	if len(addrs) == 0 {
		addrs = []string{dev.Issuer.Addr}
	}
	var ends []net.Listener
	for _, addr := range addrs {
		end, err := net.Listen("tcp", addr)
		if err != nil {
			return advise(fmt.Errorf("the issuer's address: %w", err), "is `keyd dev` running with its own issuer? Start it with --no-sim")
		}
		ends = append(ends, end)
		fmt.Fprintf(p.stdout, "issuer on %s; book in %s\n", end.Addr(), c.BookFile)
	}
	return issuer.Serve(p.ctx, ends...)
}

func (c *simIssuerCmd) script() (*sim.Script, error) {
	if c.Script == "" {
		return nil, nil
	}
	return sim.ReadScript(c.Script)
}

// issuer is one with the keys of keyd dev.
func (c *simIssuerCmd) issuer(p *program, dev *devReport, script *sim.Script) (*sim.Issuer, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, usageError("%w", err)
	}
	if script == nil || !script.Plain {
		rules = append(rules, sim.DefaultRules()...)
	}
	cert, err := tls.LoadX509KeyPair(dev.Issuer.Cert, dev.Issuer.Key)
	if err != nil {
		return nil, fmt.Errorf("the issuer's certificate: %w", err)
	}
	dialect, how, err := c.speech()
	if err != nil {
		return nil, err
	}
	return sim.NewIssuer(sim.IssuerConfig{
		Dialect: dialect, Sealing: how,
		TLS:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		PINKey: dev.TestKeys[aliasZPK], MACKey: dev.TestKeys[aliasZAK],
		KEK: dev.TestKeys[aliasKEK], KeysPath: c.BookFile + issuerKeys,
		Script: script, Rules: rules, BookPath: c.BookFile,
		Log: slog.New(slog.NewTextHandler(p.stderr, nil)),
	})
}

// speech is what the issuer speaks, and how it seals.
func (c *simIssuerCmd) speech() (*iso8583.Dialect, sim.Sealing, error) {
	p, _, err := (&upstreamConfig{Profile: c.Profile}).hostSpeech()
	if p == nil || err != nil {
		return nil, sim.Sealing{}, err
	}
	how := isoswitch.HostMAC(p)
	return p.Dialect, sim.Sealing{Algorithm: string(how.Algorithm), Padding: how.Padding, Bytes: how.Bytes}, nil
}

// rules are those of the flags.
func (c *simIssuerCmd) rules() ([]sim.Rule, error) {
	var rules []sim.Rule
	for _, text := range c.Rule {
		rule, err := sim.ParseRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	all := sim.Rule{Code: "00", Delay: c.Delay, Silent: c.Silent, WrongMAC: c.WrongMAC}
	if c.Decline != "" {
		if len(c.Decline) != 2 {
			return nil, errors.New("--decline takes a code of two characters, 51 for example")
		}
		all.Code = c.Decline
	}
	if all != (sim.Rule{Code: "00"}) {
		rules = append(rules, all)
	}
	return rules, nil
}

func (c *simIssuerCmd) printBook(p *program) error {
	entries, err := sim.ReadBook(c.BookFile)
	if errors.Is(err, fs.ErrNotExist) {
		return advise(err, "no sale has come to an issuer in this folder yet")
	}
	if err != nil {
		return err
	}
	faults, err := sim.ReadFaults(c.BookFile)
	if err != nil {
		return err
	}
	changes, err := sim.ReadChanges(c.BookFile)
	if err != nil {
		return err
	}
	if c.JSON {
		return printLines(p.stdout, entries, faults, changes)
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAN\tRRN\tTID\tAMOUNT\tSTATE\tCODE\tPIN\tREVERSALS RECEIVED\tEFFECTIVE")
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\t%d\n", e.STAN, e.RRN, e.TID, e.Amount, e.State, e.Code, e.PIN, e.Received, e.Effective)
	}
	if len(faults) > 0 {
		fmt.Fprintln(table, "\nSTEP\tMTI\tSTAN\tTID\tAMOUNT\tOF\tDE 70\tDID")
	}
	for _, f := range faults {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", f.Step, f.MTI, f.STAN, f.TID, f.Amount, f.Of, f.Network, f.Fault)
	}
	if len(changes) > 0 {
		fmt.Fprintln(table, "\nKEY\tNUMBER\tSTAN\tDID\tANSWER\tCHECK VALUE\tTAKEN")
	}
	for _, k := range changes {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%v\n", k.Change, k.Number, k.STAN, k.Do, k.Answer, k.Check, k.Taken)
	}
	return table.Flush()
}

// printLines prints the book as JSON lines, the sales first.
func printLines(w io.Writer, entries []sim.Entry, faults []sim.Fault, changes []sim.Changed) error {
	out := json.NewEncoder(w)
	var err error
	for _, e := range entries {
		err = errors.Join(err, out.Encode(e))
	}
	for _, f := range faults {
		err = errors.Join(err, out.Encode(f))
	}
	for _, k := range changes {
		err = errors.Join(err, out.Encode(k))
	}
	return err
}
