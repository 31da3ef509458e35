package softhsmtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/internal/sim"
	"keyd.dev/keyd/keys"
)

// newTwo is a switch with two listeners: ascii87 for terminals with DUKPT, and
// unionpay for terminals with a master key.
func newTwo(t *testing.T, rules []sim.Rule, tune func(*isoswitch.Config)) *masterHouse {
	t.Helper()
	speech, err := profile.Builtin("unionpay")
	must(t, err)
	h := &masterHouse{house: build(t, nil), speech: speech, kind: custody.TerminalProfile{
		Name: "unionpay", Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 8, Algorithm: custody.CUPECB,
	}}
	h.tune = func(cfg *isoswitch.Config) {
		h.furnishRegistry()
		cfg.Custody, cfg.Listeners = h.registry.WithoutMaker(), []isoswitch.Listener{{Profile: h.speech}}
		tune(cfg)
	}
	h.rules = rules
	h.startIssuer("127.0.0.1:0")
	h.moveIn()
	return h
}

// channel is a terminal of one of the profiles, at its listener.
type channel struct {
	profile, silent, distrusted string
	tid                         string
	link                        *sim.Link
	dial                        func() *sim.Link
	// sale makes one, and says how to reverse it.
	sale func(amount int64) (raw []byte, stan string, undo func() []byte)
	code func(answer []byte) string
}

func (h *masterHouse) dukptChannel() *channel {
	p := h.pos(0)
	return &channel{
		profile: "ascii87", silent: "68", distrusted: "96", tid: "T0000001", link: p.link,
		dial: func() *sim.Link { return h.dial("terminal") },
		sale: func(amount int64) ([]byte, string, func() []byte) {
			sale, err := p.Sale(amount, visa, nil)
			must(h.t, err)
			return sale.Raw, sale.Message.Text(11), func() []byte {
				undo, err := p.Reversal(iso8583.ReversalRequest, sale, "", "", nil)
				must(h.t, err)
				return undo.Raw
			}
		},
		code: func(answer []byte) string {
			m, err := iso8583.ASCII87().Parse(answer, iso8583.SideTerminal)
			must(h.t, err)
			return m.Text(39)
		},
	}
}

func (h *masterHouse) unionPayChannel(t *testing.T) *channel {
	t.Helper()
	dial := func() *sim.Link { return h.dialAt(h.further[0], "terminal") }
	u := &cup{&master{h: h, link: dial()}, t}
	u.signIn("003")
	n := 500
	return &channel{
		profile: "unionpay", silent: "98", distrusted: "96", tid: masterTID, link: u.link, dial: dial,
		sale: func(amount int64) ([]byte, string, func() []byte) {
			n++
			stan := fmt.Sprintf("%06d", n)
			return u.sealed(u.buy(stan, amount)), stan, func() []byte { return u.sealed(u.undo("0400", stan, amount)) }
		},
		code: func(answer []byte) string {
			m, err := h.speech.Dialect.Parse(answer, iso8583.SideTerminal)
			must(h.t, err)
			return m.Text(39)
		},
	}
}

// outcome is what the journal has of a sale and its reversal.
type outcome struct{ State, Profile, Answer, Cause, Reversal string }

func (h *house) outcome(tid, stan string) (o outcome) {
	h.sql(func(db *sql.DB) error {
		err := db.QueryRow("SELECT t.state, t.profile, t.answer, r.cause, r.state FROM txn t JOIN reversal r USING (oid) WHERE t.tid = ? AND t.stan = ?", tid, stan).
			Scan(&o.State, &o.Profile, &o.Answer, &o.Cause, &o.Reversal)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return o
}

// effective is how many reversals of an amount the issuer has carried out.
func (h *house) effective(tid string, amount int64) (n int) {
	for _, e := range h.issuer.Book() {
		if e.TID == tid && e.Amount == amount {
			n += e.Effective
		}
	}
	return n
}

func (h *house) booking(tid string, amount int64) bool {
	for _, e := range h.issuer.Book() {
		if e.TID == tid && e.Amount == amount {
			return true
		}
	}
	return false
}

// TestR17SeveralTerminalTypes: each cause of an automatic reversal, at two
// listeners of one daemon whose terminals speak and hold keys differently. Each
// original is reversed once, its terminal answered in its own codes, and the
// terminal's own reversal joins.
func TestR17SeveralTerminalTypes(t *testing.T) {
	h := newTwo(t, []sim.Rule{
		{Suffix: "99", Code: "00", Silent: true},
		{Suffix: "97", Code: "00", WrongMAC: true},
		{Suffix: "90", Code: "00", Delay: 400 * time.Millisecond},
	}, func(cfg *isoswitch.Config) {
		cfg.Timers.Upstream, cfg.Timers.Switch, cfg.Timers.Drain = 2500*time.Millisecond, 4*time.Second, time.Millisecond
	})
	channels := []*channel{h.dukptChannel(), h.unionPayChannel(t)}
	reversed := func(t *testing.T, c *channel, amount int64, stan string, want outcome) {
		t.Helper()
		eventually(t, "the sale is reversed", func() bool { return h.outcome(c.tid, stan).State == "REVERSED" })
		want.State, want.Profile, want.Reversal = "REVERSED", c.profile, "CONFIRMED"
		if diff := cmp.Diff(want, h.outcome(c.tid, stan)); diff != "" {
			t.Errorf("the journal has (-want +got):\n%s", diff)
		}
		if got := h.effective(c.tid, amount); got != 1 {
			t.Errorf("the issuer has %d effective reversals, want 1", got)
		}
	}
	joins := func(t *testing.T, c *channel, undo func() []byte) {
		t.Helper()
		got, err := c.link.Exchange(undo())
		must(t, err)
		if code := c.code(got); code != "00" {
			t.Errorf("D-19 the terminal's own reversal gets %s", code)
		}
	}
	for _, c := range channels {
		for _, silent := range []struct {
			name, cause, code string
			amount            int64
		}{
			{"time-out", "timeout", c.silent, 11099},
			{"bad upstream MAC", "bad_answer", c.distrusted, 12097},
		} {
			t.Run("R-17 "+c.profile+" "+silent.name, func(t *testing.T) {
				raw, stan, undo := c.sale(silent.amount)
				got, err := c.link.Exchange(raw)
				must(t, err)
				if code := c.code(got); code != silent.code {
					t.Errorf("the terminal gets %s, want %s", code, silent.code)
				}
				reversed(t, c, silent.amount, stan, outcome{Answer: silent.code, Cause: silent.cause})
				joins(t, c, undo)
				reversed(t, c, silent.amount, stan, outcome{Answer: silent.code, Cause: silent.cause})
			})
		}
		t.Run("R-17 "+c.profile+" undeliverable answer", func(t *testing.T) {
			raw, stan, undo := c.sale(13090)
			must(t, c.link.Send(raw))
			eventually(t, "the sale is at the issuer", func() bool { return h.booking(c.tid, 13090) })
			must(t, c.link.Close())
			reversed(t, c, 13090, stan, outcome{Answer: "00", Cause: "undelivered"})
			c.link = c.dial()
			joins(t, c, undo)
		})
	}
	t.Run("R-17 restart", func(t *testing.T) {
		var stans []string
		var undos []func() []byte
		for _, c := range channels {
			raw, stan, undo := c.sale(14099)
			stans, undos = append(stans, stan), append(undos, undo)
			must(t, c.link.Send(raw))
		}
		for _, c := range channels {
			eventually(t, "the sale is at the issuer", func() bool { return h.booking(c.tid, 14099) })
		}
		h.stop()
		must(t, h.log.Close(context.Background()))
		must(t, h.db.Close())
		h.open()
		h.serve()
		for i, c := range channels {
			reversed(t, c, 14099, stans[i], outcome{Answer: c.silent, Cause: "restart"})
			c.link = c.dial()
			joins(t, c, undos[i])
		}
	})
}

// TestR17OneProfileForATerminal: a terminal is served by the listeners of its
// profile and by no other.
func TestR17OneProfileForATerminal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kiosk.toml")
	must(t, os.WriteFile(path, []byte("name = \"kiosk\"\nbase = \"ascii87\"\nabout = \"test\"\nmac_error_code = \"05\"\nincomplete_codes = [\"30\", \"05\"]\n"), 0o600))
	kiosk, err := profile.Find(path)
	must(t, err)
	h := newTwo(t, nil, func(cfg *isoswitch.Config) {
		cfg.Listeners = append(cfg.Listeners, isoswitch.Listener{Profile: kiosk, Terminals: []string{"T00001*"}})
	})
	ascii := func(n int, addr string) string {
		p := h.pos(n)
		p.link = h.dialAt(addr, "terminal")
		sale, err := p.Sale(1000+2*int64(n), visa, nil)
		must(t, err)
		return p.parsed(sale.Raw).Text(39)
	}
	packed := func(tid, mid string) string {
		u := &cup{&master{h: h, link: h.dialAt(h.further[0], "terminal")}, t}
		raw, err := u.buyBare("000001", tid, mid)
		must(t, err)
		return u.exchange(raw).Text(39)
	}
	master := func(addr string) string {
		raw, err := iso8583.ASCII87().Build("0800", iso8583.SideTerminal).
			Set(7, "1122110000").Set(11, "000001").Set(41, masterTID).Set(42, masterMID).Set(70, "301").PackWithoutMAC()
		must(t, err)
		link := h.dialAt(addr, "terminal")
		got, err := link.Exchange(raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(got, iso8583.SideTerminal)
		must(t, err)
		return m.Text(39)
	}
	for _, c := range []struct{ name, got, want string }{
		{"DUKPT at ascii87", ascii(0, h.addr), "00"},
		{"DUKPT at unionpay", packed("T0000001", "M00000000000001"), "97"},
		{"named for another profile, at ascii87", ascii(3, h.addr), "58"},
		{"named for another profile, at that", ascii(3, h.further[1]), "00"},
		{"not named, at that", ascii(0, h.further[1]), "58"},
		{"master key at ascii87", master(h.addr), "58"},
		{"master key at unionpay", packed(masterTID, masterMID), "A0"}, // its MAC is wrong
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
	refused := h.records(func(r record) bool { return r.Reason == "profile_denied" })
	if len(refused) != 4 {
		t.Errorf("%d refusals are recorded, want 4", len(refused))
	}
}

// buyBare is a sale of another terminal with a MAC of zeros.
func (u *cup) buyBare(stan, tid, mid string) ([]byte, error) {
	open, err := u.h.speech.Dialect.Build(iso8583.FinancialRequest, iso8583.SideTerminal).Head(head).
		Set(2, masterPAN).Set(3, "000000").Set(4, "000000001000").Set(11, stan).
		Set(22, "021").Set(25, "00").Set(41, tid).Set(42, mid).Set(49, "156").Set(60, "2200002400060").Pack()
	if err != nil {
		return nil, err
	}
	return open.Seal([8]byte{}), nil
}
