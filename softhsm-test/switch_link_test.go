package softhsmtest_test

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sim"
)

// TestSwitchLink is the terminals' side: who is let in, frames, KSNs, lock-outs.
func TestSwitchLink(t *testing.T) {
	h := newHouse(t, sim.DefaultRules(), func(c *isoswitch.Config) {
		c.Limits.KSNStep = 1000
		c.Limits.Velocity = isoswitch.Velocity{PerHour: 3, Action: isoswitch.Refuse}
	})
	t.Run("W-20 a certificate without the terminal role", func(t *testing.T) { h.turnsAway(t) })
	t.Run("W-01 W-18 frames", func(t *testing.T) { h.readsFrames(t) })
	t.Run("W-01 D-01 messages that do not parse", func(t *testing.T) { h.refusesFormat(t) })
	t.Run("A-14.T2 an answer from a terminal", func(t *testing.T) { h.ignoresAnswers(t) })
	t.Run("A-15 M-20 to M-25", func(t *testing.T) { h.guardsCounters(t) })
	t.Run("W-05 sign-on", func(t *testing.T) { h.signsOn(t) })
	t.Run("A-11.T2 A-11.T3 W-19 lock-out", func(t *testing.T) { h.locksOut(t) })
	t.Run("D-35 velocity", func(t *testing.T) { h.limitsRate(t) })
	t.Run("W-20 the role taken from who is connected", func(t *testing.T) { h.takesTheRole(t) })
	t.Run("A-26 R-55 nothing in log and database", func(t *testing.T) { h.leaksNothing(t) })
}

func (h *house) turnsAway(t *testing.T) {
	for _, client := range []string{"nobody", "stranger"} {
		conn, err := tls.Dial("tcp", h.addr, h.ca.client(t, client))
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s was not let go: %v", client, err)
		}
	}
	without := h.ca.client(t, "terminal")
	without.Certificates = nil
	conn, err := tls.Dial("tcp", h.addr, without)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil {
		t.Error("a client without a certificate was let in")
	}
	eventually(t, "all three are recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Action == "auth.refuse" })) == 3
	})
}

// takesTheRole changes the roles of a client while it is connected: its next
// message has no answer.
func (h *house) takesTheRole(t *testing.T) {
	p := h.pos(0)
	conn, err := tls.Dial("tcp", h.addr, h.ca.client(t, "terminal"))
	must(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	sale := func() error {
		one, err := p.Sale(1000, visa, nil)
		must(t, err)
		frame, err := iso8583.AppendFrame(nil, one.Raw)
		must(t, err)
		if _, err := conn.Write(frame); err != nil {
			return err
		}
		_, err = iso8583.ReadFrame(conn)
		return err
	}
	roles := func(list ...custody.Role) {
		admin := custody.SystemCaller("test", custody.RoleAdmin)
		_, err := h.custody.SetRoles(t.Context(), admin, "test", custody.SetRoles{Client: "terminal", Roles: list})
		must(t, err)
	}
	must(t, sale())
	roles()
	defer roles(custody.RoleTerminal)
	if err := sale(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a client that lost the role was not let go: %v", err)
	}
}

// readsFrames sends a sale in pieces, and two in one segment; then lengths that
// close the connection.
func (h *house) readsFrames(t *testing.T) {
	p := h.pos(0)
	conn, err := tls.Dial("tcp", h.addr, h.ca.client(t, "terminal"))
	must(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	one, err := p.Sale(1000, visa, nil)
	must(t, err)
	two, err := p.Sale(1002, visa, nil)
	must(t, err)
	stream, err := iso8583.AppendFrame(nil, one.Raw)
	must(t, err)
	stream, err = iso8583.AppendFrame(stream, two.Raw)
	must(t, err)
	for _, part := range [][]byte{stream[:1], stream[1:7], stream[7:60], stream[60:]} {
		_, err := conn.Write(part)
		must(t, err)
		time.Sleep(5 * time.Millisecond)
	}
	got := map[string]string{}
	for range 2 {
		raw, err := iso8583.ReadFrame(conn)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		got[m.Text(11)] = m.Text(39)
	}
	if got[one.Message.Text(11)] != "00" || got[two.Message.Text(11)] != "00" {
		t.Errorf("the answers are %v", got)
	}
	for _, length := range []uint16{0, 4097, 65535} {
		before := len(h.records(func(r record) bool { return r.Action == "frame.refuse" }))
		conn, err := tls.Dial("tcp", h.addr, h.ca.client(t, "terminal"))
		must(t, err)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Write(binary.BigEndian.AppendUint16(nil, length))
		must(t, err)
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("length %d: the connection stays: %v", length, err)
		}
		_ = conn.Close()
		eventually(t, "the frame is recorded", func() bool {
			return len(h.records(func(r record) bool { return r.Action == "frame.refuse" })) == before+1
		})
	}
}

func (h *house) refusesFormat(t *testing.T) {
	p := h.pos(0)
	p.Terminal = h.advance(0, 10)
	sale, err := p.Sale(1010, visa, nil)
	must(t, err)
	for _, c := range []struct {
		name, code string
		raw        string
	}{
		{"trailing byte", "30", string(sale.Raw) + "0"},
		{"A-09.T2 trailing zero byte", "30", string(sale.Raw) + "\x00"},
		{"lower-case bitmap", "", "0200" + strings.ToLower(string(sale.Raw[4:20])) + string(sale.Raw[20:])},
		{"cut off before DE 11", "", string(sale.Raw[:40])},
		{"unknown MTI", "", "0500" + string(sale.Raw[4:])},
		{"not ISO 8583 at all", "", "GET / HTTP/1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(h.records(func(r record) bool { return r.Action == "frame.refuse" }))
			must(t, p.link.Send([]byte(c.raw)))
			if c.code != "" {
				raw, err := p.link.Receive()
				must(t, err)
				m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
				must(t, err)
				wantCode(t, m, c.code)
			}
			eventually(t, "the frame is recorded", func() bool {
				return len(h.records(func(r record) bool { return r.Action == "frame.refuse" && r.Reason == "format_error" })) == before+1
			})
		})
	}
	wantCode(t, p.ask(sale, nil), "00") // the connection lives, the counter has not moved
}

func (h *house) ignoresAnswers(t *testing.T) {
	p := h.pos(0)
	p.Terminal = h.advance(0, 20)
	sale, answer := p.sell(1020)
	must(t, p.link.Send(answer.Raw()))
	next, got := p.sell(1022) // the next frame is the answer to this
	if got.Text(11) != next.Message.Text(11) {
		t.Errorf("something answered the 0210")
	}
	eventually(t, "the answer is recorded", func() bool {
		return len(h.records(func(r record) bool { return r.Reason == "unexpected_response" && r.ISO.Alert == "security" })) == 1
	})
	h.untouched(sale)
}

func (h *house) guardsCounters(t *testing.T) {
	p, other := h.pos(2), h.pos(0)
	must(t, drop(p, 5))
	sale, answer := p.sell(1100)
	wantCode(t, answer, "00")
	ksnRefusals := func(reason string) int {
		return len(h.records(func(r record) bool { return r.Action == "ksn.refuse" && r.Reason == reason }))
	}
	t.Run("A-15.T2 the same bytes get the stored answer", func(t *testing.T) {
		wantCode(t, p.ask(sale, nil), "00")
	})
	t.Run("A-15.T1 an older KSN", func(t *testing.T) {
		old := h.pos(2)
		must(t, drop(old, 4))
		wantCode(t, old.ask(old.Sale(1102, visa, nil)), "63")
		if ksnRefusals("ksn_replay") != 1 {
			t.Errorf("%d records ksn.refuse", ksnRefusals("ksn_replay"))
		}
	})
	t.Run("A-15.T3 the same KSN with other bytes", func(t *testing.T) {
		old := h.pos(2)
		must(t, drop(old, 5))
		wantCode(t, old.ask(old.Sale(1104, visa, nil)), "63")
	})
	t.Run("A-15.T4 M-24 too far ahead", func(t *testing.T) {
		far := h.pos(2)
		must(t, drop(far, 1100)) // beyond 1000 in the counter's value
		wantCode(t, far.ask(far.Sale(1106, visa, nil)), "63")
		if ksnRefusals("ksn_gap") != 1 {
			t.Errorf("%d records of the gap", ksnRefusals("ksn_gap"))
		}
		_, answer := p.sell(1108)
		wantCode(t, answer, "00") // the gap has moved nothing
	})
	t.Run("A-16 another device's KSN moves nothing", func(t *testing.T) {
		must(t, drop(other, 30))
		forged, err := other.Sale(1110, visa, func(b *iso8583.Builder) { b.Set(41, "T0000003").Set(42, "M00000000000002") })
		must(t, err)
		raw, err := p.link.Exchange(forged.Raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "63")
		genuine := h.pos(0)
		must(t, drop(genuine, 30)) // the very KSN that was misused
		wantCode(t, genuine.ask(genuine.Sale(1112, visa, nil)), "00")
	})
	for _, c := range []struct{ name, ksn string }{
		{"A-15.T6 M-25 eleven one bits", "FFFF98765432110007FF"},
		{"M-25 counter 0", "FFFF9876543211000000"},
		{"W-18 KSN of the other scheme", "123456789012345600000001"},
		{"W-18 no KSN", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			sale, err := p.Sale(1114, visa, nil)
			must(t, err)
			raw := withKSN(t, sale, c.ksn)
			got, err := p.link.Exchange(raw)
			must(t, err)
			m, err := iso8583.ASCII87().Parse(got, iso8583.SideTerminal)
			must(t, err)
			wantCode(t, m, "63")
			if m.Has(64) || m.Has(128) {
				t.Error("W-09: the answer has a MAC though there is no key for one")
			}
		})
	}
	t.Run("L-80 each refusal names the terminal's key", func(t *testing.T) {
		var bdk record
		for _, r := range h.records(func(r record) bool { return r.Action == "sale.accept" }) {
			if len(r.Keys) == 1 && r.Keys[0].Role == "bdk" {
				bdk = r
			}
		}
		refused := h.records(func(r record) bool { return r.Action == "ksn.refuse" })
		if len(bdk.Keys) != 1 || bdk.Keys[0].ID == "" || bdk.Keys[0].Ver != 1 || len(refused) != 8 {
			t.Fatalf("%d refusals; the key is %+v", len(refused), bdk.Keys)
		}
		for _, r := range refused {
			if diff := cmp.Diff(bdk.Keys, r.Keys); diff != "" {
				t.Errorf("%s (-key +record):\n%s", r.Reason, diff)
			}
		}
	})
}

// drop passes over the next n KSNs of a terminal.
func drop(p *pos, n int) error {
	for range n {
		if _, err := p.Network("301"); err != nil {
			return err
		}
	}
	return nil
}

// withKSN is the sale with another DE 62, under a MAC that is wrong by that.
func withKSN(t *testing.T, sale *sim.Sent, ksn string) []byte {
	t.Helper()
	m := sale.Message
	b := iso8583.ASCII87().Build(m.MTI(), iso8583.SideTerminal).
		Copy(m, 2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49, 52)
	if ksn != "" {
		b.Set(62, ksn)
	}
	open, err := b.Pack()
	must(t, err)
	return open.Seal([8]byte{1})
}

func (h *house) signsOn(t *testing.T) {
	p := h.pos(3)
	for _, code := range []string{"001", "301", "002"} {
		m := p.ask(p.Network(code))
		wantCode(t, m, "00")
		if m.MTI() != "0810" || m.Text(70) != code {
			t.Errorf("the answer is %v with DE 70 = %q", m, m.Text(70))
		}
	}
	wantCode(t, p.ask(p.Network("777")), "40")
	bare, err := iso8583.ASCII87().Build(iso8583.NetworkRequest, iso8583.SideTerminal).
		Set(7, time.Now().UTC().Format("0102150405")).Set(11, "000001").Set(41, "T0000100").Set(42, "M00000000000100").Set(70, "301").PackWithoutMAC()
	must(t, err)
	raw, err := p.link.Exchange(bare)
	must(t, err)
	m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	must(t, err)
	wantCode(t, m, "00")
	wrong, err := p.Network("001")
	must(t, err)
	bad := append([]byte(nil), wrong.Raw...)
	bad[len(bad)-1] = "10"[btoi(bad[len(bad)-1] == '1')]
	raw, err = p.link.Exchange(bad)
	must(t, err)
	m, err = iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	must(t, err)
	wantCode(t, m, "63")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *house) locksOut(t *testing.T) {
	attacker, honest := h.pos(1), h.pos(1)
	must(t, drop(honest, 200))
	bad := func() *iso8583.Message {
		sale, err := attacker.Sale(1200, visa, nil)
		must(t, err)
		raw := append([]byte(nil), sale.Raw...)
		raw[len(raw)-1] = "10"[btoi(raw[len(raw)-1] == '1')]
		got, err := attacker.link.Exchange(raw)
		must(t, err)
		m, err := iso8583.ASCII87().Parse(got, iso8583.SideTerminal)
		must(t, err)
		wantCode(t, m, "63")
		return m
	}
	for range 5 {
		if !bad().Has(64) {
			t.Error("A-20.T1: the refusal has no MAC")
		}
	}
	verified := func() int { return len(h.records(func(r record) bool { return r.Action == "mac.verify" })) }
	before := verified()
	if bad().Has(64) {
		t.Error("the answer to a locked terminal has a MAC")
	}
	if verified() != before {
		t.Error("a locked terminal cost a call to the token")
	}
	good, err := attacker.Sale(1202, visa, nil)
	must(t, err)
	raw, err := attacker.link.Exchange(good.Raw)
	must(t, err)
	m, err := iso8583.ASCII87().Parse(raw, iso8583.SideTerminal)
	must(t, err)
	wantCode(t, m, "63")
	if got := h.records(func(r record) bool { return r.Action == "auth.lock" }); len(got) != 1 {
		t.Errorf("%d records auth.lock, want 1", len(got))
	}
	wantCode(t, attacker.ask(attacker.Network("001")), "00") // W-05: clears the count
	_, answer := attacker.sell(1204)
	wantCode(t, answer, "00")
	_, answer = honest.sell(1206) // by its own connection
	wantCode(t, answer, "00")
}

func (h *house) limitsRate(t *testing.T) {
	p := h.pos(3)
	must(t, drop(p, 50))
	for i, want := range []string{"00", "00", "00", "58"} {
		sale, answer := p.sell(int64(1300 + 2*i))
		wantCode(t, p.undo(iso8583.ReversalRequest, sale, answer, nil), want)
		if want == "58" {
			h.untouched(sale)
		}
	}
	if got := h.records(func(r record) bool { return r.ISO.Rule == "D-35" && r.ISO.Alert == "fraud" }); len(got) != 1 {
		t.Errorf("%d records of the rate, want 1", len(got))
	}
}

// leaksNothing looks for the card number in what the switch has written.
func (h *house) leaksNothing(t *testing.T) {
	if strings.Contains(h.logs.String(), visa.PAN) {
		t.Error("the log has a card number")
	}
	for _, file := range h.files() {
		for _, canary := range []string{visa.PAN, fmt.Sprintf("%x", visa.PAN), "\x41\x11\x11\x11\x11\x11\x11\x11"} {
			if strings.Contains(file.text, canary) {
				t.Errorf("%s has a card number", file.name)
			}
		}
	}
}
