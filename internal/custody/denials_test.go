package custody

import (
	"context"
	"errors"
	"sync"
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
