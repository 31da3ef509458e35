package custody

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyd.dev/keyd/audit"
)

// TestL14RefusalsOfManyReasons: a window's record counts each reason exactly; who
// only joins uses no record of its own up; rates may differ from call to call.
func TestL14RefusalsOfManyReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		counted := make(map[audit.Reason]int64)
		log := newDenials(func(_ context.Context, r audit.Record) error {
			mu.Lock()
			defer mu.Unlock()
			var sum int64
			for i, by := range r.Count.By {
				counted[by.Reason] += by.N
				sum += by.N
				if i > 0 && r.Count.By[i-1].Reason >= by.Reason {
					t.Error("the reasons are not in order")
				}
			}
			if sum != r.Count.N || r.Reason != r.Count.By[0].Reason {
				t.Errorf("the sum is %d of %+v", sum, r.Count)
			}
			return nil
		}, time.Now)
		refused := func(why audit.Reason) audit.Record {
			return audit.Record{Reason: why, Actor: audit.Actor{ID: "link"}}
		}
		small := Refusal{PerSecond: 2}.rate()
		alone := 0
		for range 100 { // joining takes nothing while there is something left
			if log.join(refused(audit.ReasonLocked), small) != nil {
				t.Fatal("a refusal below the rate was to share a record")
			}
		}
		var work sync.WaitGroup
		for n := range 1000 {
			why := []audit.Reason{audit.ReasonLocked, audit.ReasonMACInvalid, audit.ReasonUnknownTerminal}[n%3]
			s := log.take(refused(why), small)
			if s == nil {
				alone++
				continue
			}
			work.Go(func() { <-s.of.done })
		}
		if s := log.join(refused(audit.ReasonLocked), small); s == nil {
			t.Error("a refusal above the rate was to have a record of its own")
		} else {
			work.Go(func() { <-s.of.done })
		}
		work.Wait()
		if sum := counted[audit.ReasonLocked] + counted[audit.ReasonMACInvalid] + counted[audit.ReasonUnknownTerminal]; alone != 20 || sum != 981 {
			t.Errorf("of 1001 refusals %d stood alone and %d were counted; want 20 and 981", alone, sum)
		}
		if got := counted[audit.ReasonMACInvalid]; got < 320 || got > 334 {
			t.Errorf("%d of one reason in three", got)
		}
	})
}

// TestL14EachTerminalHasItsRate: the certificates of a client with {tid} have rates
// and names apart, and those beyond the bound share one.
func TestL14EachTerminalHasItsRate(t *testing.T) {
	client := Client{Name: "pos", URI: "spiffe://acquirer/terminal/{tid}", Roles: []Role{RoleTerminal}}
	own := func(tid string) audit.Record {
		one, ok := client.ownTerminal("spiffe://acquirer/terminal/" + tid)
		if !ok {
			t.Fatal("no certificate of the client")
		}
		caller := SwitchCaller(one.Name, audit.ActorSwitch, "192.0.2.1:1", "c-1", "")
		caller.Terminal = one.OwnTerminal()
		return (&Act{caller: caller}).record(Refusal{Reason: audit.ReasonMACInvalid})
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		counted := make(map[string]int64)
		log := newDenials(func(_ context.Context, r audit.Record) error {
			mu.Lock()
			defer mu.Unlock()
			counted[r.Count.Peer] += r.Count.N
			return nil
		}, time.Now)
		small := Refusal{PerSecond: 1}.rate()
		flood := func(tid string, n int) (alone int) {
			for range n {
				if log.take(own(tid), small) == nil {
					alone++
				}
			}
			return alone
		}
		if a, b := flood("T0000001", 15), flood("T0000002", 3); a != 10 || b != 3 {
			t.Errorf("%d and %d have records of their own, want 10 and 3", a, b)
		}
		time.Sleep(time.Second)
		mu.Lock()
		if counted["pos/T0000001"] != 5 || len(counted) != 1 {
			t.Errorf("counted: %v", counted)
		}
		mu.Unlock()
		for n := range 2 * mostDenied {
			flood(fmt.Sprintf("U%07d", n), 1)
		}
		if len(log.clients) > mostDenied+1 || log.clients["others"] == nil {
			t.Errorf("%d are counted apart, want %d and the others", len(log.clients), mostDenied)
		}
		time.Sleep(denialQuiet)
		if flood("V0000001", 1); len(log.clients) != 1 {
			t.Errorf("%d are kept after a silence", len(log.clients))
		}
	})
}
