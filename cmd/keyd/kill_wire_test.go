package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// wire is a connection to the switch whose frames come as they come.
type wire struct {
	conn   net.Conn
	frames chan []byte // closed when the connection has ended
	gone   chan struct{}
	once   sync.Once
}

func dialWire(ctx context.Context, addr string, config *tls.Config) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, frames: make(chan []byte, 64), gone: make(chan struct{})}
	go w.read()
	return w, nil
}

func (w *wire) read() {
	defer close(w.frames)
	for {
		raw, err := iso8583.ReadFrame(w.conn)
		if err != nil {
			return
		}
		select {
		case w.frames <- raw:
		case <-w.gone:
			return
		}
	}
}

func (w *wire) write(raw []byte) error {
	frame, err := iso8583.AppendFrame(nil, raw)
	if err != nil {
		return err
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = w.conn.Write(frame)
	return err
}

func (w *wire) close() {
	w.once.Do(func() { close(w.gone) })
	_ = w.conn.Close()
}
