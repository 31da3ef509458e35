package isoswitch

import (
	"context"
	"time"
)

// crewRest is how long one of the crew waits for more work.
const crewRest = 5 * time.Second

// crew are goroutines that work on messages, one after the other: a message goes
// deep, and the stack of a goroutine that begins anew is copied several times on
// the way, which was a twentieth of the processor time of a sale. Who finds nobody
// free is not kept waiting. It is safe for concurrent use.
type crew struct{ free chan func() }

func newCrew() *crew { return &crew{free: make(chan func())} }

// do runs work on a goroutine of its own. The goroutine goes on with other work,
// or ends after a while, or with ctx.
func (c *crew) do(ctx context.Context, work func()) {
	select {
	case c.free <- work:
	default:
		go c.serve(ctx, work)
	}
}

func (c *crew) serve(ctx context.Context, work func()) {
	rest := time.NewTimer(crewRest)
	defer rest.Stop()
	for {
		work()
		rest.Reset(crewRest)
		select {
		case work = <-c.free:
		case <-rest.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
