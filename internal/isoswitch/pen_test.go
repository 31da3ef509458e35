package isoswitch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// released is a pen that notes what it lets go, and when.
type released struct {
	pen
	start time.Time

	mu      sync.Mutex
	batches []string
	keepers int
}

func newReleased() *released {
	n := &released{start: time.Now()}
	n.begin = func(keep func()) { n.keepers++; go keep() }
	n.pen.release = func(_ context.Context, frames []frame) {
		n.mu.Lock()
		defer n.mu.Unlock()
		batch := fmt.Sprint(time.Since(n.start), ":")
		for _, f := range frames {
			batch += " " + f.r.corr
		}
		n.batches = append(n.batches, batch)
	}
	return n
}

func named(name string) frame { return frame{r: &request{corr: name}} }

// TestW19Pen: no frame is looked at before it has waited as long as it must, none
// waits a beat longer than that, all keep their order, and those that come within
// a beat are let go together.
func TestW19Pen(t *testing.T) {
	for name, c := range map[string]struct {
		at, slow []time.Duration // of each frame
		want     []string
	}{
		"one":             {at: []time.Duration{0}, want: []string{"220ms: 0"}},
		"within a beat":   {at: []time.Duration{0, 5, 20}, want: []string{"220ms: 0 1 2"}},
		"after the beat":  {at: []time.Duration{0, 21, 40, 42}, want: []string{"220ms: 0", "241ms: 1 2", "262ms: 3"}},
		"after a silence": {at: []time.Duration{0, 500}, want: []string{"220ms: 0", "720ms: 1"}},
		"slower by a new policy, then quicker": {
			at: []time.Duration{0, 1, 2}, slow: []time.Duration{200, 400, 10}, want: []string{"220ms: 0", "421ms: 1 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newReleased()
				for i, at := range c.at {
					time.Sleep(time.Until(n.start.Add(at * time.Millisecond)))
					slow := 200 * time.Millisecond
					if c.slow != nil {
						slow = c.slow[i] * time.Millisecond
					}
					n.take(t.Context(), named(fmt.Sprint(i)), slow)
				}
				time.Sleep(time.Second)
				synctest.Wait() // and nobody is left in the bubble
				if diff := cmp.Diff(c.want, n.batches); diff != "" {
					t.Errorf("want -, got +:\n%s", diff)
				}
				if n.held != nil {
					t.Error("the empty pen is looked after")
				}
			})
		})
	}
}

// TestPenEnds: with the switch all frames go on at once.
func TestPenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		n := newReleased()
		for i := range 3 {
			n.take(ctx, named(fmt.Sprint(i)), time.Hour)
		}
		time.Sleep(time.Minute)
		end()
		synctest.Wait()
		n.take(ctx, named("3"), time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{"1m0s: 0 1 2", "1m0s: 3"}, n.batches); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
	})
}

// TestPenLosesNone: whoever comes while the last one looks away is looked after,
// by one goroutine at a time.
func TestPenLosesNone(t *testing.T) {
	n := newReleased()
	var gone, all []string
	var mu sync.Mutex
	n.pen.release = func(_ context.Context, frames []frame) {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range frames {
			gone = append(gone, f.r.corr)
		}
	}
	var ended sync.WaitGroup
	n.begin = func(keep func()) { ended.Go(keep) }
	ctx, end := context.WithCancel(t.Context())
	end() // no waiting: as often as can be there is nobody
	for i := range 5000 {
		all = append(all, fmt.Sprint(i))
		n.take(ctx, named(all[i]), time.Hour)
	}
	ended.Wait()
	if !slices.Equal(gone, all) {
		t.Errorf("%d of %d frames were let go, or in another order", len(gone), len(all))
	}
}

// TestPenForgets: nothing stays in memory of frames that have gone.
func TestPenForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newReleased()
		for i := range 10 {
			n.take(t.Context(), named(fmt.Sprint(i)), time.Duration(i)*time.Second)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		n.pen.mu.Lock()
		if len(n.held) != 5 {
			t.Errorf("%d wait, want 5", len(n.held))
		}
		for _, h := range n.held[len(n.held):cap(n.held)] {
			if h.r != nil {
				t.Error("a frame that has gone is kept")
			}
		}
		n.pen.mu.Unlock()
		time.Sleep(time.Minute)
	})
}
