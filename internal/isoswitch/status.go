package isoswitch

import "time"

// Status is the state of the switch at a moment.
type Status struct {
	LinkUp      bool // each upstream can be reached
	SignedOn    bool // and has answered the sign-on with a good MAC
	Connections int  // of terminals
	InFlight    int  // sales that wait for upstream
	Resting     bool // a breaker is open: a queue of reversals rests
	Upstreams   []UpstreamStatus
}

// UpstreamStatus is the state of one upstream.
type UpstreamStatus struct {
	Name     string
	Up       bool   // something can be sent
	SignedOn bool   // over a link that is signed on
	Resting  bool   // its breaker is open
	Moved    uint64 // how often another link was chosen than the one before
	Links    []LinkStatus
}

// LinkStatus is the state of one link.
type LinkStatus struct {
	Name, Addr string
	State      LinkState
	Chosen     bool          // messages go over it
	Idle       time.Duration // since the last frame; 0 while it is down
	Fault      error         // the last one; nil where there was none

	Connects, Sent, Frames, Silent uint64 // connections, messages sent, frames received, messages without an answer in time
}

// LinkState says what a link is at.
type LinkState string

// The states of a link.
const (
	LinkDown     LinkState = "down"
	LinkUnsigned LinkState = "connected" // the sign-on has no answer that could be believed
	LinkRefused  LinkState = "refused"   // the host refuses the sign-on, or has signed off: nothing goes over it
	LinkMute     LinkState = "silent"    // messages have no answers
	LinkSignedOn LinkState = "signed-on"
)

// Status returns the state of the switch.
func (s *Switch) Status() Status {
	s.mu.Lock()
	now := Status{LinkUp: true, SignedOn: true, Connections: s.peers}
	s.mu.Unlock()
	now.InFlight = s.flights.count()
	for _, h := range s.hosts {
		u := h.status()
		now.LinkUp = now.LinkUp && u.Up
		now.SignedOn = now.SignedOn && u.SignedOn
		now.Resting = now.Resting || u.Resting
		now.Upstreams = append(now.Upstreams, u)
	}
	return now
}

func (h *host) status() UpstreamStatus {
	chosen := h.chosen.Load()
	u := UpstreamStatus{Name: h.cfg.Name, Up: chosen != nil, Resting: h.breaker.isOpen(), Moved: h.moved.Load()}
	for _, l := range h.links {
		at := l.status()
		if at.Chosen = l == chosen; at.Chosen {
			u.SignedOn = l.signState() == signedOn
		}
		u.Links = append(u.Links, at)
	}
	return u
}

func (l *link) status() LinkStatus {
	at := LinkStatus{
		Name: l.cfg.Name, Addr: l.cfg.Addr, State: LinkSignedOn,
		Connects: l.tally.connects.Load(), Sent: l.tally.sent.Load(), Frames: l.tally.frames.Load(), Silent: l.tally.silent.Load(),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at.Fault = l.fault
	switch {
	case l.conn == nil:
		at.State = LinkDown
		return at
	case l.sign == signedOff:
		at.State = LinkRefused
	case l.sign == unsigned:
		at.State = LinkUnsigned
	case l.mute(int(l.misses.Load())):
		at.State = LinkMute
	}
	at.Idle = l.idle()
	return at
}
