package custody

import (
	"context"
	"errors"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// Measure is what one operation with a key took, for metrics: the work with the
// token, and what goes on around it in the process, up to its record.
type Measure struct {
	Operation Operation
	Custody   audit.Custody // zero where it did not come to the use of a key
	Took      time.Duration
}

func observer(told func(Measure)) func(Measure) {
	if told == nil {
		return func(Measure) {}
	}
	return told
}

// KeyLimits counts the keys in use whose time or uses come to an end: those past
// the first threshold of their keyd:warn-percent, and those that are refused.
type KeyLimits struct {
	PeriodWarned, PeriodOver int
	UsesWarned, UsesOver     int       // of keys that were used since the start
	NextEnd                  time.Time // the next end of a cryptoperiod; zero: none
}

// KeyLimits returns what the last sweep found; zero before the first.
func (c *Custody) KeyLimits() KeyLimits {
	if l := c.limited.Load(); l != nil {
		return *l
	}
	return KeyLimits{}
}

// addPeriod counts a key by its cryptoperiod.
func (l *KeyLimits) addPeriod(of *limits, now time.Time) {
	if of.notAfter == 0 || of.life.Successor != "" {
		return
	}
	switch end := time.Unix(0, of.notAfter); {
	case !now.Before(end):
		l.PeriodOver++
		return
	case l.NextEnd.IsZero() || end.Before(l.NextEnd):
		l.NextEnd = end
	}
	if len(of.warnTimes) > 0 && now.UnixNano() >= of.warnTimes[0] {
		l.PeriodWarned++
	}
}

// addUses counts the keys whose uses come to an end. Few are near it: only these
// are looked up, so that one that was stopped or replaced counts no more.
func (c *Custody) addUses(ctx context.Context, l *KeyLimits) error {
	for id, over := range c.usage.nearEnd() {
		k, err := c.book.store.Key(ctx, id)
		switch {
		case errors.Is(err, ErrNoKey):
			continue
		case err != nil:
			return storeError("looking at a key whose uses end", err)
		case !k.Enabled || k.State != CreateComplete || k.Life.Successor != "":
			continue
		case over:
			l.UsesOver++
		default:
			l.UsesWarned++
		}
	}
	return nil
}

// nearEnd returns the keys past the first threshold of their uses, and whether
// none is left.
func (u *usage) nearEnd() map[keys.ID]bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	near := make(map[keys.ID]bool)
	for id, m := range u.meters {
		l := m.limits.Load()
		if n := m.uses.Load(); l.most > 0 && len(l.warnUses) > 0 && n >= l.warnUses[0] {
			near[id] = n >= l.most
		}
	}
	return near
}
