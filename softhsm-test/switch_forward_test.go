package softhsmtest_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchForward is the store-and-forward of reversals against an upstream
// that does what it should not.
func TestSwitchForward(t *testing.T) {
	t.Run("D-32 D-33 A-14.T1 until an answer whose MAC verifies", untilBelieved)
	t.Run("D-30 upstream knows no original", func(t *testing.T) {
		upstreamSays(t, "25", isoswitch.ReversedUnknown, "reversal.close", "D-30", 1)
	})
	t.Run("D-31 upstream declines", func(t *testing.T) {
		upstreamSays(t, "12", isoswitch.ReversalFailed, "reversal.fail", "D-31", 3)
	})
	t.Run("W-13 D-31 after a decline the next try waits for the back-off alone", declinedIsTriedSoon)
	t.Run("D-32 tries used up", triesUsedUp)
	t.Run("A-06.T2 an answer that nobody asked for", unasked)
	t.Run("R-01 R-03 crash with a sale in flight", crashes)
	t.Run("D-26 parts go upstream in order", partsInOrder)
}

// find is the journal's record of a sale.
func (h *house) find(sale *sim.Sent) (found *isoswitch.Txn) {
	h.t.Helper()
	var raw []byte
	h.sql(func(db *sql.DB) error {
		return db.QueryRow("SELECT oid FROM txn WHERE stan = ? AND tid = ?", sale.Message.Text(11), sale.Message.Text(41)).Scan(&raw)
	})
	must(h.t, h.db.View(h.t.Context(), func(tx isoswitch.Tx) (err error) {
		found, err = tx.Txn(isoswitch.OID(raw))
		return err
	}))
	return found
}

// sql looks at the database file, or changes it, behind the store's back.
func (h *house) sql(work func(*sql.DB) error) {
	h.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(h.dir, "keyd.db")+"?_busy_timeout=5000")
	must(h.t, err)
	must(h.t, errors.Join(work(db), db.Close()))
}

func untilBelieved(t *testing.T) {
	var n atomic.Int32
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' {
			return [][]byte{b.approve(m)}
		}
		switch n.Add(1) {
		case 1: // silence
			return nil
		case 2: // a wrong MAC
			bad := b.approve(m)
			bad[len(bad)-1] ^= 1
			return [][]byte{bad}
		case 3: // keyd's own message sent back, its MTI changed
			return [][]byte{append([]byte("0430"), m.Raw()[4:]...)}
		case 4: // a genuine answer to something else
			return [][]byte{b.seal(m.Answer("00").Set(4, "000000000001"))}
		}
		return [][]byte{b.approve(m)}
	}, nil)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	eventually(t, "the reversal is confirmed", func() bool { return h.find(sale).State == isoswitch.Reversed })
	got := b.reversals()
	if len(got) != 5 || got[0].MTI() != "0420" {
		t.Fatalf("%d messages, the first a %s; want 0420 and four 0421", len(got), got[0].MTI())
	}
	up := b.received(iso8583.FinancialRequest)[0]
	for _, m := range got {
		if m != got[0] && m.MTI() != "0421" {
			t.Errorf("a repeat is a %s", m.MTI())
		}
		if m.Text(11) != got[0].Text(11) || m.Text(37) != up.Text(37) || m.Text(90) != got[0].Text(90) {
			t.Errorf("W-08: a try has another STAN, RRN or DE 90")
		}
		if names, _ := m.Original(); names.STAN != up.Text(11) || names.DateTime != up.Text(7) || names.MTI != "0200" {
			t.Errorf("W-08: DE 90 names %+v, want the 0200 that keyd sent", names)
		}
		for _, de := range []int{35, 52, 62, 63} {
			if m.Has(de) {
				t.Errorf("R-04: a reversal has DE %d", de)
			}
		}
	}
	if bad := h.records(func(r record) bool { return r.Action == "response.refuse" && r.ISO.Rule == "D-33" }); len(bad) != 2 {
		t.Errorf("%d records of answers that were not believed, want 2", len(bad))
	}
	turned := func(r record) bool {
		return r.Action == "frame.refuse" && r.ISO.MTI == "0430" && r.ISO.Alert == "security"
	}
	if bad := h.records(turned); len(bad) != 1 {
		t.Errorf("%d records of the message that was turned round, want 1", len(bad))
	}
}

func upstreamSays(t *testing.T, code string, want isoswitch.State, action, rule string, messages int) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' {
			return [][]byte{b.approve(m)}
		}
		return [][]byte{b.seal(m.Answer(code))}
	}, func(c *isoswitch.Config) { c.Timers.Upstream = 100 * time.Millisecond })
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "the reversal is closed", func() bool { return h.find(sale).State == want })
	eventually(t, "its end is recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Action == action && r.ISO.Rule == rule })) == 1
	})
	if got := b.reversals(); len(got) != messages {
		t.Errorf("%d messages upstream, want %d", len(got), messages)
	}
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, nil), "00") // D-07 all the same
}

func triesUsedUp(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' {
			return [][]byte{b.approve(m)}
		}
		return nil
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream = 50 * time.Millisecond
		c.Retry.Tries = 3
	})
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	eventually(t, "the reversal was given up", func() bool { return h.find(sale).State == isoswitch.ReversalFailed })
	if got := b.reversals(); len(got) != 3 {
		t.Errorf("%d messages upstream, want 3", len(got))
	}
	// The upstream comes to its senses: a late answer to a reversal given up changes nothing.
	b.write(b.approve(b.reversals()[0]))
	eventually(t, "the late answer is recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Action == "reversal.answer" && r.Outcome == "ok" })) == 1
	})
	if got := h.find(sale).State; got != isoswitch.ReversalFailed {
		t.Errorf("the state is %s", got)
	}
}

func unasked(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	p := h.pos(0)
	p.sell(1000)
	genuine := b.received(iso8583.FinancialRequest)[0]
	b.write(b.seal(genuine.Answer("00").Set(11, "999998")))
	b.write(b.approve(genuine)) // the answer once more
	b.write(genuine.Raw())      // and a request, which no upstream sends
	eventually(t, "the answers are recorded", func() bool {
		return len(h.records(func(r record) bool {
			return r.Action == "response.refuse" && r.Reason == "unexpected_response" && r.ISO.Alert == "security"
		})) == 2
	})
	eventually(t, "the request is recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Action == "frame.refuse" && r.ISO.MTI == "0200" })) == 1
	})
	_, answer := p.sell(1002)
	wantCode(t, answer, "00")
}

// crashes cuts the switch off while a sale waits for upstream, as a kill does to
// the journal: it stays FORWARDED.
func crashes(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream, c.Timers.Switch, c.Timers.Drain = 5*time.Second, 6*time.Second, time.Millisecond
	})
	p := h.pos(0)
	sale, err := p.Sale(1000, visa, nil)
	must(t, err)
	must(t, p.link.Send(sale.Raw))
	eventually(t, "the sale has left", func() bool { return len(b.received(iso8583.FinancialRequest)) == 1 })
	h.stop()
	if got := h.find(sale).State; got != isoswitch.Forwarded {
		t.Fatalf("after the cut the journal says %s, want FORWARDED", got)
	}
	must(t, h.log.Close(context.Background()))
	must(t, h.db.Close())
	h.open()
	h.serve()
	eventually(t, "the sale is reversed", func() bool { return h.find(sale).State == isoswitch.Reversed })
	if got := b.reversals(); len(got) != 1 || got[0].MTI() != "0420" || got[0].Text(39) != "68" {
		t.Errorf("upstream got %v, want one 0420 with reason 68", got)
	}
	p.link = h.dial("terminal")
	wantCode(t, p.ask(p.Reversal(iso8583.ReversalRequest, sale, "", "", nil)), "00") // D-19
	h.reopen()
	h.quiet()
	if got := b.reversals(); len(got) != 1 {
		t.Errorf("after another start upstream has %d reversals, want 1", len(got))
	}
}

func partsInOrder(t *testing.T) {
	var n atomic.Int32
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() != '4' || n.Add(1) > 2 {
			return [][]byte{b.approve(m)}
		}
		return nil
	}, func(c *isoswitch.Config) { c.Timers.Upstream = 100 * time.Millisecond })
	p := h.pos(0)
	sale, answer := p.sell(1000)
	for _, rest := range []int64{600, 300, 100} {
		text, err := iso8583.ReplacementText(rest)
		must(t, err)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(95, text) }), "00")
	}
	eventually(t, "all parts are sent", func() bool { return len(b.reversals()) == 5 })
	want := []int64{600, 600, 600, 300, 100}
	for i, m := range b.reversals() {
		if rest, _ := m.Rest(); rest != want[i] {
			t.Errorf("message %d leaves %d, want %d", i, rest, want[i])
		}
	}
	if x := h.find(sale); x.State != isoswitch.Approved || x.ReversedAmount != 900 {
		t.Errorf("the sale is %s with %d reversed", x.State, x.ReversedAmount)
	}
}
