package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/sim"
)

// doors are those of a running keyd, with an issuer behind it and a terminal and
// a back end that use them as they should.
type doors struct {
	k     *killable
	dev   *devReport
	till  *till
	sales int64
}

// TestDoors brings bad input to every door. Each gets an error that says what is
// wrong, or the connection is closed, and after each keyd serves as before.
func TestDoors(t *testing.T) {
	k := newKillable(t)
	k.start()
	issuer := newKillIssuer(t, k)
	issuer.serve(sim.DefaultRules())
	defer issuer.stop()
	k.linked()
	h := &doors{k: k, dev: k.dev.Load()}
	var err error
	h.till, err = newTill(h.dev, "T0000001", newDice(1), sim.Card{PAN: killPAN, PIN: testPIN})
	if err != nil {
		t.Fatal(err)
	}
	defer h.till.hangUp()
	h.serves(t)

	for _, c := range []struct {
		name string
		try  func(*doors, *testing.T)
	}{
		{"switch W-01 a frame announced too long", (*doors).frameTooLong},
		{"switch W-18 a frame of length 0", (*doors).frameEmpty},
		{"switch W-01 a frame cut short", (*doors).frameCut},
		{"switch W-01 a frame that never ends holds nobody up", (*doors).frameHeld},
		{"switch W-01 W-02 bytes that are no message", (*doors).noMessage},
		{"switch W-01 W-05 a message with a fault", (*doors).faultyMessage},
		{"switch W-09 D-02 a terminal that nobody knows", (*doors).unknownTerminal},
		{"switch W-18 an answer from a terminal", (*doors).answerFromTerminal},
		{"switch W-20 certificates without the terminal role", (*doors).withoutRole},
		{"switch and API: no certificate", (*doors).noCertificate},
		{"switch and API: a certificate of another CA", (*doors).foreignCertificate},
		{"switch and API C-07 TLS 1.2", (*doors).oldTLS},
		{"switch and API R-07 plain HTTP", (*doors).plainHTTP},
		{"switch and API: connections that say nothing", (*doors).silence},
		{"API: bodies that are too large", (*doors).largeBodies},
		{"API: bodies that are no JSON", (*doors).badJSON},
		{"API: operations that there are not", (*doors).unknownOperations},
		{"API C-06 certificates that may do nothing", (*doors).mayNothing},
		{"health and local socket", (*doors).otherDoors},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.try(h, t)
			h.serves(t)
		})
	}

	k.stop()
	k.healthy()
	t.Run("every refusal is in the audit log", h.recorded)
	actsIn(t, h.dev.AuditDir)
}

// serves makes a sale and a call of the API.
func (h *doors) serves(t *testing.T) {
	t.Helper()
	h.sales++
	sale, err := h.till.Sale(100*h.sales, h.till.card, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &deal{tid: h.till.tid, amount: 100 * h.sales, sale: sale}
	h.till.exchange(t.Context(), message{deal: d, sent: sale}, 20*time.Second)
	if d.code != "00" || len(h.till.faults) > 0 {
		t.Errorf("after it a sale was answered %q, want 00; %q", d.code, h.till.faults)
	}
	if a := h.control(t, "switch", "ListKeys", "{}"); a.status != http.StatusOK {
		t.Errorf("after it ListKeys was answered %d: %s", a.status, a.body)
	}
}

// connect makes a connection to the switch as one of the clients.
func (h *doors) connect(t *testing.T, client string) *tls.Conn {
	t.Helper()
	config, err := devTLS(h.dev, client)
	if err != nil {
		t.Fatal(err)
	}
	return h.shake(t, h.dev.SwitchAddr, config)
}

// shake connects; where the client has done its part of TLS 1.3, the server may
// still refuse, which the first read tells.
func (h *doors) shake(t *testing.T, addr string, config *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	patience(t, conn)
	return conn
}

func patience(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, conn io.Writer, raw []byte) {
	t.Helper()
	if _, err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
}

// closed wants the other end to close the connection without a word.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(conn)
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		t.Errorf("the connection stays open")
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes came, want none", len(rest))
	}
}

// answer sends a message and returns the answer to it.
func answerOn(t *testing.T, conn net.Conn, raw []byte) *iso8583.Message {
	t.Helper()
	frame, err := iso8583.AppendFrame(nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, frame)
	back, err := iso8583.ReadFrame(conn)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	m, err := iso8583.ASCII87().Parse(back, iso8583.SideTerminal)
	if err != nil {
		t.Fatalf("an answer that cannot be read: %v", err)
	}
	return m
}

func (h *doors) frameTooLong(t *testing.T) {
	for _, length := range [][]byte{{0x10, 0x01}, {0xFF, 0xFF}} {
		conn := h.connect(t, "terminal")
		write(t, conn, length)
		closed(t, conn)
	}
}

func (h *doors) frameEmpty(t *testing.T) {
	conn := h.connect(t, "terminal")
	write(t, conn, []byte{0, 0})
	closed(t, conn)
}

func (h *doors) frameCut(t *testing.T) {
	conn := h.connect(t, "terminal")
	write(t, conn, []byte("\x00\x640200"))
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	closed(t, conn)
}

func (h *doors) frameHeld(t *testing.T) {
	conn := h.connect(t, "terminal")
	write(t, conn, []byte("\x00\x640200"))
	h.serves(t) // while it is held; it is closed by the test's end
}

func (h *doors) noMessage(t *testing.T) {
	conn := h.connect(t, "terminal")
	for _, raw := range []string{
		"hello",
		"\x00\xff\xfe\x00\x01\x02",
		"0200",
		"0200b238000108818000", // hex in lower case
		"9999B238000108818000",
		strings.Repeat("7", iso8583.MaxFrame),
	} {
		frame, err := iso8583.AppendFrame(nil, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		write(t, conn, frame)
	}
	// They are dropped, the connection is not: the next message is answered.
	m := answerOn(t, conn, h.echo(t))
	if m.MTI() != "0810" || m.Text(39) != "00" {
		t.Errorf("then an 0800 was answered %s, DE 39 %s", m.MTI(), m.Text(39))
	}
}

// echo is an 0800 of a terminal without keys, which needs no MAC (W-05).
func (h *doors) echo(t *testing.T) []byte {
	t.Helper()
	fixed, err := h.dev.terminal("T0000003")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := iso8583.ASCII87().Build(iso8583.NetworkRequest, iso8583.SideTerminal).
		Set(7, time.Now().UTC().Format("0102150405")).Set(11, "000001").
		Set(41, fixed.TID).Set(42, fixed.MID).Set(70, "301").PackWithoutMAC()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sale is a good sale of a terminal beside the one of serves.
func (h *doors) sale(t *testing.T) *sim.Sent {
	t.Helper()
	other, err := newTill(h.dev, "T0000003", newDice(2), h.till.card)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := other.Sale(1000, other.card, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

func (h *doors) faultyMessage(t *testing.T) {
	conn := h.connect(t, "terminal")
	good := h.sale(t).Raw
	for name, raw := range map[string][]byte{
		"one byte too many":    append(bytes.Clone(good), '0'),
		"letters in an amount": bytes.Replace(good, []byte("000000001000"), []byte("0000000010AB"), 1),
	} {
		m := answerOn(t, conn, raw)
		if m.MTI() != "0210" || m.Text(39) != "30" || m.Text(41) != "T0000003" {
			t.Errorf("%s: answered %s, DE 39 %s, want 0210 and 30", name, m.MTI(), m.Text(39))
		}
	}
}

func (h *doors) unknownTerminal(t *testing.T) {
	conn := h.connect(t, "terminal")
	raw := bytes.Replace(h.sale(t).Raw, []byte("T0000003"), []byte("T9999999"), 1)
	m := answerOn(t, conn, raw)
	if _, err := m.MAC(); m.Text(39) != "58" || !errors.Is(err, iso8583.ErrMACAbsent) {
		t.Errorf("answered %s (MAC: %v), want 58 without a MAC", m.Text(39), err)
	}
}

func (h *doors) answerFromTerminal(t *testing.T) {
	conn := h.connect(t, "terminal")
	open, err := h.sale(t).Message.Answer("00").Set(37, "123456789012").Set(38, "123456").Pack()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := iso8583.AppendFrame(nil, open.Seal([8]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, frame)
	if m := answerOn(t, conn, h.echo(t)); m.MTI() != "0810" {
		t.Errorf("it was answered %s", m.MTI())
	}
}

func (h *doors) withoutRole(t *testing.T) {
	for _, client := range []string{"switch", "admin", "auditor", "nobody"} {
		conn := h.connect(t, client)
		closed(t, conn)
	}
	closed(t, h.shake(t, h.dev.SwitchAddr, h.unlisted(t)))
}

// unlisted is a certificate of the right CA that no client of keyd has.
func (h *doors) unlisted(t *testing.T) *tls.Config {
	t.Helper()
	config, err := devTLS(h.dev, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	pki := filepath.Dir(h.dev.CACert)
	cert, err := tls.LoadX509KeyPair(filepath.Join(pki, upstreamClient+".pem"), filepath.Join(pki, upstreamClient+".key"))
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config
}

// tlsDoors are the addresses where TLS with a client certificate is spoken.
func (h *doors) tlsDoors() map[string]string {
	return map[string]string{"switch": h.dev.SwitchAddr, "API": strings.TrimPrefix(h.dev.APIURL, "https://")}
}

// alerted wants the handshake to end with an alert, at the client's side of it
// or at the first read.
func alerted(t *testing.T, door, addr string, config *tls.Config, want tls.AlertError) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, config)
	if err == nil {
		defer conn.Close()
		patience(t, conn)
		_, err = conn.Read(make([]byte, 1))
	}
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" || remote.Err.Error() != want.Error() {
		t.Errorf("%s: %v, want the alert %q", door, err, want.Error())
	}
}

const (
	alertUnknownCA           = tls.AlertError(48)
	alertProtocolVersion     = tls.AlertError(70)
	alertCertificateRequired = tls.AlertError(116)
)

func (h *doors) noCertificate(t *testing.T) {
	config, err := devTLS(h.dev, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = nil
	for door, addr := range h.tlsDoors() {
		alerted(t, door, addr, config, alertCertificateRequired)
	}
}

func (h *doors) foreignCertificate(t *testing.T) {
	config, err := devTLS(h.dev, "terminal")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := makePKI(dir, nil, devClients()); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "terminal.pem"), filepath.Join(dir, "terminal.key"))
	if err != nil {
		t.Fatal(err)
	}
	// Shown whatever the server asks for, as a stranger would.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	for door, addr := range h.tlsDoors() {
		alerted(t, door, addr, config, alertUnknownCA)
	}
}

func (h *doors) oldTLS(t *testing.T) {
	for door, addr := range h.tlsDoors() {
		client := "terminal"
		if door == "API" {
			client = "switch"
		}
		config, err := devTLS(h.dev, client)
		if err != nil {
			t.Fatal(err)
		}
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		alerted(t, door, addr, config, alertProtocolVersion)
	}
}

func (h *doors) plainHTTP(t *testing.T) {
	for door, addr := range h.tlsDoors() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		patience(t, conn)
		write(t, conn, []byte("GET / HTTP/1.1\r\nHost: keyd\r\n\r\n"))
		back, err := io.ReadAll(conn)
		var slow net.Error
		if errors.As(err, &slow) && slow.Timeout() {
			t.Errorf("%s: the connection stays open", door)
		}
		switch {
		case door == "API" && !bytes.Contains(back, []byte("HTTPS")):
			t.Errorf("%s: answered %q, want a word about HTTPS", door, back)
		case door == "switch" && bytes.Contains(back, []byte("HTTP")):
			t.Errorf("%s: answered %q", door, back)
		}
	}
}

func (h *doors) silence(t *testing.T) {
	for _, addr := range h.tlsDoors() {
		for range 50 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
	}
	h.serves(t) // while they are there
}

func (h *doors) otherDoors(t *testing.T) {
	ops := "http://" + h.dev.OpsAddr
	socket := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, done, err := shortPath(filepath.Join(h.k.dir, "keyd.sock"))
		if err != nil {
			return nil, err
		}
		defer done()
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	for _, c := range []struct {
		name, method, url, body string
		want                    int
		through                 http.RoundTripper
	}{
		{"health by POST", http.MethodPost, ops + "/healthz", "", http.StatusMethodNotAllowed, nil},
		{"health elsewhere", http.MethodGet, ops + "/../etc", "", http.StatusNotFound, nil},
		{"socket, no JSON", http.MethodPost, "http://keyd/terminals", "{", http.StatusBadRequest, socket},
		{"socket, unknown member", http.MethodPost, "http://keyd/terminals", `{"none":1}`, http.StatusBadRequest, socket},
		{"socket, too large", http.MethodPost, "http://keyd/audit/read", strings.Repeat(" ", 1<<17), http.StatusBadRequest, socket},
		{"socket, elsewhere", http.MethodPost, "http://keyd/none", "{}", http.StatusNotFound, socket},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Timeout: 20 * time.Second, Transport: c.through}).Do(req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d", c.name, resp.StatusCode, c.want)
		}
	}
}

// recorded counts what the doors had to leave in the log.
func (h *doors) recorded(t *testing.T) {
	out, err := keydCommand(t.Context(), "audit", "ls", "--dir", h.dev.AuditDir, "--limit", "0", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for line := range strings.Lines(string(out)) {
		var r listed
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Outcome == "refused" {
			got[strings.TrimRight(r.Action+" "+r.Reason+" "+r.ISO.Rule, " ")]++
		}
	}
	// L-10: no certificate, another CA's, TLS 1.2 and no TLS at both listeners,
	// and one in no table.
	const strangers = "auth.refuse cert_unknown"
	if got[strangers] < 9 {
		t.Errorf("%d records of %s, want 9 at least", got[strangers], strangers)
	}
	delete(got, strangers)
	want := map[string]int{
		"frame.refuse format_error":                9, // the frames, and what has no MTI
		"frame.refuse format_error D-01":           4,
		"sale.refuse unknown_terminal D-02":        1,
		"response.refuse unexpected_response D-01": 1,
		"auth.refuse role_denied":                  5,
		"auth.deny role_denied":                    4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refusals in the log (-want +got):\n%s", diff)
	}
}
