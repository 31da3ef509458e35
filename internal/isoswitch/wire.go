package isoswitch

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
)

// wire writes frames to a connection. Those that are there when a write begins
// go with it: a write, and the reading of it at the other end, cost more than
// anything else that is done for a message. It is safe for concurrent use.
type wire struct {
	conn     func() net.Conn // nil while there is none
	patience func() time.Duration
	writing  sync.Mutex // one write at a time

	mu   sync.Mutex
	next *freight // what goes with the next write; nil for nothing
}

// freight are the frames of one write.
type freight struct {
	items []*item
	gone  chan struct{} // closed when the outcome of each is known
}

// item is a frame on its way.
type item struct {
	frame  []byte
	depart func() bool
	err    error
}

// send writes a frame, or has it written with others. depart is asked at the
// last moment whether it may go. errLinkDown and errRecalled mean that nothing
// of it has left; after any other error part of it may have.
func (w *wire) send(frame []byte, depart func() bool) error {
	it := &item{frame: frame, depart: depart}
	w.mu.Lock()
	first := w.next == nil
	if first {
		w.next = &freight{gone: make(chan struct{})}
	}
	load := w.next
	load.items = append(load.items, it)
	w.mu.Unlock()
	if !first {
		<-load.gone
		return it.err
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	runtime.Gosched() // who is about to send comes along; with nobody there it takes no time
	w.mu.Lock()
	w.next = nil
	w.mu.Unlock()
	defer close(load.gone)
	w.write(load.items)
	return it.err
}

func (w *wire) write(items []*item) {
	conn := w.conn()
	var left []*item
	var bytes []byte
	for _, it := range items {
		switch {
		case conn == nil:
			it.err = errLinkDown
		case !it.depart():
			it.err = errRecalled
		default:
			left = append(left, it)
			bytes = append(bytes, it.frame...)
		}
	}
	if len(left) == 0 {
		return
	}
	if err := w.put(conn, bytes); err != nil {
		_ = conn.Close() // a frame may be cut short: nothing more can follow
		for _, it := range left {
			it.err = err
		}
	}
}

func (w *wire) put(conn net.Conn, bytes []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(w.patience())); err != nil {
		return fmt.Errorf("writing to the connection: %w", err)
	}
	if _, err := conn.Write(bytes); err != nil {
		return fmt.Errorf("writing to the connection: %w", err)
	}
	return nil
}
