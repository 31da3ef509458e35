package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/credentials/vault"
)

// partVault is Vault in /readyz. It is vital for a start that waits for it, and
// only reported afterwards: traffic does without.
const partVault = "vault"

// startSlack is what systemd is asked for beyond the next try.
const startSlack = 30 * time.Second

// vaultLink is a daemon's session with Vault and the certificates that Vault
// signs for it.
type vaultLink struct {
	client       *vault.Client
	metrics      *vaultMetrics
	certificates []*vault.Certificate
	patient      func(ctx context.Context, what string, do func(context.Context) error) error
}

// newVaultLink makes a session and asks Vault for nothing yet.
func newVaultLink(cfg *configFile, log *slog.Logger, m *metrics) (*vaultLink, error) {
	v, counts := &cfg.Vault, newVaultMetrics(m.registry)
	client, err := vault.New(vault.Config{
		Address: v.Address, CA: v.CA, Namespace: v.Namespace, Login: cfg.login(),
		WrappedPIN: vault.WrappedPIN{From: v.WrappedPINFrom, Field: v.WrappedPINField},
		Log:        log, Observe: counts.request,
		Alarm: func(err error) {
			counts.alarm(err)
			log.Error("vault alarm", "cause", vault.Cause(err), "err", err)
		},
	})
	if err != nil {
		return nil, advise(err, "mend [vault] in %s", cfg.path)
	}
	counts.show(client)
	l := &vaultLink{client: client, metrics: counts, patient: func(ctx context.Context, _ string, do func(context.Context) error) error { return do(ctx) }}
	for _, w := range cfg.wanted() {
		c, err := vault.NewCertificate(client, w)
		if err != nil {
			return nil, err
		}
		l.certificates = append(l.certificates, c)
	}
	return l, nil
}

// vaultForPIN is whom the PIN source asks, and what ends that; nil where the PIN
// does not come from Vault. A daemon has its session, a command makes one.
func (c *configFile) vaultForPIN(ctx context.Context, log *slog.Logger) (credentials.Vault, func(), error) {
	source, err := credentials.ParsePINSource(c.Token.PINSource, c.Token.InsecureAllowEnvPIN)
	if err != nil || !source.NeedsVault() {
		return nil, func() {}, nil
	}
	if c.vault != nil {
		return &patientVault{c.vault}, func() {}, nil
	}
	l, err := newVaultLink(c, log, newMetrics())
	if err != nil {
		return nil, nil, err
	}
	return l.client, func() { l.client.Close(context.WithoutCancel(ctx)) }, nil
}

// patientVault is Vault for a daemon that starts: it waits for one that is down.
type patientVault struct{ link *vaultLink }

// Secret implements [credentials.Vault].
func (p *patientVault) Secret(ctx context.Context, mount, path, field string) (value string, err error) {
	err = p.link.patient(ctx, "the token PIN", func(ctx context.Context) error {
		value, err = p.link.client.Secret(ctx, mount, path, field)
		return err
	})
	return value, err
}

// Unwrapped implements [credentials.Vault]. A token that was refused is for an
// operator, not for another try.
func (p *patientVault) Unwrapped(ctx context.Context, wrapping string) (value string, err error) {
	var refused error
	err = p.link.patient(ctx, "the wrapped token PIN", func(ctx context.Context) error {
		value, err = p.link.client.Unwrapped(ctx, wrapping)
		if vault.Passes(err) {
			return err
		}
		refused = err
		return nil
	})
	return value, errors.Join(err, refused)
}

// openVault begins the daemon's session and fetches the certificates that are
// not there. It waits for a Vault that is down, live and not ready (C-10).
func (d *daemon) openVault(ctx context.Context) error {
	if d.cfg.Vault.Address == "" {
		return nil
	}
	l, err := newVaultLink(d.cfg, d.log, d.metrics)
	if err != nil {
		return err
	}
	l.patient = d.waitForVault
	d.vault, d.cfg.vault = l, l
	d.ops.expect(partVault, true)
	for _, c := range l.certificates {
		if c.Good() {
			continue
		}
		if err := d.waitForVault(ctx, "the certificate "+c.Name(), c.Obtain); err != nil {
			return advise(err, "see [[vault_certificate]] in %s", d.cfg.path)
		}
	}
	return nil
}

// errStopped: the process was told to end while it waited for Vault.
var errStopped = errors.New("stopped while waiting for Vault")

// waitForVault does something that the start needs until it is done, and says
// so to systemd, the operators' listener and the log while it is not.
func (d *daemon) waitForVault(ctx context.Context, what string, do func(context.Context) error) error {
	waited := false
	err := vault.Patiently(ctx, d.hangup, func(err error, wait time.Duration) {
		waited = true
		why := fmt.Errorf("waiting for Vault, %s: %s: %w", what, vault.Cause(err), err)
		d.ops.waits(partVault, why)
		d.ops.waits(partToken, why)
		level := slog.LevelWarn
		if !vault.Passes(err) {
			level = slog.LevelError
			d.vault.metrics.alarm(err)
		}
		d.log.Log(ctx, level, "waiting for Vault", "for", what, "cause", vault.Cause(err), "again_in", wait.Round(time.Millisecond).String(), "err", err)
		notify(d.log, fmt.Sprintf("STATUS=Waiting for Vault (%s) to give %s; next try in %s, or at SIGHUP\nEXTEND_TIMEOUT_USEC=%d",
			vault.Cause(err), what, wait.Round(time.Second), (wait+startSlack).Microseconds()))
	}, do)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errStopped, err)
	}
	if err == nil && waited {
		d.ops.waits(partVault, nil)
		d.ops.waits(partToken, nil)
		notify(d.log, "STATUS=")
		d.log.Info("vault is back", "for", what)
	}
	return err
}

// errVaultDown: traffic goes on, renewals wait.
var errVaultDown = errors.New("down or sealed; traffic goes on, renewals wait")

// watchVault keeps session and certificates alive while the daemon runs.
func (d *daemon) watchVault(ctx context.Context, group *sync.WaitGroup) {
	l := d.vault
	if l == nil {
		return
	}
	d.ops.watch(partVault, false, func(context.Context) error {
		if !l.client.Status().Up {
			return errVaultDown
		}
		return nil
	})
	// Certificates first: the session revokes its token when it ends.
	session, stop := context.WithCancel(context.WithoutCancel(ctx))
	var certificates sync.WaitGroup
	for _, c := range l.certificates {
		certificates.Go(func() { c.Run(ctx, d.reloadCertificates) })
	}
	group.Go(func() {
		<-ctx.Done()
		certificates.Wait()
		stop()
	})
	group.Go(func() { l.client.Run(session) })
}

// wakeVault tries again at once what waits for an operator.
func (d *daemon) wakeVault() {
	if l := d.vault; l != nil {
		l.client.Wake()
		for _, c := range l.certificates {
			c.Wake()
		}
	}
}

// reloadCertificates takes new files into the listeners; connections that stand
// are not touched.
func (d *daemon) reloadCertificates() {
	for _, c := range d.tls {
		_ = c.Reload() // the alarm has it
	}
}

// vaultFiles looks whether the files that [vault] names are there.
func (e *examination) vaultFiles(cfg *configFile) {
	v := &cfg.Vault
	if v.Address == "" {
		return
	}
	if err := vault.CheckEnvironment(); err != nil {
		e.bad(statusFail, "vault", err.Error(), "unset them for keyd")
		return
	}
	for _, file := range []string{v.CA, v.WrappedSecretID, v.TokenFile} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			e.bad(statusFail, "vault", err.Error(), "put it there, or mend [vault]")
			return
		}
	}
	e.ok("vault", "%s, auth %q", v.Address, v.Auth)
}
