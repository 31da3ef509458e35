package softhsmtest_test

import (
	"bytes"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestFalseStatements are the requirements that contradict what popular texts
// say of reversals.
func TestFalseStatements(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p := h.pos(0)
	t.Run("R-67 a reversal changes neither amount nor type", func(t *testing.T) {
		sale, answer := p.sell(7100)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(4, "000000007098") }), "64")
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(3, "200000") }), "25")
		h.untouched(sale)
	})
	t.Run("R-68 a small sale is a sale", func(t *testing.T) {
		first, _ := p.sell(7200)
		small, answer := p.sell(2)
		wantCode(t, answer, "00")
		if got := h.find(small); got.MTI != "0200" || got.State != isoswitch.Approved {
			t.Errorf("it is a %s, %s", got.MTI, got.State)
		}
		h.untouched(first)
		h.untouched(small)
	})
	t.Run("R-70 a reversal confirms nothing, and a confirmation reverses nothing", func(t *testing.T) {
		sale, _ := p.sell(7300)
		before := h.rows()
		must(t, p.link.Send(append([]byte("0202"), sale.Raw[4:]...))) // no MTI of the dialect: no answer
		h.approves(t, p, 7302)
		after := h.rows()
		if len(after["reversal"]) != len(before["reversal"]) || h.find(sale).State != isoswitch.Approved {
			t.Errorf("a 0202 has changed something: the sale is %s", h.find(sale).State)
		}
	})
	t.Run("R-73 R-43 a decline makes no reversal", func(t *testing.T) {
		sale, answer := p.sell(7401)
		wantCode(t, answer, "51")
		h.quiet()
		h.untouched(sale)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "12")
		wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
		h.quiet()
		h.untouched(sale)
		if got := h.find(sale).State; got != isoswitch.Declined {
			t.Errorf("the sale is %s", got)
		}
	})
	t.Run("R-74 a reversal is no debit", func(t *testing.T) {
		sale, answer := p.sell(7500)
		debits := len(h.issuer.Book())
		for range 3 {
			wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, nil), "00")
		}
		h.awaitReversed(sale)
		h.quiet()
		if e := h.booked(sale); e.Messages != 1 || len(h.issuer.Book()) != debits {
			t.Errorf("the issuer has %d sales, before %d; of this one %d messages", len(h.issuer.Book()), debits, e.Messages)
		}
	})
	t.Run("R-75 no reversal goes to a terminal, and none is answered by one", func(t *testing.T) {
		sale, answer := p.sell(7600)
		before := len(h.records(func(r record) bool { return r.Reason == "unexpected_response" && r.ISO.Alert == "security" }))
		forged, err := p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		must(t, p.link.Send(append([]byte("0410"), forged.Raw[4:]...)))
		next, got := p.sell(7602) // what comes next is the answer to this
		if got.MTI() != "0210" || got.Text(11) != next.Message.Text(11) {
			t.Errorf("the terminal got a %s", got.MTI())
		}
		eventually(t, "the answer is recorded", func() bool {
			return len(h.records(func(r record) bool { return r.Reason == "unexpected_response" && r.ISO.Alert == "security" })) == before+1
		})
		h.untouched(sale)
	})
	t.Run("R-63 D-21 the printer has failed", func(t *testing.T) {
		sale, answer := p.sell(7700)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(39, "06") }), "00")
		h.awaitReversed(sale)
	})
}

// TestTokenComesBack is R-66: while the token is away nothing is accepted (D-05
// in TestSwitchOutage); when it is back work goes on without a restart, and what
// was queued is sent.
func TestTokenComesBack(t *testing.T) {
	t.Run("R-66 the token goes and comes back", func(t *testing.T) {
		h := newHouse(t, sim.DefaultRules(), nil)
		p := h.pos(0)
		sale, answer := p.sell(8200)
		addr := h.bank.Addr().String()
		h.unbank()
		eventually(t, "the link is down", func() bool { return !h.sw.Status().LinkUp })
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		module := pkcs11.New(h.token.Info().Module)
		if module == nil {
			t.Fatal("the module cannot be loaded")
		}
		must(t, module.Finalize()) // behind keyd's back: all its sessions are gone
		h.startIssuer(addr)
		amount := int64(8202)
		eventually(t, "a sale is approved", func() bool {
			next, err := p.Sale(amount, visa, nil)
			must(t, err)
			amount += 2
			code := p.parsed(next.Raw).Text(39)
			if code != "00" && code != "96" && code != "91" && code != "68" {
				t.Fatalf("answered %s", code)
			}
			return code == "00"
		})
		h.awaitReversed(sale)
		if h.token.Stats().Reloads == 0 {
			t.Error("the token was never away")
		}
	})
}

// TestZeroBytes is R-69: "00" approves, two zero bytes are no answer.
func TestZeroBytes(t *testing.T) {
	t.Run("R-69 R-33 zero bytes in DE 39", func(t *testing.T) {
		h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
			if m.MTI().Class() == '4' {
				return [][]byte{b.approve(m)}
			}
			approved := b.approve(m)
			at := bytes.Index(approved, []byte("00T0000001"))
			copy(approved[at:], "\x00\x00")
			return [][]byte{approved}
		}, nil)
		p := h.pos(0)
		sale, answer := p.sell(7800)
		if code := answer.Text(39); code != "68" && code != "96" {
			t.Errorf("answered %q", code)
		}
		eventually(t, "keyd has reversed the sale", func() bool { return h.find(sale).State == isoswitch.Reversed })
		if n := len(b.reversals()); n != 1 {
			t.Errorf("%d reversals upstream, want 1", n)
		}
	})
}

// TestCauses is R-19: the message upstream says why.
func TestCauses(t *testing.T) {
	var silent, bad atomic.Bool
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		switch {
		case m.MTI().Class() == '4':
		case silent.Load():
			return nil
		case bad.Load():
			wrong := b.approve(m)
			wrong[len(wrong)-1] ^= 1
			return [][]byte{wrong}
		}
		return [][]byte{b.approve(m)}
	}, nil)
	p := h.pos(0)
	reason := func(t *testing.T, sale *sim.Sent, want string) {
		t.Helper()
		eventually(t, "the sale is reversed", func() bool { return h.find(sale).State == isoswitch.Reversed })
		all := b.reversals()
		if got := all[len(all)-1].Text(39); got != want {
			t.Errorf("the reason upstream is %q, want %q", got, want)
		}
	}
	t.Run("R-19 no answer in time", func(t *testing.T) {
		silent.Store(true)
		defer silent.Store(false)
		sale, _ := p.sell(7900)
		reason(t, sale, "68")
	})
	t.Run("R-19 an answer with a wrong MAC", func(t *testing.T) {
		bad.Store(true)
		defer bad.Store(false)
		sale, _ := p.sell(7902)
		reason(t, sale, "06")
	})
	for _, c := range []struct{ name, code string }{{"device", "06"}, {"cancelled", "17"}, {"unknown to everybody", "ZZ"}} {
		t.Run("R-19 of a terminal: "+c.name, func(t *testing.T) {
			sale, answer := p.sell(7904)
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(39, c.code) }), "00")
			reason(t, sale, c.code)
		})
	}
	t.Run("R-04 nothing of the card but its number goes upstream again", func(t *testing.T) {
		for _, m := range b.reversals() {
			for _, de := range []int{26, 35, 36, 45, 52, 53, 62, 63} {
				if m.Has(de) {
					t.Errorf("a reversal has DE %d", de)
				}
			}
			if m.Text(2) != visa.PAN {
				t.Error("a reversal has another card")
			}
		}
		if len(b.reversals()) < 5 {
			t.Errorf("only %d reversals", len(b.reversals()))
		}
	})
}

// TestDroppedAnswers is R-09 upstream.
func TestDroppedAnswers(t *testing.T) {
	t.Run("R-09 as many tries as answers are dropped, and one more", repeatsUntilAnswered)
}

// repeatsUntilAnswered drops the first three answers to a reversal.
func repeatsUntilAnswered(t *testing.T) {
	const dropped = 3
	var n atomic.Int32
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' && n.Add(1) <= dropped {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) { c.Timers.Upstream = 100 * time.Millisecond })
	p := h.pos(0)
	sale, answer := p.sell(8000)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	eventually(t, "the reversal is confirmed", func() bool { return h.find(sale).State == isoswitch.Reversed })
	h.quiet()
	if got := b.reversals(); len(got) != dropped+1 {
		t.Errorf("%d messages, want %d", len(got), dropped+1)
	}
}

// TestLifeOfReversal is R-06: four times in order, in the journal, and a record
// of each step.
func TestLifeOfReversal(t *testing.T) {
	t.Run("R-06 built, sent, answered, closed", func(t *testing.T) {
		h := newHouse(t, sim.DefaultRules(), nil)
		p := h.pos(0)
		sale, answer := p.sell(8100)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		eventually(t, "the reversal is confirmed", func() bool { return h.find(sale).State == isoswitch.Reversed })
		var built, sent, last, answered, closed int64
		h.sql(func(db *sql.DB) error {
			return db.QueryRow("SELECT built, first_sent, last_sent, answered, closed FROM reversal").Scan(&built, &sent, &last, &answered, &closed)
		})
		if built == 0 || sent < built || last < sent || answered < last || closed < answered {
			t.Errorf("built %d, sent %d to %d, answered %d, closed %d", built, sent, last, answered, closed)
		}
		steps := func() (found []string) {
			for _, r := range h.records(func(r record) bool { return strings.HasPrefix(r.Action, "reversal.") }) {
				found = append(found, r.Action)
			}
			return found
		}
		eventually(t, "accepted, sent and answered are recorded", func() bool {
			all := strings.Join(steps(), " ")
			return strings.Contains(all, "reversal.accept") && strings.Contains(all, "reversal.forward") && strings.Contains(all, "reversal.answer")
		})
	})
}

// TestRetryPolicy is R-10: a policy is changed while reversals are queued.
func TestRetryPolicy(t *testing.T) {
	t.Run("R-10 a new policy holds for what is queued, a wrong one for nothing", func(t *testing.T) {
		h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Retry = isoswitch.Retry{First: time.Hour, Ceiling: time.Hour} })
		p := h.pos(0)
		silent := []sim.Rule{{Reversal: true, Code: "00", Silent: true}}
		addr := h.bank.Addr().String()
		h.unbank()
		eventually(t, "the link is down", func() bool { return !h.sw.Status().LinkUp })
		h.rules = silent
		h.startIssuer(addr)
		eventually(t, "the link is up", func() bool { return h.sw.Status().SignedOn })
		first, answer := p.sell(8300)
		wantCode(t, answer, "00")
		wantCode(t, p.undo(iso8583.ReversalRequest, first, answer, nil), "00")
		eventually(t, "the first try has come", func() bool { return h.booked(first).Received == 1 })
		cfg := h.config()
		set := isoswitch.Settings{Limits: cfg.Limits, Timers: cfg.Timers, Retry: cfg.Retry, Lockout: cfg.Lockout}
		bad := set
		bad.Retry.Ceiling = time.Millisecond
		if err := h.sw.Renew(bad); !errors.Is(err, isoswitch.ErrConfig) {
			t.Fatalf("a ceiling below the first delay: %v", err)
		}
		set.Retry = isoswitch.Retry{First: 50 * time.Millisecond, Ceiling: 100 * time.Millisecond}
		must(t, h.sw.Renew(set))
		second, answer := p.sell(8302)
		wantCode(t, p.undo(iso8583.ReversalRequest, second, answer, nil), "00")
		eventually(t, "the new delays hold", func() bool { return h.booked(second).Received >= 3 })
		if got := h.find(first).State; got != isoswitch.ReversalPending {
			t.Errorf("the reversal that was queued is %s", got)
		}
	})
}

// TestAbnormalReversals is R-21: each rule raises one record of its kind, and
// honest traffic none.
func TestAbnormalReversals(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p := h.pos(0)
	flagged := func(rule string) int {
		return len(h.records(func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == rule }))
	}
	rules := []string{"D-10", "D-13", "D-14", "D-34"}
	t.Run("R-21 a clean stream raises none", func(t *testing.T) {
		for n := range int64(3) {
			sale, answer := p.sell(8400 + 2*n)
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		}
		for _, rule := range rules {
			if n := flagged(rule); n != 0 {
				t.Errorf("%d records of %s", n, rule)
			}
		}
	})
	sale, answer := p.sell(8410)
	never, err := p.Sale(8412, visa, nil)
	must(t, err)
	for i, c := range []struct {
		name  string
		of    *sim.Sent
		draft sim.Draft
	}{
		{"R-21 no original", never, nil},
		{"R-21 another card", sale, func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }},
		{"R-21 another amount", sale, func(b *iso8583.Builder) { b.Set(4, "000000000100") }},
		{"R-21 out of its time", sale, func(b *iso8583.Builder) { b.Set(7, time.Now().UTC().Add(20*time.Minute).Format("0102150405")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			rrn, approval := answer.Text(37), answer.Text(38)
			if c.of == never {
				rrn, approval = "", ""
			}
			p.ask(p.Reversal(iso8583.ReversalRequest, c.of, rrn, approval, c.draft))
			for j, rule := range rules {
				if want := btoi(j <= i); flagged(rule) != want {
					t.Errorf("%d records of %s, want %d", flagged(rule), rule, want)
				}
			}
		})
	}
}
