package custody

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/audit"
)

// TestL14DenialsShareARecord: five hundred denials stand alone, those that follow
// at once share a record with their number, and fifty a second stand alone again.
func TestL14DenialsShareARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		alone, shared, counted := make(map[string]int), 0, make(map[string]int64)
		log := newDenials(func(_ context.Context, r audit.Record) error {
			mu.Lock()
			defer mu.Unlock()
			if r.Action == audit.RefuseAggregate {
				shared++
				counted[r.Count.Peer] += r.Count.N
				if r.Count.N != r.Count.By[0].N || r.Count.By[0].Reason != audit.ReasonRoleDenied || !r.Count.From.Before(r.Count.To) {
					t.Errorf("the count is not exact: %+v", r.Count)
				}
				return nil
			}
			alone[r.Actor.ID]++
			return nil
		}, time.Now)
		deny := func(client string) {
			r := audit.Record{Action: audit.AuthDeny, Reason: audit.ReasonRoleDenied, Actor: audit.Actor{ID: client}}
			if err := log.record(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
		var work sync.WaitGroup
		for range 2000 {
			work.Go(func() { deny("flood") })
		}
		for range 10 {
			work.Go(func() { deny("other") })
		}
		work.Wait()
		if alone["flood"] != 500 || shared != 1 || counted["flood"] != 1500 {
			t.Errorf("of 2000 denials %d stand alone and %d in %d shared records; want 500, and 1500 in one", alone["flood"], counted["flood"], shared)
		}
		if alone["other"] != 10 || counted["other"] != 0 {
			t.Errorf("10 denials of another client: %d alone, %d counted", alone["other"], counted["other"])
		}
		for range 100 {
			time.Sleep(20 * time.Millisecond)
			deny("flood")
		}
		if alone["flood"] != 600 || shared != 1 {
			t.Errorf("of 100 more in two seconds %d stand alone, want all", alone["flood"]-500)
		}
	})
}

// TestL14SharedRecordFails: who shares a record that cannot be written is told.
func TestL14SharedRecordFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk")
		log := newDenials(func(_ context.Context, r audit.Record) error {
			if r.Action == audit.RefuseAggregate {
				return broken
			}
			return nil
		}, time.Now)
		failed := 0
		var mu sync.Mutex
		var work sync.WaitGroup
		for range denialBurst + 10 {
			work.Go(func() {
				if err := log.record(t.Context(), audit.Record{Action: audit.AuthDeny, Reason: audit.ReasonRoleDenied, Actor: audit.Actor{ID: "a"}}); errors.Is(err, broken) {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			})
		}
		work.Wait()
		if failed != 10 {
			t.Errorf("%d answers were withheld, want the 10 whose record failed", failed)
		}
	})
}

// TestL14AnswersKeepTheirPace: who shares a record is answered at the pace at which
// he asked, so that hundreds of answers do not stand before others'; a clock that
// was set in between holds none for longer than a window.
func TestL14AnswersKeepTheirPace(t *testing.T) {
	for name, jump := range map[string]time.Duration{"steady clock": 0, "clock set on": time.Hour, "clock set back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var gone atomic.Int64
				clock := func() time.Time { return time.Now().Add(time.Duration(gone.Load())) }
				log := newDenials(func(context.Context, audit.Record) error { return nil }, clock)
				r := audit.Record{Action: audit.AuthDeny, Reason: audit.ReasonRoleDenied, Actor: audit.Actor{ID: "a"}}
				const asked = 5
				var work sync.WaitGroup
				answered := make([]time.Duration, asked)
				for n := range asked {
					work.Go(func() {
						time.Sleep(time.Duration(n) * 18 * time.Millisecond)
						if n == 1 {
							gone.Store(int64(jump))
						}
						if err := log.take(r, rate{}).wait(); err != nil {
							t.Error(err)
						}
						answered[n] = time.Since(start)
					})
				}
				work.Wait()
				for n, at := range answered {
					want := denialWindow + time.Duration(n)*18*time.Millisecond
					switch {
					case n > 0 && jump > 0:
						want = 2 * denialWindow
					case n > 0 && jump < 0:
						want = denialWindow
					}
					if at != want {
						t.Errorf("answer %d after %v, want %v", n, at, want)
					}
				}
			})
		})
	}
}
