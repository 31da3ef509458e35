package api

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// greeter bounds handshakes. So many are under way; one more ends the oldest,
// which is one that says nothing: the others take milliseconds. An address that
// has an eighth of them ends one of its own. Those that compute take turns by
// address, and have half of the processors, so that a flood of strangers leaves
// the rest to those who are in.
type greeter struct {
	gate gate // of those that compute; the clients of it are addresses

	mu     sync.Mutex
	under  list.List // of *greeting, the oldest first
	by     map[netip.Addr]*visitor
	single int64 // refusals recorded one by one in this second
	second int64
}

// visitor is an address with handshakes under way.
type visitor struct {
	share
	under list.List // of *greeting, the oldest first
}

// greeting is a connection during its handshake: a net.Conn that gives its place
// at the gate back while it waits for the other end.
type greeting struct {
	net.Conn
	ctx     context.Context
	gate    *gate
	visitor *visitor
	addr    netip.Addr
	at      *list.Element // in all that are under way; nil when it is not
	own     *list.Element // in those of its address
	in      bool          // at the gate
	done    bool          // the handshake is over
	ended   bool          // in favour of a later one
}

func newGreeter() *greeter {
	g := &greeter{by: make(map[netip.Addr]*visitor)}
	width := max(1, runtime.GOMAXPROCS(0)/2)
	g.gate = gate{width: width, each: width, pick: func(s *share) *queue { return &s.data }}
	return g
}

// begin takes a connection in. most is how many may be under way.
func (g *greeter) begin(raw net.Conn, most int) *greeting {
	addr := addressOf(raw)
	one := &greeting{Conn: raw, gate: &g.gate, addr: addr}
	g.mu.Lock()
	defer g.mu.Unlock()
	one.visitor = g.by[addr]
	if one.visitor == nil {
		one.visitor = &visitor{share: share{name: addr.String()}}
	}
	if g.under.Len() >= most {
		oldest := g.under.Front()
		if own := &one.visitor.under; own.Len() > 0 && own.Len() >= most/8 {
			oldest = own.Front()
		}
		last := oldest.Value.(*greeting)
		last.ended = true
		g.drop(last)
		_ = last.Conn.Close()
	}
	g.by[addr] = one.visitor
	one.at, one.own = g.under.PushBack(one), one.visitor.under.PushBack(one)
	return one
}

// drop takes a greeting out of the lists. The caller holds the mutex.
func (g *greeter) drop(one *greeting) {
	if one.at == nil {
		return
	}
	g.under.Remove(one.at)
	one.visitor.under.Remove(one.own)
	one.at = nil
	if one.visitor.under.Len() == 0 {
		delete(g.by, one.addr)
	}
}

// end lets a connection go on, or out. It reports whether it was ended in favour
// of another.
func (g *greeter) end(one *greeting) (ended bool) {
	one.step(false)
	one.done = true
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(one)
	return one.ended
}

// mostSingle is how many failed handshakes of a second are recorded one by one;
// the rest are counted (L-14).
const mostSingle = 50

// alone reports whether a failed handshake gets a record of its own.
func (g *greeter) alone(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if second := now.Unix(); second != g.second {
		g.second, g.single = second, 0
	}
	g.single++
	return g.single <= mostSingle
}

// step goes in at the gate, or out.
func (c *greeting) step(in bool) {
	switch {
	case in && !c.in:
		ok, err := c.gate.enter(c.ctx, &c.visitor.share, handshakeTimeout)
		c.in = ok && err == nil
	case !in && c.in:
		c.gate.leave(&c.visitor.share)
		c.in = false
	}
}

// Read implements net.Conn.
func (c *greeting) Read(p []byte) (int, error) {
	if c.done {
		return c.Conn.Read(p)
	}
	c.step(false)
	n, err := c.Conn.Read(p)
	if err == nil {
		c.step(true)
	}
	return n, err
}

// addressOf is the other end without its port; IPv6 by its network, of which
// one host has all addresses.
func addressOf(conn net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	addr := at.Addr().Unmap()
	if addr.Is6() {
		if network, err := addr.WithZone("").Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}
