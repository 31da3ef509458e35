package softhsmtest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchQueue is the queue of reversals under floods, poison, a silent
// upstream, a full disk, and the hands of operators.
func TestSwitchQueue(t *testing.T) {
	t.Run("R-16 A-23.T1 poison at the head of the queue", poisonAtTheHead)
	t.Run("A-23.T2 a flood of one terminal leaves room for another", floodIsShared)
	t.Run("A-23.T3 a full disk refuses sales and takes reversals", fullDisk)
	t.Run("section 8: the breaker rests the queue and uses up no tries", breakerRests)
	t.Run("R-09 one reversal alone uses up its tries", triesEndAlone)
	t.Run("an answer to a parked reversal is believed", parkedOnItsWay)
}

// desk is the operators' desk of the house.
func (h *house) desk() *isoswitch.Desk {
	d := isoswitch.NewDesk(h.db, h.db, time.Now)
	d.Serves(h.sw)
	return d
}

// nameOf is the name of the whole reversal of a sale.
func (h *house) nameOf(sale *sim.Sent) string {
	h.t.Helper()
	found, err := h.db.Entries(h.t.Context(), isoswitch.LedgerQuery{TID: sale.Message.Text(41), STAN: sale.Message.Text(11), Limit: 10})
	must(h.t, err)
	if len(found) != 1 {
		h.t.Fatalf("%d reversals of the sale", len(found))
	}
	return found[0].RID.Name()
}

// poisonAtTheHead puts a record into the queue whose card does not decipher.
func poisonAtTheHead(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	p := h.pos(0)
	sale, _ := p.sell(7000)
	poison := *h.find(sale)
	poison.OID, poison.Key = isoswitch.OID{1}, isoswitch.LookupKey{1}
	poison.STAN, poison.Card = "999999", custody.Card{Sealed: make([]byte, 32), Token: poison.Card.Token}
	poison.State = isoswitch.ReversalPending
	rid := isoswitch.RID{7}
	must(t, h.db.Update(t.Context(), func(tx isoswitch.Tx) error {
		if err := tx.InsertTxn(&poison); err != nil {
			return err
		}
		return tx.InsertReversal(&isoswitch.Reversal{
			RID: rid, OID: poison.OID, Cause: isoswitch.ByTimeout, Full: true, TID: poison.TID, Built: time.Now().UTC(),
			UpSTAN: "999999", UpSent: poison.UpSent, State: isoswitch.Queued, Reason: "68", Next: time.Now().UTC().Add(-time.Hour),
		})
	}))
	for _, amount := range []int64{1000, 2000, 3000} {
		good, answer := p.sell(amount)
		wantCode(t, p.undo(iso8583.ReversalRequest, good, answer, nil), "00")
		eventually(t, "a good reversal is confirmed", func() bool { return h.find(good).State == isoswitch.Reversed })
	}
	eventually(t, "the poison is listed as parked", func() bool {
		found, err := h.db.Entries(t.Context(), isoswitch.LedgerQuery{State: isoswitch.Parked, Limit: 10})
		return err == nil && len(found) == 1 && found[0].RID == rid && found[0].Reversal.Errors == 3
	})
	for _, m := range b.reversals() {
		if m.Text(4) == "000000007000" {
			t.Error("the poisoned reversal was sent")
		}
	}
}

// floodIsShared lets one terminal have twenty reversals in the queue, none of
// which is answered, and then another a single one.
func floodIsShared(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' && m.Text(41) == "T0000001" {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream = 1500 * time.Millisecond
		c.Retry = isoswitch.Retry{First: 100 * time.Millisecond, Ceiling: 400 * time.Millisecond, InFlight: 4, Share: 2, Breaker: -1}
	})
	a, other := h.pos(0), h.pos(2)
	type sold struct {
		sale   *sim.Sent
		answer *iso8583.Message
	}
	var flood []sold
	for i := range 20 {
		sale, answer := a.sell(int64(1000 + 2*i))
		flood = append(flood, sold{sale, answer})
	}
	lone, answer := other.sell(5000)
	for _, s := range flood {
		wantCode(t, a.undo(iso8583.ReversalAdvice, s.sale, s.answer, nil), "00")
	}
	begin := time.Now()
	wantCode(t, other.undo(iso8583.ReversalAdvice, lone, answer, nil), "00")
	eventually(t, "the other terminal's reversal is confirmed", func() bool { return h.find(lone).State == isoswitch.Reversed })
	if took := time.Since(begin); took > 1500*time.Millisecond {
		t.Errorf("it took %v, as long as those of the flood wait", took)
	}
	if sent := len(b.received(iso8583.ReversalAdvice)); sent > 10 {
		t.Errorf("%d reversals were sent before, of which two at a time may be the flood's", sent)
	}
}

func fullDisk(t *testing.T) {
	var full atomic.Bool
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, func(c *isoswitch.Config) {
		c.Room = func() bool { return !full.Load() }
	})
	p := h.pos(0)
	sale, answer := p.sell(1000)
	full.Store(true)
	_, refused := p.sell(2000)
	wantCode(t, refused, "96")
	if got := h.records(func(r record) bool { return r.Action == "sale.refuse" && r.Reason == "disk_critical" }); len(got) != 1 {
		t.Errorf("%d records of the refusal", len(got))
	}
	repeat, err := p.link.Exchange(sale.Raw)
	must(t, err)
	again, err := p.Answer(sale, repeat)
	must(t, err)
	wantCode(t, again, "00") // the stored answer
	wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	eventually(t, "the reversal is confirmed", func() bool { return h.find(sale).State == isoswitch.Reversed })
	full.Store(false)
	_, answer = p.sell(3000)
	wantCode(t, answer, "00")
}

// breakerRests lets upstream take reversals and answer none for far longer than
// their tries last.
func breakerRests(t *testing.T) {
	var awake atomic.Bool
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' && !awake.Load() {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream = 150 * time.Millisecond
		c.Retry = isoswitch.Retry{First: 50 * time.Millisecond, Ceiling: 100 * time.Millisecond, Tries: 5, Breaker: 3}
	})
	p := h.pos(0)
	var sales []*sim.Sent
	for i := range 5 {
		sale, answer := p.sell(int64(1000 + 2*i))
		wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
		sales = append(sales, sale)
	}
	eventually(t, "the breaker is open", func() bool { return h.sw.Status().Resting })
	before := len(b.reversals())
	eventually(t, "many probes went out", func() bool { return len(b.reversals()) >= before+15 })
	for _, sale := range sales {
		if got := h.find(sale).State; got != isoswitch.ReversalPending {
			t.Errorf("a reversal of the resting queue is %s", got)
		}
	}
	_, answer := p.sell(9000)
	wantCode(t, answer, "00") // sales go on
	awake.Store(true)
	for _, sale := range sales {
		eventually(t, "the queue has gone on", func() bool { return h.find(sale).State == isoswitch.Reversed })
	}
	if h.sw.Status().Resting {
		t.Error("the breaker is still open")
	}
	eventually(t, "opening and closing are recorded", func() bool {
		opened := h.records(func(r record) bool { return r.Action == "sys.alarm" && r.Reason == "upstream_silent" })
		closed := h.records(func(r record) bool { return r.Action == "sys.alarm" && r.Outcome == "ok" })
		return len(opened) == 1 && len(closed) == 1
	})
}

func triesEndAlone(t *testing.T) {
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) {
		c.Timers.Upstream = 50 * time.Millisecond
		c.Retry = isoswitch.Retry{First: 20 * time.Millisecond, Ceiling: 40 * time.Millisecond, Tries: 4, Breaker: 2}
	})
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "it is given up", func() bool { return h.find(sale).State == isoswitch.ReversalFailed })
	if n := len(b.reversals()); n != 4 {
		t.Errorf("%d tries, want 4", n)
	}
	e, err := h.desk().Order(t.Context(), h.nameOf(sale), custody.ReversalOrder{Act: custody.RetryReversal})
	must(t, err)
	if e.State != "SENT" || e.Original != "REVERSAL_PENDING" {
		t.Errorf("retried it is %s, the original %s", e.State, e.Original)
	}
	eventually(t, "it has had its tries again", func() bool { return len(b.reversals()) == 8 })
	eventually(t, "it is given up again", func() bool { return h.find(sale).State == isoswitch.ReversalFailed })
	for i, m := range b.reversals() {
		if want := iso8583.MTI("0421"); i > 0 && m.MTI() != want {
			t.Errorf("try %d is a %s", i+1, m.MTI())
		}
	}
}

// parkedOnItsWay parks a reversal while upstream works on it.
func parkedOnItsWay(t *testing.T) {
	hold := make(chan struct{})
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' {
			<-hold
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) { c.Timers.Upstream = 1500 * time.Millisecond })
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "it is on its way", func() bool { return len(b.reversals()) == 1 })
	e, err := h.desk().Order(t.Context(), h.nameOf(sale), custody.ReversalOrder{Act: custody.ParkReversal})
	must(t, err)
	if e.State != "PARKED" {
		t.Errorf("it is %s", e.State)
	}
	close(hold)
	eventually(t, "its answer is believed", func() bool { return h.find(sale).State == isoswitch.Reversed })
}
