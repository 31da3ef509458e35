package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"keyd.dev/keyd/internal/credentials"
)

// Method is a way to log in to Vault.
type Method string

// The ways that keyd knows. C-09.
const (
	MethodCertificate Method = "certificate" // TLS client certificate
	MethodAppRole     Method = "approle"     // role id and a wrapped single-use secret id
	MethodKubernetes  Method = "kubernetes"  // service account token
	MethodTokenFile   Method = "token_file"  // a token that Vault Agent keeps
)

// Login says how keyd logs in. Only what the method uses may be set.
type Login struct {
	Method Method
	Mount  string // of the method in Vault, below auth/; "" is the method's own name
	Role   string // certificate: may be ""; AppRole: its name; Kubernetes: its name

	Cert, Key string // certificate: PEM files, may be the same; read at each handshake

	RoleID          string // AppRole
	WrappedSecretID string // AppRole: file with the wrapping token of a secret id

	TokenFile  string // token_file
	TokenOfPod string // Kubernetes: file of the service account's token

	// First is how to log in while the certificate is not there or no longer
	// good; nil for no other way.
	First *Login
}

// DefaultPodToken is where Kubernetes puts a pod's token.
const DefaultPodToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// mostPodToken bounds the file of a service account's token, in bytes.
const mostPodToken = 16 << 10

// mount is where the method stands below auth/.
func (l *Login) mount() string {
	if l.Mount != "" {
		return l.Mount
	}
	if l.Method == MethodCertificate {
		return "cert"
	}
	return string(l.Method)
}

func (l *Login) check() error {
	need := func(value, name string) error {
		if value == "" {
			return fmt.Errorf("%w: login by %s needs %s", ErrConfig, l.Method, name)
		}
		return nil
	}
	switch l.Method {
	case MethodCertificate:
		if l.First != nil {
			if err := l.First.check(); err != nil {
				return err
			}
		}
		return errors.Join(need(l.Cert, "cert"), need(l.Key, "key"))
	case MethodAppRole:
		return errors.Join(need(l.Role, "role"), need(l.RoleID, "role_id"), need(l.WrappedSecretID, "wrapped_secret_id"))
	case MethodKubernetes:
		return need(l.Role, "role")
	case MethodTokenFile:
		return need(l.TokenFile, "token_file")
	case "":
		return nil
	}
	return fmt.Errorf("%w: %q is no way to log in; there are certificate, approle, kubernetes and token_file", ErrConfig, l.Method)
}

// clientCertificate is asked for at each handshake with Vault, so that a
// renewed pair is used without more. Without one, none is sent.
func (c *Client) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	l := &c.cfg.Login
	if l.Method != MethodCertificate {
		return &tls.Certificate{}, nil
	}
	pair, err := l.pair()
	if err != nil && l.First != nil {
		return &tls.Certificate{}, nil
	}
	return pair, err
}

// pair reads the certificate to log in with; one that ran out is none.
func (l *Login) pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(l.Cert, l.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: the certificate to log in with: %w", ErrConfig, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("%w: the certificate to log in with, %s, ended at %s", ErrConfig, l.Cert, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return &pair, nil
}

// login fetches a token of keyd's own.
func (c *Client) login(ctx context.Context) (lease, error) {
	l := &c.cfg.Login
	if l.Method == MethodCertificate && l.First != nil {
		if _, err := l.pair(); err != nil {
			c.cfg.Log.Info("vault: logging in by the other way, since there is no certificate yet", "method", string(l.First.Method), "err", err)
			l = l.First
		}
	}
	return c.loginBy(ctx, l)
}

func (c *Client) loginBy(ctx context.Context, l *Login) (lease, error) {
	switch l.Method {
	case MethodCertificate:
		// A connection that stands carries the certificate of its handshake.
		c.transport.CloseIdleConnections()
		if _, err := l.pair(); err != nil {
			return lease{}, err
		}
		body := map[string]any{}
		if l.Role != "" {
			body["name"] = l.Role
		}
		return c.enterBy(ctx, l, body)
	case MethodAppRole:
		id, err := c.secretID(ctx, l)
		if err != nil {
			return lease{}, err
		}
		got, err := c.enterBy(ctx, l, map[string]any{"role_id": l.RoleID, "secret_id": id})
		if Passes(err) {
			c.unused = id // Vault went away in between: the next try needs it
		}
		return got, err
	case MethodKubernetes:
		jwt, err := readPodToken(l.TokenOfPod)
		if err != nil {
			return lease{}, err
		}
		return c.enterBy(ctx, l, map[string]any{"role": l.Role, "jwt": jwt})
	}
	return lease{}, fmt.Errorf("%w: no way to log in is configured; set vault.auth", ErrConfig)
}

// enterBy is the login request itself.
func (c *Client) enterBy(ctx context.Context, l *Login, body map[string]any) (lease, error) {
	path := "auth/" + l.mount() + "/login"
	answer, err := c.ask(ctx, request{operation: "login", what: "logging in at " + path, path: path, body: body, once: l.Method == MethodAppRole})
	if err != nil {
		return lease{}, err
	}
	if answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "" {
		return lease{}, fmt.Errorf("logging in at %s: %w: no token in it", path, ErrAnswer)
	}
	return newLease(answer.Auth.ClientToken, time.Duration(answer.Auth.LeaseDuration)*time.Second, answer.Auth.Renewable), nil
}

// secretID unwraps a secret id that is good for one login. The file is read
// again at each login: who renews the login puts a new one there.
func (c *Client) secretID(ctx context.Context, l *Login) (string, error) {
	if id := c.unused; id != "" {
		c.unused = ""
		return id, nil
	}
	wrapping, err := credentials.ReadClosedFile(l.WrappedSecretID)
	if err != nil {
		return "", fmt.Errorf("reading the wrapped secret id: %w", err)
	}
	want := "auth/" + l.mount() + "/role/" + l.Role + "/secret-id"
	data, err := c.unwrap(ctx, "the wrapped secret id of "+l.WrappedSecretID, wrapping, want)
	if err != nil {
		return "", err
	}
	id, ok := data["secret_id"].(string)
	if !ok || id == "" {
		return "", fmt.Errorf("unwrapping the secret id: %w: no secret_id in it", ErrAnswer)
	}
	return id, nil
}

func readPodToken(path string) (string, error) {
	if path == "" {
		path = DefaultPodToken
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the service account's token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostPodToken))
	if err != nil {
		return "", fmt.Errorf("reading the service account's token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// fileToken is the token that Vault Agent keeps, as the file has it now.
func (c *Client) fileToken() (string, error) {
	token, err := credentials.ReadClosedFile(c.cfg.Login.TokenFile)
	if err != nil {
		return "", fmt.Errorf("reading Vault's token: %w", err)
	}
	return token, nil
}

// lookup asks how long a token lives.
func (c *Client) lookup(ctx context.Context, token string) (lease, error) {
	answer, err := c.ask(ctx, request{operation: "renew", what: "looking up the own token", path: "auth/token/lookup-self", token: token})
	if err != nil {
		return lease{}, err
	}
	return leaseOf(token, answer)
}

func leaseOf(token string, answer *api.Secret) (lease, error) {
	ttl, ok := answer.Data["ttl"].(json.Number)
	seconds, err := ttl.Int64()
	if !ok || err != nil {
		return lease{}, fmt.Errorf("looking up the own token: %w: no ttl in it", ErrAnswer)
	}
	return newLease(token, time.Duration(seconds)*time.Second, false), nil
}
