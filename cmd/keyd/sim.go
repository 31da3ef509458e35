package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// simCmd are the two ends of a switch link, for trials against `keyd dev`.
type simCmd struct {
	Issuer simIssuerCmd `cmd:"" help:"Answer the upstream link as an issuer would, faults on request."`
	Pos    simPosCmd    `cmd:"" help:"Send messages as a POS terminal does, forgeries among them."`
}

// simIssuerCmd runs an issuer, or prints the book of one.
type simIssuerCmd struct {
	Dir      string        `help:"Folder of keyd dev, started there with --no-sim: address, certificate and zone keys come from its dev.json." required:"" type:"path"`
	Book     bool          `help:"Print the issuer's book and end."`
	JSON     bool          `help:"Print the book as JSON lines."`
	BookFile string        `help:"File of the book; in the folder of keyd dev by default." type:"path"`
	Rule     []string      `help:"SUFFIX=ACTION for amounts that end in SUFFIX: approve, decline:CODE, silent, wrong-mac, delay:DURATION, twice, close. With reversal: before it, for reversals. May be repeated; the first that fits counts; the rules of keyd dev come last."`
	Delay    time.Duration `help:"Delay the answer to every sale."`
	Silent   bool          `help:"Answer no sale."`
	WrongMAC bool          `help:"Answer every sale with a wrong MAC." name:"wrong-mac"`
	Decline  string        `help:"Decline every sale with this code."`
}

// Run serves until interrupted.
func (c *simIssuerCmd) Run(p *program) error {
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
	rules, err := c.rules()
	if err != nil {
		return usageError("%w", err)
	}
	cert, err := tls.LoadX509KeyPair(dev.Issuer.Cert, dev.Issuer.Key)
	if err != nil {
		return fmt.Errorf("the issuer's certificate: %w", err)
	}
	issuer, err := sim.NewIssuer(sim.IssuerConfig{
		TLS:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		PINKey: dev.TestKeys[aliasZPK], MACKey: dev.TestKeys[aliasZAK],
		Rules: rules, BookPath: c.BookFile,
		Log: slog.New(slog.NewTextHandler(p.stderr, nil)),
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", dev.Issuer.Addr)
	if err != nil {
		return advise(fmt.Errorf("the issuer's address: %w", err), "is `keyd dev` running with its own issuer? Start it with --no-sim")
	}
	fmt.Fprintf(p.stdout, "issuer on %s; book in %s\n", listener.Addr(), c.BookFile)
	return issuer.Serve(p.ctx, listener)
}

// rules are those of the flags, then those of keyd dev.
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
	return append(rules, sim.DefaultRules()...), nil
}

func (c *simIssuerCmd) printBook(p *program) error {
	entries, err := sim.ReadBook(c.BookFile)
	if errors.Is(err, fs.ErrNotExist) {
		return advise(err, "no sale has come to an issuer in this folder yet")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		out := json.NewEncoder(p.stdout)
		for _, e := range entries {
			if err := out.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STAN\tRRN\tTID\tAMOUNT\tSTATE\tCODE\tPIN\tREVERSALS RECEIVED\tEFFECTIVE")
	for _, e := range entries {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\t%d\n", e.STAN, e.RRN, e.TID, e.Amount, e.State, e.Code, e.PIN, e.Received, e.Effective)
	}
	return table.Flush()
}

// readDev reads the dev.json of a running `keyd dev`.
func readDev(dir string) (*devReport, error) {
	path := filepath.Join(dir, "dev.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, advise(err, "is `keyd dev --dir %s` running?", dir)
	}
	dev := new(devReport)
	if err := json.Unmarshal(text, dev); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return dev, nil
}

// devTLS is the TLS of one of the clients of `keyd dev`.
func devTLS(dev *devReport, client string) (*tls.Config, error) {
	who, ok := dev.Clients[client]
	if !ok {
		return nil, fmt.Errorf("dev.json has no client %q", client)
	}
	cert, err := tls.LoadX509KeyPair(who.Cert, who.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate of client %q: %w", client, err)
	}
	pem, err := os.ReadFile(dev.CACert)
	if err != nil {
		return nil, fmt.Errorf("the CA of keyd dev: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", dev.CACert)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}
