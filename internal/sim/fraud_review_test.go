package sim

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestFraudReview A-12.T1: what the issuer gets after an attack is over counts too.
func TestFraudReview(t *testing.T) {
	const rrn = "000000000001"
	again := func(e *Entry) { e.Received, e.Named = 2, []string{"1", "2"} }
	reversal := func(e *Entry) { e.Received, e.Effective, e.Named = 1, 1, []string{"1"} }
	once := func(f *Fraud) error {
		return f.onceReversed(func(e Entry) bool { return e.RRN == rrn }, reversedOnce)
	}
	stands := func(f *Fraud) error { return f.untouched(rrn, "00", rrn) }
	both := func(f *Fraud) error { return errors.Join(stands(f), once(f)) }
	for _, c := range []struct {
		name     string
		run      func(*Fraud) error
		reversed time.Duration // when the one reversal is in the book; 0: none comes
		later    time.Duration // when something more is; 0: nothing
		change   func(*Entry)
		want     Verdict
	}{
		{"one reversal", once, time.Second, 0, nil, FraudRefused},
		{"another number after a second", once, time.Second, 2 * time.Second, again, FraudThrough},
		{"another number just before the book is calm", once, time.Second, 3500 * time.Millisecond, again, FraudThrough},
		{"nothing", stands, 0, 0, nil, FraudRefused},
		{"a reversal that was queued", stands, 0, 2 * time.Second, reversal, FraudThrough},
		{"the sale goes upstream again", stands, 0, time.Second, func(e *Entry) { e.Messages++ }, FraudThrough},
		{"it stands, then it is reversed", both, time.Second, 0, nil, FraudRefused},
		{"the book has the sale no more", stands, 0, time.Second, func(e *Entry) { e.STAN = "000009" }, FraudFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f := NewFraud(FraudConfig{
					Victim: &Terminal{}, Thief: &Terminal{},
					Book: func() ([]Entry, error) {
						e := Entry{STAN: "000001", DateTime: "1122150000", RRN: rrn, Messages: 1}
						if c.reversed > 0 && time.Since(start) >= c.reversed {
							reversal(&e)
						}
						if c.later > 0 && time.Since(start) >= c.later {
							c.change(&e)
						}
						return []Entry{e}, nil
					},
					Settled: func(done func() (bool, error)) error {
						for range time.Tick(100 * time.Millisecond) {
							if ok, err := done(); ok || err != nil {
								return err
							}
						}
						return nil
					},
				})
				found := []Finding{f.Run(t.Context(), FraudTest{Test: "A-12.T1", Run: c.run})}
				if found[0].Verdict != FraudRefused {
					t.Fatalf("at once: %+v", found[0])
				}
				f.Review(found)
				if found[0].Verdict != c.want {
					t.Errorf("%+v; want %s", found[0], c.want)
				}
			})
		})
	}
}

// TestFraudUnseen: without the issuer's book nobody says that there was no effect.
func TestFraudUnseen(t *testing.T) {
	f := NewFraud(FraudConfig{Victim: &Terminal{}, Thief: &Terminal{}})
	once := func(f *Fraud) error {
		return f.onceReversed(func(Entry) bool { return true }, reversedOnce)
	}
	if got := f.Run(t.Context(), FraudTest{Test: "A-12.T1", Run: once}); got.Verdict != FraudUnseen || got.Effect == "" {
		t.Errorf("%+v", got)
	}
}
