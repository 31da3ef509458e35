package sim

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// Link is a terminal's connection to the switch: one message at a time.
type Link struct {
	conn net.Conn
	wait time.Duration
}

// Dial connects to the switch, without TLS where cfg is nil. wait bounds each
// exchange.
func Dial(ctx context.Context, addr string, cfg *tls.Config, wait time.Duration) (*Link, error) {
	dial := (&tls.Dialer{Config: cfg}).DialContext
	if cfg == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("sim: connecting to the switch: %w", err)
	}
	return &Link{conn: conn, wait: wait}, nil
}

// Exchange sends a message and returns the next frame that comes. It returns an
// error that wraps [os.ErrDeadlineExceeded] when nothing comes in time.
func (l *Link) Exchange(raw []byte) ([]byte, error) {
	if err := l.Send(raw); err != nil {
		return nil, err
	}
	return l.Receive()
}

// Send writes one frame.
func (l *Link) Send(raw []byte) error {
	frame, err := iso8583.AppendFrame(nil, raw)
	if err != nil {
		return err
	}
	if err := l.conn.SetDeadline(time.Now().Add(l.wait)); err != nil {
		return fmt.Errorf("sim: switch: %w", err)
	}
	if _, err := l.conn.Write(frame); err != nil {
		return fmt.Errorf("sim: switch: %w", err)
	}
	return nil
}

// Receive reads one frame.
func (l *Link) Receive() ([]byte, error) {
	raw, err := iso8583.ReadFrame(l.conn)
	if err != nil {
		return nil, fmt.Errorf("sim: switch: %w", err)
	}
	return raw, nil
}

// Close ends the connection.
func (l *Link) Close() error { return l.conn.Close() }
