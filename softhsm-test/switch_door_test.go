package softhsmtest_test

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// renew gives the running switch other limits, as a reload does.
func (h *house) renew(t *testing.T, change func(*isoswitch.Limits)) {
	t.Helper()
	cfg := h.config()
	change(&cfg.Limits)
	must(t, h.sw.Renew(isoswitch.Settings{Limits: cfg.Limits, Timers: cfg.Timers, Retry: cfg.Retry, Lockout: cfg.Lockout}))
}

// around is a time of the day that has, or has not, this moment in it.
func around(now bool) []string {
	at := time.Now().UTC()
	if !now {
		at = at.Add(12 * time.Hour)
	}
	return []string{at.Add(-2*time.Hour).Format("15:04") + "-" + at.Add(2*time.Hour).Format("15:04")}
}

// TestSwitchDoor changes the rules at the door of a running switch: what each
// refuses never leaves, and no rule ever refuses a reversal.
func TestSwitchDoor(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p, other := h.pos(0), h.pos(2)
	amount := int64(1000)
	for _, c := range []struct {
		name, code, reason string
		rule               func(*isoswitch.Limits)
		draft              sim.Draft
		void               string // the answer to a void under the rule
	}{
		{"R-48 forbidden hours", "58", "profile_denied", func(l *isoswitch.Limits) { l.Door.Hours = around(false) }, nil, "00"},
		{"R-48 forbidden type", "40", "profile_denied", func(l *isoswitch.Limits) { l.Door.Types = []string{"20", "31"} }, nil, "00"},
		{"R-48 over the limit of a rule", "61", "profile_denied", func(l *isoswitch.Limits) {
			l.Door.Rules = []isoswitch.Rule{{Name: "kiosk", Terminals: []string{"T0000001"}, MaxAmount: 999}}
		}, nil, "00"},
		{"R-48 over the switch's limit", "61", "profile_denied", func(l *isoswitch.Limits) { l.MaxAmount = 999 }, nil, "00"},
		{"R-39 cut-over", "90", "batch_closed", func(l *isoswitch.Limits) { l.Door.Cutover = around(true) }, nil, "00"},
		{"R-72 entry mode", "30", "format_error", func(l *isoswitch.Limits) {}, func(b *iso8583.Builder) { b.Set(22, "999") }, "00"},
		{"R-38 skewed clock", "30", "age_exceeded", func(l *isoswitch.Limits) { l.Door.RefuseSkew = true }, func(b *iso8583.Builder) {
			b.Set(7, time.Now().UTC().Add(-time.Hour).Format("0102150405"))
		}, "00"},
		{"R-31 expiry", "30", "format_error", func(l *isoswitch.Limits) {}, func(b *iso8583.Builder) { b.Set(14, "2900") }, "00"},
		{"R-31 check digit", "14", "format_error", func(l *isoswitch.Limits) { l.Door.CheckDigit = true }, func(b *iso8583.Builder) {
			b.Set(2, "4111111111111112")
		}, "00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.renew(t, func(*isoswitch.Limits) {})
			amount += 4
			reversed, answer := p.sell(amount)
			voided, _ := p.sell(amount + 2)
			wantCode(t, answer, "00")
			h.renew(t, c.rule)
			refused := func(r record) bool { return r.Action == "sale.refuse" && r.ISO.DE39 == c.code && r.Reason == c.reason }
			before, booked := len(h.records(refused)), len(h.issuer.Book())
			sale, err := p.Sale(amount+1000000, sim.Card{PAN: visa.PAN}, c.draft)
			wantCode(t, p.ask(sale, err), c.code)
			if n := len(h.records(refused)) - before; n != 1 {
				t.Errorf("%d records of the refusal, want 1", n)
			}
			if rec := h.journalled(sale); rec.State != isoswitch.Declined || len(h.issuer.Book()) != booked {
				t.Errorf("the journal has it %s, the issuer %d messages more", rec.State, len(h.issuer.Book())-booked)
			}
			wantCode(t, p.undo(iso8583.ReversalRequest, reversed, answer, nil), "00")
			wantCode(t, p.ask(p.Void(voided, nil)), c.void)
			h.settled(t, reversed)
			h.wantStates(t, voided, isoswitch.Voided, "voided")
		})
		amount += 10
	}
	t.Run("R-48 a rule for one terminal", func(t *testing.T) {
		h.renew(t, func(l *isoswitch.Limits) {
			l.Door.Rules = []isoswitch.Rule{{Name: "kiosk", Merchants: []string{"M00000000000002"}, MaxAmount: 10}}
		})
		_, answer := p.sell(2000)
		wantCode(t, answer, "00")
		_, answer = other.sell(2000)
		wantCode(t, answer, "61")
	})
	t.Run("R-38 a skewed clock is told", func(t *testing.T) {
		h.renew(t, func(*isoswitch.Limits) {})
		sale, err := p.Sale(2002, visa, func(b *iso8583.Builder) { b.Set(7, time.Now().UTC().Add(-time.Hour).Format("0102150405")) })
		wantCode(t, p.ask(sale, err), "00")
		told := h.records(func(r record) bool {
			return r.Action == "sale.accept" && r.Reason == "age_exceeded" && r.ISO.STAN == sale.Message.Text(11)
		})
		if len(told) != 1 {
			t.Errorf("%d records tell of the clock, want 1", len(told))
		}
	})
}

// TestSwitchVelocity limits reversals by terminal, merchant, card and cash reason
// (D-35, A-03): the first ones are accepted, the next by policy.
func TestSwitchVelocity(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	var all []*pos
	for n := range 4 {
		all = append(all, h.pos(n))
	}
	amount := int64(1000)
	cash := func(b *iso8583.Builder) { b.Set(39, "17") }
	for _, c := range []struct {
		name  string
		limit isoswitch.Velocity
		first int // terminals whose reversals come, in this order
		next  int
		draft sim.Draft
		card  sim.Card
	}{
		{"terminal", isoswitch.Velocity{PerHour: 2}, 0, 0, nil, visa},
		{"merchant", isoswitch.Velocity{Merchant: 2}, 0, 1, nil, visa},
		{"card", isoswitch.Velocity{Card: 2}, 1, 2, nil, sim.Card{PAN: "5555555555554444"}},
		{"A-03.T1 cash reason", isoswitch.Velocity{Cash: 2, CashReasons: []string{"17"}}, 2, 2, cash, sim.Card{PAN: "4012888888881881"}},
	} {
		for _, action := range []isoswitch.VelocityAction{isoswitch.Observe, isoswitch.Refuse} {
			t.Run(c.name+", "+string(action), func(t *testing.T) {
				h.reopen() // counts begin anew
				for _, p := range all {
					p.link = h.dial("terminal")
				}
				h.renew(t, func(l *isoswitch.Limits) { l.Velocity, l.Velocity.Action = c.limit, action })
				alerts := func() int {
					return len(h.records(func(r record) bool {
						return r.ISO.Alert == "fraud" && (r.ISO.Rule == "D-35" || r.Action == "reversal.accept")
					}))
				}
				before := alerts()
				for n := range 3 {
					who := c.first
					if n == 2 {
						who = c.next
					}
					p := all[who]
					sale, err := p.Sale(amount, c.card, nil)
					amount += 2
					answer := p.ask(sale, err)
					wantCode(t, answer, "00")
					want := "00"
					if n == 2 && action == isoswitch.Refuse {
						want = "58"
					}
					wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, c.draft), want)
					if h.quiet(); want == "58" {
						h.wantStates(t, sale, isoswitch.Approved, "approved")
					} else {
						h.settled(t, sale)
					}
				}
				if n := alerts() - before; n != 1 {
					t.Errorf("%d fraud alerts, want 1", n)
				}
			})
		}
	}
}

// TestSwitchHold holds reversals above the rate: the terminal has its 00, nothing is
// sent, and what two persons decide is done once (D-35, R-59).
func TestSwitchHold(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		c.Limits.Velocity = isoswitch.Velocity{PerHour: 1, Action: isoswitch.Hold}
	})
	p := h.pos(0)
	first, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalRequest, first, answer, nil), "00")
	h.settled(t, first)
	held := func(amount int64) (*sim.Sent, *iso8583.Message) {
		sale, answer := p.sell(amount)
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
		h.quiet()
		h.wantStates(t, sale, isoswitch.ReversalHeld, "approved")
		return sale, answer
	}
	order := func(sale *sim.Sent, act custody.ReversalAct) {
		t.Helper()
		_, err := h.desk().Order(t.Context(), h.nameOf(sale), custody.ReversalOrder{Act: act})
		must(t, err)
	}
	sale, answer := held(1002)
	again := p.undo(iso8583.ReversalRepeat, sale, answer, nil)
	if wantCode(t, again, "00"); again.Text(37) != answer.Text(37) {
		t.Error("D-07: the repeat has another reference")
	}
	wantCode(t, p.undo(iso8583.ReversalRepeat, sale, answer, func(b *iso8583.Builder) { b.Set(4, "000000000001") }), "64")
	wantCode(t, p.ask(p.Void(sale, nil)), "22")
	h.reopen() // a held one stays so over a restart
	p.link = h.dial("terminal")
	h.quiet()
	h.wantStates(t, sale, isoswitch.ReversalHeld, "approved")
	order(sale, custody.ReleaseReversal)
	h.settled(t, sale)

	warm, answer := p.sell(1003 + 1)
	wantCode(t, p.undo(iso8583.ReversalRequest, warm, answer, nil), "00") // counts begin anew
	rejected, answer := held(1006)
	order(rejected, custody.RejectReversal)
	h.quiet()
	h.wantStates(t, rejected, isoswitch.Approved, "approved")
	wantCode(t, p.undo(iso8583.ReversalRepeat, rejected, answer, nil), "00") // D-07, with no effect
	h.quiet()
	h.wantStates(t, rejected, isoswitch.Approved, "approved")

	// D-29: what a held reversal of a void voids stays voided until it is released.
	sold, _ := p.sell(1008)
	void, err := p.Void(sold, nil)
	voided := p.ask(void, err)
	wantCode(t, p.undo(iso8583.ReversalRequest, void, voided, nil), "00")
	h.quiet()
	h.wantStates(t, sold, isoswitch.Voided, "voided")
	order(void, custody.ReleaseReversal)
	h.settled(t, void)
	h.wantStates(t, sold, isoswitch.Approved, "approved")
	if n := len(h.records(func(r record) bool {
		return r.Action == "reversal.hold" && r.ISO.Rule == "D-35" && r.ISO.Alert == "fraud"
	})); n != 3 {
		t.Errorf("%d records of held reversals, want 3", n)
	}
}
