// Package vaulttest runs the Vault server of the module vault-test for tests:
// throw-away storage, loopback, initialised and unsealed through its real HTTP
// API. The server's binary is named by KEYD_VAULT_SERVER; `make test-vault`
// builds it and sets that.
package vaulttest

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// startWait bounds the start of the server.
const startWait = 60 * time.Second

// Server is a Vault server of one test.
type Server struct {
	Address string // https://127.0.0.1:port
	CA      string // PEM file

	t     testing.TB
	dir   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	root  *api.Client
	key   string // that unseals
	token string // of root
}

// Start runs a server with the engines kv at secret/, pki at pki/, transit at
// transit/ and the logins approle, cert and kubernetes, unsealed. It ends with
// the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir()}
	s.run("127.0.0.1:0")
	t.Cleanup(func() { s.Stop() })
	first, err := s.root.Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	s.must(err)
	s.key, s.token = first.Keys[0], first.RootToken
	s.root.SetToken(s.token)
	s.Unseal()
	for path, kind := range map[string]*api.MountInput{
		"secret":  {Type: "kv", Options: map[string]string{"version": "2"}},
		"pki":     {Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "8760h"}},
		"transit": {Type: "transit"},
	} {
		s.must(s.root.Sys().Mount(path, kind))
	}
	for _, kind := range []string{"approle", "cert", "kubernetes"} {
		s.must(s.root.Sys().EnableAuthWithOptions(kind, &api.EnableAuthOptions{Type: kind}))
	}
	return s
}

func (s *Server) run(listen string) {
	s.t.Helper()
	binary := os.Getenv("KEYD_VAULT_SERVER")
	if binary == "" {
		s.t.Fatal("KEYD_VAULT_SERVER names no Vault server; run these tests by `make test-vault`")
	}
	report := filepath.Join(s.dir, "vault.json")
	_ = os.Remove(report)
	cmd := exec.Command(binary, "-dir", s.dir, "-listen", listen)
	stdin, err := cmd.StdinPipe()
	s.must(err)
	log, err := os.Create(filepath.Join(s.dir, "vault.log"))
	s.must(err)
	defer log.Close()
	cmd.Stderr = log
	s.must(cmd.Start())
	s.cmd, s.stdin = cmd, stdin
	var text []byte
	s.Poll("the server's report", func() bool {
		text, err = os.ReadFile(report)
		return err == nil
	})
	var at struct{ Address, CA string }
	s.must(json.Unmarshal(text, &at))
	s.Address, s.CA = at.Address, at.CA
	cfg := api.DefaultConfig()
	cfg.Address = s.Address
	s.must(cfg.ConfigureTLS(&api.TLSConfig{CACert: s.CA}))
	s.root, err = api.NewClient(cfg)
	s.must(err)
	s.root.SetToken(s.token)
}

// Stop ends the server's process; connections to it are refused from now on.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.stdin.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Restart begins the server again on the same address, sealed.
func (s *Server) Restart() {
	s.t.Helper()
	u, err := url.Parse(s.Address)
	s.must(err)
	s.run(u.Host)
}

// Seal seals Vault.
func (s *Server) Seal() {
	s.t.Helper()
	s.must(s.root.Sys().Seal())
}

// Unseal unseals Vault, and returns once it answers.
func (s *Server) Unseal() {
	s.t.Helper()
	_, err := s.root.Sys().Unseal(s.key)
	s.must(err)
	s.Poll("an active Vault", func() bool {
		h, err := s.root.Sys().Health()
		return err == nil && h.Initialized && !h.Sealed && !h.Standby
	})
}

// Write writes as root.
func (s *Server) Write(path string, body map[string]any) *api.Secret {
	s.t.Helper()
	answer, err := s.root.Logical().WriteWithContext(context.Background(), path, body)
	s.must(err)
	return answer
}

// Read reads as root.
func (s *Server) Read(path string) *api.Secret {
	s.t.Helper()
	answer, err := s.root.Logical().ReadWithContext(context.Background(), path)
	s.must(err)
	return answer
}

// List lists as root.
func (s *Server) List(path string) []any {
	s.t.Helper()
	answer, err := s.root.Logical().List(path)
	s.must(err)
	keys, _ := answer.Data["keys"].([]any)
	return keys
}

// Wrapped writes as root, or reads where body is nil, and returns the single-use
// token that wraps the answer.
func (s *Server) Wrapped(path string, body map[string]any) string {
	s.t.Helper()
	c, err := s.root.Clone()
	s.must(err)
	c.SetToken(s.token)
	c.SetWrappingLookupFunc(func(string, string) string { return "1h" })
	var answer *api.Secret
	if body == nil {
		answer, err = c.Logical().Read(path)
	} else {
		answer, err = c.Logical().Write(path, body)
	}
	s.must(err)
	return answer.WrapInfo.Token
}

// Unwrap takes what a wrapping token holds, as a thief would.
func (s *Server) Unwrap(token string) {
	s.t.Helper()
	_, err := s.root.Logical().Unwrap(token)
	s.must(err)
}

// Policy makes a policy.
func (s *Server) Policy(name, rules string) {
	s.t.Helper()
	s.must(s.root.Sys().PutPolicy(name, rules))
}

// Token makes a token with policies.
func (s *Server) Token(request api.TokenCreateRequest) string {
	s.t.Helper()
	answer, err := s.root.Auth().Token().Create(&request)
	s.must(err)
	return answer.Auth.ClientToken
}

// Poll waits until ok holds.
func (s *Server) Poll(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(startWait); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("within %v: %s", startWait, what)
		}
	}
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "vault.log"))
		s.t.Fatalf("%v\n%.2000s", err, log[max(0, len(log)-2000):])
	}
}
