package softhsmtest_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/internal/store"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// house is a whole switch for a test: a real token, a real database, a real
// audit log, a TLS listener, and an issuer with keys of its own behind it. It
// can be shut and opened again on the same files.
type house struct {
	t     testing.TB
	dir   string
	token *hsm.Token
	ca    authority
	rules []sim.Rule
	tune  func(*isoswitch.Config)

	db      *store.DB
	log     *audit.Log
	custody *custody.Custody
	issuer  *sim.Issuer
	bank    net.Listener
	sw      *isoswitch.Switch
	addr    string
	further []string // addresses of Config.Listeners
	logDir  string
	logs    *lockedBuffer
	stop    func() // ends the switch
	unbank  func() // ends the issuer
}

// newHouse makes a house; rules are the issuer's.
func newHouse(t testing.TB, rules []sim.Rule, tune func(*isoswitch.Config)) *house {
	t.Helper()
	h := build(t, tune)
	h.rules = rules
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	return h
}

// newScripted makes a house whose bank answers as the script says.
func newScripted(t testing.TB, script func(*bank, *iso8583.Message) [][]byte, tune func(*isoswitch.Config)) (*house, *bank) {
	t.Helper()
	h := build(t, tune)
	b := h.startBank(script)
	h.moveIn()
	return h, b
}

func build(t testing.TB, tune func(*isoswitch.Config)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), token: softhsmtest.Token(t), ca: newAuthority(t), tune: tune, logs: &lockedBuffer{}}
	must(t, os.Chmod(h.dir, 0o700))
	must(t, store.Found(t.Context(), softhsmtest.Anchor(t, h.token)))
	h.logDir = filepath.Join(h.dir, "audit")
	return h
}

func (h *house) moveIn() {
	h.t.Helper()
	t := h.t
	h.open()
	h.furnish()
	h.serve()
	t.Cleanup(h.shut)
}

// startIssuer begins the issuer; its book is kept over its restarts.
func (h *house) startIssuer(addr string) {
	h.t.Helper()
	issuer, err := sim.NewIssuer(sim.IssuerConfig{
		TLS:      h.ca.server(h.t, "issuer"),
		PINKey:   testKeys()["alias/dev/zpk"],
		MACKey:   testKeys()["alias/dev/zak"],
		PIN:      "1234",
		Rules:    h.rules,
		BookPath: filepath.Join(h.dir, "book"),
		Log:      slog.New(slog.DiscardHandler),
	})
	must(h.t, err)
	bank, err := net.Listen("tcp", addr)
	must(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = issuer.Serve(ctx, bank)
	}()
	h.issuer, h.bank = issuer, bank
	h.unbank = func() {
		cancel()
		<-done
	}
}

// testKeys are the published test keys of the dialect (W-10, W-11).
func testKeys() map[string]string {
	return map[string]string{
		"alias/dev/bdk-tdes": "0123456789ABCDEFFEDCBA9876543210",
		"alias/dev/bdk-aes":  "FEDCBA9876543210F1F1F1F1F1F1F1F1",
		"alias/dev/zpk":      "404142434445464748494A4B4C4D4E4F",
		"alias/dev/zak":      "505152535455565758595A5B5C5D5E5F",
	}
}

// testTerminal is a registered terminal of W-10.
type testTerminal struct {
	tid, mid, bdk, ksn string
	macBytes           int
}

func testTerminals() []testTerminal {
	return []testTerminal{
		{"T0000001", "M00000000000001", "alias/dev/bdk-tdes", "FFFF9876543210E00001", 8},
		{"T0000002", "M00000000000001", "alias/dev/bdk-aes", "123456789012345600000001", 8},
		{"T0000003", "M00000000000002", "alias/dev/bdk-tdes", "FFFF9876543211000001", 8},
		{"T0000100", "M00000000000100", "alias/dev/bdk-tdes", "FFFF9876551000000001", 8},
		{"T0000101", "M00000000000100", "alias/dev/bdk-tdes", "FFFF9876551001000001", 4},
	}
}

// open opens database, log and custody.
func (h *house) open() {
	h.t.Helper()
	var err error
	h.db, err = store.Open(h.t.Context(), store.Config{
		Path: filepath.Join(h.dir, "keyd.db"), Purpose: store.Serve, Anchor: softhsmtest.Anchor(h.t, h.token),
		Sealer: func(id [16]byte) (store.Sealer, error) { return custody.NewRowSealer(h.token, id) },
	})
	must(h.t, err)
	signer, err := h.token.Signer()
	must(h.t, err)
	tokener, err := custody.NewTokener(h.token)
	must(h.t, err)
	h.log, err = audit.Open(h.logDir, signer, audit.Options{
		Site: "test", Node: "n1", Build: "test", Tokener: tokener, SegmentSize: 8 << 20,
		Disk: audit.DiskLimits{WarnPercent: 2, CriticalPercent: 1, ClearPercent: 2},
	})
	must(h.t, err)
	h.custody, err = custody.New(custody.Config{
		Token: h.token, Maker: hsm.NewManager(h.token), Store: h.db, Log: h.log,
		Clients: []custody.Client{
			{Name: "terminal", URI: "spiffe://test/terminal", Roles: []custody.Role{custody.RoleTerminal}},
			{Name: "nobody", URI: "spiffe://test/nobody"},
		},
		Clock: time.Now, Serial: h.token.Info().Serial,
	})
	must(h.t, err)
}

// furnish imports the published test keys and registers the terminals.
func (h *house) furnish() {
	h.t.Helper()
	for alias, a := range map[string]keys.Attributes{
		"alias/dev/bdk-tdes": {Usage: keys.UsageBDK, Algorithm: keys.TDES2, Mode: keys.ModeDerive, Exportability: keys.NonExportable},
		"alias/dev/bdk-aes":  {Usage: keys.UsageBDK, Algorithm: keys.AES128, Mode: keys.ModeDerive, Exportability: keys.NonExportable},
		"alias/dev/zpk":      {Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
		"alias/dev/zak":      {Usage: keys.UsageMACAlg3, Algorithm: keys.TDES2, Mode: keys.ModeMAC, Exportability: keys.NonExportable},
	} {
		value, err := hex.DecodeString(testKeys()[alias])
		must(h.t, err)
		_, err = h.custody.ImportClear(h.t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "test", custody.ImportClear{
			Attributes: a, Value: secret.From(value), Alias: alias,
		})
		must(h.t, err)
	}
	for _, f := range testTerminals() {
		n := isoswitch.Terminal{TID: f.tid, MID: f.mid, BDK: f.bdk, Scheme: isoswitch.TDESDUKPT, MACBytes: f.macBytes}
		if len(f.ksn) == 24 {
			n.Scheme, n.Device = isoswitch.AESDUKPT, isoswitch.Device(f.ksn[:16])
		} else {
			n.Device = tdesDevice(h.t, f.ksn)
		}
		must(h.t, h.db.AddTerminal(h.t.Context(), n))
	}
}

func tdesDevice(t testing.TB, ksn string) isoswitch.Device {
	t.Helper()
	b, err := hex.DecodeString(ksn)
	must(t, err)
	b[7], b[8], b[9] = b[7]&0xE0, 0, 0
	return isoswitch.Device(strings.ToUpper(hex.EncodeToString(b)))
}

// config is the switch's configuration.
func (h *house) config() isoswitch.Config {
	h.t.Helper()
	cfg := isoswitch.Config{
		Custody: h.custody, Journal: h.db, Dialect: iso8583.ASCII87(),
		TLS: h.ca.server(h.t, "switch"), Log: slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Upstreams: []isoswitch.Upstream{{
			Name: "issuer",
			Links: []isoswitch.Endpoint{{
				Addr: h.bank.Addr().String(),
				TLS:  &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", MinVersion: tls.VersionTLS12},
			}},
			PINKey: custody.Ref{Alias: "alias/dev/zpk"}, MACKey: custody.Ref{Alias: "alias/dev/zak"},
		}},
		Limits: isoswitch.Limits{MaxAmount: 5_000_000, Currencies: []string{"978", "156"}, PartialTypes: []string{"00"}},
		Timers: isoswitch.Timers{Upstream: 700 * time.Millisecond, Switch: 2 * time.Second, Terminal: 10 * time.Second, Hold: 3 * time.Second, Stray: 3 * time.Second, Drain: 3 * time.Second},
		Retry:  isoswitch.Retry{First: 100 * time.Millisecond, Ceiling: 400 * time.Millisecond},
	}
	if h.tune != nil {
		h.tune(&cfg)
	}
	return cfg
}

// serve begins the switch.
func (h *house) serve() {
	h.t.Helper()
	cfg := h.config()
	sw, err := isoswitch.New(cfg)
	must(h.t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	h.sw, h.addr, h.further = sw, listener.Addr().String(), nil
	var further []net.Listener
	for range cfg.Listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(h.t, err)
		further, h.further = append(further, l), append(h.further, l.Addr().String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sw.Serve(ctx, listener, further...) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("the switch ended with: %v", err)
		}
	}
	if h.unbank != nil {
		eventually(h.t, "the link is signed on", func() bool { return sw.Status().SignedOn })
	}
}

// reopen ends the switch and begins it again on the same files.
func (h *house) reopen() {
	h.t.Helper()
	h.stop()
	must(h.t, h.log.Close(context.Background()))
	must(h.t, h.db.Close())
	h.open()
	h.serve()
}

func (h *house) shut() {
	h.stop()
	if h.unbank != nil {
		h.unbank()
	}
	// A test may have closed them before.
	_ = h.log.Close(context.Background())
	_ = h.db.Close()
	if h.t.Failed() {
		h.t.Logf("the switch's log:\n%s", h.logs)
	}
}

// pos is a terminal with its connection.
type pos struct {
	*sim.Terminal
	link *sim.Link
	t    testing.TB
}

// pos connects the n-th fixed terminal.
func (h *house) pos(n int) *pos {
	h.t.Helper()
	f := testTerminals()[n]
	term, err := sim.NewTerminal(sim.TerminalConfig{TID: f.tid, MID: f.mid, BDK: testKeys()[f.bdk], KSN: f.ksn}, 0)
	must(h.t, err)
	p := &pos{Terminal: term, t: h.t}
	p.link = h.dial("terminal")
	return p
}

// advance is the n-th fixed terminal, with its counter and STAN moved on.
func (h *house) advance(n, by int) *sim.Terminal {
	h.t.Helper()
	term := h.pos(n).Terminal
	for range by {
		_, err := term.Network("301")
		must(h.t, err)
	}
	return term
}

func (h *house) dial(client string) *sim.Link { return h.dialAt(h.addr, client) }

func (h *house) dialAt(addr, client string) *sim.Link {
	h.t.Helper()
	link, err := sim.Dial(h.t.Context(), addr, h.ca.client(h.t, client), 5*time.Second)
	must(h.t, err)
	h.t.Cleanup(func() { _ = link.Close() })
	return link
}

// ask sends a message and returns its answer, whose MAC must be good.
func (p *pos) ask(sent *sim.Sent, err error) *iso8583.Message {
	p.t.Helper()
	must(p.t, err)
	raw, err := p.link.Exchange(sent.Raw)
	must(p.t, err)
	m, err := p.Answer(sent, raw)
	must(p.t, err)
	return m
}

// sell makes a sale and returns it with its answer.
func (p *pos) sell(amount int64) (*sim.Sent, *iso8583.Message) {
	p.t.Helper()
	sale, err := p.Sale(amount, visa, nil)
	return sale, p.ask(sale, err)
}

// undo asks to reverse a sale.
func (p *pos) undo(mti iso8583.MTI, sale *sim.Sent, answer *iso8583.Message, draft sim.Draft) *iso8583.Message {
	p.t.Helper()
	return p.ask(p.Reversal(mti, sale, answer.Text(37), answer.Text(38), draft))
}

var visa = sim.Card{PAN: "4111111111111111", PIN: "1234"}

// booked is what the issuer has of a sale, or nil. The RRN is keyd's, so it is
// looked for by terminal and amount: amounts of a test are all different.
func (h *house) booked(sale *sim.Sent) *sim.Entry {
	amount, _ := sale.Message.Amount()
	for _, e := range h.issuer.Book() {
		if e.TID == sale.Message.Text(41) && e.Amount == amount {
			return &e
		}
	}
	return nil
}

// awaitReversed waits until the issuer has reversed the sale, and then checks
// that it did so once.
func (h *house) awaitReversed(sale *sim.Sent) {
	h.t.Helper()
	eventually(h.t, "the issuer has reversed the sale", func() bool {
		e := h.booked(sale)
		return e != nil && e.Effective == 1
	})
	if e := h.booked(sale); e.Effective != 1 || e.State != "reversed" {
		h.t.Errorf("the issuer has %+v, want one effective reversal", *e)
	}
}

// quiet waits until nothing is left to send upstream. A terminal is let in when
// the recovery of a start is over, so what a start would reverse is queued by then.
func (h *house) quiet() {
	h.t.Helper()
	must(h.t, h.dial("terminal").Close())
	eventually(h.t, "the queue of reversals is empty", func() bool {
		err := h.db.View(h.t.Context(), func(tx isoswitch.Tx) error {
			_, err := tx.NextDue("issuer")
			return err
		})
		return errors.Is(err, isoswitch.ErrNotFound)
	})
}

// untouched checks that no reversal of the sale has reached the issuer.
func (h *house) untouched(sale *sim.Sent) {
	h.t.Helper()
	if e := h.booked(sale); e == nil || e.Received != 0 {
		h.t.Errorf("the issuer has %+v, want no reversal", e)
	}
}

// record is the part of an audit record that tests look at.
type record struct {
	Action  string `json:"action"`
	Corr    string `json:"corr"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	ISO     struct {
		MTI   string `json:"mti"`
		STAN  string `json:"stan"`
		DE39  string `json:"de39"`
		Rule  string `json:"rule"`
		Alert string `json:"alert"`
	} `json:"iso"`
	MAC struct {
		Alg     string `json:"alg"`
		Verdict string `json:"verdict"`
	} `json:"mac"`
	Keys []struct {
		Role string `json:"role"`
		ID   string `json:"id"`
		Ver  int    `json:"ver"`
	} `json:"keys"`
	Count struct {
		N int64 `json:"n"`
	} `json:"count"`
}

// records are those that fit, of all logs.
func (h *house) records(fits func(record) bool) []record {
	h.t.Helper()
	reader, err := audit.OpenReader(h.logDir)
	must(h.t, err)
	names, err := reader.Logs()
	must(h.t, err)
	var found []record
	for _, name := range names {
		for entry, err := range reader.Records(name, 0) {
			must(h.t, err)
			var r record
			must(h.t, json.Unmarshal(entry.Raw, &r))
			if fits(r) {
				found = append(found, r)
			}
		}
	}
	return found
}

// file is what stands in a file.
type file struct{ name, text string }

// files are all files of the house.
func (h *house) files() []file {
	h.t.Helper()
	var all []file
	must(h.t, filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, file{path, string(text)})
		return err
	}))
	return all
}

func wantCode(t testing.TB, m *iso8583.Message, code string) {
	t.Helper()
	if got := m.Text(39); got != code {
		t.Errorf("%s has DE 39 = %q, want %q", m.MTI(), got, code)
	}
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority is a certificate authority for one test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return authority{cert, key, pool}
}

func (a authority) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) server(t testing.TB, name string) *tls.Config {
	t.Helper()
	cert := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if name == "switch" {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, a.pool
	}
	return c
}

func (a authority) client(t testing.TB, name string) *tls.Config {
	t.Helper()
	uri, err := url.Parse("spiffe://test/" + name)
	must(t, err)
	cert := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{uri},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: a.pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}
