package softhsmtest_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestL14FailedHandshakesShareRecords: a flood of failed handshakes at the port for
// terminals has no record each, and the log counts every one.
func TestL14FailedHandshakesShareRecords(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), nil)
	const flood = 200
	var work sync.WaitGroup
	for range 5 {
		work.Go(func() {
			for range flood / 5 {
				conn, err := net.Dial("tcp", h.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, "this is no handshake\n")
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		})
	}
	work.Wait()
	count := func() (alone, shared int64) {
		for _, r := range h.records(func(r record) bool { return r.Action == "auth.refuse" || r.Action == "refuse.aggregate" }) {
			if shared += r.Count.N; r.Count.N == 0 {
				alone++
			}
		}
		return alone, shared
	}
	eventually(t, "every failed handshake is counted", func() bool {
		alone, shared := count()
		return alone+shared == flood
	})
	if _, shared := count(); shared == 0 {
		t.Errorf("each of %d failed handshakes has a record of its own", flood)
	}
}

// TestSilentConnections: connections that say nothing, more than may be in, keep
// no terminal out.
func TestSilentConnections(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) { c.Limits.Connections = 2 })
	for range 40 {
		conn, err := net.Dial("tcp", h.addr)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
	}
	_, answer := h.pos(0).sell(9900)
	wantCode(t, answer, "00")
}
