package isoswitch

import "time"

// standing is how fit a link is to carry messages.
type standing uint8

const (
	absent   standing = iota // not connected, or the host wants nothing by it
	doubtful                 // connected; the host has not answered the sign-on, or not the last messages
	fit                      // signed on, and answered
)

// choose returns the link over which messages go: the first in the order among
// those of the best standing. One that carries them keeps them while it has that
// standing, until one before it in the order has been fit for as long as back, or
// has never failed; wait is when that may be, or 0. Nil: none can carry anything.
func choose(links []*link, present *link, now time.Time, back time.Duration) (next *link, wait time.Duration) {
	best := absent
	for _, l := range links {
		best = max(best, l.standing())
	}
	if best == absent {
		return nil, 0
	}
	stay := present != nil && present.standing() == best
	for _, l := range links {
		switch {
		case l == present && stay:
			return l, wait
		case l.standing() != best:
			continue
		}
		rest := l.unsteady(now, back)
		if !stay || rest <= 0 {
			return l, 0
		}
		if wait == 0 || rest < wait {
			wait = rest
		}
	}
	return present, wait
}

// elect chooses a link again: one of them stands otherwise than before.
func (h *host) elect() {
	h.choosing.Lock()
	defer h.choosing.Unlock()
	was := h.chosen.Load()
	next, wait := choose(h.links, was, h.s.now(), h.cfg.FailBack)
	if h.again != nil {
		h.again.Stop()
	}
	if wait > 0 {
		h.again = time.AfterFunc(wait, h.elect)
	}
	if next == was {
		return
	}
	h.chosen.Store(next)
	switch {
	case next == nil:
		h.up = make(chan struct{})
		return
	case was == nil:
		close(h.up)
	}
	if h.last != nil && h.last != next {
		h.moved.Add(1)
		h.s.log.Warn("upstream: messages go over another link", "upstream", h.cfg.Name, "link", next.cfg.Name, "before", h.last.cfg.Name)
		h.s.observe(Event{Name: "link", Code: "moved"})
	}
	h.last = next
	h.wake()
}
