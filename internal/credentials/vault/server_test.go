//go:build vault

package vault_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/credentials/vault"
	"keyd.dev/keyd/internal/credentials/vaulttest"
	"keyd.dev/keyd/internal/secret"
)

const canary = "canary-4711-pin"

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// role makes an AppRole with a policy and returns the login by it.
func role(t *testing.T, s *vaulttest.Server, policy string, settings map[string]any) vault.Login {
	t.Helper()
	s.Policy("keyd", policy)
	body := map[string]any{"token_policies": "keyd", "secret_id_num_uses": 1, "token_ttl": "1h", "token_max_ttl": "4h"}
	for k, v := range settings {
		body[k] = v
	}
	s.Write("auth/approle/role/keyd", body)
	id := s.Read("auth/approle/role/keyd/role-id").Data["role_id"].(string)
	return vault.Login{
		Method: vault.MethodAppRole, Role: "keyd", RoleID: id,
		WrappedSecretID: write(t, "secret-id", s.Wrapped("auth/approle/role/keyd/secret-id", map[string]any{})+"\n"),
	}
}

// freshSecretID puts a new wrapped secret id where the login looks for it.
func freshSecretID(t *testing.T, s *vaulttest.Server, l vault.Login) {
	t.Helper()
	if err := os.WriteFile(l.WrappedSecretID, []byte(s.Wrapped("auth/approle/role/keyd/secret-id", map[string]any{})), 0o600); err != nil {
		t.Fatal(err)
	}
}

const policyPIN = `path "secret/data/keyd/*" { capabilities = ["read"] }`

func client(t *testing.T, s *vaulttest.Server, change func(*vault.Config)) (*vault.Client, *log) {
	t.Helper()
	seen := &log{}
	cfg := vault.Config{Address: s.Address, CA: s.CA, Log: slog.New(slog.NewTextHandler(seen, nil)), Alarm: seen.alarm}
	change(&cfg)
	c, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close(context.Background())
		if strings.Contains(seen.String(), "canary") || strings.Contains(seen.String(), "hvs.") {
			t.Errorf("the log holds a secret:\n%s", seen)
		}
	})
	return c, seen
}

func readPIN(t *testing.T, source string, c credentials.Vault) (secret.Bytes, error) {
	t.Helper()
	src, err := credentials.ParsePINSource(source, false)
	if err != nil {
		t.Fatal(err)
	}
	pin, err := src.Read(t.Context(), c)
	if err != nil && strings.Contains(err.Error(), "canary") {
		t.Error("the error repeats the PIN")
	}
	return pin, err
}

func TestKVPIN(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary, "number": 4711, "long": strings.Repeat("9", 257)}})
	s.Write("secret/data/other/token", map[string]any{"data": map[string]any{"pin": canary}})
	s.Write("secret/data/keyd/gone", map[string]any{"data": map[string]any{"pin": canary}})
	s.Write("secret/delete/keyd/gone", map[string]any{"versions": []int{1}})
	c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = role(t, s, policyPIN, nil) })
	for _, tt := range []struct {
		name, source string
		err          error
		cause        string
	}{
		{"C-01 a field of a secret", "vault:secret/keyd/token#pin", nil, vault.CauseNone},
		{"C-10 no such secret", "vault:secret/keyd/none#pin", vault.ErrNotFound, vault.CauseConfiguration},
		{"C-10 no such field", "vault:secret/keyd/token#none", vault.ErrNotFound, vault.CauseConfiguration},
		{"C-01 a field that is no text", "vault:secret/keyd/token#number", vault.ErrNotFound, vault.CauseConfiguration},
		{"C-01 too long", "vault:secret/keyd/token#long", credentials.ErrNoPIN, ""},
		{"C-01 a deleted secret", "vault:secret/keyd/gone#pin", vault.ErrNotFound, vault.CauseConfiguration},
		{"C-10 a path that the policy forbids", "vault:secret/other/token#pin", vault.ErrDenied, vault.CauseConfiguration},
		{"C-10 an engine that is not there", "vault:nowhere/keyd/token#pin", vault.ErrDenied, vault.CauseConfiguration},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pin, err := readPIN(t, tt.source, c)
			if !errors.Is(err, tt.err) || vault.Cause(err) != tt.cause {
				t.Fatalf("error %v (cause %q), want %v (cause %q)", err, vault.Cause(err), tt.err, tt.cause)
			}
			if tt.err == nil && !pin.Equal(secret.From([]byte(canary))) {
				t.Error("another PIN")
			}
		})
	}
	t.Run("C-10 sealed", func(t *testing.T) {
		s.Seal()
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); vault.Cause(err) != vault.CauseSealed {
			t.Errorf("error %v, want sealed", err)
		}
		if st := c.Status(); st.Up || !st.Sealed {
			t.Errorf("status %+v, want sealed", st)
		}
		s.Unseal()
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
			t.Errorf("after unsealing: %v", err)
		}
	})
	t.Run("C-10 no route", func(t *testing.T) {
		s.Stop()
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); vault.Cause(err) != vault.CauseUnreachable {
			t.Errorf("error %v, want unreachable", err)
		}
		s.Restart()
		s.Unseal()
		if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	})
}

func TestWrappedPIN(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	s.Write("secret/data/evil/token", map[string]any{"data": map[string]any{"pin": canary}})
	from := vault.WrappedPIN{From: "secret/data/keyd/token", Field: "pin"}
	newClient := func(t *testing.T) *vault.Client {
		c, _ := client(t, s, func(cfg *vault.Config) { cfg.WrappedPIN = from })
		return c
	}
	t.Run("C-12 not stolen, then spent", func(t *testing.T) {
		c, path := newClient(t), write(t, "wrapped", s.Wrapped(from.From, nil)+"\n")
		pin, err := readPIN(t, "vault-wrapped:"+path, c)
		if err != nil || !pin.Equal(secret.From([]byte(canary))) {
			t.Fatalf("first: %v", err)
		}
		if _, err := readPIN(t, "vault-wrapped:"+path, c); !errors.Is(err, vault.ErrSpent) {
			t.Errorf("again by the same process: %v, want ErrSpent", err)
		}
		if _, err := readPIN(t, "vault-wrapped:"+path, newClient(t)); !errors.Is(err, vault.ErrUnwrapped) {
			t.Errorf("by another process: %v, want ErrUnwrapped", err)
		}
	})
	t.Run("C-12 stolen", func(t *testing.T) {
		token := s.Wrapped(from.From, nil)
		s.Unwrap(token)
		_, err := readPIN(t, "vault-wrapped:"+write(t, "wrapped", token), newClient(t))
		if !errors.Is(err, vault.ErrUnwrapped) || vault.Cause(err) != vault.CauseStolen {
			t.Errorf("error %v (cause %q), want ErrUnwrapped", err, vault.Cause(err))
		}
	})
	t.Run("C-01 wrapped by another request, and not unwrapped", func(t *testing.T) {
		for _, token := range []string{s.Wrapped("secret/data/evil/token", nil), s.Wrapped("sys/wrapping/wrap", map[string]any{"pin": canary})} {
			_, err := readPIN(t, "vault-wrapped:"+write(t, "wrapped", token), newClient(t))
			if !errors.Is(err, vault.ErrOrigin) || vault.Cause(err) != vault.CauseStolen {
				t.Errorf("error %v, want ErrOrigin", err)
			}
			s.Unwrap(token) // fails the test when it was unwrapped
		}
	})
	t.Run("C-01 a file that others can read", func(t *testing.T) {
		path := write(t, "wrapped", s.Wrapped(from.From, nil))
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readPIN(t, "vault-wrapped:"+path, newClient(t)); !errors.Is(err, credentials.ErrUnsafe) {
			t.Errorf("error %v, want ErrUnsafe", err)
		}
	})
	t.Run("C-10 a sealed Vault is no theft", func(t *testing.T) {
		path := write(t, "wrapped", s.Wrapped(from.From, nil))
		c := newClient(t)
		s.Seal()
		if _, err := readPIN(t, "vault-wrapped:"+path, c); vault.Cause(err) != vault.CauseSealed {
			t.Errorf("error %v, want sealed", err)
		}
		s.Unseal()
		if _, err := readPIN(t, "vault-wrapped:"+path, c); err != nil {
			t.Errorf("after unsealing: %v", err)
		}
	})
}

func TestAppRole(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	const source = "vault:secret/keyd/token#pin"
	t.Run("C-09 a secret id serves once", func(t *testing.T) {
		l := role(t, s, policyPIN, nil)
		c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = l })
		for range 3 { // one login
			if _, err := readPIN(t, source, c); err != nil {
				t.Fatal(err)
			}
		}
		c.Close(t.Context())
		if _, err := readPIN(t, source, c); !errors.Is(err, vault.ErrSpent) {
			t.Errorf("a second login: %v, want ErrSpent", err)
		}
		freshSecretID(t, s, l)
		if _, err := readPIN(t, source, c); err != nil {
			t.Errorf("with a new secret id: %v", err)
		}
	})
	t.Run("C-12 a secret id that somebody else unwrapped", func(t *testing.T) {
		l := role(t, s, policyPIN, nil)
		token, err := os.ReadFile(l.WrappedSecretID)
		if err != nil {
			t.Fatal(err)
		}
		s.Unwrap(strings.TrimSpace(string(token)))
		c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = l })
		if _, err := readPIN(t, source, c); !errors.Is(err, vault.ErrUnwrapped) {
			t.Errorf("error %v, want ErrUnwrapped", err)
		}
	})
	t.Run("C-10 a role id that is not known", func(t *testing.T) {
		l := role(t, s, policyPIN, nil)
		l.RoleID = "canary"
		c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = l })
		if _, err := readPIN(t, source, c); vault.Cause(err) != vault.CauseConfiguration {
			t.Errorf("error %v, want a configuration error", err)
		}
	})
	t.Run("C-09 the own token is revoked at the end", func(t *testing.T) {
		c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = role(t, s, policyPIN, nil) })
		if _, err := readPIN(t, source, c); err != nil {
			t.Fatal(err)
		}
		if n := accessors(s); n < 2 {
			t.Errorf("%d tokens; want that of root and the own one", n)
		}
		c.Close(t.Context())
		// Vault takes spent wrapping tokens away a little later.
		s.Poll("the token of root alone", func() bool { return accessors(s) == 1 })
	})
}

// accessors counts the tokens that Vault knows.
func accessors(s *vaulttest.Server) int {
	return len(s.List("auth/token/accessors"))
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Policy("keyd", policyPIN)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	token := func() string { return s.Token(api.TokenCreateRequest{Policies: []string{"keyd"}, TTL: "1h"}) }
	path := write(t, "token", token())
	c, _ := client(t, s, func(cfg *vault.Config) {
		cfg.Login = vault.Login{Method: vault.MethodTokenFile, TokenFile: path}
	})
	const source = "vault:secret/keyd/token#pin"
	if _, err := readPIN(t, source, c); err != nil {
		t.Fatalf("C-09: %v", err)
	}
	if err := os.WriteFile(path, []byte("hvs.another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPIN(t, source, c); !errors.Is(err, vault.ErrDenied) {
		t.Errorf("C-09 after the file changed: %v, want ErrDenied", err)
	}
	if err := os.WriteFile(path, []byte(token()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPIN(t, source, c); err != nil {
		t.Errorf("C-09 with a new token: %v", err)
	}
	before := accessors(s)
	c.Close(t.Context())
	if after := accessors(s); after != before {
		t.Error("C-09: the agent's token was revoked; it is not keyd's own")
	}
}

// pki makes a CA and a role.
func pki(s *vaulttest.Server, settings map[string]any) {
	s.Write("pki/root/generate/internal", map[string]any{"common_name": "test root", "ttl": "8000h"})
	body := map[string]any{"allow_any_name": true, "enforce_hostnames": false, "allow_ip_sans": true, "allowed_uri_sans": "*", "key_type": "ec", "key_bits": 256, "max_ttl": "72h", "ttl": "24h"}
	for k, v := range settings {
		body[k] = v
	}
	s.Write("pki/roles/keyd", body)
}

const policyPKI = `path "pki/sign/keyd" { capabilities = ["update"] }`

func wanted(t *testing.T) vault.Wanted {
	t.Helper()
	uri, err := url.Parse("spiffe://keyd/api")
	if err != nil {
		t.Fatal(err)
	}
	return vault.Wanted{
		Name: "api", Mount: "pki", Role: "keyd", CommonName: "keyd.test", DNS: []string{"keyd.test", "localhost"},
		IP: []net.IP{net.IPv4(127, 0, 0, 1)}, URI: []*url.URL{uri}, File: filepath.Join(t.TempDir(), "vault", "api.pem"),
	}
}

func obtain(t *testing.T, c *vault.Client, w vault.Wanted) (*vault.Certificate, error) {
	t.Helper()
	cert, err := vault.NewCertificate(c, w)
	if err != nil {
		t.Fatal(err)
	}
	return cert, cert.Obtain(t.Context())
}

func TestPKI(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	pki(s, nil)
	// Only signing is allowed: pki/issue, which would send a key, is not.
	l := role(t, s, policyPKI, nil)
	c, _ := client(t, s, func(cfg *vault.Config) { cfg.Login = l })
	w := wanted(t)
	cert, err := obtain(t, c, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("C-05 names, life and file", func(t *testing.T) {
		leaf := cert.Leaf()
		if leaf.VerifyHostname("keyd.test") != nil || leaf.VerifyHostname("127.0.0.1") != nil || len(leaf.URIs) != 1 || !cert.Good() {
			t.Errorf("names %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
		}
		info, err := os.Stat(w.File)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file: %v, %v", info.Mode(), err)
		}
		files := credentials.TLSFiles{Cert: w.File, Key: w.File, CA: w.File}
		if _, err := credentials.NewTLS(files); err != nil {
			t.Errorf("the listener cannot use it: %v", err)
		}
	})
	t.Run("C-05 a restart without Vault", func(t *testing.T) {
		again, err := vault.NewCertificate(c, w)
		if err != nil || !again.Good() || again.Leaf().SerialNumber.Cmp(cert.Leaf().SerialNumber) != 0 {
			t.Errorf("the pair on disk is not used: %v", err)
		}
		other := w
		other.DNS = append(other.DNS, "other.test")
		if again, err := vault.NewCertificate(c, other); err != nil || again.Good() {
			t.Errorf("a pair without a name that is wanted now is used: %v", err)
		}
	})
	t.Run("C-05 a role that drops names", func(t *testing.T) {
		s.Write("pki/roles/keyd", map[string]any{"allow_any_name": true, "enforce_hostnames": false, "allow_ip_sans": true, "use_csr_sans": false, "key_type": "ec", "ttl": "24h"})
		if _, err := obtain(t, c, w); vault.Cause(err) != vault.CauseConfiguration {
			t.Errorf("error %v, want a configuration error", err)
		}
	})
	t.Run("C-10 a role that does not allow the name: Vault says which", func(t *testing.T) {
		s.Write("pki/roles/keyd", map[string]any{"allowed_domains": "elsewhere.test", "key_type": "ec", "ttl": "24h"})
		if _, err := obtain(t, c, w); !errors.Is(err, vault.ErrRejected) || !strings.Contains(err.Error(), "keyd.test") {
			t.Errorf("error %v, want ErrRejected that names keyd.test", err)
		}
	})
	t.Run("C-05 the failed tries left the good pair", func(t *testing.T) {
		if again, err := vault.NewCertificate(c, w); err != nil || !again.Good() {
			t.Errorf("the pair on disk: %v", err)
		}
	})
}

// TestRenewal: a certificate of a few seconds is renewed again and again, also
// across a Vault that is sealed for a while.
func TestRenewal(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	pki(s, map[string]any{"not_before_duration": "1s"})
	c, seen := client(t, s, func(cfg *vault.Config) { cfg.Login = role(t, s, policyPKI, nil) })
	w := wanted(t)
	w.TTL = 8 * time.Second
	cert, err := obtain(t, c, w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	renewed, done := make(chan struct{}, 16), make(chan struct{})
	go func() { cert.Run(ctx, func() { renewed <- struct{}{} }); close(done) }()
	defer func() { cancel(); <-done }()
	last := cert.Leaf()
	<-renewed
	if now := cert.Leaf(); now.SerialNumber.Cmp(last.SerialNumber) == 0 {
		t.Error("C-05: the same certificate after the renewal")
	} else if at, life := time.Since(last.NotBefore), last.NotAfter.Sub(last.NotBefore); at < life*6/10 || at > life*8/10 {
		t.Errorf("C-05: renewed %v into a life of %v, want about two thirds", at, life)
	}
	s.Seal()
	s.Poll("a failed renewal", func() bool { return strings.Contains(seen.String(), "cause=sealed") })
	s.Unseal()
	<-renewed
	if !cert.Good() {
		t.Error("C-05: no good certificate after Vault is back")
	}
}

// TestCertificateLogin is C-12: AppRole fetches the first certificate, which then
// is the login.
func TestCertificateLogin(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	pki(s, nil)
	policy := policyPKI + policyPIN
	first := role(t, s, policy, nil)
	ca := s.Read("pki/cert/ca").Data["certificate"].(string)
	s.Write("auth/cert/certs/keyd", map[string]any{"certificate": ca, "allowed_common_names": "keyd.test", "token_policies": "keyd", "token_ttl": "1h"})
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	w := wanted(t)
	login := vault.Login{Method: vault.MethodCertificate, Cert: w.File, Key: w.File, First: &first}
	c, seen := client(t, s, func(cfg *vault.Config) { cfg.Login = login })
	cert, err := obtain(t, c, w)
	if err != nil || !strings.Contains(seen.String(), "approle") {
		t.Fatalf("the first certificate, by AppRole: %v\n%s", err, seen)
	}
	c.Close(t.Context())
	// The secret id is spent: from here on only the certificate opens.
	if err := os.Remove(first.WrappedSecretID); err != nil {
		t.Fatal(err)
	}
	if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
		t.Fatalf("C-09 by the leaf that Vault issued: %v", err)
	}
	if err := cert.Obtain(t.Context()); err != nil {
		t.Errorf("C-09 renewing it: %v", err)
	}
	c.Close(t.Context())
	if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
		t.Errorf("C-09 by the renewed leaf: %v", err)
	}
}

// TestMaximumLife is C-12: a token that reaches the end of its maximum life is
// replaced by a new login before.
func TestMaximumLife(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("secret/data/keyd/token", map[string]any{"data": map[string]any{"pin": canary}})
	l := role(t, s, policyPIN, map[string]any{"token_ttl": "4s", "token_max_ttl": "8s"})
	c, seen := client(t, s, func(cfg *vault.Config) { cfg.Login = l })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	s.Poll("the first login", func() bool { return strings.Contains(seen.String(), "logged in anew") })
	freshSecretID(t, s, l)
	s.Poll("the second login", func() bool { return strings.Count(seen.String(), "logged in anew") == 2 })
	if _, err := readPIN(t, "vault:secret/keyd/token#pin", c); err != nil {
		t.Errorf("C-09 after the maximum life: %v", err)
	}
	if st := c.Status(); !st.HasToken || time.Until(st.TokenExpires) <= 0 {
		t.Errorf("status %+v, want a living token", st)
	}
}

func TestTransit(t *testing.T) {
	t.Parallel()
	s := vaulttest.Start(t)
	s.Write("transit/keys/keyd-backup", map[string]any{})
	c, _ := client(t, s, func(cfg *vault.Config) {
		cfg.Login = role(t, s, `path "transit/encrypt/keyd-backup" { capabilities = ["update"] } path "transit/decrypt/keyd-backup" { capabilities = ["update"] }`, nil)
	})
	wrapped, err := c.Encrypt(t.Context(), "transit", "keyd-backup", []byte(canary))
	if err != nil || !strings.HasPrefix(wrapped, "vault:v1:") {
		t.Fatalf("%q, %v", wrapped, err)
	}
	s.Write("transit/keys/keyd-backup/rotate", map[string]any{})
	plain, err := c.Decrypt(t.Context(), "transit", "keyd-backup", wrapped)
	if err != nil || string(plain) != canary {
		t.Errorf("C-11 after a rotation: %v", err)
	}
	if _, err := c.Decrypt(t.Context(), "transit", "keyd-backup", "vault:v1:AAAA"); vault.Cause(err) != vault.CauseConfiguration {
		t.Errorf("C-11 a damaged wrap: %v", err)
	}
}
