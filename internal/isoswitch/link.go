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

// link is one connection to a host. It is safe for concurrent use.
type link struct {
	s    *Switch
	h    *host
	cfg  Endpoint
	slow chan struct{} // slots for messages that nobody asked for
	ask  chan struct{} // an echo is wanted before its time
	work sync.WaitGroup

	heard  atomic.Int64 // wall clock of the last frame, nanoseconds
	misses atomic.Int32 // messages without an answer since then
	tally  linkTally

	wire wire

	mu    sync.Mutex
	conn  net.Conn  // nil while down
	sign  signState // what the host says to keyd's sign-on
	since time.Time // it has been fit; zero while it is not
	fell  bool      // it was fit once and then was not
	fault error     // the last one, for operators
}

// linkTally counts, for metrics.
type linkTally struct {
	connects, sent, frames, silent atomic.Uint64
}

// signState is what the host has said of a connection.
type signState uint8

const (
	unsigned  signState = iota // nothing
	signedOn                   // 00
	signedOff                  // it refused the sign-on, or has signed off itself
)

func newLink(h *host, cfg Endpoint) *link {
	l := &link{s: h.s, h: h, cfg: cfg, slow: make(chan struct{}, unasked), ask: make(chan struct{}, 1)}
	l.wire.conn = l.current
	l.wire.patience = func() time.Duration { return min(h.s.rules().Timers.Write, h.s.rules().Timers.Upstream) }
	return l
}

// caller is the link's peer, for the records.
func (l *link) caller(conn net.Conn) custody.Caller {
	addr := ""
	if conn != nil {
		addr = conn.RemoteAddr().String()
	}
	return custody.SwitchCaller(l.h.cfg.Name, audit.ActorUpstream, addr, "", "")
}

// run keeps the link connected until ctx ends. What breaks before the host has
// said anything is tried less and less often.
func (l *link) run(ctx context.Context) {
	defer l.work.Wait()
	wait := redialFirst
	for ctx.Err() == nil {
		conn, err := l.dial(ctx)
		if err != nil {
			l.s.log.Warn("upstream link: cannot connect", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "addr", l.cfg.Addr, "error", err)
		} else {
			before := l.tally.frames.Load()
			err = l.serve(ctx, conn)
			l.s.log.Warn("upstream link: connection ended", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "error", err)
			if l.tally.frames.Load() > before {
				wait = redialFirst
			}
		}
		l.failed(err)
		sleep(ctx, jitter(wait))
		wait = min(2*wait, redialCeiling)
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
	l.misses.Store(0)
	l.tally.connects.Add(1)
	l.mu.Lock()
	l.conn, l.sign = conn, unsigned
	l.mu.Unlock()
	l.s.log.Info("upstream link: connected", "upstream", l.h.cfg.Name, "link", l.cfg.Name, "addr", l.cfg.Addr)
	l.s.observe(Event{Name: "link", Code: "up"})
	l.changed()
}

func (l *link) lower(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	l.conn, l.sign = nil, unsigned
	l.mu.Unlock()
	l.changed() // before those who wait are told, so that they find another
	l.h.open.drop(l)
	l.s.observe(Event{Name: "link", Code: "down"})
}

func (l *link) current() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// signs notes what the host says to the sign-on of this connection.
func (l *link) signs(conn net.Conn, state signState) {
	l.mu.Lock()
	if l.conn == conn {
		l.sign = state
	}
	l.mu.Unlock()
	l.changed()
}

func (l *link) signState() signState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sign
}

// failed keeps the last fault, for operators.
func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = err
}

// standing is how fit the link is.
func (l *link) standing() standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stands()
}

func (l *link) stands() standing {
	switch {
	case l.conn == nil, l.sign == signedOff:
		return absent
	case l.sign == unsigned, l.mute(int(l.misses.Load())):
		return doubtful
	}
	return fit
}

// mute reports whether so many messages in a row without an answer are too many.
func (l *link) mute(misses int) bool { return l.h.cfg.Silence > 0 && misses >= l.h.cfg.Silence }

// changed follows what has become of the link, and lets its host choose again.
func (l *link) changed() {
	now := l.s.now()
	l.mu.Lock()
	switch is := l.stands() == fit; {
	case is && l.since.IsZero():
		l.since = now
	case !is && !l.since.IsZero():
		l.since, l.fell = time.Time{}, true
	}
	l.mu.Unlock()
	l.h.elect()
}

// unsteady is how long the link has yet to be fit before it may take messages
// from another that is: 0 where it never failed.
func (l *link) unsteady(now time.Time, back time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fell {
		return 0
	}
	return max(0, back-now.Sub(l.since))
}

// missed notes that a message sent over the link has had no answer in time. Once
// too many in a row have had none, the host is asked for an echo, and another
// link is chosen.
func (l *link) missed() {
	l.tally.silent.Add(1)
	if n := int(l.misses.Add(1)); !l.mute(n) || l.mute(n-1) {
		return
	}
	l.s.log.Warn("upstream link: messages are not answered", "upstream", l.h.cfg.Name, "link", l.cfg.Name)
	l.s.observe(Event{Name: "link", Code: "silent"})
	l.askNow()
	l.changed()
}

// hears notes that a frame has come.
func (l *link) hears() {
	l.heard.Store(l.s.now().UnixNano())
	l.tally.frames.Add(1)
	if l.misses.Load() != 0 && l.mute(int(l.misses.Swap(0))) {
		l.changed()
	}
}

// askNow has an 0800 sent before its time.
func (l *link) askNow() {
	select {
	case l.ask <- struct{}{}:
	default:
	}
}

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
	err = l.wire.send(frame, depart)
	if !errors.Is(err, errLinkDown) && !errors.Is(err, errRecalled) {
		l.tally.sent.Add(1)
	}
	if err != nil {
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
		l.hears()
		l.take(ctx, conn, frame)
	}
}

// take gives a frame to whom it belongs. Only what nobody asked for can make it
// wait, and then for all of its kind.
func (l *link) take(ctx context.Context, conn net.Conn, frame []byte) {
	m, err := l.h.dialect.Parse(frame, iso8583.SideUpstream)
	if err != nil {
		l.spawn(func() { l.s.refuseUpstreamFrame(ctx, l, conn, partial(err), err) })
		return
	}
	if !m.MTI().IsResponse() {
		l.spawn(func() { l.s.upstreamRequest(ctx, l, conn, m) })
		return
	}
	late, expected := l.h.open.deliver(m)
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
