package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// revokes writes a revocation list of the development CA.
func (c *crowd) revokes(t *testing.T, next time.Time, certs ...*x509.Certificate) string {
	t.Helper()
	pki := filepath.Dir(c.k.dev.Load().CACert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "ca.pem"), filepath.Join(pki, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, cert := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(pki, "crl.pem")
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRevokedWhileConnected is C-06 at a daemon: a certificate that is revoked
// ends with the next request, on connections that are open, and makes no new one.
func TestRevokedWhileConnected(t *testing.T) {
	c := newCrowd(t, nil, "")
	c.k.stop()
	list := "crl = '" + c.revokes(t, time.Now().Add(time.Hour)) + "'"
	c.configure(t, "api", list)
	c.configure(t, "switch", list)
	c.k.start()
	terminal := c.terminal(t)
	config := c.as(t, "switch")
	leaf := config.Certificates[0].Leaf
	one, err := c.dial(config)
	if err != nil {
		t.Fatal(err)
	}
	defer one.conn.Close()
	two := &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}, Timeout: 20 * time.Second}
	defer two.CloseIdleConnections()
	overHTTP2 := func() (status int, protocol string, err error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.dev.APIURL+"/mac/generate", strings.NewReader(crowdMAC))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		response, err := two.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer response.Body.Close()
		return response.StatusCode, response.Proto, nil
	}
	if status, answer, err := one.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
		t.Fatalf("before: %d %s, %v", status, answer, err)
	}
	if status, protocol, err := overHTTP2(); err != nil || status != http.StatusOK || protocol != "HTTP/2.0" {
		t.Fatalf("before, over HTTP/2: %d %s, %v", status, protocol, err)
	}

	c.revokes(t, time.Now().Add(time.Hour), leaf, c.as(t, "terminal").Certificates[0].Leaf)
	if err := c.k.proc.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	c.k.await("the list is read", 30*time.Second, func() bool {
		fresh, err := c.dial(config)
		if err == nil {
			_, _, err = fresh.call("/", awsTarget+"ListKeys", "", "{}")
			_ = fresh.conn.Close()
		}
		return err != nil
	})
	status, answer, err := one.call("/mac/generate", "", "", crowdMAC)
	if err != nil || status != http.StatusForbidden || !strings.Contains(answer, "AccessDeniedException") || !strings.Contains(answer, "no longer accepted") {
		t.Errorf("on the open connection: %d %s, %v", status, answer, err)
	}
	if _, _, err := one.call("/mac/generate", "", "", crowdMAC); err == nil {
		t.Error("the connection of a revoked certificate stays open")
	}
	if status, _, err := overHTTP2(); err == nil && status != http.StatusForbidden {
		t.Errorf("on the open connection of HTTP/2: %d", status)
	}
	if status, _, err := overHTTP2(); err == nil {
		t.Errorf("a new connection of HTTP/2: %d", status)
	}
	write(t, terminal, []byte("\x00\x040800"))
	closed(t, terminal)
	other, err := c.dial(c.as(t, floodClient))
	if err != nil {
		t.Fatal(err)
	}
	defer other.conn.Close()
	if status, answer, err := other.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
		t.Errorf("another client: %d %s, %v", status, answer, err)
	}
	c.k.stop()
	seen := 0
	c.records(t, func(action string, raw []byte) {
		var r struct{ Reason string }
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		if action == "auth.refuse" && r.Reason == "cert_revoked" {
			seen++
		}
	})
	if seen < 3 {
		t.Errorf("%d records of a revoked certificate, want those of the open connections and of the new one", seen)
	}
}

// killableStale is longer than a start takes on a busy machine.
const killableStale = 8 * time.Second

// TestStaleListStrict is C-06: with crl_strict, a list that goes out of date
// refuses everyone, connected or not; without it, there is an alarm.
func TestStaleListStrict(t *testing.T) {
	for _, strict := range []bool{true, false} {
		name := map[bool]string{true: "strict", false: "not strict"}[strict]
		t.Run("C-06 "+name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, nil, "")
			c.k.stop()
			until := time.Now().Add(killableStale)
			c.configure(t, "api", "crl = '"+c.revokes(t, until)+"'\ncrl_strict = "+map[bool]string{true: "true", false: "false"}[strict])
			c.k.start()
			one, err := c.dial(c.as(t, "switch"))
			if err != nil {
				t.Fatal(err)
			}
			defer one.conn.Close()
			if status, answer, err := one.call("/mac/generate", "", "", crowdMAC); err != nil || status != http.StatusOK {
				t.Fatalf("before: %d %s, %v", status, answer, err)
			}
			c.k.await("the alarm", 60*time.Second, func() bool {
				_ = c.k.proc.Process.Signal(syscall.SIGHUP) // or within ten seconds by itself
				return strings.Contains(c.k.output(), "revocation list out of date")
			})
			status, answer, err := one.call("/mac/generate", "", "", crowdMAC)
			if want := map[bool]int{true: http.StatusForbidden, false: http.StatusOK}[strict]; err != nil || status != want {
				t.Errorf("afterwards: %d %s, %v; want %d", status, answer, err, want)
			}
			c.k.stop()
		})
	}
}

// terminal is a connection to the switch on which a message was answered.
func (c *crowd) terminal(t *testing.T) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", c.k.dev.Load().SwitchAddr, c.as(t, "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	patience(t, conn)
	till, err := newTill(c.k.dev.Load(), "T0000001", newDice(1), sim.Card{PAN: killPAN, PIN: testPIN})
	if err != nil {
		t.Fatal(err)
	}
	defer till.hangUp()
	sale, err := till.Sale(100, till.card, nil)
	if err != nil {
		t.Fatal(err)
	}
	if code := answerOn(t, conn, sale.Raw).Text(39); code != "91" {
		t.Fatalf("a sale without an issuer was answered %s, want 91", code)
	}
	return conn
}

// configure puts lines into a section.
func (c *crowd) configure(t *testing.T, section, lines string) {
	t.Helper()
	text, err := os.ReadFile(c.dev.Config)
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Replace(string(text), "["+section+"]\n", "["+section+"]\n"+lines+"\n", 1)
	if err := os.WriteFile(c.dev.Config, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
}
