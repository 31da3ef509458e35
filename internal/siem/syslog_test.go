package siem

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
)

// receiver is a TLS listener of a test; serve is given each connection.
func receiver(t testing.TB, config *tls.Config, serve func(net.Conn)) (address string) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(inner, config)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return inner.Addr().String()
}

func (a *authority) server(name string, ends time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
		Certificates: []tls.Certificate{a.issue(name, ends, x509.ExtKeyUsageServerAuth)},
	}
}

// drain reads a connection to its end, and answers it.
func drain(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}

// TestReceiverIsVerified: L-162: a receiver of another authority, with another
// name, or out of its time gets nothing; nor does one that does not take our
// certificate count as delivered to. The failure is alarmed and recorded with its
// cause (L-138), and the log is written on.
func TestReceiverIsVerified(t *testing.T) {
	right, other := newAuthority(t), newAuthority(t)
	strict := right.server(receiverName, time.Time{})
	strict.ClientCAs = other.pool()
	for _, c := range []struct {
		name   string
		server *tls.Config
		reason string
	}{
		{"L-162 wrong authority", other.server(receiverName, time.Time{}), "cert_unknown"},
		{"L-162 wrong name", right.server("other.example", time.Time{}), "cert_unknown"},
		{"L-162 expired", right.server(receiverName, time.Now().Add(-time.Hour)), "cert_expired"},
		{"L-162 our certificate is refused", strict, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newTestLog(t)
			told := make(chan audit.Record, 16)
			e := l.export(syslogTarget(t, receiver(t, c.server, drain), right.client(tls.VersionTLS13)), func(cfg *Config) {
				cfg.Grace = 10 * time.Millisecond
				cfg.Tell = func(ctx context.Context, r audit.Record) error {
					told <- r
					return l.tell(ctx, r)
				}
			})
			l.write(audit.Ops, 20)
			eventually(t, "the failure is alarmed", func() bool { return e.seen("sink_failed") == 1 })
			if r := <-told; r.Reason.String() != c.reason || r.Sink.Name != "siem-a" || r.Sink.LagRecords == 0 {
				t.Errorf("recorded as %v of %+v, want %s", r.Reason, r.Sink, c.reason)
			}
			for log, next := range e.Status().Kept {
				if next > 0 {
					t.Errorf("the cursor of %s is at %d", log, next)
				}
			}
		})
	}
}

// TestReceiverThatNeverReads: L-16, L-136, L-138: a receiver that takes the
// connection and reads nothing holds up neither the log nor the other sinks; its
// sink fails, and when a receiver reads again it gets everything.
func TestReceiverThatNeverReads(t *testing.T) {
	a := newAuthority(t)
	end := make(chan struct{})
	deaf := receiver(t, a.server(receiverName, time.Time{}), func(conn net.Conn) {
		_ = conn.(*tls.Conn).Handshake()
		<-end
		conn.Close()
	})
	t.Cleanup(func() { close(end) })
	l := newTestLog(t)
	e := l.export(syslogTarget(t, deaf, a.client(tls.VersionTLS13)), func(c *Config) { c.Grace = 10 * time.Millisecond })
	path := t.TempDir() + "/out.log"
	l.export(fileTarget(t, path), func(c *Config) { c.Name, c.Cursor = "file", path+".json" })
	for e.seen("sink_failed") == 0 {
		l.write(audit.Ops, 500) // as much as no socket holds
	}
	eventually(t, "the other sink has all of it", func() bool { return l.holds(path, l.sizes()) })
	if lag := e.Status().Records; lag == 0 {
		t.Error("a receiver that reads nothing has no lag")
	}
	if n := cap(e.out) + cap(e.line); n > 4*perWrite {
		t.Errorf("the exporter holds %d bytes", n)
	}
	e.kill()

	r := newRsyslog(t, a, "ossl")
	r.start()
	l.export(syslogTarget(t, r.address, a.client(tls.VersionTLS13)), nil)
	eventually(t, "another receiver has all of it", func() bool { return l.holds(r.out, l.sizes()) })
}

// TestReceipt: L-160: the cursor moves to the end when the receiver answers the
// end of a session in TLS, and not when its connection just ends.
func TestReceipt(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		name   string
		answer func(*tls.Conn)
		want   bool
	}{
		{"answers in TLS", func(c *tls.Conn) { _, _ = io.Copy(io.Discard, c); c.Close() }, true},
		{"is killed behind the last byte", func(c *tls.Conn) { _, _ = io.Copy(io.Discard, c); c.NetConn().Close() }, false},
		{"does not read to the end", func(c *tls.Conn) { _ = c.Handshake(); c.NetConn().Close() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			done := make(chan struct{})
			address := receiver(t, a.server(receiverName, time.Time{}), func(conn net.Conn) { c.answer(conn.(*tls.Conn)); close(done) })
			s, err := syslogTarget(t, address, a.client(tls.VersionTLS13)).Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Write(t.Context(), AppendFrame(nil, []byte("a message"))); err != nil && c.want {
				t.Fatal(err)
			}
			complete, err := s.Close(t.Context())
			if complete != c.want {
				t.Errorf("complete is %v, %v; want %v", complete, err, c.want)
			}
			<-done
		})
	}
}

// TestSyslogRefuses: L-162: no receiver without TLS that verifies both ends.
func TestSyslogRefuses(t *testing.T) {
	a := newAuthority(t)
	good := a.client(tls.VersionTLS13)()
	for name, change := range map[string]func(*SyslogConfig, *tls.Config){
		"no port":            func(s *SyslogConfig, _ *tls.Config) { s.Address = "siem.example" },
		"no TLS":             func(s *SyslogConfig, _ *tls.Config) { s.TLS = nil },
		"unverified":         func(_ *SyslogConfig, c *tls.Config) { c.InsecureSkipVerify = true },
		"no name":            func(_ *SyslogConfig, c *tls.Config) { c.ServerName = "" },
		"no authorities":     func(_ *SyslogConfig, c *tls.Config) { c.RootCAs = nil },
		"old TLS":            func(_ *SyslogConfig, c *tls.Config) { c.MinVersion = tls.VersionTLS11 },
		"no own certificate": func(_ *SyslogConfig, c *tls.Config) { c.Certificates = nil },
		"negative resend":    func(s *SyslogConfig, _ *tls.Config) { s.Resend = -1 },
	} {
		c := good.Clone()
		s := SyslogConfig{Address: "siem.example:6514", TLS: func() *tls.Config { return c }}
		change(&s, c)
		if _, err := NewSyslog(s); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
