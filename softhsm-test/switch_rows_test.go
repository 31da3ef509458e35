package softhsmtest_test

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// ledger is what a row may change: what is counted before and after it.
type ledger struct {
	txns, reversals int    // rows of the journal
	tables          string // a digest of both
	messages        int    // sales that the issuer has
	received        int    // reversals that the issuer has
}

func (h *house) ledger(t *testing.T) (l ledger) {
	t.Helper()
	h.quiet()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(h.dir, "keyd.db")+"?mode=ro&_busy_timeout=5000")
	must(t, err)
	defer db.Close()
	sum := sha256.New()
	for table, n := range map[string]*int{"txn": &l.txns, "reversal": &l.reversals} {
		must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(n))
	}
	for _, query := range []string{
		"SELECT hex(oid) || state || rrn || approval || answer || reverse_on_completion || refunded || reversed_amount FROM txn ORDER BY seq",
		"SELECT hex(rid) || state || answer || rrn || approval || tries || coalesce(hex(content), '') FROM reversal ORDER BY seq",
	} {
		rows, err := db.Query(query)
		must(t, err)
		for rows.Next() {
			var text string
			must(t, rows.Scan(&text))
			fmt.Fprintln(sum, text)
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	l.tables = fmt.Sprintf("%x", sum.Sum(nil))
	for _, e := range h.issuer.Book() {
		l.messages += e.Messages
		l.received += e.Received
	}
	return l
}

// situation is an original with its answer, and what is sent about it.
type situation struct {
	sale   *sim.Sent
	answer *iso8583.Message
}

// rowCase is one row of section 10 with all that section 10.3 wants looked at.
type rowCase struct {
	row     string
	name    string
	request string // DE 39 of the 0410
	advice  string // DE 39 of the 0430; empty: as the request
	make    func(p *pos) situation
	draft   func(s situation) sim.Draft
	action  string          // of the record
	state   isoswitch.State // of the original afterwards; empty: none is journalled
	rows    int             // reversals more in the journal
	stones  int             // originals more in the journal: tombstones
	sent    int             // reversals more upstream
	held    bool            // the advice waits for two persons
}

// TestEveryRow sends each row as a request and as an advice and looks at answer and
// MAC, state of the original, messages upstream, rows of the journal and record
// (section 10.3). What has no effect leaves both tables as they were.
func TestEveryRow(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Timers.MaxAge = time.Hour })
	p := h.pos(0)
	amount := int64(1000)
	next := func() int64 { amount += 2; return amount }
	sold := func(p *pos) situation {
		sale, answer := p.sell(next())
		return situation{sale, answer}
	}
	reversed := func(p *pos) situation {
		s := sold(p)
		wantCode(t, p.undo(iso8583.ReversalRequest, s.sale, s.answer, nil), "00")
		h.settled(t, s.sale)
		return s
	}
	after := func(send func(p *pos, s situation) (*sim.Sent, error)) func(p *pos) situation {
		return func(p *pos) situation {
			s := sold(p)
			wantCode(t, p.ask(send(p, s)), "00")
			return s
		}
	}
	set := func(de int, value string) func(situation) sim.Draft {
		return func(situation) sim.Draft { return func(b *iso8583.Builder) { b.Set(de, value) } }
	}
	rest := func(minor int64) func(situation) sim.Draft {
		text, err := iso8583.ReplacementText(minor)
		must(t, err)
		return set(95, text)
	}
	naming := func(change func(o *iso8583.OriginalData)) func(situation) sim.Draft {
		return func(s situation) sim.Draft {
			o := iso8583.OriginalData{MTI: s.sale.Message.MTI(), STAN: s.sale.Message.Text(11), DateTime: s.sale.Message.Text(7)}
			change(&o)
			text, err := o.Text()
			must(t, err)
			return func(b *iso8583.Builder) { b.Set(90, text) }
		}
	}
	const refuse, accept, repeat = "reversal.refuse", "reversal.accept", "reversal.repeat"
	for _, c := range []rowCase{
		{row: "D-07", name: "exact repeat", request: "00", make: reversed, action: repeat, state: isoswitch.Reversed},
		{row: "D-09", name: "another content", request: "64", advice: "94", make: reversed, draft: set(4, "000000009999"), action: refuse, state: isoswitch.Reversed},
		{row: "D-10", name: "could still arrive", request: "25", advice: "00", action: refuse, rows: 1, stones: 1, state: isoswitch.Tombstone, make: func(p *pos) situation {
			sale, err := p.Sale(next(), visa, nil)
			must(t, err)
			return situation{sale: sale}
		}},
		{row: "D-11", name: "outside the window", request: "25", make: sold, action: refuse, state: isoswitch.Approved, draft: naming(func(o *iso8583.OriginalData) {
			o.DateTime = time.Now().UTC().Add(-9 * 24 * time.Hour).Format("0102150405")
		})},
		{row: "D-13", name: "PAN", request: "14", make: sold, draft: set(2, "5555555555554444"), action: refuse, state: isoswitch.Approved},
		{row: "D-14", name: "R-67 amount", request: "64", make: sold, draft: set(4, "000000000001"), action: refuse, state: isoswitch.Approved},
		{row: "D-15", name: "R-67 type", request: "25", make: sold, draft: set(3, "200000"), action: refuse, state: isoswitch.Approved},
		{row: "D-16", name: "R-43 declined", request: "12", advice: "00", action: refuse, state: isoswitch.Declined, make: func(p *pos) situation {
			sale, answer := p.sell(next() + 1)
			return situation{sale, answer}
		}},
		{row: "D-17", name: "balance", request: "12", action: refuse, state: isoswitch.Approved, make: func(p *pos) situation {
			sale, err := p.Sale(next(), visa, func(b *iso8583.Builder) { b.Set(3, "310000") })
			return situation{sale, p.ask(sale, err)}
		}},
		{row: "D-19", name: "timed out", request: "00", action: accept, state: isoswitch.Reversed, make: func(p *pos) situation {
			sale, answer := p.sell(100*next() + 99)
			h.settled(t, sale)
			return situation{sale, answer}
		}},
		{row: "D-21", name: "R-68 R-74 approved", request: "00", make: sold, action: accept, state: isoswitch.Reversed, rows: 1, sent: 1},
		{row: "D-22", name: "reversed in part", request: "22", advice: "00", action: refuse, state: isoswitch.Approved, make: after(func(p *pos, s situation) (*sim.Sent, error) {
			return p.Reversal(iso8583.ReversalRequest, s.sale, s.answer.Text(37), s.answer.Text(38), rest(500)(s))
		})},
		{row: "D-23", name: "voided", request: "22", action: refuse, state: isoswitch.Voided, make: after(func(p *pos, s situation) (*sim.Sent, error) { return p.Void(s.sale, nil) })},
		{row: "D-23", name: "refunded", request: "22", action: refuse, state: isoswitch.Approved, make: after(func(p *pos, s situation) (*sim.Sent, error) { return p.Refund(s.sale, 100, nil) })},
		{row: "D-24", name: "completed", request: "22", action: refuse, state: isoswitch.Completed, make: func(p *pos) situation {
			preauth, err := p.Preauth(next(), visa, nil)
			s := situation{preauth, p.ask(preauth, err)}
			wantCode(t, p.ask(p.Complete(preauth, 500, nil)), "00")
			return s
		}},
		{row: "D-26", name: "part", request: "00", make: sold, draft: rest(400), action: accept, state: isoswitch.Approved, rows: 1, sent: 1},
		{row: "D-27", name: "part that leaves nothing", request: "13", make: sold, draft: rest(0), action: refuse, state: isoswitch.Approved},
		{row: "D-28", name: "reversal of a reversal", request: "12", make: sold, action: refuse, state: isoswitch.Approved, draft: naming(func(o *iso8583.OriginalData) { o.MTI = "0400" })},
		{row: "D-29", name: "reversal of a void", request: "00", action: accept, state: isoswitch.Reversed, rows: 1, sent: 1, make: func(p *pos) situation {
			void, err := p.Void(sold(p).sale, nil)
			return situation{void, p.ask(void, err)}
		}},
		{row: "D-34", name: "dated ahead", request: "22", advice: "00", make: sold, action: refuse, state: isoswitch.Approved, held: true, draft: set(7, time.Now().UTC().Add(20*time.Minute).Format("0102150405"))},
	} {
		for _, advice := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s, advice %v", c.row, c.name, advice), func(t *testing.T) { h.checkRow(t, p, c, advice) })
		}
	}
}

func (h *house) checkRow(t *testing.T, p *pos, c rowCase, advice bool) {
	mti, code := iso8583.ReversalRequest, c.request
	if advice {
		mti = iso8583.ReversalAdvice
		if c.advice != "" {
			code = c.advice
		}
		if c.held {
			c.action, c.state, c.rows = "reversal.hold", isoswitch.ReversalHeld, 1
		}
	}
	s := c.make(p)
	var draft sim.Draft
	if c.draft != nil {
		draft = c.draft(s)
	}
	var rrn, approval string
	if s.answer != nil {
		rrn, approval = s.answer.Text(37), s.answer.Text(38)
	}
	fits := func(r record) bool { return r.ISO.Rule == c.row && r.MAC.Verdict == "ok" }
	before, records := h.ledger(t), len(h.records(fits))
	answer := p.ask(p.Reversal(mti, s.sale, rrn, approval, draft)) // its MAC is verified
	if answer.MTI() != mti.Response() {
		t.Errorf("the answer is a %s", answer.MTI())
	}
	wantCode(t, answer, code)
	after := h.ledger(t)
	if got := after.reversals - before.reversals; got != c.rows {
		t.Errorf("%d reversals more in the journal, want %d", got, c.rows)
	}
	if got := after.txns - before.txns; got != c.stones {
		t.Errorf("%d originals more in the journal, want %d", got, c.stones)
	}
	if got := after.received - before.received; got != c.sent {
		t.Errorf("%d reversals more upstream, want %d", got, c.sent)
	}
	if after.messages != before.messages {
		t.Error("R-74: a reversal has made a sale upstream")
	}
	if c.rows == 0 && c.row != "D-19" && after.tables != before.tables {
		t.Error("a row without an effect has changed the journal")
	}
	if rec := h.journalled(s.sale); rec == nil || rec.State != c.state {
		t.Errorf("the original is %+v, want it %s", rec, c.state)
	}
	found := h.records(fits)[records:]
	action := c.action
	if code == "00" && action == "reversal.refuse" {
		action = "" // an advice is answered 00 without an effect: refused or accepted, it has its row
	}
	if len(found) != 1 || found[0].ISO.DE39 != code || action != "" && found[0].Action != action {
		t.Errorf("the records are %+v, want one %s", found, c.action)
	}
}

// TestEveryRowBeforeTheMAC: what fails before a message is believed changes nothing
// but counters, lock-out and log (D-03, D-04, D-06, I-6).
func TestEveryRowBeforeTheMAC(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	victim, thief := h.pos(0), h.pos(2)
	sale, answer := victim.sell(1000)
	done, again := victim.sell(1002)
	past, err := victim.Reversal(iso8583.ReversalRequest, done, again.Text(37), again.Text(38), nil)
	wantCode(t, victim.ask(past, err), "00")
	h.settled(t, done)
	for _, f := range sim.Forgeries() {
		if f.Row != "D-03" && f.Row != "D-04" && f.Row != "D-06" {
			continue
		}
		t.Run(f.Row+" "+f.Name, func(t *testing.T) {
			victim.link = h.dial("terminal") // no lock-out in between
			before := h.ledger(t)
			forged, err := f.Make(victim.Terminal, thief.Terminal, sale, past)
			must(t, err)
			raw, err := victim.link.Exchange(forged.Raw)
			must(t, err)
			m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
			must(t, err)
			wantCode(t, m, "63")
			if after := h.ledger(t); after != before {
				t.Errorf("the journal or the issuer changed: %+v, before %+v", after, before)
			}
		})
	}
	victim.link = h.dial("terminal")
	wantCode(t, victim.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.settled(t, sale)
}
