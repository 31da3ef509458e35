package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hookReceiver takes events and refuses the first delivery of each.
type hookReceiver struct {
	mu     sync.Mutex
	bodies map[string]string // by id
	counts map[string]int
	order  []string
	wrong  []string
}

func (r *hookReceiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	id := q.Header.Get("Keyd-Event")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[id]++
	if r.counts[id] == 1 {
		r.bodies[id] = string(body)
		r.order = append(r.order, id)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if r.bodies[id] != string(body) || !strings.Contains(q.Header.Get("Keyd-Signature"), ",v1=") {
		r.wrong = append(r.wrong, id)
	}
}

func (r *hookReceiver) acknowledged() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.order {
		if r.counts[id] > 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

// selfSigned is a certificate for localhost that signs itself, also as a file.
func selfSigned(t *testing.T, path string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "receiver"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// command runs a command of keyd to its end.
func (k *killable) command(args ...string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	if out, err := keydCommand(ctx, args...).CombinedOutput(); err != nil {
		k.t.Fatalf("keyd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestHookSurvivesKill is: keyd is killed between the commit of a
// reversal and the delivery of its events. After the start they arrive, in their
// order, each under one id, again where the acknowledgement is missing.
func TestHookSurvivesKill(t *testing.T) {
	k := newKillable(t)
	k.start()
	k.command("key", "create", "--alias", "alias/hook", "--usage", "M7", "--algorithm", "HMAC_SHA256", "--mode", "C", "--exportable", "--dev", k.dir, "--as", "admin")
	k.stop()
	addr := quietAddrs(t, 1)[0]
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cert := selfSigned(t, filepath.Join(k.dir, "receiver.pem"))
	config := filepath.Join(k.dir, "keyd.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	with := fmt.Sprintf("[hook]\nurl = 'https://localhost:%s/events'\nca = 'receiver.pem'\nmac_key = 'alias/hook'\n", port)
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), "[hook]\n", with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()

	issuer, endIssuer := context.WithCancel(context.Background())
	bank := keydCommand(issuer, "sim", "issuer", "--dir", k.dir)
	if err := bank.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		endIssuer()
		_ = bank.Wait() // it was killed
	}()
	k.linked()
	k.command("sim", "pos", "sale", "--dir", k.dir, "--amount", "1000")
	k.command("sim", "pos", "reversal", "--dir", k.dir)
	k.kill()

	// Nobody has listened so far: nothing was delivered.
	r := &hookReceiver{bodies: map[string]string{}, counts: map[string]int{}}
	server := httptest.NewUnstartedServer(r)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	if server.Listener, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	k.start()
	k.await("both events are acknowledged", time.Minute, func() bool { return len(r.acknowledged()) == 2 })
	k.stop()

	got := r.acknowledged()
	created, done := got[0], got[1]
	if !strings.HasSuffix(created, "-created") || done != strings.TrimSuffix(created, "-created")+"-done" {
		t.Errorf("events %v, want created and done of one reversal", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.counts) != 2 || len(r.wrong) > 0 {
		t.Errorf("ids %v; other bytes or no signature: %v", r.counts, r.wrong)
	}
	for id, body := range r.bodies {
		if strings.Contains(body, "411111") || !strings.Contains(body, `"id":"`+id+`"`) {
			t.Errorf("A-26: event %s: %s", id, body)
		}
	}
}

// TestHookConfig: a receiver without HTTPS, without a CA or without a key is
// refused, and so is half a section.
func TestHookConfig(t *testing.T) {
	good := hookConfig{URL: "https://events.example/keyd", CA: "/ca.pem", MACKey: "alias/hook", MinTLS: "1.3"}
	for _, c := range []struct {
		name   string
		change func(*hookConfig)
		want   []string // keys that are complained of
	}{
		{"all there", func(*hookConfig) {}, nil},
		{"none", func(h *hookConfig) { *h = hookConfig{} }, nil},
		{"http", func(h *hookConfig) { h.URL = "http://events.example/keyd" }, []string{"hook.url"}},
		{"no scheme", func(h *hookConfig) { h.URL = "events.example" }, []string{"hook.url"}},
		{"a password in the address", func(h *hookConfig) { h.URL = "https://a:b@events.example" }, []string{"hook.url"}},
		{"no CA", func(h *hookConfig) { h.CA = "" }, []string{"hook.ca"}},
		{"no key", func(h *hookConfig) { h.MACKey = "" }, []string{"hook.mac_key"}},
		{"a key that is no alias", func(h *hookConfig) { h.MACKey = "hook" }, []string{"hook.mac_key"}},
		{"a certificate without its key", func(h *hookConfig) { h.Cert = "/c.pem" }, []string{"hook.cert"}},
		{"TLS 1.1", func(h *hookConfig) { h.MinTLS = "1.1" }, []string{"hook.min_tls"}},
		{"a section without an address", func(h *hookConfig) { h.URL = "" }, []string{"hook.url"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &config{Hook: good}
			c.change(&cfg.Hook)
			k := &configCheck{file: "keyd.toml"}
			k.hook(cfg)
			var keys []string
			for _, line := range k.found {
				_, rest, _ := strings.Cut(line, ": ")
				key, _, _ := strings.Cut(rest, ":")
				keys = append(keys, key)
			}
			if !slices.Equal(keys, c.want) {
				t.Errorf("complaints %q, want of %v", k.found, c.want)
			}
		})
	}
}
