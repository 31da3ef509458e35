package softhsmtest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// bind gives custody clients whose links have terminals of their own.
func bind(t *testing.T, c *custody.Custody, terminals ...string) {
	t.Helper()
	link := func(name string, of ...string) custody.Client {
		return custody.Client{Name: name, URI: "spiffe://test/" + name, Roles: []custody.Role{custody.RoleTerminal}, Terminals: of}
	}
	own := link("own")
	own.URI = "spiffe://test/of-{tid}"
	shop := link("shop")
	shop.Merchants = []string{"M00000000000002", "M000000000001??"}
	_, err := c.Renew(t.Context(), custody.Settings{Clients: []custody.Client{link("terminal", terminals...), link("elsewhere", "T0000100-T0000199"), shop, own}})
	must(t, err)
}

// TestLinkOfTerminal is A-18.T2 and D-02: a message with a valid MAC comes by a
// link that its terminal has no business on.
func TestLinkOfTerminal(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Lockout.Failures = 1000 })
	p := h.pos(0)
	sale, answer := p.sell(9800)
	bind(t, h.custody, "T0000001", "T0000002")
	home := p.link
	for _, client := range []string{"elsewhere", "shop", "of-T0000003"} {
		t.Run("A-18.T2 D-02 by the link of "+client, func(t *testing.T) {
			p.t, p.link = t, h.dial(client)
			stranger := *p
			named := func(r record) bool { return r.ISO.Rule == "D-02" && r.Reason == "terminal_link" }
			book, rows, before := h.issuer.Book(), h.rows(), len(h.records(named))
			never, err := p.Sale(9802, visa, nil)
			must(t, err)
			for _, of := range []*sim.Sent{sale, never} { // the same answer whether or not there is an original
				wantCode(t, stranger.ask(p.Reversal(iso8583.ReversalRequest, of, "", "", nil)), "58")
			}
			_, refused := stranger.sell(9804)
			wantCode(t, refused, "58")
			wantCode(t, stranger.ask(p.Network("001")), "58")
			forged, err := p.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
			must(t, err)
			copy(forged.Raw[len(forged.Raw)-16:], "0123456789ABCDEF")
			wantCode(t, p.parsed(forged.Raw), "63") // a forgery is one on every link
			if n := len(h.records(named)) - before; n != 4 {
				t.Errorf("%d records of a terminal on another's link, want 4", n)
			}
			if diff := cmp.Diff(book, h.issuer.Book()); diff != "" {
				t.Errorf("something went upstream (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(rows, h.rows()); diff != "" {
				t.Errorf("the database has changed, a KSN counter perhaps (-before +after):\n%s", diff)
			}
		})
	}
	p.t, p.link = t, home // a connection of before: its client's list holds at once
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.awaitReversed(sale)
	p.link = h.dial("of-T0000001")
	_, answer = p.sell(9806)
	wantCode(t, answer, "00")
	bind(t, h.custody, "T0000002")
	p.link = home
	_, answer = p.sell(9808)
	wantCode(t, answer, "58")
}

// TestLinkOfMasterTerminal is A-18.T2 for terminals with master keys: who signs a
// terminal in by another's link would take its keys away.
func TestLinkOfMasterTerminal(t *testing.T) {
	t.Run("A-18.T2 a sign-in by another's link", func(t *testing.T) {
		u := newCUP(t)
		bind(t, u.h.registry, masterTID)
		u.wants(u.buy("000001", 20000), "00")
		home := u.link
		u.link = u.h.dial("elsewhere")
		mak := u.mac
		if m := u.signIn("003"); m.Text(39) != "97" || m.Has(62) {
			t.Errorf("signed in from elsewhere: %s, want 97", m.Text(39))
		}
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 20000), "97")
		u.link, u.mac = home, mak
		u.wants(u.undo(iso8583.ReversalRequest, "000001", 20000), "00")
	})
}
