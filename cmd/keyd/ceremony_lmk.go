package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// foundation is the house of the ceremony that makes a new node. There is no
// daemon yet and no audit log, whose key the token gets together with the local
// master key: the records are held until there is one. Where the ceremony ends
// before that, there is no node, and nothing to have a log of.
type foundation struct {
	cfg     *configFile
	log     *slog.Logger
	metrics *metrics
	token   *hsm.Token
	engine  *ceremony.Engine
	server  *http.Server

	is ceremony.About

	mu    sync.Mutex
	first uint32                                 // generation of the local master key
	node  *node                                  // once the token has its keys
	held  []func(custody *custody.Custody) error // records that wait for the log
	house *ceremony.InDaemon
}

// errNoNode: what a new node would do is asked for before it is one.
var errNoNode = errors.New("the ceremony ended before there was a node and a log: nothing is left of it")

// newFoundation opens the token, makes the folders, and lets the engine listen
// on a port of this machine, with the certificates and clients of the
// configuration. It points the command's flags there.
func newFoundation(ctx context.Context, p *program, c *ceremonyRunCmd) (_ *foundation, err error) {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return nil, err
	}
	if err := refuseExisting(cfg); err != nil {
		return nil, err
	}
	f := &foundation{cfg: cfg, log: newLogger(p.stderr, "warn"), metrics: newMetrics()}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close(context.WithoutCancel(ctx)))
		}
	}()
	// The folders come first: what fails there fails before the token is asked.
	if err := makeFiles(ctx, cfg); err != nil {
		return nil, err
	}
	if f.token, err = openToken(ctx, cfg, f.log, f.metrics); err != nil {
		return nil, err
	}
	f.is = about(cfg, f.token)
	made, _, err := hsm.NewManager(f.token).Exists(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for master keys in the token: %w", err)
	}
	if len(made) > 0 {
		return nil, fmt.Errorf("the token %q holds keys of keyd already; this ceremony is for an empty one", cfg.Token.Label)
	}
	if f.engine, err = ceremony.New(ceremony.Config{House: f, Log: f.log}); err != nil {
		return nil, err
	}
	return f, f.listen(c)
}

// listen serves the engine on a free port of the loopback interface. The
// command's own side of it trusts the server's very certificate.
func (f *foundation) listen(c *ceremonyRunCmd) error {
	files, err := credentials.NewTLS(credentials.TLSFiles{
		Cert: f.cfg.API.Cert, Key: f.cfg.API.Key, CA: f.cfg.API.ClientCA, CRL: f.cfg.API.CRL, CRLStrict: f.cfg.API.CRLStrict,
	})
	if err != nil {
		return fmt.Errorf("reading the certificates of [api]: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f.server = &http.Server{
		Handler: f.engine.Handler(), TLSConfig: files.Server("h2", "http/1.1"), ReadTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
	}
	go func() { _ = f.server.ServeTLS(listener, "", "") }()
	c.URL, c.ServerName = "https://"+listener.Addr().String(), serverName(files.Leaf())
	return nil
}

// serverName is a name that the server's certificate has.
func serverName(leaf *x509.Certificate) string {
	switch {
	case leaf == nil:
		return ""
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return ""
}

// close ends what is open, and removes the folders of a node that was not made.
func (f *foundation) close(ctx context.Context) error {
	var errs []error
	if f.engine != nil {
		f.engine.Close()
	}
	if f.server != nil {
		errs = append(errs, f.server.Close())
	}
	if f.token != nil {
		errs = append(errs, f.token.Close())
	}
	if f.node == nil {
		return errors.Join(append(errs, unmake(f.cfg))...)
	}
	return errors.Join(append(errs, f.node.close(ctx))...)
}

// Identify finds the client of a certificate in the configuration.
func (f *foundation) Identify(cert *x509.Certificate) (custody.Client, error) {
	return custody.IdentifyAmong(f.cfg.clients(), cert)
}

// Permit asks the permission matrix.
func (f *foundation) Permit(_ context.Context, caller custody.Caller, _ string, op custody.Operation) error {
	for _, role := range custody.Permissions()[op] {
		if slices.Contains(caller.Roles, role) {
			return nil
		}
	}
	return fmt.Errorf("%w: no role of the caller has %s", custody.ErrDenied, op)
}

// Note records, or keeps the record until there is a log.
func (f *foundation) Note(ctx context.Context, caller custody.Caller, corr string, r audit.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx = context.WithoutCancel(ctx) // the record outlives the request
	f.held = append(f.held, func(c *custody.Custody) error { return c.Record(ctx, caller, corr, r) })
	return f.flush()
}

// Step works, and records intent and outcome once there is a log.
func (f *foundation) Step(ctx context.Context, caller custody.Caller, corr string, r audit.Record, work func(*audit.Record) error) error {
	ctx = context.WithoutCancel(ctx) // the record outlives the request
	outcome := r
	err := work(&outcome)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, func(c *custody.Custody) error {
		recorded := c.Intended(ctx, caller, corr, r, func(r *audit.Record) error {
			r.Cer, r.Keys = outcome.Cer, outcome.Keys
			return err
		})
		if errors.Is(recorded, custody.ErrUnavailable) {
			return recorded
		}
		return nil
	})
	return errors.Join(err, f.flush())
}

// flush records what was held, in order. The lock is held.
func (f *foundation) flush() error {
	if f.node == nil {
		return nil
	}
	for len(f.held) > 0 {
		if err := f.held[0](f.node.custody); err != nil {
			return err
		}
		f.held = f.held[1:]
	}
	return nil
}

// Random fills p from the token's generator.
func (f *foundation) Random(p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.token == nil {
		return errNoNode
	}
	return f.token.Random(p)
}

// Attest signs with the new log's key.
func (f *foundation) Attest(domain string, message []byte) ([]byte, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == nil {
		return nil, "", errNoNode
	}
	return f.house.Attest(domain, message)
}

// About says what the node will be.
func (f *foundation) About() ceremony.About { return f.is }

// Ready admits the one kind that this process is for.
func (f *foundation) Ready(_ context.Context, _ custody.Caller, s *ceremony.Script) error {
	if s.Kind != ceremony.LMK {
		return errNoNode
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = s.LMK.First()
	return nil
}

// CheckLMK is the check value of the token's first generation.
func (f *foundation) CheckLMK(_ context.Context, lmk secret.Bytes) (keys.KCV, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return hsm.LMKCheck(lmk, f.first)
}

// SetLMK gives the token its keys and opens the node.
func (f *foundation) SetLMK(ctx context.Context, _ ceremony.Quorum, lmk secret.Bytes) (ceremony.Made, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := hsm.NewManager(f.token).InitAt(ctx, lmk, f.first); err != nil {
		return ceremony.Made{}, err
	}
	if err := foundRegister(ctx, f.cfg, f.token); err != nil {
		return ceremony.Made{}, advise(err, "the token has its keys; `keyd init --existing-token` makes the rest")
	}
	// The module knows one login at a time: the node opens the token anew.
	if err := f.token.Close(); err != nil {
		return ceremony.Made{}, advise(err, "the token has its keys; `keyd init --existing-token` makes the rest")
	}
	f.token = nil
	n, err := openNode(ctx, f.cfg, f.log, f.metrics)
	if err != nil {
		return ceremony.Made{}, advise(err, "the token has its keys; `keyd init --existing-token` makes the rest")
	}
	f.node = n
	if f.house, err = n.house(); err != nil {
		return ceremony.Made{}, err
	}
	check, err := hsm.LMKCheck(lmk, f.first)
	if err != nil {
		return ceremony.Made{}, err
	}
	return ceremony.Made{LMK: f.first, Check: check.String()}, nil
}

// Import needs a node.
func (f *foundation) Import(context.Context, ceremony.Quorum, ceremony.NewKey, secret.Bytes) (ceremony.Made, error) {
	return ceremony.Made{}, errNoNode
}

// Export needs a node.
func (f *foundation) Export(context.Context, ceremony.Quorum, string) (secret.Bytes, keys.Attributes, keys.CheckMethod, ceremony.Made, error) {
	return secret.Bytes{}, keys.Attributes{}, 0, ceremony.Made{}, errNoNode
}

// Initial needs a node.
func (f *foundation) Initial(context.Context, ceremony.Quorum, string, string, []ceremony.Device) (ceremony.Made, error) {
	return ceremony.Made{}, errNoNode
}

// Destroy needs a node.
func (f *foundation) Destroy(context.Context, ceremony.Quorum, string) (ceremony.Made, error) {
	return ceremony.Made{}, errNoNode
}

// SetRoles needs a node.
func (f *foundation) SetRoles(context.Context, ceremony.Quorum, string, []string) (ceremony.Made, error) {
	return ceremony.Made{}, errNoNode
}
