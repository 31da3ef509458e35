package softhsmtest_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
)

// wire is what is under one link; a test cuts it and mends it.
type wire struct {
	mute atomic.Bool // what the host says is lost

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

// muted is a connection over a wire.
type muted struct {
	net.Conn
	w *wire
}

// Read implements net.Conn.
func (m *muted) Read(p []byte) (int, error) {
	for {
		if n, err := m.Conn.Read(p); err != nil || !m.w.mute.Load() {
			return n, err
		}
	}
}

var errCut = errors.New("the wire is cut")

func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errCut
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w.conns = append(w.conns, conn)
	return &muted{conn, w}, nil
}

// set cuts or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for _, conn := range w.conns {
		_ = conn.Close()
	}
	w.conns = nil
}

// hosts is a house with two issuers, each with keys of its own and two links.
type hosts struct {
	*house
	other     *sim.Issuer // named "other"; the house's own is "issuer"
	scripted  *bank       // in its place, or nil
	otherAt   string
	end       func()
	wires     map[string]*wire // "issuer/primary"
	upstreams []string         // those that are configured
	routes    []isoswitch.Route
}

var mastercard = sim.Card{PAN: "5105105105105100", PIN: "1234"}

func otherKeys() map[string]string {
	return map[string]string{"alias/dev/zpk2": "606162636465666768696A6B6C6D6E6F", "alias/dev/zak2": "707172737475767778797A7B7C7D7E7F"}
}

func byBIN() []isoswitch.Route {
	return []isoswitch.Route{
		{Name: "five", Upstream: "other", BINs: []string{"51-55"}},
		{Name: "shop", Upstream: "other", Merchants: []string{"M00000000000002"}, BINs: []string{"4"}},
		{Name: "four", Upstream: "issuer", BINs: []string{"4"}},
	}
}

func newHosts(t *testing.T) *hosts { return newHostsWith(t, nil) }

// newHostsWith has a bank with a script in the place of the second issuer, unless
// it is nil.
func newHostsWith(t *testing.T, script func(*bank, *iso8583.Message) [][]byte) *hosts {
	t.Helper()
	x := &hosts{upstreams: []string{"issuer", "other"}, routes: byBIN(), wires: map[string]*wire{}}
	for _, name := range []string{"issuer/primary", "issuer/secondary", "other/primary", "other/secondary"} {
		x.wires[name] = new(wire)
	}
	x.house = build(t, x.configure)
	x.rules = []sim.Rule{{Code: "00", Delay: 20 * time.Millisecond}} // so that something is on its way when a link is cut
	x.startIssuer("127.0.0.1:0")
	if script == nil {
		x.startOther()
	} else {
		var listener net.Listener
		x.scripted, listener, x.end = x.bankOf(otherKeys()["alias/dev/zak2"], script)
		x.otherAt = listener.Addr().String()
	}
	x.open()
	x.furnish()
	for alias, a := range map[string]keys.Attributes{
		"alias/dev/zpk2": {Usage: keys.UsagePIN, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: keys.NonExportable},
		"alias/dev/zak2": {Usage: keys.UsageMACAlg3, Algorithm: keys.TDES2, Mode: keys.ModeMAC, Exportability: keys.NonExportable},
	} {
		value, err := hex.DecodeString(otherKeys()[alias])
		must(t, err)
		_, err = x.custody.ImportClear(t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "test", custody.ImportClear{
			Attributes: a, Value: secret.From(value), Alias: alias,
		})
		must(t, err)
	}
	x.serve()
	t.Cleanup(func() {
		x.shut()
		x.end()
	})
	return x
}

func (x *hosts) startOther() {
	var err error
	x.other, err = sim.NewIssuer(sim.IssuerConfig{
		TLS: x.ca.server(x.t, "issuer"), PINKey: otherKeys()["alias/dev/zpk2"], MACKey: otherKeys()["alias/dev/zak2"],
		PIN: "1234", Rules: x.rules, BookPath: filepath.Join(x.dir, "book2"), Log: slog.New(slog.DiscardHandler),
	})
	must(x.t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(x.t, err)
	x.otherAt = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = x.other.Serve(ctx, listener)
	}()
	x.end = func() {
		cancel()
		<-done
	}
}

// configure gives the switch both upstreams, or those that are left of them.
func (x *hosts) configure(c *isoswitch.Config) {
	c.Upstreams, c.Routes = nil, x.routes
	for _, name := range x.upstreams {
		addr, suffix := x.bank.Addr().String(), ""
		if name == "other" {
			addr, suffix = x.otherAt, "2"
		}
		u := isoswitch.Upstream{
			Name: name, FailBack: 300 * time.Millisecond, Silence: 2,
			PINKey: custody.Ref{Alias: "alias/dev/zpk" + suffix}, MACKey: custody.Ref{Alias: "alias/dev/zak" + suffix},
		}
		if name == "other" {
			u.Acquirer = "778899"
		}
		for _, link := range []string{"primary", "secondary"} {
			u.Links = append(u.Links, isoswitch.Endpoint{
				Name: link, Addr: addr, Dial: x.wires[name+"/"+link].dial,
				TLS: &tls.Config{RootCAs: x.ca.pool, ServerName: "localhost", MinVersion: tls.VersionTLS12},
			})
		}
		c.Upstreams = append(c.Upstreams, u)
	}
}

// entry is what an issuer has of a sale.
func entry(issuer *sim.Issuer, sale *sim.Sent) *sim.Entry {
	amount, _ := sale.Message.Amount()
	for _, e := range issuer.Book() {
		if e.TID == sale.Message.Text(41) && e.Amount == amount {
			return &e
		}
	}
	return nil
}

// went checks that a sale is with the one issuer and not with the other.
func (x *hosts) went(sale *sim.Sent, to string) {
	x.t.Helper()
	at, not := x.issuer, x.other
	if to == "other" {
		at, not = not, at
	}
	if e := entry(at, sale); e == nil || e.PIN != "right" || e.Messages != 1 {
		x.t.Errorf("%s has %+v of a sale that goes there", to, e)
	}
	if e := entry(not, sale); e != nil {
		x.t.Errorf("a sale for %s is with the other: %+v", to, *e)
	}
}

func (x *hosts) idle() {
	x.t.Helper()
	for _, name := range x.upstreams {
		eventually(x.t, "the queue of "+name+" is empty", func() bool {
			return errors.Is(x.db.View(x.t.Context(), func(tx isoswitch.Tx) error {
				_, err := tx.NextDue(name)
				return err
			}), isoswitch.ErrNotFound)
		})
	}
}

// link is the state of one link.
func (x *hosts) link(upstream, name string) isoswitch.LinkStatus {
	return linkOf(x.sw, upstream, name)
}

func linkOf(sw *isoswitch.Switch, upstream, name string) isoswitch.LinkStatus {
	for _, u := range sw.Status().Upstreams {
		for _, l := range u.Links {
			if u.Name == upstream && l.Name == name {
				return l
			}
		}
	}
	return isoswitch.LinkStatus{}
}

// TestSwitchHosts is a switch with two upstreams and two links to each.
func TestSwitchHosts(t *testing.T) {
	x := newHosts(t)
	t.Run("routes by BIN and merchant", x.routed)
	t.Run("R-02 what undoes a sale follows it after a change of routes", x.follows)
	t.Run("R-31 R-42 links fail in the middle of traffic", x.failsOver)
	t.Run("R-31 a link on which nothing is answered", x.fallsSilent)
	t.Run("R-42 an upstream that is configured no more", x.takenOut)
}

func (x *hosts) routed(t *testing.T) {
	p, shop := x.pos(0), x.pos(2)
	for _, c := range []struct {
		name string
		p    *pos
		card sim.Card
		to   string
	}{
		{"by the first digit", p, visa, "issuer"},
		{"by a range", p, mastercard, "other"},
		{"the merchant before the card", shop, visa, "other"},
	} {
		sale, err := c.p.Sale(1000+int64(len(c.name)), c.card, nil)
		wantCode(t, c.p.ask(sale, err), "00")
		x.went(sale, c.to)
	}
	sale, err := p.Sale(1100, sim.Card{PAN: "6011000000000004", PIN: "1234"}, nil)
	answer := p.ask(sale, err)
	wantCode(t, answer, "92")
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "12") // D-16
	if got := x.records(func(r record) bool {
		return r.ISO.DE39 == "92" && r.Action == "sale.refuse" && r.Reason == "profile_denied"
	}); len(got) != 1 {
		t.Errorf("%d records of a sale without a route", len(got))
	}
}

func (x *hosts) follows(t *testing.T) {
	p := x.pos(0)
	p.Terminal = x.advance(0, 100)
	reversed, err := p.Sale(2000, mastercard, nil)
	first := p.ask(reversed, err)
	wantCode(t, first, "00")
	voided, err := p.Sale(2001, mastercard, nil)
	wantCode(t, p.ask(voided, err), "00")
	refunded, err := p.Sale(2003, mastercard, nil)
	wantCode(t, p.ask(refunded, err), "00")

	x.renew([]isoswitch.Route{{Name: "all", Upstream: "issuer"}})
	defer x.renew(byBIN())
	wantCode(t, p.undo(iso8583.ReversalRequest, reversed, first, nil), "00")
	void, err := p.Void(voided, nil)
	wantCode(t, p.ask(void, err), "00")
	refund, err := p.Refund(refunded, 500, nil)
	wantCode(t, p.ask(refund, err), "00")
	now, err := p.Sale(2004, mastercard, nil)
	wantCode(t, p.ask(now, err), "00")
	x.went(now, "issuer")

	eventually(t, "the reversal is where its sale was", func() bool { return entry(x.other, reversed).Effective == 1 })
	if e := entry(x.other, voided); e.State != "voided" {
		t.Errorf("the voided sale is %+v", *e)
	}
	if e := entry(x.issuer, reversed); e != nil {
		t.Errorf("the other upstream has %+v of it", *e)
	}
	if unknown, macs := x.issuer.Strays(); unknown != 0 || macs != 0 {
		t.Errorf("the other upstream got %d reversals of sales that it never saw, and %d wrong MACs", unknown, macs)
	}
}

// renew gives the running switch other routes.
func (x *hosts) renew(routes []isoswitch.Route) {
	x.t.Helper()
	x.routes = routes
	c := x.config()
	must(x.t, x.sw.Renew(isoswitch.Settings{Limits: c.Limits, Timers: c.Timers, Retry: c.Retry, Lockout: c.Lockout, Routes: c.Routes}))
}

// failsOver lets terminals sell while links are cut and mended, and then compares
// what they were told with both issuers' books.
func (x *hosts) failsOver(t *testing.T) {
	const each, terminals = 40, 4
	type sold struct {
		sale *sim.Sent
		to   string
		code string
	}
	var mu sync.Mutex
	var all []sold
	var work sync.WaitGroup
	failed := make(chan error, 8)
	for n := range terminals {
		p := x.pos(n)
		p.Terminal = x.advance(n, 200)
		work.Go(func() {
			for i := range each {
				card, to := visa, "issuer"
				if i%2 == 1 {
					card, to = mastercard, "other"
				}
				if testTerminals()[n].mid == "M00000000000002" {
					to = "other"
				}
				sale, err := p.Sale(int64(10_000+i), card, nil)
				var raw []byte
				if err == nil {
					raw, err = p.link.Exchange(sale.Raw)
				}
				var m *iso8583.Message
				if err == nil {
					m, err = p.Answer(sale, raw)
				}
				if err != nil {
					failed <- fmt.Errorf("sale %d: %w", i, err)
					return
				}
				mu.Lock()
				all = append(all, sold{sale, to, m.Text(39)})
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(all)
	}
	for n, name := range []string{"issuer/primary", "other/primary", "other/secondary", "issuer/primary"} {
		upstream, link, _ := strings.Cut(name, "/")
		eventually(t, "sales go on", func() bool { return count() > 40*(n+1)-20 || len(failed) > 0 })
		x.wires[name].set(true)
		eventually(t, "another link has taken over", func() bool { l := x.link(upstream, link); return l.State == isoswitch.LinkDown && !l.Chosen })
		x.wires[name].set(false)
		eventually(t, name+" is back", func() bool { return x.link(upstream, link).State == isoswitch.LinkSignedOn })
	}
	work.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	for _, upstream := range x.upstreams {
		eventually(t, "messages go over the primary again", func() bool { return x.link(upstream, "primary").Chosen })
	}
	x.idle()
	codes := map[string]int{}
	for _, s := range all {
		at, not := x.issuer, x.other
		if s.to == "other" {
			at, not = not, at
		}
		codes[s.code]++
		e := entry(at, s.sale)
		switch {
		case entry(not, s.sale) != nil:
			t.Errorf("a sale for %s is with the other", s.to)
		case s.code == "00" && (e == nil || e.State != "approved" || e.Received != 0):
			t.Errorf("the terminal has 00, the issuer %+v", e)
		case s.code != "00" && e != nil && (e.State != "reversed" || e.Effective != 1):
			t.Errorf("the terminal has %s, the issuer %+v", s.code, *e)
		case e != nil && (e.Messages != 1 || len(e.Named) > 1):
			t.Errorf("the issuer got it more than once: %+v", *e)
		}
	}
	t.Logf("answers %v", codes)
	if len(all) != each*terminals || codes["00"] < len(all)*8/10 {
		t.Errorf("%d sales, answers %v", len(all), codes)
	}
	moved := uint64(0)
	for _, u := range x.sw.Status().Upstreams {
		moved += u.Moved
	}
	if moved < 6 { // there and back, of three primaries that were cut
		t.Errorf("another link was chosen %d times", moved)
	}
}

// fallsSilent loses what the host says on the primary link: two sales later
// messages go over the secondary, and the primary is connected anew.
func (x *hosts) fallsSilent(t *testing.T) {
	p := x.pos(0)
	p.Terminal = x.advance(0, 300)
	before := x.link("issuer", "primary").Connects
	x.wires["issuer/primary"].mute.Store(true)
	var lost []*sim.Sent
	for n := range int64(2) {
		sale, answer := p.sell(5000 + n)
		wantCode(t, answer, "68")
		lost = append(lost, sale)
	}
	eventually(t, "the secondary has taken over", func() bool { return x.link("issuer", "secondary").Chosen })
	_, answer := p.sell(5010)
	wantCode(t, answer, "00")
	eventually(t, "the primary, which answers no echo, is given up", func() bool { return x.link("issuer", "primary").State == isoswitch.LinkDown })
	x.wires["issuer/primary"].mute.Store(false)
	x.wires["issuer/primary"].set(false)
	eventually(t, "the primary is connected anew", func() bool { return x.link("issuer", "primary").Connects > before })
	eventually(t, "messages go over the primary again", func() bool { return x.link("issuer", "primary").Chosen })
	x.idle()
	for _, sale := range lost {
		if e := entry(x.issuer, sale); e == nil || e.State != "reversed" || e.Effective != 1 || e.Messages != 1 {
			t.Errorf("the issuer has %+v of a sale without an answer", e)
		}
	}
}

// takenOut takes an upstream out while something is owed to it.
func (x *hosts) takenOut(t *testing.T) {
	p := x.pos(0)
	p.Terminal = x.advance(0, 400)
	owed, err := p.Sale(3000, mastercard, nil)
	first := p.ask(owed, err)
	wantCode(t, first, "00")
	later, err := p.Sale(3001, mastercard, nil)
	second := p.ask(later, err)
	wantCode(t, second, "00")
	x.wires["other/primary"].set(true)
	x.wires["other/secondary"].set(true)
	eventually(t, "both links are down", func() bool { return !x.sw.Status().LinkUp })
	sale, err := p.Sale(3002, mastercard, nil)
	wantCode(t, p.ask(sale, err), "91")
	wantCode(t, p.ask(p.Sale(3003, visa, nil)), "00") // the other upstream goes on
	wantCode(t, p.undo(iso8583.ReversalRequest, owed, first, nil), "00")

	x.stop()
	x.upstreams, x.routes = []string{"issuer"}, nil
	sw, err := isoswitch.New(x.config())
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := sw.Serve(t.Context(), listener); !errors.Is(err, isoswitch.ErrConfig) || !strings.Contains(err.Error(), `upstream "other" is not configured, and 1 reversals`) {
		t.Fatalf("a start without an upstream to which a reversal is owed: %v", err)
	}
	x.upstreams, x.routes = []string{"issuer", "other"}, []isoswitch.Route{{Name: "all", Upstream: "issuer"}}
	x.wires["other/primary"].set(false)
	x.serve()
	eventually(t, "what was owed has come", func() bool { return entry(x.other, owed).Effective == 1 })
	x.idle()

	x.stop()
	x.upstreams, x.routes = []string{"issuer"}, nil
	x.serve()
	p.link = x.dial("terminal")
	wantCode(t, p.ask(p.Void(later, nil)), "92")
	wantCode(t, p.undo(iso8583.ReversalRequest, later, second, nil), "00")
	entries, err := x.db.Entries(t.Context(), isoswitch.LedgerQuery{State: isoswitch.Parked, Limit: 10})
	if err != nil || len(entries) != 1 || entries[0].Txn.Link != "other" {
		t.Errorf("parked are %+v, %v", entries, err)
	}
	if got := x.records(func(r record) bool { return r.Action == "reversal.fail" && r.Reason == "config_invalid" }); len(got) != 1 {
		t.Errorf("%d records of a reversal that goes nowhere", len(got))
	}
	desk := isoswitch.NewDesk(x.db, x.db, time.Now)
	desk.Serves(x.sw)
	_, err = desk.Order(t.Context(), entries[0].RID.Name(), custody.ReversalOrder{Act: custody.RetryReversal})
	if !errors.Is(err, custody.ErrReversalState) {
		t.Errorf("a retry to an upstream that is not there: %v", err)
	}
}

// TestSwitchAnswerOfAnotherUpstream: an answer is taken from the upstream that was
// asked and from no other, however well it fits, and whatever its own MAC says.
func TestSwitchAnswerOfAnotherUpstream(t *testing.T) {
	x := newHostsWith(t, func(*bank, *iso8583.Message) [][]byte { return nil })
	x.issuer.SetRules([]sim.Rule{{Code: "00", Silent: true}})
	p := x.pos(0)
	sale, err := p.Sale(4000, visa, nil)
	must(t, err)
	must(t, p.link.Send(sale.Raw))
	eventually(t, "the sale is at its issuer", func() bool { return entry(x.issuer, sale) != nil })
	e, m := entry(x.issuer, sale), sale.Message
	b := iso8583.ASCII87().Build(iso8583.FinancialRequest.Response(), iso8583.SideUpstream).
		Set(2, visa.PAN).Set(7, e.DateTime).Set(11, e.STAN).Set(37, e.RRN).Set(38, "A1B2C3").Set(39, "00")
	for _, de := range []int{3, 4, 12, 13, 41, 42, 49} {
		b.Set(de, m.Text(de))
	}
	x.scripted.write(x.scripted.seal(b))
	raw, err := p.link.Receive()
	must(t, err)
	answer, err := p.Answer(sale, raw)
	must(t, err)
	wantCode(t, answer, "68")
	eventually(t, "the sale is reversed where it was made", func() bool { return entry(x.issuer, sale).Effective == 1 })
	if got := x.records(func(r record) bool { return r.Action == "response.refuse" && r.Reason == "unexpected_response" }); len(got) != 1 {
		t.Errorf("%d records of an answer that nobody asked of that upstream", len(got))
	}
}
