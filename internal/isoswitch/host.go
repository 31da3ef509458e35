package isoswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// host is an upstream: its zone keys, what it speaks, its links, its queue of
// reversals. What is sent to a host goes over one of its links, and is answered
// over any of them, but by no other host. It is safe for concurrent use.
type host struct {
	s   *Switch
	cfg Upstream
	hostSpeech
	zone atomic.Pointer[zone]
	open *exchanges // what was sent and has no answer

	links  []*link // those preferred first
	chosen atomic.Pointer[link]
	moved  atomic.Uint64 // how often another link was chosen than the one before

	breaker *breaker
	claims  *claims
	woken   chan struct{}

	choosing sync.Mutex
	last     *link         // that was chosen, also while none is
	up       chan struct{} // closed while a link is chosen
	again    *time.Timer   // chooses again
}

// zone are the keys that keyd shares with a host.
type zone struct {
	pin custody.Ref
	mac custody.Ref // both directions
}

func newHost(s *Switch, cfg Upstream) *host {
	h := &host{
		s: s, cfg: cfg, hostSpeech: ascii87Host(s.cfg.Dialect), open: newExchanges(s.now),
		breaker: newBreaker(func() Retry { return s.rules().Retry }, s.cfg.Clock),
		claims:  newClaims(), woken: make(chan struct{}, 1), up: make(chan struct{}),
	}
	if cfg.Profile != nil {
		h.hostSpeech = speechOfHost(cfg.Profile)
	}
	h.zone.Store(&zone{pin: cfg.PINKey, mac: cfg.MACKey})
	for _, end := range cfg.Links {
		h.links = append(h.links, newLink(h, end))
	}
	return h
}

// hostOf is the host to which a transaction went, or nil where it is configured
// no more.
func (s *Switch) hostOf(t *Txn) *host { return s.byName[t.Link] }

// keepLinks keeps all links connected until ctx ends.
func (h *host) keepLinks(ctx context.Context) {
	var all sync.WaitGroup
	for _, l := range h.links {
		all.Go(func() { l.run(ctx) })
	}
	all.Go(func() { h.keepKeys(ctx) })
	all.Wait()
	h.choosing.Lock()
	defer h.choosing.Unlock()
	if h.again != nil {
		h.again.Stop()
	}
}

// reachable reports whether something can be sent now.
func (h *host) reachable() bool { return h.chosen.Load() != nil }

// ready returns a channel that is closed while the host is reachable.
func (h *host) ready() <-chan struct{} {
	h.choosing.Lock()
	defer h.choosing.Unlock()
	return h.up
}

// send hands a sealed message to the link that is chosen, or to the next one
// where it is sure that nothing has left by that. depart is asked at the last
// moment whether it may go; errLinkDown and errRecalled mean that nothing has
// left. After any other error part of it may have, and it goes over no second
// link: the host could take it for a second one.
func (h *host) send(receipt custody.Receipt, open *exchange, msg []byte, depart func() bool) error {
	first := h.chosen.Load()
	if first == nil {
		return errLinkDown
	}
	err := h.sendOver(first, receipt, open, msg, depart)
	for _, l := range h.links {
		if !errors.Is(err, errLinkDown) {
			return err
		}
		if l != first && l.standing() != absent {
			err = h.sendOver(l, receipt, open, msg, depart)
		}
	}
	return err
}

func (h *host) sendOver(l *link, receipt custody.Receipt, open *exchange, msg []byte, depart func() bool) error {
	h.open.over(open, l)
	return l.send(receipt, msg, depart)
}

// silence notes that a message has had no answer in time.
func (h *host) silence(open *exchange) {
	if l := h.open.link(open); l != nil {
		l.missed()
	}
}

// caller is the host, for records of what came or goes by no link in particular.
func (h *host) caller() custody.Caller {
	var conn net.Conn
	l := h.chosen.Load()
	if l == nil {
		l = h.links[0]
	} else {
		conn = l.current()
	}
	return l.caller(conn)
}

// wake tells the queue that it has changed.
func (h *host) wake() {
	select {
	case h.woken <- struct{}{}:
	default:
	}
}

// wake tells all queues that they may have changed.
func (s *Switch) wake() {
	for _, h := range s.hosts {
		h.wake()
	}
}

// checkKeys refuses to serve with zone keys that are not there, or are for
// something else: each sale would fail, and the first customer would find out.
func (h *host) checkKeys(ctx context.Context) error {
	z := h.zone.Load()
	for _, need := range []struct {
		name  string
		ref   custody.Ref
		usage keys.Usage
	}{
		{"zone MAC key", z.mac, h.usage},
		{"zone PIN key", z.pin, keys.UsagePIN},
	} {
		k, err := h.s.custody.Key(ctx, custody.SystemCaller("keyd", custody.RoleOperator), "start", need.ref)
		if err != nil {
			return fmt.Errorf("finding the %s %s of upstream %s: %w", need.name, need.ref, h.cfg.Name, err)
		}
		if k.State != custody.CreateComplete || !k.Enabled || k.Block.Attributes.Usage != need.usage {
			return fmt.Errorf("%w: the %s %s of upstream %s must be in use and have usage %s; it has %s, enabled %v, %s",
				ErrConfig, need.name, need.ref, h.cfg.Name, need.usage, k.Block.Attributes.Usage, k.Enabled, k.State)
		}
		if need.usage == keys.UsagePIN && k.Block.TokenOnly() {
			return fmt.Errorf("%w: the policy of the %s %s of upstream %s forbids a clear PIN in the process, and DUKPT terminals' PINs cannot be moved otherwise",
				ErrConfig, need.name, need.ref, h.cfg.Name)
		}
	}
	return nil
}

// counters are those that gave messages their numbers when each upstream had one.
func counters(list []Upstream) []string {
	var names []string
	for _, u := range list {
		names = append(names, "stan/"+u.Name)
	}
	return names
}
