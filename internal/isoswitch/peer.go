package isoswitch

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

const (
	handshakeTimeout = 10 * time.Second
	frameTimeout     = 10 * time.Second // for the rest of a frame that has begun
)

// peer is the connection of a terminal or of a gateway that carries many.
type peer struct {
	s       *Switch
	conn    net.Conn
	id      string
	leaf    *x509.Certificate
	tls     *tls.ConnectionState
	seen    credentials.Seen // what leaf was last checked against; of the reader alone
	cert    string           // SHA-256 of leaf, hex
	caller  custody.Caller
	lanes   *lanes
	lockout *lockout
	slots   chan struct{} // requests in work
	work    sync.WaitGroup
	count   int // frames so far; of the reader alone

	writing sync.Mutex
}

// welcome lets a connection in: TLS with a client certificate whose client has
// the terminal role (W-20). It returns nil for one that was let go.
func (s *Switch) welcome(ctx context.Context, raw net.Conn, id string) *peer {
	conn := tls.Server(raw, s.cfg.TLS)
	stranger := custody.SwitchCaller("unknown", audit.ActorSwitch, raw.RemoteAddr().String(), id, "")
	shake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(shake); err != nil {
		s.log.Info("terminal link: handshake failed", "addr", stranger.Addr, "error", err)
		if !errors.Is(err, io.EOF) { // a port scan that said nothing asked for nothing
			s.recordAuth(ctx, stranger, audit.AuthRefuse, audit.ReasonCertUnknown)
		}
		_ = raw.Close()
		return nil
	}
	state := conn.ConnectionState()
	cert := state.PeerCertificates[0]
	sum := sha256.Sum256(cert.Raw)
	certHex := hex.EncodeToString(sum[:])
	client, err := s.admitted(cert)
	caller := custody.SwitchCaller(orDefault(client.Name, "unknown"), audit.ActorSwitch, stranger.Addr, id, certHex)
	if err != nil {
		s.recordAuth(ctx, caller, audit.AuthRefuse, audit.ReasonRoleDenied)
		s.log.Warn("terminal link: certificate without the terminal role", "addr", stranger.Addr, "client", caller.Name)
		_ = conn.Close()
		return nil
	}
	if s.recordAuth(ctx, caller, audit.AuthAccept, 0) != nil {
		_ = conn.Close()
		return nil
	}
	return &peer{
		s:       s,
		conn:    conn,
		id:      id,
		leaf:    cert,
		tls:     &state,
		cert:    certHex,
		caller:  caller,
		lanes:   newLanes(s.rules().Limits.PerTerminal),
		lockout: newLockout(s.lockoutRules, s.now),
		slots:   make(chan struct{}, s.rules().Limits.Outstanding),
	}
}

// admitted returns the client of a certificate, and an error unless it has the
// terminal role now.
func (s *Switch) admitted(cert *x509.Certificate) (custody.Client, error) {
	client, err := s.custody.Identify(cert)
	if err == nil && !client.Has(custody.RoleTerminal) {
		err = fmt.Errorf("%w: without the terminal role", custody.ErrDenied)
	}
	return client, err
}

// recordAuth records that a connection was let in or go.
func (s *Switch) recordAuth(ctx context.Context, caller custody.Caller, action audit.Action, why audit.Reason) error {
	r := audit.Record{Action: action, Outcome: audit.OutcomeOK, Reason: why}
	if why != 0 {
		r.Outcome = audit.OutcomeRefused
	}
	err := s.custody.Record(ctx, caller, caller.Conn, r)
	if err != nil {
		s.log.Error("terminal link: cannot record", "action", action, "error", err)
	}
	return err
}

// serve reads frames until the connection or stop ends, then waits for what is
// in work. Work goes on under life.
func (p *peer) serve(stop, life context.Context) {
	defer func() { _ = p.conn.Close() }()
	end := context.AfterFunc(stop, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer end()
	err := p.read(stop, life)
	p.s.log.Debug("terminal link: connection ends", "conn", p.id, "error", err)
	if stop.Err() == nil {
		// The peer is gone, or its framing is: an answer written now would reach
		// nobody, though the kernel might take it (section 7.4).
		_ = p.conn.Close()
	}
	p.work.Wait()
	_ = p.s.recordAuth(life, p.caller, audit.AuthClose, 0)
}

func (p *peer) read(stop, life context.Context) error {
	r := bufio.NewReader(p.conn)
	for {
		if err := p.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if stop.Err() != nil {
			return stop.Err()
		}
		if _, err := r.Peek(1); err != nil {
			return err
		}
		if err := p.conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
		frame, err := iso8583.ReadFrame(r)
		if err != nil {
			if isFraming(err) {
				p.s.refuseFraming(life, p, err)
			}
			return err
		}
		if why, err := p.still(); err != nil {
			_ = p.s.recordAuth(life, p.caller, audit.AuthRefuse, why)
			return err
		}
		if slow := p.s.floods.delay(p.cert); slow > 0 {
			sleep(stop, slow)
		}
		p.take(life, frame)
	}
}

// still refuses who is connected and was let in, but would not be now: a role
// can be taken from a client, and a certificate can end or be revoked (C-06).
func (p *peer) still() (why audit.Reason, err error) {
	if _, err := p.s.admitted(p.leaf); err != nil {
		return audit.ReasonRoleDenied, err
	}
	if time.Now().After(p.leaf.NotAfter) { // the clock that judged it in the handshake
		return audit.ReasonCertExpired, errExpired
	}
	if p.s.cfg.Peers == nil {
		return 0, nil
	}
	p.seen, err = p.s.cfg.Peers.Recheck(p.tls, p.seen)
	if errors.Is(err, credentials.ErrRevoked) {
		return audit.ReasonCertRevoked, err
	}
	return audit.ReasonCertUnknown, err
}

var errExpired = errors.New("isoswitch: the certificate has expired")

// take starts the work on a frame: in its TID's lane, and beside all others.
func (p *peer) take(ctx context.Context, frame []byte) {
	p.count++
	r := &request{
		peer: p,
		raw:  hashOf(frame),
		at:   p.s.now().UTC(),
		corr: fmt.Sprintf("%s.%d", p.id, p.count),

		rules: p.s.rules(),
	}
	msg, err := p.s.terminals().Parse(frame, iso8583.SideTerminal)
	if r.msg = msg; err != nil {
		r.msg = partial(err)
	}
	tid := ""
	if r.msg != nil {
		tid = r.msg.Text(41)
	}
	turn, ok := p.lanes.take(tid)
	p.slots <- struct{}{}
	p.work.Go(func() {
		defer func() { <-p.slots }()
		if !ok {
			p.s.handle(ctx, r, errCrowded)
			return
		}
		r.turn = turn
		defer turn.done()
		turn.wait()
		p.s.handle(ctx, r, err)
	})
}

// send writes a sealed answer to the connection that the request came by. The
// receipt proves that what the answer tells of is recorded.
func (p *peer) send(receipt custody.Receipt, msg []byte) error {
	if !receipt.Valid() {
		return errors.New("isoswitch: no receipt for the answer")
	}
	return p.write(msg)
}

// write is for send, and for the one answer that needs no receipt.
func (p *peer) write(msg []byte) error {
	frame, err := iso8583.AppendFrame(make([]byte, 0, len(msg)+2), msg)
	if err != nil {
		return fmt.Errorf("framing the answer: %w", err)
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.s.rules().Timers.Write)); err != nil {
		return fmt.Errorf("sending the answer: %w", err)
	}
	if _, err := p.conn.Write(frame); err != nil {
		_ = p.conn.Close() // a frame may be cut short: nothing more can follow
		return fmt.Errorf("sending the answer: %w", err)
	}
	return nil
}
