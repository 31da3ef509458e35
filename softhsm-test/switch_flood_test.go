package softhsmtest_test

import (
	"bytes"
	"strconv"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchFlood: forgeries by the thousand on many connections. Each gets its
// answer, none has an effect, the log counts every one of them (L-14), an honest
// terminal behind the same certificate is served meanwhile, and no number is used
// up that a sale would need.
func TestSwitchFlood(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	p, victim := h.pos(0), h.pos(2)
	sale, answer := victim.sell(9900)
	first, _ := p.sell(9902)
	const links, each = 12, 300
	kinds := []struct {
		name string
		make func(good []byte, n int) []byte
	}{
		{"a wrong MAC", func(good []byte, _ int) []byte { good[len(good)-1] ^= 1; return good }},
		{"an unknown terminal", func(good []byte, _ int) []byte { return bytes.Replace(good, []byte("T0000003"), []byte("T9999999"), 1) }},
		{"no KSN that could be", func(good []byte, _ int) []byte {
			return bytes.Replace(good, []byte("FFFF98765432"), []byte("XXXX98765432"), 1)
		}},
		{"a byte too many", func(good []byte, _ int) []byte { return append(good, 0) }},
	}
	reversal, err := victim.Reversal(iso8583.ReversalRequest, sale, answer.Text(37), answer.Text(38), nil)
	must(t, err)
	before := h.counted()
	var work sync.WaitGroup
	for n := range links {
		link := h.dial("terminal")
		work.Go(func() {
			done := make(chan error, 1)
			go func() {
				for range each {
					if _, err := link.Receive(); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			for i := range each {
				if err := link.Send(kinds[(n+i)%len(kinds)].make(bytes.Clone(reversal.Raw), i)); err != nil {
					t.Error(err)
				}
			}
			if err := <-done; err != nil {
				t.Errorf("not every forgery got its answer: %v", err)
			}
		})
	}
	flooded := make(chan struct{})
	go func() { work.Wait(); close(flooded) }()
	sales := int64(0)
	for over := false; !over; sales++ {
		began := time.Now()
		_, approved := p.sell(9904 + 2*sales)
		wantCode(t, approved, "00")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("an honest sale took %v", took)
		}
		select {
		case <-flooded:
			over = true
		default:
		}
	}
	if n := h.counted() - before; n != links*each {
		t.Errorf("the log counts %d refusals, want %d", n, links*each)
	}
	if n := len(h.records(func(r record) bool { return r.Action == "refuse.aggregate" })); n == 0 {
		t.Error("no record stands for many")
	}
	h.untouched(sale)
	last, approved := p.sell(8000)
	wantCode(t, approved, "00")
	from, err := strconv.ParseInt(h.booked(first).STAN, 10, 64)
	must(t, err)
	to, err := strconv.ParseInt(h.booked(last).STAN, 10, 64)
	must(t, err)
	if to-from > sales+4 {
		t.Errorf("keyd's own numbers went from %d to %d in %d sales", from, to, sales)
	}
	wantCode(t, victim.undo(iso8583.ReversalRequest, sale, answer, nil), "00")
	h.awaitReversed(sale)
}

// counted is how many reversals and frames the log says were refused, alone and
// together.
func (h *house) counted() (n int64) {
	h.t.Helper()
	for _, r := range h.records(func(r record) bool {
		return r.Action == "reversal.refuse" || r.Action == "frame.refuse" || r.Action == "refuse.aggregate"
	}) {
		n += max(1, r.Count.N)
	}
	return n
}
