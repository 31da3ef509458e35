package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// weather is what a proxy may do to a connection, each in so many of a
// thousand segments.
type weather struct {
	late   int           // the segment waits, and all behind it
	most   time.Duration // at most so long
	twice  int           // the segment comes twice, which TLS must take for an attack
	cut    int           // the connection ends, with what is under way
	frozen int           // nothing goes any more, but the connection stays for a while
	freeze time.Duration // at most so long, and then it is cut
}

// proxy stands on a link and spoils it. One half-open connection at either end
// never holds up another.
type proxy struct {
	listener net.Listener
	to       string
	weather  atomic.Pointer[weather]
	seeds    *dice // of the connections, in the order in which they come
	work     sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]struct{}

	lates, twices, cuts, freezes atomic.Int64
}

// startProxy listens at addr and passes everything on to another address.
func startProxy(t *testing.T, addr, to string, d *dice, w weather) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to, seeds: d, open: make(map[net.Conn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	p.weather.Store(&w)
	p.work.Go(p.accept)
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// calm ends all spoiling and all connections: what comes from now on arrives.
func (p *proxy) calm() {
	p.weather.Store(&weather{})
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
}

func (p *proxy) stop() {
	p.cancel()
	_ = p.listener.Close()
	p.calm()
	p.work.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		there, back := newDice(p.seeds.next()), newDice(p.seeds.next())
		p.work.Go(func() { p.join(near, there, back) })
	}
}

// join carries one connection in both directions until either ends.
func (p *proxy) join(near net.Conn, there, back *dice) {
	defer p.forget(near)
	if !p.keep(near) {
		return
	}
	far, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(p.ctx, "tcp", p.to)
	if err != nil {
		return // the other side is down: so is the link
	}
	defer p.forget(far)
	if !p.keep(far) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.carry(far, near, there) })
	both.Go(func() { p.carry(near, far, back) })
	both.Wait()
}

func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[conn] = struct{}{}
	return p.ctx.Err() == nil
}

func (p *proxy) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, conn)
}

// carry passes segments on in one direction.
func (p *proxy) carry(to, from net.Conn, d *dice) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if err := p.pass(to, buffer[:n], d); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// errCut: the proxy has cut the connection.
var errCut = errors.New("cut by the proxy")

// pass writes a segment, or does to it what the weather has.
func (p *proxy) pass(to net.Conn, segment []byte, d *dice) error {
	w := p.weather.Load()
	n := d.below(1000)
	hits := func(share int) bool {
		hit := n >= 0 && n < share
		n -= share
		return hit
	}
	switch {
	case hits(w.cut):
		p.cuts.Add(1)
		if half := len(segment) / 2; d.chance(50) {
			_, _ = to.Write(segment[:half]) // a torn frame
		}
		return errCut
	case hits(w.frozen):
		p.freezes.Add(1)
		wait(p.ctx, d.between(0, w.freeze))
		return errCut
	case hits(w.twice):
		p.twices.Add(1)
		if _, err := to.Write(segment); err != nil {
			return err
		}
	case hits(w.late):
		p.lates.Add(1)
		wait(p.ctx, d.between(0, w.most))
	}
	_, err := to.Write(segment)
	return err
}
