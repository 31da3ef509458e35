package isoswitch

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// TestCrew: all work is done, at once however much there is, by those who are
// free where there are any; and the crew goes when there is no more.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := newCrew()
		const many = 100
		for range 3 { // the second and third time by the same
			var all, inside sync.WaitGroup
			all.Add(many)
			inside.Add(many)
			for range many {
				c.do(ctx, func() {
					inside.Done()
					inside.Wait() // nobody waits for another to end
					all.Done()
				})
			}
			all.Wait()
			synctest.Wait()
		}
		free := 0
		for {
			synctest.Wait()
			select {
			case c.free <- func() { <-ctx.Done() }:
				free++
				continue
			default:
			}
			break
		}
		if free != many {
			t.Errorf("%d are free, want %d", free, many)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCrew()
		c.do(t.Context(), func() {})
		synctest.Wait() // the bubble ends when the one has rested
	})
}
