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
	at      *Listener
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
	count   int            // frames so far; of the reader alone
	scope   *custody.Scope // terminals that may come by this link now; of the reader alone

	wire wire
	pen  pen
}

// shake does the handshake of a connection: TLS with a client certificate. It
// returns nil for one that was let go, or ended in favour of another.
func (s *Switch) shake(ctx context.Context, at *Listener, raw net.Conn, id string, end func()) *tls.Conn {
	conn := tls.Server(raw, at.TLS)
	shake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(shake); err != nil {
		_ = raw.Close()
		end()
		stranger := custody.SwitchCaller("unknown", audit.ActorSwitch, raw.RemoteAddr().String(), id, "")
		if !errors.Is(err, io.EOF) { // a port scan that said nothing asked for nothing
			s.turnAway(ctx, stranger, audit.ReasonCertUnknown, err)
		}
		return nil
	}
	return conn
}

// strangers is how many connections that were let go have a record of their own in
// a second; the others share some, with exact numbers (L-14).
const strangers = 5

// turnAway records that a connection was let go, and tells the operator's log why
// where that is not one of many.
func (s *Switch) turnAway(ctx context.Context, caller custody.Caller, why audit.Reason, cause error) {
	r := audit.Record{Action: audit.AuthRefuse, Outcome: audit.OutcomeRefused, Reason: why}
	alone, err := s.custody.RecordRefusal(ctx, caller, caller.Conn, r, custody.Refusal{Reason: why, PerSecond: strangers})
	if alone {
		s.log.Warn("terminal link: a connection was let go", "addr", caller.Addr, "client", caller.Name, "cause", cause)
	}
	if err != nil {
		s.log.Error("terminal link: cannot record", "action", r.Action, "error", err)
	}
}

// welcome lets a connection in whose client has the terminal role (W-20). It
// returns nil for one that was let go.
func (s *Switch) welcome(ctx context.Context, at *Listener, conn *tls.Conn, id string) *peer {
	state := conn.ConnectionState()
	cert := state.PeerCertificates[0]
	sum := sha256.Sum256(cert.Raw)
	certHex := hex.EncodeToString(sum[:])
	client, err := s.admitted(cert)
	caller := custody.SwitchCaller(orDefault(client.Name, "unknown"), audit.ActorSwitch, conn.RemoteAddr().String(), id, certHex)
	caller.Terminal = client.OwnTerminal()
	if err != nil {
		_ = conn.Close()
		s.turnAway(ctx, caller, audit.ReasonRoleDenied, err)
		return nil
	}
	if s.recordAuth(ctx, caller, audit.AuthAccept, 0) != nil {
		_ = conn.Close()
		return nil
	}
	p := &peer{
		s:       s,
		at:      at,
		conn:    conn,
		id:      id,
		leaf:    cert,
		tls:     &state,
		cert:    certHex,
		caller:  caller,
		lanes:   newLanes(s.rules().Limits.PerTerminal),
		lockout: s.locks.open(newLockout(s.lockoutRules, s.now)),
		slots:   make(chan struct{}, s.rules().Limits.Outstanding),
	}
	p.pen = pen{release: p.release, begin: func(keep func()) { s.crew.do(s.life, keep) }}
	p.wire.conn = func() net.Conn { return p.conn }
	p.wire.patience = func() time.Duration { return s.rules().Timers.Write }
	return p
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
	defer p.s.locks.close(p.lockout)
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
		p.take(life, frame)
	}
}

// still refuses who is connected and was let in, but would not be now: a role
// can be taken from a client, and a certificate can end or be revoked (C-06).
func (p *peer) still() (why audit.Reason, err error) {
	client, err := p.s.admitted(p.leaf)
	if err != nil {
		return audit.ReasonRoleDenied, err
	}
	p.scope = client.Scope()
	if time.Now().After(p.leaf.NotAfter) { // the clock that judged it in the handshake
		return audit.ReasonCertExpired, errExpired
	}
	if p.at.Peers == nil {
		return 0, nil
	}
	p.seen, err = p.at.Peers.Recheck(p.tls, p.seen)
	if errors.Is(err, credentials.ErrRevoked) {
		return audit.ReasonCertRevoked, err
	}
	return audit.ReasonCertUnknown, err
}

var errExpired = errors.New("isoswitch: the certificate has expired")

// take starts the work on a frame: in its TID's lane, and beside all others.
func (p *peer) take(ctx context.Context, raw []byte) {
	p.count++
	r := &request{
		peer: p,
		raw:  hashOf(raw),
		at:   p.s.now().UTC(),
		corr: fmt.Sprintf("%s.%d", p.id, p.count),

		rules:  p.s.rules(),
		speech: speech{p.at.Profile},
		scope:  p.scope,
	}
	msg, err := r.speech.Dialect.Parse(raw, iso8583.SideTerminal)
	if r.msg = msg; err != nil {
		r.msg = partial(err)
	}
	tid := ""
	if r.msg != nil {
		tid = r.msg.Text(41)
	}
	turn, ok := p.lanes.take(tid)
	p.slots <- struct{}{}
	p.work.Add(1)
	if !ok {
		p.begin(func() { p.s.handle(ctx, r, errCrowded) })
		return
	}
	r.turn = turn
	f := frame{r, err}
	if slow := p.slow(); slow > 0 {
		p.pen.take(ctx, f, slow)
		return
	}
	p.begin(func() { f.work(ctx) })
}

// begin has work done that has a slot.
func (p *peer) begin(work func()) {
	p.s.crew.do(p.s.life, func() {
		defer p.leave()
		work()
	})
}

// leave gives a slot back.
func (p *peer) leave() {
	<-p.slots
	p.work.Done()
}

// frame is a message with a slot and a place in the lane of its TID.
type frame struct {
	r     *request
	fault error // why it could not be read whole
}

// work works on it when it is its turn.
func (f frame) work(ctx context.Context) {
	defer f.r.turn.done()
	f.r.turn.wait()
	f.r.peer.s.handle(ctx, f.r, f.fault)
}

// workWhole is work for one whose turn it is, and that was not shed.
func (f frame) workWhole(ctx context.Context) {
	defer f.r.turn.done()
	f.r.peer.s.handleWhole(ctx, f.r, f.fault)
}

// send writes a sealed answer to the connection that the request came by. The
// receipt proves that what the answer tells of is recorded.
func (p *peer) send(receipt custody.Receipt, msg []byte) error {
	frame, err := framed(make([]byte, 0, len(msg)+2), receipt, msg)
	if err != nil {
		return err
	}
	return p.put(frame)
}

// framed appends the frame of an answer, for which there must be a receipt.
func framed(frames []byte, receipt custody.Receipt, msg []byte) ([]byte, error) {
	if !receipt.Valid() {
		return frames, errors.New("isoswitch: no receipt for the answer")
	}
	frames, err := iso8583.AppendFrame(frames, msg)
	if err != nil {
		return frames, fmt.Errorf("framing the answer: %w", err)
	}
	return frames, nil
}

// write is for the one answer that needs no receipt.
func (p *peer) write(msg []byte) error {
	frame, err := iso8583.AppendFrame(make([]byte, 0, len(msg)+2), msg)
	if err != nil {
		return fmt.Errorf("framing the answer: %w", err)
	}
	return p.put(frame)
}

func (p *peer) put(frames []byte) error {
	if err := p.wire.send(frames, func() bool { return true }); err != nil {
		return fmt.Errorf("sending the answer: %w", err)
	}
	return nil
}
