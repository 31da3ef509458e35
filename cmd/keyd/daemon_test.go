package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// running is `keyd dev` inside the test's process.
type running struct {
	t      *testing.T
	dev    devReport
	stderr *buffer
	cancel context.CancelFunc
	code   chan int
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// poll waits until ok holds; the reason is what did not come about.
func poll(t *testing.T, reason string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("within 30 s: %s", reason)
		}
	}
}

func startDev(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, stderr: &buffer{}, cancel: cancel, code: make(chan int, 1)}
	go func() {
		// The test's own process must stay as it is.
		r.code <- run(ctx, append([]string{"dev", "--dir", dir, "--sandbox", "off"}, args...), strings.NewReader(""), io.Discard, r.stderr)
	}()
	poll(t, "dev.json", func() bool {
		select {
		case code := <-r.code:
			t.Fatalf("keyd dev ended with %d:\n%s", code, r.stderr)
		default:
		}
		text, err := os.ReadFile(filepath.Join(dir, "dev.json"))
		if err != nil {
			return false
		}
		if err := json.Unmarshal(text, &r.dev); err != nil {
			t.Fatalf("dev.json is not whole: %v", err)
		}
		return true
	})
	return r
}

// stop ends the daemon and wants exit code 0.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case code := <-r.code:
		if code != exitDone {
			r.t.Errorf("exit code %d:\n%s", code, r.stderr)
		}
	case <-time.After(40 * time.Second):
		r.t.Fatalf("the daemon did not stop:\n%s", r.stderr)
	}
}

func (r *running) tls(client string) *tls.Config {
	r.t.Helper()
	cert, err := tls.LoadX509KeyPair(r.dev.Clients[client].Cert, r.dev.Clients[client].Key)
	if err != nil {
		r.t.Fatal(err)
	}
	ca, err := os.ReadFile(r.dev.CACert)
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}
}

func (r *running) get(path string) (int, string) {
	r.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://" + r.dev.OpsAddr + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestDaemonLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	dir := t.TempDir()
	for range 2 {
		r := startDev(t, dir)
		poll(t, "the upstream link", func() bool {
			_, body := r.get("/readyz")
			return strings.Contains(body, `"upstream":{"ok":true}`)
		})
		r.stop()
	}
	goleak.VerifyNone(t, before)
}

func TestOps(t *testing.T) {
	r := startDev(t, t.TempDir(), "--no-sim")
	defer r.stop()
	if status, body := r.get("/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", status, body)
	}
	status, body := r.get("/readyz")
	var report readiness
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK || !report.Ready || !report.Parts["token"].OK || !report.Parts["store"].OK || !report.Parts["audit"].OK {
		t.Errorf("/readyz: %d %s", status, body)
	}
	t.Run("R-22 R-64 the link that is down is named, and no other", func(t *testing.T) {
		for name, part := range report.Parts {
			if down := name == "upstream"; part.OK == down {
				t.Errorf("no issuer runs, and %s is said to be %+v", name, part)
			}
		}
		if !strings.Contains(body, errNotConnected.Error()) {
			t.Errorf("the report does not say why: %s", body)
		}
	})
	_, body = r.get("/metrics")
	for _, name := range []string{"keyd_build_info{", "keyd_token_up 1", "keyd_audit_ready 1", "keyd_switch_upstream_up 0",
		"keyd_token_calls_total ", "keyd_certificate_expiry_seconds{section=\"api\"}", "process_resident_memory_bytes"} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	host, _, err := net.SplitHostPort(r.dev.OpsAddr)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("ops listens on %s, not on loopback", r.dev.OpsAddr)
	}
}

// TestHangupReloads is C-04: a new certificate without a restart, and a bad one
// refused with the old one in use.
func TestHangupReloads(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--no-sim")
	defer r.stop()
	serial := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(r.dev.APIURL, "https://"), r.tls("switch"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	old := serial()
	// The issuer's certificate is a server certificate of the same CA.
	for _, end := range []string{".pem", ".key"} {
		text, err := os.ReadFile(filepath.Join(dir, "pki", "issuer"+end))
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(filepath.Join(dir, "pki", "server"+end), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hangup := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangup()
	var renewed string
	poll(t, "the new certificate", func() bool { renewed = serial(); return renewed != old })
	if err := os.WriteFile(filepath.Join(dir, "pki", "server.pem"), []byte("spoiled"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup()
	poll(t, "the alarm", func() bool { return strings.Contains(r.stderr.String(), "certificate alarm") })
	if got := serial(); got != renewed {
		t.Errorf("C-04: serial %s after a spoiled file, want the old %s", got, renewed)
	}
}

// TestStopAnswersWhatIsInWork: a request that has begun gets its answer.
func TestStopAnswersWhatIsInWork(t *testing.T) {
	r := startDev(t, t.TempDir(), "--no-sim")
	conn, err := tls.Dial("tcp", strings.TrimPrefix(r.dev.APIURL, "https://"), r.tls("switch"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{}`
	head := "POST / HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/x-amz-json-1.0\r\n" +
		"X-Amz-Target: PaymentCryptographyControlPlane.ListKeys\r\nContent-Length: 2\r\n\r\n"
	if _, err := io.WriteString(conn, head+body[:1]); err != nil {
		t.Fatal(err)
	}
	// The request is in work once the server has taken its head off the socket.
	poll(t, "the request in work", func() bool {
		_, metrics := r.get("/metrics")
		return strings.Contains(metrics, "keyd_api_in_work 1\n")
	})
	r.cancel()
	poll(t, "the drain", func() bool { return strings.Contains(r.stderr.String(), `"msg":"stopping"`) })
	if _, err := io.WriteString(conn, body[1:]); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(answer), "alias/dev") && !strings.Contains(string(answer), "KeyArn") {
		t.Errorf("answer while stopping: %.200s", answer)
	}
	r.stop()
}

// TestSystemdIsTold: READY once everything answers, STOPPING when it ends.
func TestSystemdIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "n")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	hear := func() string {
		t.Helper()
		if err := listener.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 256)
		n, err := listener.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
	r := startDev(t, t.TempDir(), "--no-sim")
	if got := hear(); got != "READY=1" {
		t.Errorf("first %q, want READY=1", got)
	}
	r.stop()
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("then %q, want STOPPING=1", got)
	}
}

// TestDevReport is W-12 and W-13.
func TestDevReport(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir)
	defer r.stop()
	wantRoles := map[string]string{
		"switch": "application", "admin": "admin", "admin-2": "admin", "operator": "operator", "custodian-1": "custodian", "custodian-2": "custodian",
		"custodian-3": "custodian", "auditor": "auditor", "terminal": "terminal", "nobody": "",
	}
	if len(r.dev.Clients) != len(wantRoles) {
		t.Errorf("W-12: %d clients, want %d", len(r.dev.Clients), len(wantRoles))
	}
	paths := []string{r.dev.CACert, r.dev.Config, r.dev.AuditDir, r.dev.AuditVkey, r.dev.Issuer.Cert, r.dev.Issuer.Key}
	for name, roles := range wantRoles {
		c, ok := r.dev.Clients[name]
		if !ok || c.Roles == nil || strings.Join(c.Roles, ",") != roles {
			t.Errorf("W-12 client %s: %+v, want role %q", name, c, roles)
		}
		paths = append(paths, c.Cert, c.Key)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); !filepath.IsAbs(path) || err != nil {
			t.Errorf("W-13 %q: absolute and there: %v", path, err)
		} else if filepath.Ext(path) == ".key" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %o", info.Mode().Perm())
	}
	wantKeys := map[string]string{
		"alias/dev/kek":      "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
		"alias/dev/bdk-tdes": "0123456789ABCDEFFEDCBA9876543210",
		"alias/dev/bdk-aes":  "FEDCBA9876543210F1F1F1F1F1F1F1F1",
		"alias/dev/zpk":      "404142434445464748494A4B4C4D4E4F",
		"alias/dev/zak":      "505152535455565758595A5B5C5D5E5F",
	}
	for alias, value := range wantKeys {
		if r.dev.TestKeys[alias] != value {
			t.Errorf("W-11: %s is not the published test key", alias)
		}
	}
	if r.dev.PID != os.Getpid() || len(r.dev.Terminals) != 53 {
		t.Errorf("pid %d, %d terminals", r.dev.PID, len(r.dev.Terminals))
	}
	last := r.dev.Terminals[52]
	if last.TID != "T0000149" || last.MID != "M00000000000100" || last.KSN != "FFFF9876551031000001" {
		t.Errorf("W-10 last terminal: %+v", last)
	}
}
