package custody_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// TestKeyLimits: operators see how many keys come to their end, by time and by
// uses, and a key that is stopped counts no more.
func TestKeyLimits(t *testing.T) {
	r := newLifeRoom(t, nil)
	start := r.clock.Now()
	end := start.Add(10 * time.Hour).Truncate(time.Second)
	r.made(t, "alias/timed", cmacKey, map[string]string{custody.TagNotAfter: end.Format(time.RFC3339), custody.TagWarnPercent: "50"})
	r.made(t, "alias/used", cmacKey, map[string]string{custody.TagMaxUses: "2", custody.TagWarnPercent: "50"})
	r.made(t, "alias/plain", cmacKey, nil)
	want := func(name string, l custody.KeyLimits) {
		t.Helper()
		if err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, r.KeyLimits()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := r.KeyLimits(); got != (custody.KeyLimits{}) {
		t.Errorf("before the first sweep: %+v", got)
	}
	want("new", custody.KeyLimits{NextEnd: end})
	use := func() {
		t.Helper()
		if _, err := r.mac(t, ref("alias/used")); err != nil {
			t.Fatal(err)
		}
	}
	use()
	r.clock.turn(6 * time.Hour)
	want("past the thresholds", custody.KeyLimits{PeriodWarned: 1, UsesWarned: 1, NextEnd: end})
	use()
	r.clock.turn(5 * time.Hour)
	want("over", custody.KeyLimits{PeriodOver: 1, UsesOver: 1})
	if _, err := r.StopKeyUsage(t.Context(), admin, "t", custody.KeyStep{Key: ref("alias/used")}); err != nil {
		t.Fatal(err)
	}
	want("one is stopped", custody.KeyLimits{PeriodOver: 1})
}

// TestObserve: each operation is told with its name, its class and its time.
func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var seen []custody.Measure
	r := newLifeRoom(t, func(cfg *custody.Config) {
		cfg.Observe = func(m custody.Measure) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, m)
		}
	})
	r.made(t, "alias/mac", cmacKey, nil)
	mu.Lock()
	seen = nil
	mu.Unlock()
	if _, err := r.mac(t, ref("alias/mac")); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 || seen[0].Operation != custody.OpGenerateMAC || seen[0].Custody != audit.CustodyToken || seen[0].Took <= 0 {
		t.Errorf("told %+v, want one MAC made in the token", seen)
	}
}
