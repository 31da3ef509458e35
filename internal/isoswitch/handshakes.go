package isoswitch

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// handshakes bounds the connections of a listener that are not in yet, apart from
// those that are: who is silent keeps no terminal out. One more ends the oldest,
// which is one that says nothing, for the others take milliseconds; an address
// that has an eighth of them ends one of its own. It is safe for concurrent use.
type handshakes struct {
	mu    sync.Mutex
	under list.List                 // of *handshake, the oldest first
	by    map[netip.Addr]*list.List // likewise; of addresses that have any
}

// handshake is a connection that is not in yet.
type handshake struct {
	conn    net.Conn
	addr    netip.Addr
	at, own *list.Element // nil once it is over
	ended   chan struct{} // closed in favour of a later one
}

// mostHandshakes is how many there are at a time, for so many connections.
func mostHandshakes(connections int) int { return max(16, connections/2) }

// begin takes a connection in. most is how many may be under way.
func (h *handshakes) begin(conn net.Conn, most int) *handshake {
	one := &handshake{conn: conn, addr: addressOf(conn), ended: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.under.Len() >= most {
		oldest := h.under.Front()
		if own := h.by[one.addr]; own != nil && own.Len() >= most/8 {
			oldest = own.Front()
		}
		last := oldest.Value.(*handshake)
		h.drop(last)
		close(last.ended)
		_ = last.conn.Close()
	}
	if h.by == nil {
		h.by = make(map[netip.Addr]*list.List)
	}
	own := h.by[one.addr]
	if own == nil {
		own = list.New()
		h.by[one.addr] = own
	}
	one.at, one.own = h.under.PushBack(one), own.PushBack(one)
	return one
}

// end gives its place back.
func (h *handshakes) end(one *handshake) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(one)
}

// drop takes one out of the lists. The caller holds the mutex.
func (h *handshakes) drop(one *handshake) {
	if one.at == nil {
		return
	}
	h.under.Remove(one.at)
	own := h.by[one.addr]
	own.Remove(one.own)
	if own.Len() == 0 {
		delete(h.by, one.addr)
	}
	one.at, one.own = nil, nil
}

// addressOf is the other end without its port; IPv6 by its network, of which one
// host has all addresses.
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
