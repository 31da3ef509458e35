//go:build vault

package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"keyd.dev/keyd/internal/credentials/vault"
	"keyd.dev/keyd/internal/credentials/vaulttest"
	"keyd.dev/keyd/internal/secret"
)

// line is a bad line to a Vault server: it loses one request, or one answer.
type line struct {
	address, ca           string
	loseRequest, loseBack atomic.Value // path
}

func badLine(t *testing.T, s *vaulttest.Server) *line {
	t.Helper()
	target, err := url.Parse(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(s.CA)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	l := &line{}
	l.loseRequest.Store("")
	l.loseBack.Store("")
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		ModifyResponse: func(r *http.Response) error {
			if l.loseBack.CompareAndSwap(r.Request.URL.Path, "") {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.loseRequest.CompareAndSwap(r.URL.Path, "") {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	l.address = front.URL
	l.ca = write(t, "front.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})))
	return l
}

// TestLostAnswers: what may be done only once is not done twice, and what was
// lost on the way is not called theft without saying so.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	from := vault.WrappedPIN{From: "secret/data/keyd/token", Field: "pin"}
	newClient := func(t *testing.T, l *line, login vault.Login) *vault.Client {
		c, _ := client(t, s, func(cfg *vault.Config) {
			cfg.Address, cfg.CA, cfg.WrappedPIN, cfg.Login = l.address, l.ca, from, login
		})
		return c
	}
	t.Run("C-01 the answer to the unwrapping is lost", func(t *testing.T) {
		l := badLine(t, s)
		c, path := newClient(t, l, vault.Login{}), write(t, "wrapped", s.Wrapped(from.From, nil))
		l.loseBack.Store("/v1/sys/wrapping/unwrap")
		if _, err := readPIN(t, "vault-wrapped:"+path, c); vault.Cause(err) != vault.CauseUnreachable {
			t.Fatalf("first: %v, want unreachable", err)
		}
		_, err := readPIN(t, "vault-wrapped:"+path, c)
		if !errors.Is(err, vault.ErrUnwrapped) || !strings.Contains(err.Error(), "keyd's own request took it") {
			t.Errorf("then: %v, want ErrUnwrapped that says whose request it was", err)
		}
	})
	t.Run("C-09 a secret id survives a login that did not arrive", func(t *testing.T) {
		l := badLine(t, s)
		c := newClient(t, l, role(t, s, policyPIN, nil))
		l.loseRequest.Store("/v1/auth/approle/login")
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); vault.Cause(err) != vault.CauseUnreachable {
			t.Fatalf("first: %v, want unreachable", err)
		}
		pin, err := readPIN(t, "vault:secret/keyd/token#pin", c)
		if err != nil || !pin.Equal(secret.From([]byte(canary))) {
			t.Errorf("then: %v", err)
		}
	})
	t.Run("C-09 a read whose answer is lost is asked once more", func(t *testing.T) {
		l := badLine(t, s)
		c := newClient(t, l, role(t, s, policyPIN, nil))
		l.loseBack.Store("/v1/secret/data/keyd/token")
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
			t.Errorf("the library's one retry: %v", err)
		}
	})
}
