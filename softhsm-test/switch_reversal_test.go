package softhsmtest_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchReversals runs the decision table over a real token, database, log
// and TLS: the answer and its MAC, what the issuer got, and the record.
func TestSwitchReversals(t *testing.T) {
	rules := append([]sim.Rule{{Suffix: "90", Code: "00", Delay: 300 * time.Millisecond}, {Suffix: "81", Code: "51", Delay: 300 * time.Millisecond}}, sim.DefaultRules()...)
	h := newHouse(t, rules, nil)
	victim, thief, aes := h.pos(0), h.pos(2), h.pos(1)
	t.Run("R-08 D-07 a hundred times at once", func(t *testing.T) { h.reversesOnce(t, thief) })
	t.Run("D-21 AES", func(t *testing.T) {
		sale, answer := aes.sell(1100)
		wantCode(t, aes.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
		h.awaitReversed(sale)
	})
	t.Run("R-11 R-02 every difference is refused", func(t *testing.T) { h.refusesDifferences(t, victim) })
	t.Run("forged", func(t *testing.T) { h.refusesForged(t, victim, thief) })
	t.Run("D-09 another content under the same RID", func(t *testing.T) { h.refusesTampered(t, victim) })
	t.Run("D-10 before its original", func(t *testing.T) { h.keepsTombstones(t, victim) })
	t.Run("A-01.T1 D-12 by another terminal", func(t *testing.T) { h.findsFraud(t, victim, thief) })
	t.Run("D-16 D-17", func(t *testing.T) { h.refusesTypes(t, victim) })
	t.Run("D-18 in flight", func(t *testing.T) { h.holds(t, victim) })
	t.Run("A-22.T1 D-26 D-27 D-22 partial", func(t *testing.T) { h.reversesInPart(t, victim) })
	t.Run("W-17 other terminals do not wait", func(t *testing.T) { h.keepsLanesApart(t) })
}

// reversesOnce sends one reversal a hundred times, concurrently on ten
// connections, each with a KSN of its own.
func (h *house) reversesOnce(t *testing.T, p *pos) {
	sale, answer := p.sell(1000)
	wantCode(t, answer, "00")
	var all [10][]*sim.Sent
	for i := range 100 {
		again, err := p.Reversal(iso8583.ReversalRepeat, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		all[i/10] = append(all[i/10], again)
	}
	var mu sync.Mutex
	answers := map[string]int{}
	var work sync.WaitGroup
	for _, mine := range all {
		link := h.dial("terminal")
		work.Go(func() {
			for _, sent := range mine {
				raw, err := link.Exchange(sent.Raw)
				if err != nil {
					t.Error(err)
					return
				}
				m, err := p.Answer(sent, raw)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				answers[m.Text(39)+" "+m.Text(37)+" "+m.Text(38)]++
				mu.Unlock()
			}
		})
	}
	work.Wait()
	h.awaitReversed(sale)
	h.quiet()
	h.awaitReversed(sale)
	// Which KSNs come too late behind others is chance: those get 63. All others
	// get one and the same answer.
	want := "00 " + answer.Text(37) + " " + answer.Text(38)
	for got, n := range answers {
		if got != want && !strings.HasPrefix(got, "63 ") {
			t.Errorf("%d answers %q, want %q", n, got, want)
		}
	}
	if answers[want] == 0 {
		t.Errorf("no answer %q among %v", want, answers)
	}
}

// refusesDifferences changes one field of a good reversal at a time, under a
// valid MAC.
func (h *house) refusesDifferences(t *testing.T, p *pos) {
	sale, answer := p.sell(1200)
	named := func(m iso8583.MTI, stan, sent, acquirer string) string {
		text, err := iso8583.OriginalData{MTI: m, STAN: stan, DateTime: sent, Acquirer: acquirer}.Text()
		must(t, err)
		return text
	}
	stan, sent := sale.Message.Text(11), sale.Message.Text(7)
	otherSecond := sent[:9] + string('0'+('9'-sent[9]))
	for _, c := range []struct {
		name, code, rule string
		draft            sim.Draft
	}{
		{"D-13 PAN", "14", "D-13", func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }},
		{"D-14 amount", "64", "D-14", func(b *iso8583.Builder) { b.Set(4, "000000001201") }},
		{"D-14 currency", "64", "D-14", func(b *iso8583.Builder) { b.Set(49, "156") }},
		{"D-15 processing code", "25", "D-15", func(b *iso8583.Builder) { b.Set(3, "000001") }},
		{"D-15 condition code", "25", "D-15", func(b *iso8583.Builder) { b.Set(25, "08") }},
		{"D-15 RRN", "25", "D-15", func(b *iso8583.Builder) { b.Set(37, "000000000000") }},
		{"D-15 approval code", "25", "D-15", func(b *iso8583.Builder) { b.Set(38, "ZZZZZZ") }},
		{"D-15 W-15 acquirer in DE 90", "25", "D-15", func(b *iso8583.Builder) { b.Set(90, named("0200", stan, sent, "123456")) }},
		{"D-15 W-15 second in DE 90", "25", "D-15", func(b *iso8583.Builder) { b.Set(90, named("0200", stan, otherSecond, "")) }},
		{"D-10 other STAN in DE 90", "25", "D-10", func(b *iso8583.Builder) { b.Set(90, named("0200", "765432", sent, "")) }},
		{"D-11 too old a date in DE 90", "25", "D-11", func(b *iso8583.Builder) {
			b.Set(90, named("0200", stan, time.Now().UTC().Add(-9*24*time.Hour).Format("0102150405"), ""))
		}},
		{"D-17 administrative original", "12", "D-17", func(b *iso8583.Builder) { b.Set(90, named("0800", stan, sent, "")) }},
		{"D-28 reversal of a reversal", "12", "D-28", func(b *iso8583.Builder) { b.Set(90, named("0400", stan, sent, "")) }},
		{"D-34 dated in the future", "22", "D-34", func(b *iso8583.Builder) {
			b.Set(7, time.Now().UTC().Add(20*time.Minute).Format("0102150405"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(h.records(func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == c.rule }))
			wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, c.draft), c.code)
			after := h.records(func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == c.rule })
			if len(after) != before+1 {
				t.Fatalf("%d more records of the refusal, want 1", len(after)-before)
			}
			if r := after[before]; r.ISO.DE39 != c.code || r.MAC.Verdict != "ok" || r.Reason == "" {
				t.Errorf("the record is %+v", r)
			}
			h.untouched(sale)
		})
	}
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.awaitReversed(sale)
}

// refusesForged sends what no terminal would: nothing of it may have an effect.
func (h *house) refusesForged(t *testing.T, victim, thief *pos) {
	sale, answer := victim.sell(1300)
	done, again := victim.sell(1302)
	past, err := victim.Reversal(iso8583.ReversalRequest, done, again.Text(37), again.Text(38), nil)
	wantCode(t, victim.ask(past, err), "00")
	h.awaitReversed(done)
	for _, f := range sim.Forgeries() {
		t.Run(f.Row+" "+f.Name, func(t *testing.T) {
			action := func(r record) bool { return r.Action == "reversal.refuse" && r.ISO.Rule == f.Row }
			before := len(h.records(action))
			forged, err := f.Make(victim.Terminal, thief.Terminal, sale, past)
			must(t, err)
			raw, err := victim.link.Exchange(forged.Raw)
			must(t, err)
			m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
			must(t, err)
			wantCode(t, m, f.Code)
			if _, err := m.MAC(); err != nil {
				t.Errorf("W-09: the refusal of a known terminal has no MAC: %v", err)
			}
			if n := len(h.records(action)) - before; n != 1 {
				t.Errorf("%d records reversal.refuse with rule %s, want 1", n, f.Row)
			}
			h.untouched(sale)
		})
	}
	t.Run("A-24.T2 0401 made from a 0400", func(t *testing.T) {
		good, err := victim.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
		must(t, err)
		bad := append([]byte("0401"), good.Raw[4:]...)
		raw, err := victim.link.Exchange(bad)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "63")
		h.untouched(sale)
		wantCode(t, victim.ask(good, nil), "00") // M-23: the bad MAC moved no counter
		h.awaitReversed(sale)
	})
}

func (h *house) refusesTampered(t *testing.T, p *pos) {
	sale, answer := p.sell(1400)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, func(b *iso8583.Builder) { b.Set(4, "000000009999") }), "64")
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, func(b *iso8583.Builder) { b.Set(2, "5555555555554444") }), "14")
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, func(b *iso8583.Builder) { b.Set(3, "000001") }), "94")
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, func(b *iso8583.Builder) { b.Set(4, "000000009999") }), "94")
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, func(b *iso8583.Builder) { b.Set(39, "68").Set(38, "QQQQQQ") }), "00")
	h.awaitReversed(sale)
}

// keepsTombstones: the reversal overtakes its original, which then never leaves.
func (h *house) keepsTombstones(t *testing.T, p *pos) {
	sale, err := p.Sale(1500, visa, nil)
	must(t, err)
	first := p.ask(p.Reversal(iso8583.ReversalRequest, sale, "", "", nil))
	wantCode(t, first, "25")
	wantCode(t, p.ask(sale, nil), "63") // its KSN is behind now: replayed, D-06
	fresh, err := p.Sale(1500, visa, func(b *iso8583.Builder) { b.Copy(sale.Message, 7, 11, 12, 13) })
	wantCode(t, p.ask(fresh, err), "94")
	again := p.ask(p.Reversal(iso8583.ReversalRepeat, sale, "", "", nil))
	if again.Text(39) != "25" || again.Text(37) != first.Text(37) {
		t.Errorf("the repeat got %s %s, want the stored 25 %s", again.Text(39), again.Text(37), first.Text(37))
	}
	if e := h.booked(sale); e != nil {
		t.Errorf("the issuer has %+v of a sale reversed before", *e)
	}
	advised, err := p.Sale(1502, visa, nil)
	must(t, err)
	wantCode(t, p.ask(p.Reversal(iso8583.ReversalAdvice, advised, "", "", nil)), "00")
}

// findsFraud: the thief knows all that the receipt says.
func (h *house) findsFraud(t *testing.T, victim, thief *pos) {
	sale, answer := victim.sell(1600)
	stolen := func(b *iso8583.Builder) { b.Set(41, "T0000003").Set(42, "M00000000000002") }
	wantCode(t, thief.undo(iso8583.ReversalRequest, sale, answer, stolen), "25")
	got := h.records(func(r record) bool { return r.ISO.Alert == "fraud" && r.Reason == "foreign_original" })
	if len(got) != 1 || got[0].Action != "reversal.refuse" {
		t.Errorf("the fraud left the records %+v", got)
	}
	h.untouched(sale)
}

func (h *house) refusesTypes(t *testing.T, p *pos) {
	declined, answer := p.sell(1701)
	wantCode(t, answer, "51")
	wantCode(t, p.undo(iso8583.ReversalRequest, declined, answer, nil), "12")
	wantCode(t, p.undo(iso8583.ReversalAdvice, declined, answer, nil), "00")
	h.untouched(declined)
	balance, err := p.Sale(1700, visa, func(b *iso8583.Builder) { b.Set(3, "310000") })
	answer = p.ask(balance, err)
	wantCode(t, answer, "00")
	wantCode(t, p.undo(iso8583.ReversalRequest, balance, answer, nil), "12")
	h.untouched(balance)
}

// holds reverses sales that are in flight: no 0210 comes, whatever it says.
func (h *house) holds(t *testing.T, p *pos) {
	for _, c := range []struct {
		name   string
		amount int64
		mti    iso8583.MTI
		code   string
		undone bool
	}{
		{"request, then approved", 1890, iso8583.ReversalRequest, "00", true},
		{"advice, then approved", 2890, iso8583.ReversalAdvice, "00", true},
		{"request, then silence", 1899, iso8583.ReversalRequest, "00", true},
		{"request, then declined", 1881, iso8583.ReversalRequest, "12", false},
		{"advice, then declined", 2881, iso8583.ReversalAdvice, "00", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sale, err := p.Sale(c.amount, visa, nil)
			must(t, err)
			must(t, p.link.Send(sale.Raw))
			eventually(t, "the sale is at the issuer", func() bool { return h.booked(sale) != nil })
			reversal, err := p.Reversal(c.mti, sale, "", "", nil)
			answer := p.ask(reversal, err) // the next frame is the answer to the reversal
			if answer.MTI() != c.mti.Response() {
				t.Fatalf("got a %s first, want the %s", answer.MTI(), c.mti.Response())
			}
			wantCode(t, answer, c.code)
			if c.undone {
				h.awaitReversed(sale)
			} else {
				eventually(t, "the outcome is recorded", func() bool {
					return len(h.records(func(r record) bool {
						return r.ISO.STAN == sale.Message.Text(11) && r.ISO.Rule == "D-18" && r.Action == "sale.answer"
					})) == 1
				})
				h.untouched(sale)
			}
			again := p.ask(p.Reversal(iso8583.ReversalRepeat, sale, "", "", nil))
			wantCode(t, again, c.code)
			wantCode(t, p.ask(p.Sale(c.amount, visa, func(b *iso8583.Builder) { b.Copy(sale.Message, 7, 11, 12, 13) })), "94")
		})
	}
}

func (h *house) reversesInPart(t *testing.T, p *pos) {
	sale, answer := p.sell(10000)
	part := func(rest int64) *iso8583.Message {
		text, err := iso8583.ReplacementText(rest)
		must(t, err)
		return p.undo(iso8583.ReversalRequest, sale, answer, func(b *iso8583.Builder) { b.Set(95, text) })
	}
	for _, c := range []struct {
		rest int64
		code string
	}{{10000, "13"}, {10001, "13"}, {0, "13"}, {4000, "00"}, {4000, "13"}, {6000, "13"}, {0, "13"}, {1000, "00"}} {
		wantCode(t, part(c.rest), c.code)
	}
	eventually(t, "the issuer has both parts", func() bool { return h.booked(sale).Reversed == 9000 })
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "22")
	if e := h.booked(sale); e.Reversed != 9000 {
		t.Errorf("the issuer has %+v, want 9000 reversed", *e)
	}
	refund, err := p.Sale(10002, visa, func(b *iso8583.Builder) { b.Set(3, "200000") })
	answer = p.ask(refund, err)
	wantCode(t, answer, "00")
	text, err := iso8583.ReplacementText(5000)
	must(t, err)
	wantCode(t, p.undo(iso8583.ReversalRequest, refund, answer, func(b *iso8583.Builder) { b.Set(95, text) }), "64") // D-14
}

// keepsLanesApart: two terminals on one connection, the first with a sale that
// upstream never answers.
func (h *house) keepsLanesApart(t *testing.T) {
	slow, quick := h.pos(0), h.pos(3)
	slow.Terminal = h.advance(0, 500)
	stuck, err := slow.Sale(1999, visa, nil)
	must(t, err)
	must(t, slow.link.Send(stuck.Raw))
	sale, err := quick.Sale(1998, visa, nil)
	must(t, err)
	start := time.Now()
	raw, err := slow.link.Exchange(sale.Raw) // by the same connection
	must(t, err)
	m, err := quick.Answer(sale, raw)
	must(t, err)
	wantCode(t, m, "00")
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	h.awaitReversed(stuck)
}
