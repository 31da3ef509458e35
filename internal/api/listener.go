package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
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
		// Here and not there: who came first is the oldest.
		one := l.h.greeter.begin(raw, l.h.shares.limits.Load().Handshakes)
		l.work.Go(func() { l.greet(raw, one) })
	}
}

// greet does one handshake.
func (l *listener) greet(raw net.Conn, one *greeting) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	one.ctx = ctx
	conn := tls.Server(one, l.config)
	err := conn.HandshakeContext(ctx)
	ended := l.h.greeter.end(one)
	switch {
	case ended:
		_ = raw.Close()
		l.h.turnedAway(l.h.shares.of(strangers), tooManyGreeted)
		return
	case err != nil:
		tellPlain(err)
		_ = raw.Close()
		if !errors.Is(err, io.EOF) && l.ctx.Err() == nil { // a port scan that said nothing asked for nothing
			l.h.refuseConn(raw, err)
		}
		return
	}
	if !l.h.connected(conn) {
		_ = conn.Close()
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close()
		l.h.disconnected(conn)
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

// refuseConn records a connection that was let go before it could ask. Those of
// a flood are counted.
func (h *Handler) refuseConn(raw net.Conn, cause error) {
	why := audit.ReasonCertUnknown
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(cause, credentials.ErrRevoked):
		why = audit.ReasonCertRevoked
	case errors.As(cause, &invalid) && invalid.Reason == x509.Expired:
		why = audit.ReasonCertExpired
	}
	if !h.greeter.alone(h.clock()) {
		h.tally.add(addressOf(raw).String(), why)
		return
	}
	addr := raw.RemoteAddr().String()
	h.log.Info("handshake failed", "addr", addr, "error", cause)
	stranger := custody.Caller{Client: custody.Client{Name: "unknown"}, Kind: audit.ActorSwitch, Addr: addr}
	err := h.custody.Record(context.Background(), stranger, "", audit.Record{
		Action:  audit.AuthRefuse,
		Outcome: audit.OutcomeRefused,
		Reason:  why,
	})
	if err != nil {
		h.log.Error("refusal not recorded", "addr", addr, "error", err)
	}
}

// connected counts a connection in as one of its client's, or reports false.
func (h *Handler) connected(conn *tls.Conn) bool {
	name := strangers
	if client, err := h.custody.Identify(conn.ConnectionState().PeerCertificates[0]); err == nil {
		name = client.Name
	}
	s := h.shares.of(name)
	h.openMu.Lock()
	defer h.openMu.Unlock()
	if len(h.open) >= h.shares.limits.Load().Connections {
		h.turnedAway(s, tooManyInAll)
		return false
	}
	if !s.connect() {
		h.turnedAway(s, tooManyOpen)
		return false
	}
	h.open[conn] = s
	return true
}

// disconnected counts a connection out.
func (h *Handler) disconnected(conn net.Conn) {
	h.openMu.Lock()
	defer h.openMu.Unlock()
	if s, ok := h.open[conn]; ok {
		s.open.Add(-1)
		delete(h.open, conn)
	}
}

// connState is for [http.Server.ConnState].
func (h *Handler) connState(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		h.disconnected(conn)
	}
}
