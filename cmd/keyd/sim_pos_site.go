package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/internal/tomlfile"
)

// posSite is a terminal as it was set up, and the switch that it belongs to.
type posSite struct {
	addr string
	tls  *tls.Config // nil: plain TCP
	posFile
	key   string // BDK or master key, hexadecimal
	state string // folder
}

// posFile is a terminal of any switch: the file of --terminal. Relative paths are
// those of the file's folder.
type posFile struct {
	Addr     string   `toml:"addr"`
	Plain    bool     `toml:"plain"` // without TLS
	CA       string   `toml:"ca"`
	Cert     string   `toml:"cert"`
	Key      string   `toml:"key"`
	TID      string   `toml:"tid"`
	MID      string   `toml:"mid"`
	Scheme   string   `toml:"scheme"`
	Profile  string   `toml:"profile"`  // of tmk; default unionpay
	KeyFile  string   `toml:"key_file"` // hexadecimal digits of a test key: BDK, or master key
	KSN      string   `toml:"ksn"`      // of DUKPT: the first
	SignIn   string   `toml:"sign_in"`  // of tmk: 001, 003 (default), 004
	Currency string   `toml:"currency"`
	Cards    []string `toml:"cards"` // test cards of the network, beside the published ones
}

// site finds the terminal that the flags name.
func (f *posFlags) site() (*posSite, error) {
	switch {
	case f.Dir != "" && f.Terminal != "":
		return nil, usageError("--dir and --terminal exclude each other")
	case f.Terminal != "":
		return f.fileSite()
	case f.Dir == "":
		return nil, usageError("missing flags: --dir=DIR of a running keyd dev, or --terminal=FILE")
	}
	dev, err := readDev(f.Dir)
	if err != nil {
		return nil, err
	}
	tid := f.TID
	if tid == "" {
		tid = dev.defaultTID()
	}
	s, err := devSite(dev, f.Dir, tid)
	if err == nil && f.State != "" {
		s.state = f.State
	}
	return s, err
}

// devSite is one of the terminals of `keyd dev`.
func devSite(dev *devReport, dir, tid string) (*posSite, error) {
	fixed, err := dev.terminal(tid)
	if err != nil {
		return nil, usageError("%w", err)
	}
	s := &posSite{
		addr: dev.SwitchAddr, key: dev.TestKeys[fixed.BDK], state: filepath.Join(dir, "pos-"+tid),
		posFile: posFile{TID: fixed.TID, MID: fixed.MID, Scheme: string(fixed.Scheme), KSN: fixed.KSN, Currency: "978"},
	}
	if fixed.TMK != "" {
		s.addr, s.key, s.Profile, s.Currency = dev.UnionPay, dev.TestKeys[fixed.TMK], unionPay, "156"
	}
	s.tls, err = devTLS(dev, "terminal")
	return s, err
}

// fileSite reads the file of --terminal.
func (f *posFlags) fileSite() (*posSite, error) {
	text, err := os.ReadFile(f.Terminal)
	if err != nil {
		return nil, fmt.Errorf("--terminal: %w", err)
	}
	s := &posSite{posFile: posFile{Profile: unionPay}}
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.posFile); err != nil {
		return nil, errors.New(strings.Join(tomlfile.Complaints(f.Terminal, err, reflect.TypeFor[posFile]()), "\n"))
	}
	if f.State == "" {
		return nil, usageError("--terminal needs --state: the folder in which the terminal keeps its counters and its pending reversal")
	}
	s.addr, s.state = s.Addr, f.State
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Terminal, err)
	}
	here := filepath.Dir(f.Terminal)
	for _, path := range []*string{&s.CA, &s.Cert, &s.posFile.Key, &s.KeyFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(here, *path)
		}
	}
	if !slices.Contains(profile.Names(), s.Profile) && !filepath.IsAbs(s.Profile) {
		s.Profile = filepath.Join(here, s.Profile)
	}
	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: key_file: %w", f.Terminal, err)
	}
	s.key = strings.TrimSpace(string(key))
	if !s.Plain {
		s.tls, err = s.config()
	}
	return s, err
}

func (s *posSite) check() error {
	dukpt := s.Scheme == string(custody.SchemeTDESDUKPT) || s.Scheme == string(custody.SchemeAESDUKPT)
	switch {
	case s.Addr == "":
		return errors.New("addr: host and port of the switch")
	case len(s.TID) != 8 || len(s.MID) != 15:
		return errors.New("tid has 8 characters and mid 15")
	case !dukpt && s.Scheme != string(custody.SchemeMaster):
		return fmt.Errorf("scheme: %q is none of tdes-dukpt, aes-dukpt, tmk", s.Scheme)
	case s.KeyFile == "":
		return errors.New("key_file: a file with the hexadecimal digits of a test key")
	case dukpt && s.KSN == "":
		return errors.New("ksn: that of the terminal's first message")
	case s.Plain && (s.CA != "" || s.Cert != "" || s.posFile.Key != ""):
		return errors.New("plain is without TLS: leave ca, cert and key out")
	case !s.Plain && s.CA == "":
		return errors.New("ca: the certificate that signed the switch's; or plain = true for a line without TLS")
	case (s.Cert == "") != (s.posFile.Key == ""):
		return errors.New("cert and key go together")
	}
	return nil
}

// config is the TLS of the file.
func (s *posSite) config() (*tls.Config, error) {
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate", s.CA)
	}
	if s.Cert == "" {
		return config, nil
	}
	cert, err := tls.LoadX509KeyPair(s.Cert, s.posFile.Key)
	if err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// speaker is the terminal's language; dukpt is set for a terminal that can also
// make forgeries.
func (s *posSite) speaker(form string, strict bool) (speaker sim.Speaker, dukpt *sim.DUKPT, err error) {
	if s.Scheme != string(custody.SchemeMaster) {
		dukpt, err = sim.NewDUKPT(sim.TerminalConfig{TID: s.TID, MID: s.MID, BDK: s.key, KSN: s.KSN, Currency: s.Currency})
		return dukpt, dukpt, err
	}
	p, err := profile.Find(s.Profile)
	if err != nil {
		return nil, nil, err
	}
	if form == "" {
		form = s.SignIn
	}
	cup, err := sim.NewUnionPay(sim.UnionPayConfig{
		TID: s.TID, MID: s.MID, TMK: s.key, Currency: s.Currency, Form: form, Strict: strict,
		Dialect: p.Dialect, Algorithm: string(p.MAC[profile.Master].Algorithm),
		ReversalDE3: p.Rules.DE3, DE61Always: p.Rules.DE61Always, Approvals: p.Codes.Approvals,
	})
	return cup, nil, err
}

// dial connects the terminal; wait bounds each exchange.
func (s *posSite) dial(wait time.Duration) func(context.Context) (*sim.Link, error) {
	return func(ctx context.Context) (*sim.Link, error) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		return sim.Dial(ctx, s.addr, s.tls, wait)
	}
}

// cupCard is the card of the worked dialogue of the UnionPay interface.
const cupCard = "6224242900000113"

// card is the terminal's usual card.
func (s *posSite) card() string {
	if s.Scheme == string(custody.SchemeMaster) {
		return cupCard
	}
	return testCards()[0]
}

// known refuses the number of a card that is for no trial.
func (s *posSite) known(pan string) error {
	if slices.Contains(testCards(), pan) || slices.Contains(s.Cards, pan) {
		return nil
	}
	return fmt.Errorf("not the number of a published test card, and a simulated terminal keeps it in the clear; use one of %s, or with --terminal one that the file lists in cards", strings.Join(testCards(), ", "))
}

// inherit takes the memory over that an earlier version kept beside the folder.
func (s *posSite) inherit() error { return sim.Inherit(s.state+".json", s.state) }
