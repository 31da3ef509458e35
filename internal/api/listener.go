package api

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// handshakeTimeout bounds a handshake: whoever is slower holds a place that
// others need.
const handshakeTimeout = 10 * time.Second

// Listen takes connections from inner and does their handshakes by the config
// of a server that [Server] made, for its Serve. A connection that fails is
// recorded and closed: net/http would keep it to itself (L-10). It is to be
// closed as any listener; inner goes with it.
func (h *Handler) Listen(inner net.Listener, config *tls.Config) net.Listener {
	hard := config.Clone()
	hard.NextProtos = []string{"h2", "http/1.1"}
	l := &listener{Listener: inner, h: h, config: hard, ready: make(chan net.Conn), failed: make(chan error, 1)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.work.Go(l.accept)
	return l
}

// listener hands out connections whose handshake is done.
type listener struct {
	net.Listener
	h      *Handler
	config *tls.Config
	ready  chan net.Conn
	failed chan error // why inner accepts no more
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup
}

// Accept returns the next connection that may talk.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		l.failed <- err // for whoever asks again
		return nil, err
	}
}

// Close ends what is under way, too.
func (l *listener) Close() error {
	l.stop()
	err := l.Listener.Close()
	l.work.Wait()
	return err
}

func (l *listener) accept() {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			l.failed <- err
			return
		}
		l.work.Go(func() { l.greet(raw) })
	}
}

// greet does one handshake.
func (l *listener) greet(raw net.Conn) {
	conn := tls.Server(raw, l.config)
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		tellPlain(err)
		_ = raw.Close()
		if !errors.Is(err, io.EOF) && l.ctx.Err() == nil { // a port scan that said nothing asked for nothing
			l.h.refuseConn(raw.RemoteAddr().String(), err)
		}
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close()
	}
}

// tellPlain answers whoever forgot the s of https; what it says is no secret.
func tellPlain(err error) {
	var plain tls.RecordHeaderError
	if !errors.As(err, &plain) || plain.Conn == nil {
		return
	}
	switch string(plain.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nkeyd speaks HTTPS here: use https and a client certificate\n")
	}
}

// refuseConn records a connection that was let go before it could ask.
func (h *Handler) refuseConn(addr string, cause error) {
	h.log.Info("handshake failed", "addr", addr, "error", cause)
	stranger := custody.Caller{Client: custody.Client{Name: "unknown"}, Kind: audit.ActorSwitch, Addr: addr}
	err := h.custody.Record(context.Background(), stranger, "", audit.Record{
		Action:  audit.AuthRefuse,
		Outcome: audit.OutcomeRefused,
		Reason:  audit.ReasonCertUnknown,
	})
	if err != nil {
		h.log.Error("refusal not recorded", "addr", addr, "error", err)
	}
}
