package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

// The bounds of one request; waiting longer is done outside, with back-off.
const (
	requestTimeout = 5 * time.Second
	retries        = 1
	retryWait      = 200 * time.Millisecond
)

// Config says where Vault is and how keyd logs in. C-09.
type Config struct {
	Address   string // https://host:port
	CA        string // PEM file of those who may sign Vault's certificate
	Namespace string // of Vault Enterprise; "" for none
	Login     Login

	// WrappedPIN is where a wrapped PIN must come from.
	WrappedPIN WrappedPIN

	Log *slog.Logger
	// Alarm hears of what only an operator can mend; it may be nil.
	Alarm func(err error)
	// Observe hears of each request: what was asked, and one of [Causes]. It may
	// be nil.
	Observe func(operation, cause string)
}

// Client is a session with Vault. It is safe for concurrent use. No token that
// it holds appears in what it prints.
type Client struct {
	cfg       Config
	api       *api.Client // without token and namespace; cloned for each request
	transport *http.Transport
	wake      chan struct{} // ends a wait of Run

	enter  chan struct{} // one slot: who holds it may log in
	mu     sync.Mutex
	lease  lease
	spent  map[[32]byte]fate // by SHA-256 of the wrapping token
	unused string            // secret id that was unwrapped and not yet seen by a login; under enter
	status atomic.Pointer[Status]
}

// Status is what is known of Vault without asking it.
type Status struct {
	Up           bool      // it answered the last time
	Sealed       bool      // it said so the last time
	TokenExpires time.Time // zero without a token, and for one that does not expire
	HasToken     bool
	LoginFailed  bool // the last login was refused or found nobody
}

// New checks the configuration and connects nowhere. It returns [ErrConfig] or
// [ErrEnvironment].
func New(cfg Config) (*Client, error) {
	if err := CheckEnvironment(); err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: reading the CA: %w", ErrConfig, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s: no certificate in PEM in it", ErrConfig, cfg.CA)
	}
	c := &Client{cfg: cfg, enter: make(chan struct{}, 1), wake: make(chan struct{}, 1), spent: make(map[[32]byte]fate)}
	c.status.Store(&Status{})
	// No proxy: the environment must not reroute what carries the PIN.
	c.transport = &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: c.clientCertificate},
		TLSHandshakeTimeout: requestTimeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
	}
	c.api, err = api.NewClient(&api.Config{
		Address: cfg.Address, HttpClient: &http.Client{Transport: c.transport}, DisableRedirects: true,
		Timeout: requestTimeout, MaxRetries: retries, MinRetryWait: retryWait, MaxRetryWait: 2 * retryWait,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c, nil
}

func (c *Config) check() error {
	u, err := url.Parse(c.Address)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("%w: address %q must be https://host:port", ErrConfig, c.Address)
	}
	if c.CA == "" {
		return fmt.Errorf("%w: no CA file to check Vault's certificate against", ErrConfig)
	}
	if c.Log == nil {
		return fmt.Errorf("%w: no log", ErrConfig)
	}
	return c.Login.check()
}

// Status tells how Vault was when it was last asked.
func (c *Client) Status() Status { return *c.status.Load() }

// Wake ends the wait before the next try, after an operator mended something.
func (c *Client) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) note(change func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := *c.status.Load()
	change(&s)
	c.status.Store(&s)
}

// request is one thing asked of Vault.
type request struct {
	operation string // in metrics: login, renew, kv, unwrap, sign, transit, health, revoke
	what      string // in errors: "signing a certificate with pki/sign/api"
	path      string
	body      map[string]any // nil reads
	token     string         // "" for requests that need none
	once      bool           // not repeated by the library: it would spend something
	tell      bool           // no secret is near: errors may say what Vault says
}

// ask sends one request with a bound on its time, and judges the answer. A
// secret that is not there is [ErrNotFound].
func (c *Client) ask(ctx context.Context, r request) (*api.Secret, error) {
	answer, err := c.send(ctx, r)
	if err == nil && answer == nil && r.body == nil {
		err = fmt.Errorf("%s: %w", r.what, ErrNotFound)
	}
	c.observe(r.operation, err)
	return answer, err
}

func (c *Client) send(ctx context.Context, r request) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout+retryWait)
	defer cancel()
	session, err := c.api.Clone()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", r.what, ErrConfig, err)
	}
	if c.cfg.Namespace != "" {
		session.SetNamespace(c.cfg.Namespace)
	}
	session.SetToken(r.token)
	if r.once {
		session.SetMaxRetries(0)
	}
	var answer *api.Secret
	if r.body == nil {
		answer, err = session.Logical().ReadWithContext(ctx, r.path)
	} else {
		answer, err = session.Logical().WriteWithContext(ctx, r.path, r.body)
	}
	return answer, judge(r.what, err, r.tell)
}

// observe counts a request and remembers whether Vault is there.
func (c *Client) observe(operation string, err error) {
	cause := Cause(err)
	if c.cfg.Observe != nil && cause != "" {
		c.cfg.Observe(operation, cause)
	}
	c.note(func(s *Status) {
		s.Up = cause != CauseUnreachable && cause != CauseSealed && cause != ""
		s.Sealed = cause == CauseSealed
	})
}

// authorised sends a request with the client's own token. When Vault no longer
// takes that, it logs in anew and tries once more.
func (c *Client) authorised(ctx context.Context, r request) (*api.Secret, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	r.token = token
	answer, err := c.ask(ctx, r)
	if !errors.Is(err, ErrDenied) || !c.forget(ctx, token) {
		return answer, err
	}
	fresh, lerr := c.token(ctx)
	if lerr != nil {
		return nil, errors.Join(err, lerr)
	}
	r.token = fresh
	return c.ask(ctx, r)
}

// health asks whether Vault is there and unsealed.
func (c *Client) health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	const what = "asking Vault for its health"
	h, err := c.api.Sys().HealthWithContext(ctx)
	if err = judge(what, err, true); err == nil && (h.Sealed || !h.Initialized) {
		err = fmt.Errorf("%s: %w", what, ErrSealed)
	}
	c.observe("health", err)
	return err
}
