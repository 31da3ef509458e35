package isoswitch

import (
	"net"
	"testing"
)

// from is a connection of an address.
type from struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *from) RemoteAddr() net.Addr { return c.addr }
func (c *from) Close() error         { c.closed = true; return nil }

// TestHandshakes: who has many under way ends his own, and who has few the oldest.
func TestHandshakes(t *testing.T) {
	conn := func(ip string) *from { return &from{addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}} }
	var h handshakes
	const most = 16
	quiet := conn("192.0.2.1")
	h.begin(quiet, most)
	var flood []*from
	var last *handshake
	for range 100 {
		flood = append(flood, conn("192.0.2.2"))
		last = h.begin(flood[len(flood)-1], most)
	}
	if quiet.closed {
		t.Error("a flood from one address ended the handshake of another")
	}
	open := 0
	for _, c := range flood {
		if !c.closed {
			open++
		}
	}
	if open != most-1 || flood[99].closed {
		t.Errorf("%d of the flood are under way, want the last %d", open, most-1)
	}
	h.begin(conn("192.0.2.3"), most)
	if !quiet.closed {
		t.Error("a newcomer did not end the oldest")
	}
	select {
	case <-last.ended:
		t.Error("the latest was ended")
	default:
	}
	h.end(last)
	h.end(last)
	if h.under.Len() != most-1 {
		t.Errorf("%d are under way, want %d", h.under.Len(), most-1)
	}
	one, other := conn("2001:db8:1:1::1"), conn("2001:db8:1:1:2::3")
	if addressOf(one) != addressOf(other) {
		t.Error("one IPv6 network counts twice")
	}
}
