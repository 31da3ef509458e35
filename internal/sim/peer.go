package sim

import (
	"context"
	"net"
	"sync"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// answerTime is how long the issuer waits for an answer of the switch.
const answerTime = 5 * time.Second

// peer is a connection of the switch.
type peer struct {
	conn  net.Conn
	write sync.Mutex
	held  []byte // answers that go with the next write; of the reader alone

	mu      sync.Mutex
	waiting map[string]chan *iso8583.Message // by DE 7 and 11
}

func nameOf(m *iso8583.Message) string { return m.Text(7) + m.Text(11) }

// give hands an answer to who asked; without one it is nobody's.
func (p *peer) give(m *iso8583.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if asked, ok := p.waiting[nameOf(m)]; ok {
		delete(p.waiting, nameOf(m))
		asked <- m
	}
}

// hold keeps an answer until the requests that came with its own are answered:
// a host that is asked much answers much at a time.
func (p *peer) hold(answer []byte) (err error) {
	p.held, err = iso8583.AppendFrame(p.held, answer)
	return err
}

// flush writes the answers that are held.
func (p *peer) flush() {
	if len(p.held) == 0 {
		return
	}
	p.write.Lock()
	defer p.write.Unlock()
	if _, err := p.conn.Write(p.held); err != nil {
		_ = p.conn.Close()
	}
	p.held = p.held[:0]
}

// ask sends a request of the issuer's own and returns the answer, or nil where
// there is none in time.
func (i *Issuer) ask(ctx context.Context, p *peer, raw []byte, m *iso8583.Message) *iso8583.Message {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	asked := make(chan *iso8583.Message, 1)
	p.mu.Lock()
	p.waiting[nameOf(m)] = asked
	p.mu.Unlock()
	i.send(ctx, p, Rule{}, raw)
	select {
	case answer := <-asked:
		return answer
	case <-ctx.Done():
		return nil
	}
}

// greeted waits for a connection on which the switch has said something genuine.
func (i *Issuer) greeted(ctx context.Context) *peer {
	const often = 20 * time.Millisecond
	for ctx.Err() == nil {
		i.mu.Lock()
		p := i.latest
		i.mu.Unlock()
		if p != nil {
			return p
		}
		wait(ctx, often)
	}
	return nil
}

// hail notes the connection over which the switch speaks.
func (i *Issuer) hail(p *peer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.latest = p
}

// leave forgets a connection that ended.
func (i *Issuer) leave(p *peer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.conns, p.conn)
	if i.latest == p {
		i.latest = nil
	}
}
