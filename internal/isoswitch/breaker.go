package isoswitch

import (
	"context"
	"math"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
)

// breaker rests the queue of an end point that takes reversals and does not
// answer them: so many different ones in a row without an answer that could be
// believed open it. While it is open nothing is sent and no try is used up. From
// time to time one reversal goes out as a probe, whose silence uses up no try
// either; its answer closes the breaker. Section 8. It is safe for concurrent use.
//
// One reversal alone never opens it, however often it is not answered: its own
// back-off is enough, and its tries must come to an end.
type breaker struct {
	rules func() Retry
	clock func() time.Time

	mu     sync.Mutex
	silent map[RID]bool // since the last answer
	open   bool
	until  time.Time     // of the next probe
	wait   time.Duration // between the last two
	probe  RID           // under way; zero is none
}

func newBreaker(rules func() Retry, clock func() time.Time) *breaker {
	return &breaker{rules: rules, clock: clock, silent: map[RID]bool{}}
}

// allows returns how many reversals may be begun now.
func (b *breaker) allows() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return math.MaxInt
	case b.probe != RID{} || b.clock().Before(b.until):
		return 0
	}
	return 1
}

// rests returns how long nothing will be allowed: 0 where it is not open.
func (b *breaker) rests() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return 0
	}
	return max(0, b.until.Sub(b.clock()))
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// begin says that a reversal is about to be sent. It is false where that may not
// be: the breaker has opened, or another is the probe.
func (b *breaker) begin(rid RID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return true
	}
	if b.probe != (RID{}) || b.clock().Before(b.until) {
		return false
	}
	b.probe = rid
	return true
}

// end says that nothing came of a reversal that was begun.
func (b *breaker) end(rid RID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probe == rid {
		b.probe, b.until = RID{}, b.clock().Add(b.rules().First)
	}
}

// answered says that an answer was believed. It reports whether that closes the
// breaker.
func (b *breaker) answered() (closes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closes = b.open
	b.open, b.probe = false, RID{}
	clear(b.silent)
	return closes
}

// unanswered says that a try has had no answer that could be believed. It reports
// whether that opens the breaker, and whether the try was a probe.
func (b *breaker) unanswered(rid RID) (opens, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rules := b.rules()
	if b.open {
		if probe = b.probe == rid; probe {
			b.wait = min(2*b.wait, rules.Ceiling)
			b.probe, b.until = RID{}, b.clock().Add(b.wait)
		}
		return false, probe
	}
	b.silent[rid] = true
	if rules.Breaker < 0 || len(b.silent) < rules.Breaker {
		return false, false
	}
	b.open, b.probe, b.wait = true, RID{}, rules.First
	b.until = b.clock().Add(b.wait)
	return true, false
}

// heard tells the breaker of an answer that was believed.
func (h *host) heard(ctx context.Context) {
	if h.breaker.answered() {
		h.tellBreaker(ctx, audit.OutcomeOK, "closed")
		h.wake()
	}
}

// unheard tells the breaker of a try without an answer that could be believed. A
// probe gets its try back.
func (h *host) unheard(ctx context.Context, rid RID) {
	opens, probe := h.breaker.unanswered(rid)
	if opens {
		h.tellBreaker(ctx, audit.OutcomeError, "open")
	}
	if !probe {
		return
	}
	err := h.s.cfg.Journal.Update(ctx, func(tx Tx) error {
		rev, err := tx.Reversal(rid)
		if err != nil || rev.State != Sent || rev.Granted >= rev.Tries {
			return err
		}
		rev.Granted++
		return tx.UpdateReversal(rev)
	})
	if err != nil {
		h.s.log.Error("a try could not be taken back", "error", err)
	}
}

// tellBreaker tells and records that the breaker has opened or closed.
func (h *host) tellBreaker(ctx context.Context, outcome audit.Outcome, state string) {
	h.s.log.Warn("the queue of reversals rests, or goes on", "upstream", h.cfg.Name, "breaker", state)
	h.s.observe(Event{Name: "breaker", Code: state})
	alarm := audit.Record{Action: audit.SysAlarm, Outcome: outcome, Alarm: audit.Alarm{Code: "upstream_breaker", Level: audit.LevelWarn}}
	if outcome != audit.OutcomeOK {
		alarm.Reason = audit.ReasonUpstreamSilent
	}
	if err := h.s.custody.Record(ctx, h.s.self(), "breaker."+h.cfg.Name, alarm); err != nil {
		h.s.log.Error("an alarm could not be recorded", "error", err)
	}
}
