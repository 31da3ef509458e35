package softhsmtest_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchVoids runs voids, pre-authorizations, completions and refunds of sales
// over a real token, database, log and TLS: answer and MAC, both states, and what
// the issuer has.
func TestSwitchVoids(t *testing.T) {
	rules := append([]sim.Rule{{Suffix: "90", Code: "00", Delay: 300 * time.Millisecond}}, sim.DefaultRules()...)
	h := newHouse(t, rules, nil)
	p, other := h.pos(0), h.pos(2)
	t.Run("U-17 void of a sale, D-23, A-13, D-29", func(t *testing.T) { h.voids(t, p) })
	t.Run("U-18 void of a pre-authorization, D-29", func(t *testing.T) { h.voidsPreauth(t, p) })
	t.Run("U-19 completion, D-24, its void, D-29", func(t *testing.T) { h.completes(t, p) })
	t.Run("U-19 reversal of a completion", func(t *testing.T) { h.reversesCompletion(t, p) })
	t.Run("D-23 refund of a sale", func(t *testing.T) { h.refunds(t, p) })
	t.Run("R-70 reversal of an open pre-authorization", func(t *testing.T) { h.reversesPreauth(t, p) })
	t.Run("R-02 what a void must equal", func(t *testing.T) { h.refusesRelations(t, p, other) })
	t.Run("R-02 what became of the original", func(t *testing.T) { h.refusesRelationStates(t, p) })
	t.Run("a void in flight", func(t *testing.T) { h.voidInFlight(t, p) })
	t.Run("R-01 a void without an answer", func(t *testing.T) { h.voidUnknown(t, p) })
	t.Run("7.4 D-29 nobody takes the answer to a void", func(t *testing.T) { h.voidUndelivered(t) })
}

// stateOf is what the journal has of a message.
func (h *house) stateOf(sent *sim.Sent) isoswitch.State {
	h.t.Helper()
	return h.journalled(sent).State
}

// journalled is the record of a message, or nil.
func (h *house) journalled(sent *sim.Sent) *isoswitch.Txn {
	h.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(h.dir, "keyd.db")+"?mode=ro&_busy_timeout=5000")
	must(h.t, err)
	defer db.Close()
	var oid []byte
	m := sent.Message
	row := db.QueryRow("SELECT oid FROM txn WHERE tid = ? AND stan = ? AND sent = ?", m.Text(41), m.Text(11), m.Text(7))
	if err := row.Scan(&oid); errors.Is(err, sql.ErrNoRows) {
		return nil
	} else {
		must(h.t, err)
	}
	var found *isoswitch.Txn
	must(h.t, h.db.View(h.t.Context(), func(tx isoswitch.Tx) (err error) {
		found, err = tx.Txn(isoswitch.OID(oid))
		return err
	}))
	return found
}

// atIssuer is what the issuer has of a message, found by what keyd sent upstream.
func (h *house) atIssuer(sent *sim.Sent) *sim.Entry {
	h.t.Helper()
	rec := h.journalled(sent)
	for _, e := range h.issuer.Book() {
		if rec != nil && rec.UpSTAN != "" && e.STAN == rec.UpSTAN && e.DateTime == rec.UpSent {
			return &e
		}
	}
	return nil
}

// wantStates checks the journal's state of a message, and the issuer's.
func (h *house) wantStates(t *testing.T, sent *sim.Sent, state isoswitch.State, issuer string) {
	t.Helper()
	if got := h.stateOf(sent); got != state {
		t.Errorf("the journal has %s, want %s", got, state)
	}
	e := h.atIssuer(sent)
	if e == nil || e.State != issuer || e.Messages != 1 {
		t.Errorf("the issuer has %+v, want it %s after one message", e, issuer)
	}
}

// settled waits until upstream has confirmed the reversal of a message.
func (h *house) settled(t *testing.T, sent *sim.Sent) {
	t.Helper()
	eventually(t, "the reversal is confirmed", func() bool { return h.stateOf(sent) == isoswitch.Reversed })
	if e := h.atIssuer(sent); e.Effective != 1 || e.State != "reversed" {
		t.Errorf("the issuer has %+v, want one effective reversal", *e)
	}
}

func (h *house) voids(t *testing.T, p *pos) {
	sale, answer := p.sell(1000)
	void, err := p.Void(sale, nil)
	voided := p.ask(void, err)
	wantCode(t, voided, "00")
	if voided.Text(37) == "" || voided.Text(38) == "" || voided.Text(3) != "200000" {
		t.Errorf("the answer is %v", voided)
	}
	h.wantStates(t, sale, isoswitch.Voided, "voided")
	h.wantStates(t, void, isoswitch.Approved, "approved")
	if got := h.journalled(void); got.RefersTo != h.journalled(sale).OID {
		t.Error("the void does not refer to the sale")
	}
	// D-23: nothing else can be done to the sale.
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "22")
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "22")
	wantCode(t, p.ask(p.Void(sale, nil)), "22")
	// nor can it be had again.
	wantCode(t, p.ask(p.Sale(1000, visa, func(b *iso8583.Builder) { b.Copy(sale.Message, 7, 11, 12, 13) })), "94")
	// the void again is the void.
	again := p.ask(p.Void(sale, func(b *iso8583.Builder) { b.Copy(void.Message, 7, 11, 12, 13) }))
	if again.Text(39)+again.Text(37)+again.Text(38) != "00"+voided.Text(37)+voided.Text(38) {
		t.Errorf("the repeat of the void got %v", again)
	}
	h.wantStates(t, sale, isoswitch.Voided, "voided")

	// D-29: the reversal of the void brings the sale back.
	wantCode(t, p.undo(iso8583.ReversalRequest, void, voided, nil), "00")
	if got := h.stateOf(sale); got != isoswitch.Approved {
		t.Errorf("the sale is %s once the reversal of its void is answered", got)
	}
	wantCode(t, p.undo(iso8583.ReversalRepeat, void, voided, nil), "00") // D-07
	h.settled(t, void)
	h.wantStates(t, sale, isoswitch.Approved, "approved")
	if n := len(h.records(func(r record) bool { return r.Action == "reversal.accept" && r.ISO.Rule == "D-29" })); n != 1 {
		t.Errorf("%d records of D-29, want 1", n)
	}
	// And the sale can be voided again, or reversed.
	void2, err := p.Void(sale, nil)
	voided2 := p.ask(void2, err)
	wantCode(t, voided2, "00")
	h.wantStates(t, sale, isoswitch.Voided, "voided")
	wantCode(t, p.undo(iso8583.ReversalAdvice, void2, voided2, nil), "00")
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.settled(t, void2)
	h.settled(t, sale)
}

func (h *house) voidsPreauth(t *testing.T, p *pos) {
	preauth, err := p.Preauth(2000, visa, nil)
	wantCode(t, p.ask(preauth, err), "00")
	void, err := p.Void(preauth, nil)
	voided := p.ask(void, err)
	if wantCode(t, voided, "00"); voided.MTI() != "0110" {
		t.Errorf("the answer is a %s", voided.MTI())
	}
	h.wantStates(t, preauth, isoswitch.Voided, "voided")
	wantCode(t, p.ask(p.Complete(preauth, 2000, nil)), "22") // D-23
	wantCode(t, p.undo(iso8583.ReversalRequest, void, voided, nil), "00")
	h.settled(t, void)
	h.wantStates(t, preauth, isoswitch.Approved, "approved")
	wantCode(t, p.ask(p.Complete(preauth, 1500, nil)), "00")
	h.wantStates(t, preauth, isoswitch.Completed, "completed")
}

func (h *house) completes(t *testing.T, p *pos) {
	preauth, err := p.Preauth(3000, visa, nil)
	answer := p.ask(preauth, err)
	wantCode(t, answer, "00")
	wantCode(t, p.ask(p.Complete(preauth, 3002, nil)), "64") // above what was reserved
	completion, err := p.Complete(preauth, 2800, nil)
	completed := p.ask(completion, err)
	wantCode(t, completed, "00")
	h.wantStates(t, preauth, isoswitch.Completed, "completed")
	h.wantStates(t, completion, isoswitch.Approved, "approved")
	// D-24: later activity.
	wantCode(t, p.undo(iso8583.ReversalRequest, preauth, answer, nil), "22")
	wantCode(t, p.undo(iso8583.ReversalAdvice, preauth, answer, nil), "22")
	wantCode(t, p.ask(p.Void(preauth, nil)), "22")
	wantCode(t, p.ask(p.Complete(preauth, 100, nil)), "22")
	if n := len(h.records(func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == "D-24" })); n != 2 {
		t.Errorf("%d records of D-24, want 2", n)
	}
	// The void of the completion, and D-29 for it.
	void, err := p.Void(completion, nil)
	voided := p.ask(void, err)
	wantCode(t, voided, "00")
	h.wantStates(t, completion, isoswitch.Voided, "voided")
	wantCode(t, p.undo(iso8583.ReversalRequest, completion, completed, nil), "22") // D-23
	wantCode(t, p.undo(iso8583.ReversalRequest, void, voided, nil), "00")
	h.settled(t, void)
	h.wantStates(t, completion, isoswitch.Approved, "approved")
	h.wantStates(t, preauth, isoswitch.Completed, "completed")
}

// reversesCompletion: the pre-authorization is open again (section 2.2).
func (h *house) reversesCompletion(t *testing.T, p *pos) {
	preauth, err := p.Preauth(4000, visa, nil)
	wantCode(t, p.ask(preauth, err), "00")
	completion, err := p.Complete(preauth, 4000, nil)
	completed := p.ask(completion, err)
	wantCode(t, completed, "00")
	wantCode(t, p.undo(iso8583.ReversalRequest, completion, completed, nil), "00")
	if got := h.stateOf(preauth); got != isoswitch.Approved {
		t.Errorf("the pre-authorization is %s", got)
	}
	h.settled(t, completion)
	h.wantStates(t, preauth, isoswitch.Approved, "approved")
	wantCode(t, p.ask(p.Complete(preauth, 3998, nil)), "00")
	h.wantStates(t, preauth, isoswitch.Completed, "completed")
}

func (h *house) refunds(t *testing.T, p *pos) {
	sale, answer := p.sell(5000)
	wantCode(t, p.ask(p.Refund(sale, 5002, nil)), "64")
	refund, err := p.Refund(sale, 3000, nil)
	refunded := p.ask(refund, err)
	if wantCode(t, refunded, "00"); refunded.MTI() != "0230" {
		t.Errorf("the answer is a %s", refunded.MTI())
	}
	if rec := h.journalled(sale); rec.State != isoswitch.Approved || !rec.Refunded {
		t.Errorf("the sale is %s, refunded %v", rec.State, rec.Refunded)
	}
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "22") // D-23
	wantCode(t, p.ask(p.Void(sale, nil)), "22")
	wantCode(t, p.ask(p.Refund(sale, 1000, nil)), "22")
	wantCode(t, p.undo(iso8583.ReversalRequest, refund, refunded, nil), "00")
	h.settled(t, refund)
	if rec := h.journalled(sale); rec.Refunded {
		t.Error("the sale is still refunded once its refund is reversed")
	}
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.settled(t, sale)
}

func (h *house) reversesPreauth(t *testing.T, p *pos) {
	preauth, err := p.Preauth(6000, visa, nil)
	answer := p.ask(preauth, err)
	wantCode(t, answer, "00")
	wantCode(t, p.undo(iso8583.ReversalRequest, preauth, answer, nil), "00")
	h.settled(t, preauth)
	wantCode(t, p.ask(p.Complete(preauth, 6000, nil)), "22") // D-22
	if e := h.atIssuer(preauth); e.Messages != 1 || e.State != "reversed" {
		t.Errorf("the issuer has %+v: a reversal is no completion", *e)
	}
}

// refusesRelations changes one attribute of a good void at a time.
func (h *house) refusesRelations(t *testing.T, p, other *pos) {
	sale, answer := p.sell(7000)
	named := func(m iso8583.MTI, stan, sent, acquirer string) string {
		text, err := iso8583.OriginalData{MTI: m, STAN: stan, DateTime: sent, Acquirer: acquirer}.Text()
		must(t, err)
		return text
	}
	stan, sent := sale.Message.Text(11), sale.Message.Text(7)
	for _, c := range []struct {
		name, code, rule string
		draft            sim.Draft
	}{
		{"D-11 no original", "25", "D-11", func(b *iso8583.Builder) { b.Set(90, named("0200", "765432", sent, "")) }},
		{"D-13 PAN", "14", "D-13", func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }},
		{"D-14 amount", "64", "D-14", func(b *iso8583.Builder) { b.Set(4, "000000007002") }},
		{"D-14 currency", "64", "D-14", func(b *iso8583.Builder) { b.Set(49, "156") }},
		{"D-15 account type in DE 3", "25", "D-15", func(b *iso8583.Builder) { b.Set(3, "201000") }},
		{"D-15 condition code", "25", "D-15", func(b *iso8583.Builder) { b.Set(25, "06") }},
		{"D-15 second in DE 90", "25", "D-15", func(b *iso8583.Builder) { b.Set(90, named("0200", stan, sent[:9]+string('0'+('9'-sent[9])), "")) }},
		{"D-15 acquirer in DE 90", "25", "D-15", func(b *iso8583.Builder) { b.Set(90, named("0200", stan, sent, "123456")) }},
		{"D-11 class in DE 90", "25", "D-11", func(b *iso8583.Builder) { b.Set(90, named("0100", stan, sent, "")) }},
		{"D-17 completion of a sale", "12", "D-17", func(b *iso8583.Builder) { b.Set(3, "000000").Set(25, "06") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused := func(r record) bool { return r.Action == "sale.refuse" && r.ISO.Rule == c.rule }
			before := len(h.records(refused))
			void, err := p.Void(sale, c.draft)
			if c.name == "D-17 completion of a sale" { // of one that has the condition code of a completion
				odd, err := p.Sale(7004, visa, func(b *iso8583.Builder) { b.Set(25, "06") })
				wantCode(t, p.ask(odd, err), "00")
				void, err = p.Complete(odd, 7004, nil)
				must(t, err)
			}
			wantCode(t, p.ask(void, err), c.code)
			if n := len(h.records(refused)) - before; n != 1 {
				t.Errorf("%d records of the refusal, want 1", n)
			}
			if e := h.atIssuer(void); e != nil {
				t.Errorf("the issuer has %+v of a void that was refused", *e)
			}
			h.wantStates(t, sale, isoswitch.Approved, "approved")
		})
	}
	t.Run("A-01 void by another terminal", func(t *testing.T) {
		wantCode(t, other.ask(other.Void(sale, nil)), "25")
		h.wantStates(t, sale, isoswitch.Approved, "approved")
	})
	t.Run("W-05 DE 90 in a sale", func(t *testing.T) {
		// No terminal can build it: the sale's own DE 3 is put into a void.
		void, err := p.Void(sale, nil)
		must(t, err)
		raw := append([]byte(nil), void.Raw...)
		at := 4 + 32 + 2 + len(visa.PAN) // MTI, bitmaps, DE 2
		copy(raw[at:], "000000")
		answer, err := p.link.Exchange(raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(answer, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "30")
	})
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
}

// refusesRelationStates voids what can no longer be voided.
func (h *house) refusesRelationStates(t *testing.T, p *pos) {
	declined, _ := p.sell(8001)
	wantCode(t, p.ask(p.Void(declined, nil)), "12") // D-16
	reversed, answer := p.sell(8002)
	wantCode(t, p.undo(iso8583.ReversalRequest, reversed, answer, nil), "00")
	h.settled(t, reversed)
	wantCode(t, p.ask(p.Void(reversed, nil)), "22") // D-22
	part, answer := p.sell(8004)
	rest, err := iso8583.ReplacementText(4000)
	must(t, err)
	wantCode(t, p.undo(iso8583.ReversalRequest, part, answer, func(b *iso8583.Builder) { b.Set(95, rest) }), "00")
	wantCode(t, p.ask(p.Void(part, nil)), "22") // D-23
	balance, err := p.Sale(8006, visa, func(b *iso8583.Builder) { b.Set(3, "310000") })
	wantCode(t, p.ask(balance, err), "00")
	wantCode(t, p.ask(p.Void(balance, nil)), "12") // D-17
	sale, _ := p.sell(8008)
	void, err := p.Void(sale, nil)
	voided := p.ask(void, err)
	wantCode(t, voided, "00")
	wantCode(t, p.ask(p.Void(void, nil)), "12") // D-17: a void is reversed, not voided
	wantCode(t, p.undo(iso8583.ReversalRequest, void, voided, func(b *iso8583.Builder) { b.Set(95, rest) }), "64")
	h.wantStates(t, sale, isoswitch.Voided, "voided")
}

// voidInFlight: while a void waits for its answer nothing else is done to the
// sale, and the reversal of the void is held (D-18).
func (h *house) voidInFlight(t *testing.T, p *pos) {
	sale, answer := p.sell(9090) // the issuer takes its time
	void, err := p.Void(sale, nil)
	must(t, err)
	must(t, p.link.Send(void.Raw))
	eventually(t, "the void is at the issuer", func() bool { return h.atIssuer(void) != nil })
	second := h.dial("terminal")
	try := func(sent *sim.Sent, err error) *iso8583.Message {
		must(t, err)
		raw, err := second.Exchange(sent.Raw)
		must(t, err)
		m, err := p.Answer(sent, raw)
		must(t, err)
		return m
	}
	wantCode(t, try(p.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)), "22") // D-23
	wantCode(t, try(p.Void(sale, nil)), "22")
	wantCode(t, try(p.Reversal(iso8583.ReversalRequest, void, "", "", nil)), "00") // D-18
	h.settled(t, void)
	h.wantStates(t, sale, isoswitch.Approved, "approved")
	wantCode(t, try(p.Reversal(iso8583.ReversalRepeat, sale, answer.Text(37), answer.Text(38), nil)), "00")
	h.settled(t, sale)
}

// voidUnknown: a void that upstream does not answer is reversed, and the sale is
// what it was.
func (h *house) voidUnknown(t *testing.T, p *pos) {
	p.link = h.dial("terminal")
	h.issuer.SetRules(sim.DefaultRules())
	sale, err := p.Sale(9199, visa, nil) // silence
	must(t, err)
	wantCode(t, p.ask(sale, nil), "68")
	h.settled(t, sale)
	wantCode(t, p.ask(p.Void(sale, nil)), "22")
	h.issuer.SetRules([]sim.Rule{{Suffix: "50", Code: "00"}})
	good, answer := p.sell(9250)
	h.issuer.SetRules([]sim.Rule{{Suffix: "50", Code: "00", Silent: true}, {Reversal: true, Code: "00"}})
	void, err := p.Void(good, nil)
	wantCode(t, p.ask(void, err), "68")
	h.settled(t, void)
	h.wantStates(t, good, isoswitch.Approved, "approved")
	wantCode(t, p.undo(iso8583.ReversalRequest, good, answer, nil), "00")
	h.settled(t, good)
}

// voidUndelivered: the approval of a void that reaches nobody is reversed, and the
// sale is valid again.
func (h *house) voidUndelivered(t *testing.T) {
	h.issuer.SetRules([]sim.Rule{{Suffix: "90", Code: "00", Delay: 300 * time.Millisecond}})
	p := h.pos(1)
	sale, _ := p.sell(9390)
	void, err := p.Void(sale, nil)
	must(t, err)
	must(t, p.link.Send(void.Raw))
	eventually(t, "the void is at the issuer", func() bool { return h.atIssuer(void) != nil })
	must(t, p.link.Close())
	h.settled(t, void)
	h.wantStates(t, sale, isoswitch.Approved, "approved")
}
