package softhsmtest_test

import (
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// close closes the batches of a terminal, or of all, up to now.
func (h *house) close(tid string) {
	h.t.Helper()
	desk := isoswitch.NewDesk(h.db, h.db, time.Now)
	// A millisecond on, so that the last sale is before it.
	until, err := desk.CloseBatch(h.t.Context(), custody.BatchClosing{TID: tid, Before: time.Now().Add(time.Millisecond)})
	must(h.t, err)
	eventually(h.t, "the moment is over", func() bool { return time.Now().After(until) })
}

// TestD25ClosedBatch: what was sold before a batch was closed can be neither
// reversed nor voided by its terminal, also after a restart; keyd's own reversals,
// other terminals and what is sold afterwards go on. What was reversed at the
// terminal already is told as an advice, and waits for two persons.
func TestD25ClosedBatch(t *testing.T) {
	h := newHouse(t, nil, nil)
	p, other := h.pos(0), h.pos(2)
	before, sold := p.sell(1000)
	voided, _ := p.sell(1002)
	told, done := p.sell(1010)
	parted, rest := p.sell(1012)
	foreign, taken := other.sell(1004)
	h.close("T0000001")
	after, answered := p.sell(1006)
	wantCode(t, p.undo(iso8583.ReversalRequest, before, sold, nil), "22")
	wantCode(t, p.undo(iso8583.ReversalAdvice, told, done, nil), "00")
	left, err := iso8583.ReplacementText(400)
	must(t, err)
	wantCode(t, p.undo(iso8583.ReversalAdvice, parted, rest, func(b *iso8583.Builder) { b.Set(95, left) }), "00")
	wantCode(t, p.ask(p.Void(voided, nil)), "22")
	wantCode(t, p.undo(iso8583.ReversalRequest, after, answered, nil), "00")
	wantCode(t, other.undo(iso8583.ReversalRequest, foreign, taken, nil), "00")
	h.reopen()
	p.link = h.dial("terminal")
	wantCode(t, p.undo(iso8583.ReversalRequest, before, sold, nil), "22")
	for _, sale := range []*sim.Sent{before, parted} {
		h.untouched(sale)
		if got := h.find(sale).State; got != isoswitch.Approved {
			t.Errorf("the sale is %s", got)
		}
	}
	if got := h.records(func(r record) bool { return r.Reason == "batch_closed" && r.ISO.Rule == "D-25" }); len(got) != 5 {
		t.Errorf("%d records of D-25, want 5: %+v", len(got), got)
	}
	if got := h.records(func(r record) bool { return r.Action == "reversal.hold" && r.ISO.Rule == "D-25" }); len(got) != 1 {
		t.Errorf("%d records of a held reversal, want 1: %+v", len(got), got)
	}
	h.untouched(told)
	h.wantStates(t, told, isoswitch.ReversalHeld, "approved")
	wantCode(t, p.undo(iso8583.ReversalAdvice, told, done, nil), "00") // D-07
	_, err = h.desk().Order(t.Context(), h.nameOf(told), custody.ReversalOrder{Act: custody.ReleaseReversal})
	must(t, err)
	h.settled(t, told)

	other.link = h.dial("terminal")
	last, done := other.sell(1008)
	h.close("")
	other.link = h.dial("terminal")
	wantCode(t, other.undo(iso8583.ReversalRequest, last, done, nil), "22")
}

// TestD34LateAdvice: an advice of what is too old, or dated ahead, waits for two
// persons too; what they reject has no effect, also where the advice comes again.
func TestD34LateAdvice(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p := h.pos(0)
	ahead := func(b *iso8583.Builder) { b.Set(7, time.Now().UTC().Add(20*time.Minute).Format("0102150405")) }
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, ahead), "22")
	h.wantStates(t, sale, isoswitch.Approved, "approved")
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, ahead), "00")
	h.quiet()
	h.wantStates(t, sale, isoswitch.ReversalHeld, "approved")
	_, err := h.desk().Order(t.Context(), h.nameOf(sale), custody.ReversalOrder{Act: custody.RejectReversal})
	must(t, err)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00") // D-07
	h.quiet()
	h.wantStates(t, sale, isoswitch.Approved, "approved")
	h.untouched(sale)
}

// TestSignInInterval: a terminal may not ask for new keys again and again. One
// that was refused goes on with those that it has. After a stranger's sign-in, whose
// keys nobody uses, it gets its own.
func TestSignInInterval(t *testing.T) {
	u := newCUP(t)
	tune := u.h.tune
	u.h.tune = func(cfg *isoswitch.Config) {
		tune(cfg)
		cfg.Limits.SignIn = time.Minute
	}
	u.h.reopen()
	u.link = u.h.dial("terminal")
	if m := u.signIn("003"); m.Text(39) != "00" {
		t.Fatalf("the first sign-in: %s", m.Text(39))
	}
	if m := u.signIn("003"); m.Text(39) != "00" {
		t.Fatalf("the terminal's own after a stranger's: %s", m.Text(39))
	}
	u.wants(u.buy("000501", 10000), "00")
	if m := u.signIn("003"); m.Text(39) != "58" || m.Has(62) {
		t.Errorf("A-11 the third: %s", m.Text(39))
	}
	u.wants(u.buy("000502", 10000), "00")
	if got := u.h.records(func(r record) bool { return r.Action == "signin.refuse" && r.Reason == "velocity" }); len(got) != 1 {
		t.Errorf("%d records of it, want 1", len(got))
	}
}

// TestSignInRate: one certificate has so many sign-ins in a minute, for
// whatever terminals. The keys of before stay.
func TestSignInRate(t *testing.T) {
	u := newCUP(t)
	tune := u.h.tune
	u.h.tune = func(cfg *isoswitch.Config) {
		tune(cfg)
		cfg.Limits.SignInRate = 2
	}
	u.h.reopen()
	u.link = u.h.dial("terminal")
	for n, want := range []string{"00", "00", "58"} {
		if m := u.signIn("003"); m.Text(39) != want {
			t.Errorf("sign-in %d: %s, want %s", n, m.Text(39), want)
		}
	}
	u.wants(u.buy("000501", 10000), "00")
}
