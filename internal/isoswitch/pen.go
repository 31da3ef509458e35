package isoswitch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// penBeat is how much longer than it must a frame may wait in a pen, so that
// those that come after it are refused with it.
const penBeat = 20 * time.Millisecond

// pen is where the frames of a connection wait that is slowed down. Nearly all of
// them are refused for nothing but their TID: one goroutine does that for all that
// have waited long enough, and their answers go in one write. A goroutine, timers
// and a write for each took a third of what refusing it cost. It is safe for
// concurrent use.
type pen struct {
	release func(context.Context, []frame) // given those that have waited, in their order
	begin   func(func())                   // runs a function on a goroutine of its own

	mu   sync.Mutex
	held []held // in the order in which they came; nil while nobody looks after them
}

// held is a frame and when it may be looked at.
type held struct {
	frame
	due time.Time
}

// take keeps a frame for at least so long, or until ctx ends.
func (n *pen) take(ctx context.Context, f frame, slow time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	idle := n.held == nil
	n.held = append(n.held, held{f, time.Now().Add(slow)})
	if idle {
		n.begin(func() { n.keep(ctx) })
	}
}

// keep looks after the frames until there are none.
func (n *pen) keep(ctx context.Context) {
	for {
		due, any := n.next()
		if !any {
			return
		}
		sleep(ctx, time.Until(due)+penBeat)
		n.release(ctx, n.due(ctx.Err() != nil))
	}
}

// next is when the first may be looked at. It is false when there is none, and
// nobody looks after the pen any more.
func (n *pen) next() (due time.Time, any bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.held) == 0 {
		n.held = nil
		return time.Time{}, false
	}
	return n.held[0].due, true
}

// due takes out the frames that have waited long enough, or all.
func (n *pen) due(all bool) []frame {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	var out []frame
	for _, h := range n.held {
		if !all && now.Before(h.due) {
			break
		}
		out = append(out, h.frame)
	}
	n.held = slices.Delete(n.held, 0, len(out)) // and its place is overwritten: it held card numbers
	return out
}

// release refuses together what can be refused so, and lets the rest go on.
func (p *peer) release(ctx context.Context, frames []frame) {
	var all []shed
	for _, f := range frames {
		if f.fault != nil || !f.r.turn.come() {
			p.begin(func() { f.work(ctx) })
			continue
		}
		one, is := p.s.shed(f.r)
		if !is {
			p.begin(func() { f.workWhole(ctx) })
			continue
		}
		all = append(all, one)
	}
	if len(all) > 0 {
		p.s.crew.do(p.s.life, func() { p.answerShed(all) })
	}
}

func (p *peer) answerShed(all []shed) {
	p.s.answerShed(p, all...)
	for _, one := range all {
		one.r.turn.done()
		p.leave()
	}
}
