package sim

import (
	"fmt"
	"maps"
	"time"
)

// What a switch sends upstream goes in its own time: a second reversal may come
// when the attack is long over. So what was found of a sale in the issuer's book is
// looked at again at the end.

// calm is how long the book must have nothing new of the sales of the attacks.
const calm = 3 * time.Second

// claim is what a run found of a sale in the book, and what must stay so.
type claim struct {
	run   int
	holds func(Entry) error
}

// claim looks at a sale, now and in Review. A later claim of the same sale takes the
// place of the earlier.
func (f *Fraud) claim(e Entry, holds func(Entry) error) error {
	f.claims[bookKey{e.STAN, e.DateTime}] = claim{f.at.run, holds}
	err := holds(e)
	if err != nil {
		f.through = true
	}
	return err
}

func unreversed(e Entry) error {
	if e.Received != 0 || e.Messages != 1 {
		return fmt.Errorf("%w: the issuer has had %d messages of the sale and %d reversals", errThrough, e.Messages, e.Received)
	}
	return nil
}

func reversedOnce(e Entry) error {
	if e.Effective != 1 || len(e.Named) != 1 {
		return fmt.Errorf("%w: the issuer has had %d effective reversals of the sale, under %d numbers", errThrough, e.Effective, len(e.Named))
	}
	return nil
}

// reversedBy wants one reversal of an amount in minor units.
func reversedBy(amount int64) func(Entry) error {
	return func(e Entry) error {
		if e.Reversed != amount {
			return fmt.Errorf("%w: the issuer has reversed %d of %d, not %d", errThrough, e.Reversed, e.Amount, amount)
		}
		return reversedOnce(e)
	}
}

// Review waits until the issuer's book is calm, and looks again at every sale whose
// attack was refused. It changes the verdicts of those findings where something came
// later, or where the book cannot be read any more. Without a book it does nothing.
func (f *Fraud) Review(found []Finding) {
	if f.cfg.Book == nil || len(f.claims) == 0 {
		return
	}
	book, err := f.calmed()
	for i := range found {
		if found[i].Verdict != FraudRefused {
			continue
		}
		for key, c := range f.claims {
			if c.run != found[i].run {
				continue
			}
			e, there := book[key]
			switch {
			case err != nil:
				found[i].Verdict, found[i].Stopped = FraudFailed, fmt.Sprintf("sim: waiting for the issuer's book to be calm: %v", err)
			case !there:
				found[i].Verdict, found[i].Stopped = FraudFailed, "sim: the sale is no more in the issuer's book"
			default:
				if late := c.holds(e); late != nil {
					found[i].Verdict, found[i].Stopped = FraudThrough, fmt.Sprintf("%v, some after the attack", late)
				}
			}
		}
	}
}

// calmed is the book's part that is claimed, when it has had nothing new for a while.
func (f *Fraud) calmed() (map[bookKey]Entry, error) {
	var last map[bookKey]Entry
	since := time.Now()
	err := f.cfg.Settled(func() (bool, error) {
		book, err := f.cfg.Book()
		if err != nil {
			return false, err
		}
		now := make(map[bookKey]Entry)
		for _, e := range book {
			if key := (bookKey{e.STAN, e.DateTime}); f.claims[key].holds != nil {
				now[key] = e
			}
		}
		if !maps.EqualFunc(now, last, sameEffect) {
			last, since = now, time.Now()
		}
		return time.Since(since) >= calm, nil
	})
	return last, err
}

func sameEffect(a, b Entry) bool {
	return a.Messages == b.Messages && a.Received == b.Received && a.Effective == b.Effective && a.Reversed == b.Reversed && len(a.Named) == len(b.Named)
}
