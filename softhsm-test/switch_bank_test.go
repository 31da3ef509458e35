package softhsmtest_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/mac"
)

// bank is an upstream that answers as a script says, and remembers what came.
type bank struct {
	t         testing.TB
	left, all mac.Cipher
	script    func(*bank, *iso8583.Message) [][]byte

	mu   sync.Mutex
	got  []*iso8583.Message
	conn net.Conn
	// says is DE 39 of the answer to an 0800, or "" for silence; nil is 00 to all.
	says func(m *iso8583.Message) string
}

// startBank begins a bank. It signs on by itself; everything else is the script's.
func (h *house) startBank(script func(*bank, *iso8583.Message) [][]byte) *bank {
	h.t.Helper()
	b, listener, end := h.bankOf(testKeys()["alias/dev/zak"], script)
	h.bank, h.unbank = listener, end
	return b
}

// bankOf begins a bank with this zone MAC key.
func (h *house) bankOf(zak string, script func(*bank, *iso8583.Message) [][]byte) (*bank, net.Listener, func()) {
	h.t.Helper()
	key, err := hex.DecodeString(zak)
	must(h.t, err)
	left, all, err := mac.NewAlgorithm3(key)
	must(h.t, err)
	b := &bank{t: h.t, left: left, all: all, script: script}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	must(h.t, err)
	listener := tls.NewListener(raw, h.ca.server(h.t, "issuer"))
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conn = conn
			b.mu.Unlock()
			work.Go(func() { b.serve(ctx, conn) })
		}
	})
	return b, raw, func() {
		cancel()
		_ = listener.Close()
		work.Wait()
	}
}

func (b *bank) serve(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	for {
		raw, err := iso8583.ReadFrame(conn)
		if err != nil {
			return
		}
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideUpstream)
		if err != nil {
			b.t.Errorf("keyd sent upstream what does not parse: %v", err)
			return
		}
		if m.MTI().Class() == '8' {
			b.manage(m)
			continue
		}
		b.mu.Lock()
		b.got = append(b.got, m)
		b.mu.Unlock()
		for _, answer := range b.script(b, m) {
			b.write(answer)
		}
	}
}

// manage answers an 0800.
func (b *bank) manage(m *iso8583.Message) {
	if !m.MTI().IsRequest() {
		return
	}
	code := "00"
	b.mu.Lock()
	if b.says != nil {
		code = b.says(m)
	}
	b.mu.Unlock()
	if code != "" {
		b.write(b.seal(m.Answer(code)))
	}
}

// answers0800 says how 0800s are answered from now on.
func (b *bank) answers0800(says func(m *iso8583.Message) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.says = says
}

// hangUp ends the connection.
func (b *bank) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.conn.Close()
}

// write sends a message to keyd.
func (b *bank) write(msg []byte) {
	frame, err := iso8583.AppendFrame(nil, msg)
	if err != nil {
		b.t.Errorf("framing: %v", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _ = b.conn.Write(frame)
}

// seal gives a message the zone's MAC.
func (b *bank) seal(m *iso8583.Builder) []byte {
	if m.Has(11) && !m.Has(37) && !m.Has(70) {
		m.Set(37, "000000000001")
	}
	open, err := m.Pack()
	if err != nil {
		b.t.Errorf("packing: %v", err)
		return nil
	}
	full, err := mac.Algorithm3(b.left, b.all, open.MACInput(), mac.Padding1)
	if err != nil {
		b.t.Errorf("sealing: %v", err)
		return nil
	}
	return open.Seal([8]byte(full))
}

// approve is the answer 00 with an approval code.
func (b *bank) approve(m *iso8583.Message) []byte {
	answer := m.Answer("00")
	if m.MTI().Class() != '4' {
		answer.Set(38, "A1B2C3")
	}
	return b.seal(answer)
}

// received are the messages of a type that came, in order.
func (b *bank) received(types ...iso8583.MTI) []*iso8583.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*iso8583.Message
	for _, m := range b.got {
		for _, mti := range types {
			if m.MTI() == mti {
				found = append(found, m)
			}
		}
	}
	return found
}

// reversals are the 0420 and 0421 that came.
func (b *bank) reversals() []*iso8583.Message {
	return b.received(iso8583.ReversalAdvice, iso8583.ReversalAdviceRepeat)
}
