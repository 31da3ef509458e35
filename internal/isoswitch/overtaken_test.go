package isoswitch

import (
	"context"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
)

// try sends the reversal of the sale once, at this time, and gives it the answer.
func (m *machine) try(t *testing.T, code string) (sent iso8583.MTI, c confirmation) {
	t.Helper()
	m.s.log = quiet()
	rev, _, err := m.s.startTry(context.Background(), fullRID(m.sale.OID))
	if err != nil || rev == nil {
		t.Fatalf("no try: %v", err)
	}
	err = m.journal.Update(context.Background(), func(tx Tx) (err error) {
		c, err = m.s.settleReversal(tx, rev.RID, code)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return reversalMTI(rev), c
}

// TestOvertaken is D-30 where a reversal may have been faster than its sale: a 25
// is the last word only when T_stray is over, and costs no try.
func TestOvertaken(t *testing.T) {
	silent := func(c Cause) func(*machine) {
		return func(m *machine) { m.settle(result{kind: unknownResult, cause: c, code: "68"}) }
	}
	inFlight := func(m *machine) { m.reverse("0400", -1, "") }
	for _, c := range []struct {
		name  string
		end   []func(*machine)
		early bool // a 25 at once is not the end
	}{
		{"time-out", []func(*machine){silent(ByTimeout)}, true},
		{"lost link", []func(*machine){silent(ByLinkLoss)}, true},
		{"restart", []func(*machine){silent(ByRestart)}, true},
		{"bad answer", []func(*machine){silent(ByBadAnswer)}, true},
		{"D-18, then a time-out", []func(*machine){inFlight, silent(ByTimeout)}, true},
		{"D-18, then approved", []func(*machine){inFlight, approve}, false},
		{"approved, then reversed", []func(*machine){approve, inFlight}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine()
			m.s.rules().Retry.Tries = 1
			m.sell()
			m.depart()
			for _, do := range c.end {
				do(m)
			}
			over := m.now.Add(m.s.rules().Timers.Stray)
			if mti, _ := m.try(t, "25"); mti != "0420" {
				t.Errorf("the first try is a %s", mti)
			}
			if !c.early {
				m.rests(t, ReversedUnknown, Confirmed)
				return
			}
			for m.now.Before(over) {
				m.rests(t, ReversalPending, Sent)
				next := m.journal.held.revs[fullRID(m.sale.OID)].Next
				if !next.After(m.now) || next.After(over) {
					t.Fatalf("the next try is at %v, T_stray ends at %v", next, over)
				}
				m.now = next
				if mti, _ := m.try(t, "25"); mti != "0421" {
					t.Errorf("a repeat is a %s", mti)
				}
			}
			m.rests(t, ReversedUnknown, Confirmed)
		})
	}
	t.Run("the sale arrives", func(t *testing.T) {
		m := newMachine()
		m.sell()
		m.depart()
		silent(ByLinkLoss)(m)
		m.try(t, "25")
		m.now = m.now.Add(m.s.rules().Timers.Stray / 2)
		if _, c := m.try(t, "00"); !c.closed || c.rule != "" {
			t.Errorf("judged %+v", c)
		}
		m.rests(t, Reversed, Confirmed)
	})
	t.Run("the sale was approved late, and upstream knows it not", func(t *testing.T) {
		for late, want := range map[string]State{"00": ReversalFailed, "51": ReversedUnknown, "": ReversedUnknown} {
			m := newMachine()
			m.sell()
			m.depart()
			silent(ByTimeout)(m)
			m.try(t, "25")
			if late != "" {
				err := m.journal.Update(context.Background(), func(tx Tx) error {
					_, err := keepLate(tx, m.sale.OID, late, "A1B2C3")
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			m.now = m.now.Add(m.s.rules().Timers.Stray)
			_, c := m.try(t, "25")
			if got := m.journal.held.txns[m.sale.OID].State; got != want || c.failed != (want == ReversalFailed) || c.rule != "D-30" {
				t.Errorf("late %q: the sale is %s, judged %+v", late, got, c)
			}
		}
	})
}

func approve(m *machine) { m.settle(result{kind: approvedResult, code: "00", approval: "A1B2C3"}) }

// rests holds the sale and its reversal against what they should be.
func (m *machine) rests(t *testing.T, want State, reversal ReversalState) {
	t.Helper()
	x, rev := m.journal.held.txns[m.sale.OID], m.journal.held.revs[fullRID(m.sale.OID)]
	if x.State != want || rev.State != reversal {
		t.Fatalf("the sale is %s, its reversal %s; want %s, %s", x.State, rev.State, want, reversal)
	}
}
