package isoswitch

import (
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Velocity limits accepted reversals in an hour. D-35, A-03. A limit of 0 is none.
type Velocity struct {
	PerHour     int // of one terminal
	Merchant    int // of one merchant, all its terminals together
	Card        int // of one card
	Cash        int // with a cash reason, of one terminal and of one card
	CashReasons []string
	Action      VelocityAction // what happens above a limit; observe
}

// VelocityAction is what happens to a reversal above a limit.
type VelocityAction string

// The actions.
const (
	Observe VelocityAction = "observe" // an alert, and it goes on
	Refuse  VelocityAction = "refuse"  // 58
	// Hold answers 00, and nothing is sent until two persons have released it. A
	// partial reversal is refused, and one of a sale in flight observed: neither
	// can be held (section 2.2).
	Hold VelocityAction = "hold"
)

// reasonForm is a DE 39.
var reasonForm = regexp.MustCompile(`^[0-9A-Za-z]{2}$`)

func (v Velocity) withDefaults() (Velocity, error) {
	v.Action = orDefault(v.Action, Observe)
	if v.Action != Observe && v.Action != Refuse && v.Action != Hold {
		return v, fmt.Errorf("%w: %q is not %s, %s or %s", ErrConfig, v.Action, Observe, Refuse, Hold)
	}
	for _, reason := range v.CashReasons {
		if !reasonForm.MatchString(reason) {
			return v, fmt.Errorf("%w: reason %q is no DE 39 of two characters", ErrConfig, reason)
		}
	}
	if min(v.PerHour, v.Merchant, v.Card, v.Cash) < 0 {
		return v, fmt.Errorf("%w: a number of reversals is negative", ErrConfig)
	}
	if v.Cash > 0 && len(v.CashReasons) == 0 {
		return v, fmt.Errorf("%w: reversals with a cash reason are limited and no reason is one", ErrConfig)
	}
	return v, nil
}

// Check returns [ErrConfig] for limits that cannot be kept.
func (v Velocity) Check() error {
	_, err := v.withDefaults()
	return err
}

// tally is a count that a reversal belongs to, and its limit.
type tally struct {
	key  string
	most int
}

// tallies are those of a reversal.
func (v Velocity) tallies(t Terminal, token, reason string) []tally {
	all := []tally{{"terminal " + t.TID, v.PerHour}, {"merchant " + t.MID, v.Merchant}, {"card " + token, v.Card}}
	if slices.Contains(v.CashReasons, reason) {
		all = append(all, tally{"cash terminal " + t.TID, v.Cash}, tally{"cash card " + token, v.Cash})
	}
	return slices.DeleteFunc(all, func(t tally) bool { return t.most == 0 })
}

// mostTallies is how many counts are kept before those whose hour is over go.
const mostTallies = 1 << 16

// rates count in hours that begin with the first. It is safe for concurrent use,
// also on the journal's writer, for nothing in it waits.
type rates struct {
	clock func() time.Time

	mu    sync.Mutex
	count map[string]*failures
}

func newRates(clock func() time.Time) *rates {
	return &rates{clock: clock, count: map[string]*failures{}}
}

// over reports whether one more is too many of one of them.
func (r *rates) over(all []tally) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(all, func(t tally) bool {
		c, ok := r.count[t.key]
		return ok && r.clock().Sub(c.since) < time.Hour && c.n >= t.most
	})
}

// add counts one more of each.
func (r *rates) add(all []tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	for _, t := range all {
		c, ok := r.count[t.key]
		if !ok || now.Sub(c.since) >= time.Hour {
			if len(r.count) >= mostTallies {
				r.forget(now)
			}
			c = &failures{since: now}
			r.count[t.key] = c
		}
		c.n++
	}
}

// forget drops the counts whose hour is over. They are as many as there were
// reversals within an hour at most.
func (r *rates) forget(now time.Time) {
	for key, c := range r.count {
		if now.Sub(c.since) >= time.Hour {
			delete(r.count, key)
		}
	}
}

// takeBack undoes add for what was not journalled.
func (r *rates) takeBack(all []tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range all {
		if c, ok := r.count[t.key]; ok && c.n > 0 {
			c.n--
		}
	}
}
