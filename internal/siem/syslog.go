package siem

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// The times of a connection. A receiver that is gone or stands still is found
// within ten seconds (L-138).
const (
	dialWait  = 4 * time.Second // to connect, and again for the handshake
	patience  = 4 * time.Second // for a write of one piece, and for acknowledgements
	closeWait = 3 * time.Second // for the answer to our end of the connection
)

// piece is what is written under one deadline, in bytes: a receiver may be slow,
// but not stand still.
const piece = 16 << 10

// sendBuffer is asked of the system for what it holds for one connection, so that
// little is on the way; Linux takes twice as much.
const sendBuffer = 256 << 10

// DefaultResend is how much of what a receiver's system took is held to be unread
// by the receiver, in bytes: more than the 6 MiB that Linux lets a socket hold.
const DefaultResend = 8 << 20

// SyslogConfig says how a receiver is reached.
type SyslogConfig struct {
	Address string // host:port
	// TLS returns the configuration of the next connection: TLS 1.2 or later,
	// with the authorities and the name of the receiver, and our certificate.
	TLS func() *tls.Config
	// Resend is how many of the last bytes that the receiver's system took are
	// sent again after a connection broke; 0 is [DefaultResend].
	Resend int
}

// Syslog is a receiver of RFC 5425: messages with their lengths, over TLS with
// certificates on both sides. It implements [Target].
//
// The protocol has no acknowledgement. What can be known without one:
//
//   - TCP says what the receiver's system took; it does not say what the receiver
//     read. A socket holds so many bytes and not more, and what lies further back
//     was read. So the cursor stays Resend bytes behind what TCP acknowledged, and
//     those are sent again after a break.
//   - An end of the connection that we begin and the receiver answers in TLS
//     (close_notify) says that it has read all before it. This is a receipt, and
//     the cursor moves to the end.
//
// What a receiver has read, and loses in its own queue, no sender can know.
type Syslog struct {
	cfg SyslogConfig
}

// NewSyslog checks the configuration. The error is [ErrConfig].
func NewSyslog(cfg SyslogConfig) (*Syslog, error) {
	if cfg.Resend == 0 {
		cfg.Resend = DefaultResend
	}
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil || cfg.TLS == nil || cfg.Resend < 0 {
		return nil, fmt.Errorf("%w: a receiver needs host:port, TLS, and a number of bytes to send again", ErrConfig)
	}
	t := cfg.TLS()
	if t.InsecureSkipVerify || t.RootCAs == nil || t.ServerName == "" || t.MinVersion < tls.VersionTLS12 {
		return nil, fmt.Errorf("%w: TLS 1.2 or later, authorities and a name to verify the receiver by are needed", ErrConfig)
	}
	if len(t.Certificates) == 0 && t.GetClientCertificate == nil {
		return nil, fmt.Errorf("%w: RFC 5425 wants a certificate of ours too", ErrConfig)
	}
	return &Syslog{cfg}, nil
}

// Frame implements [Target].
func (t *Syslog) Frame(dst, message []byte) []byte { return AppendFrame(dst, message) }

// Open implements [Target].
func (t *Syslog) Open(ctx context.Context) (Session, error) {
	dialer := net.Dialer{Timeout: dialWait, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 2}}
	conn, err := dialer.DialContext(ctx, "tcp", t.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the receiver: %w", err)
	}
	raw := &counted{TCPConn: conn.(*net.TCPConn)}
	s := &syslogSession{raw: raw, tls: tls.Client(raw, t.cfg.TLS()), resend: uint64(t.cfg.Resend), broken: make(chan struct{})}
	err = errors.Join(raw.SetWriteBuffer(sendBuffer), giveUpAfter(raw.TCPConn, patience))
	if err == nil {
		shake, cancel := context.WithTimeout(ctx, dialWait)
		defer cancel()
		err = s.tls.HandshakeContext(shake)
	}
	if err != nil {
		_ = raw.Close() // what went wrong before counts
		return nil, fmt.Errorf("beginning TLS with the receiver: %w", err)
	}
	go s.listen()
	return s, nil
}

// counted is a TCP connection that counts what the system was given, and notes
// whether TCP was ended: TLS tells nobody whether its own end came before.
type counted struct {
	*net.TCPConn
	written atomic.Uint64
	ended   atomic.Bool
}

// Read implements net.Conn.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

// Write implements net.Conn.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.written.Add(uint64(n))
	return n, err
}

// syslogSession is one connection. Bytes are those of TCP.
type syslogSession struct {
	raw    *counted
	tls    *tls.Conn
	resend uint64
	broken chan struct{}
	why    error // set before broken is closed
}

// listen waits for the other end to go. A receiver says nothing else.
func (s *syslogSession) listen() {
	defer close(s.broken)
	buf := make([]byte, 512)
	for {
		if _, err := s.tls.Read(buf); err != nil {
			s.why = err
			return
		}
	}
}

// Write implements [Session].
func (s *syslogSession) Write(ctx context.Context, p []byte) error {
	stop := context.AfterFunc(ctx, func() { _ = s.raw.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	for len(p) > 0 {
		n := min(len(p), piece)
		if err := s.raw.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return fmt.Errorf("sending to the receiver: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.tls.Write(p[:n]); err != nil {
			return s.cause(fmt.Errorf("sending to the receiver: %w", err))
		}
		p = p[n:]
	}
	return nil
}

// cause prefers what the other end said to what a write on its connection then
// came to.
func (s *syslogSession) cause(err error) error {
	select {
	case <-s.broken:
		return fmt.Errorf("the receiver ended the connection: %w", s.why)
	default:
		return err
	}
}

// Sent implements [Session].
func (s *syslogSession) Sent() uint64 { return s.raw.written.Load() }

// Settle implements [Session].
func (s *syslogSession) Settle() (taken, settled uint64, err error) {
	select {
	case <-s.broken:
		return 0, 0, s.cause(nil)
	default:
	}
	sent := s.Sent()
	held, err := unacknowledged(s.raw.TCPConn)
	if err != nil {
		return 0, 0, fmt.Errorf("asking what the receiver took: %w", err)
	}
	taken = sent - min(sent, held)
	return taken, taken - min(taken, s.resend), nil
}

// Broken implements [Session].
func (s *syslogSession) Broken() <-chan struct{} { return s.broken }

// Abort implements [Session].
func (s *syslogSession) Abort() error {
	err := s.raw.Close()
	<-s.broken
	return err
}

// Close implements [Session].
func (s *syslogSession) Close(ctx context.Context) (complete bool, err error) {
	select {
	case <-s.broken: // whatever it had read
		return false, s.Abort()
	default:
	}
	wait, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	if err := s.raw.SetWriteDeadline(time.Now().Add(closeWait)); err != nil {
		return false, errors.Join(err, s.Abort())
	}
	err = s.tls.CloseWrite()
	if err == nil {
		err = s.raw.CloseWrite()
	}
	if err == nil {
		select {
		case <-s.broken:
			complete = errors.Is(s.why, io.EOF) && !s.raw.ended.Load() // close_notify
		case <-wait.Done():
		}
	}
	err = errors.Join(err, s.Abort())
	return complete && err == nil, err
}
