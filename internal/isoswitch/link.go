package isoswitch

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// errLinkDown: nothing was handed to the link, for it is not connected.
var errLinkDown = errors.New("isoswitch: the upstream link is down")

const (
	redialFirst   = 200 * time.Millisecond
	redialCeiling = 5 * time.Second
	dialTimeout   = 5 * time.Second
	unasked       = 64 // messages nobody asked for that are worked on at a time
)

// link is the connection to the acquirer host. It is safe for concurrent use.
type link struct {
	s    *Switch
	cfg  Upstream
	open *exchanges
	slow chan struct{} // slots for messages that nobody asked for
	work sync.WaitGroup

	signedOn atomic.Bool
	heard    atomic.Int64 // wall clock of the last frame, nanoseconds

	writing sync.Mutex // one frame at a time

	mu   sync.Mutex
	conn net.Conn      // nil while down
	up   chan struct{} // closed while up
}

func newLink(s *Switch, cfg Upstream) *link {
	return &link{
		s:    s,
		cfg:  cfg,
		open: newExchanges(s.now),
		slow: make(chan struct{}, unasked),
		up:   make(chan struct{}),
	}
}

// caller is the link's peer, for the records.
func (l *link) caller(conn net.Conn) custody.Caller {
	addr := ""
	if conn != nil {
		addr = conn.RemoteAddr().String()
	}
	return custody.SwitchCaller(l.cfg.Name, audit.ActorUpstream, addr, "", "")
}

// run keeps the link connected until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.work.Wait()
	wait := redialFirst
	for ctx.Err() == nil {
		conn, err := l.dial(ctx)
		if err != nil {
			l.s.log.Warn("upstream link: cannot connect", "link", l.cfg.Name, "addr", l.cfg.Addr, "error", err)
			sleep(ctx, jitter(wait))
			wait = min(2*wait, redialCeiling)
			continue
		}
		wait = redialFirst
		err = l.serve(ctx, conn)
		l.s.log.Warn("upstream link: connection ended", "link", l.cfg.Name, "error", err)
		sleep(ctx, jitter(redialFirst))
	}
}

func (l *link) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := l.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	raw, err := dial(ctx, l.cfg.Addr)
	if err != nil {
		return nil, err
	}
	conf := l.cfg.TLS
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(l.cfg.Addr)
		if err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("the upstream address is not host:port: %w", err)
		}
		conf = conf.Clone()
		conf.ServerName = host
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// serve works on one connection until it ends.
func (l *link) serve(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	l.raise(conn)
	defer l.lower(conn)
	l.work.Go(func() { l.greet(ctx, conn) })
	return l.read(ctx, conn)
}

func (l *link) raise(conn net.Conn) {
	l.heard.Store(l.s.now().UnixNano())
	l.mu.Lock()
	l.conn = conn
	close(l.up)
	l.mu.Unlock()
	l.s.log.Info("upstream link: connected", "link", l.cfg.Name, "addr", l.cfg.Addr)
	l.s.observe(Event{Name: "link", Code: "up"})
}

func (l *link) lower(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	l.conn = nil
	l.up = make(chan struct{})
	l.mu.Unlock()
	l.signedOn.Store(false)
	l.open.drop()
	l.s.observe(Event{Name: "link", Code: "down"})
}

// ready returns a channel that is closed while the link is connected.
func (l *link) ready() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *link) current() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

func (l *link) isUp() bool { return l.current() != nil }

// send hands a sealed message to the link. depart is asked at the last moment
// whether it may go; errLinkDown and errRecalled mean that nothing has left.
// After any other error part of it may have.
func (l *link) send(receipt custody.Receipt, msg []byte, depart func() bool) error {
	if !receipt.Valid() {
		return fmt.Errorf("%w: no receipt for what is to be sent", errLinkDown)
	}
	frame, err := iso8583.AppendFrame(make([]byte, 0, len(msg)+2), msg)
	if err != nil {
		return fmt.Errorf("%w: %w", errLinkDown, err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	conn := l.current()
	if conn == nil {
		return errLinkDown
	}
	if !depart() {
		return errRecalled
	}
	patience := min(l.s.rules().Timers.Write, l.s.rules().Timers.Upstream)
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("sending upstream: %w", err)
	}
	if _, err := conn.Write(frame); err != nil {
		_ = conn.Close()
		return fmt.Errorf("sending upstream: %w", err)
	}
	return nil
}

// errRecalled: a reversal voided the sale before it left (D-20).
var errRecalled = errors.New("isoswitch: recalled before it left")

// read takes frames until the connection ends.
func (l *link) read(ctx context.Context, conn net.Conn) error {
	r := bufio.NewReader(conn)
	for {
		frame, err := iso8583.ReadFrame(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil && isFraming(err) {
				l.s.refuseUpstreamFrame(ctx, l, conn, nil, err)
			}
			return err
		}
		l.heard.Store(l.s.now().UnixNano())
		l.take(ctx, conn, frame)
	}
}

// take gives a frame to whom it belongs. Only what nobody asked for can make it
// wait, and then for all of its kind.
func (l *link) take(ctx context.Context, conn net.Conn, frame []byte) {
	m, err := l.s.dialect.Parse(frame, iso8583.SideUpstream)
	if err != nil {
		l.spawn(func() { l.s.refuseUpstreamFrame(ctx, l, conn, partial(err), err) })
		return
	}
	if !m.MTI().IsResponse() {
		l.spawn(func() { l.s.upstreamRequest(ctx, l, conn, m) })
		return
	}
	late, expected := l.open.deliver(m)
	switch {
	case !expected:
		l.spawn(func() { l.s.refuseUnexpected(ctx, l, conn, m) })
	case late != nil:
		l.spawn(func() { late(m) })
	}
}

func (l *link) spawn(work func()) {
	l.slow <- struct{}{}
	l.work.Go(func() {
		defer func() { <-l.slow }()
		work()
	})
}

// partial is what a message that does not parse had before its fault.
func partial(err error) *iso8583.Message {
	var f *iso8583.FormatError
	if errors.As(err, &f) {
		return f.Partial
	}
	return nil
}

func isFraming(err error) bool {
	return errors.Is(err, iso8583.ErrFrameEmpty) || errors.Is(err, iso8583.ErrFrameTooLong) || errors.Is(err, io.ErrUnexpectedEOF)
}
