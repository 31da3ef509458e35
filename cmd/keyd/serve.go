package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/ceremony"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/hook"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/sandbox"
)

type serveCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration, TOML."`
}

// Run serves until the first SIGINT or SIGTERM, then drains.
func (c *serveCmd) Run(p *program) error {
	if err := harden(); err != nil {
		return err
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	d, err := newDaemon(p.ctx, cfg, cfg.logger(p.stderr))
	if errors.Is(err, errStopped) {
		return nil
	}
	if pinRefused(err) {
		return &exitError{code: exitPIN, err: err}
	}
	if err != nil {
		return err
	}
	if err := d.confine(); err != nil {
		return d.abandon(p.ctx, err)
	}
	return d.serve(p.ctx, nil)
}

// How long the parts may take to stop, and how often files are looked at.
const (
	otherDrain  = 10 * time.Second
	auditDrain  = 20 * time.Second
	reloadEvery = 10 * time.Second
)

// daemon is a node with its listeners.
type daemon struct {
	cfg        *configFile
	log        *slog.Logger
	metrics    *metrics
	node       *node
	api        *http.Server
	door       *api.Handler
	ceremonies *ceremony.Engine
	sw         *isoswitch.Switch // nil without a switch
	hook       *hook.Hook        // nil without one
	sinks      exporters
	tls        []*credentials.TLS
	ops        *opsServer
	vault      *vaultLink // nil without Vault
	draining   atomic.Bool
	held       sandbox.State // by the kernel, of the process
	locked     bool          // memory stays out of the swap
	hangup     chan os.Signal
	reloads    reloads
	archives   archiveIntents

	apiListener    net.Listener
	switchListener net.Listener // nil without a switch
	furtherSwitch  []net.Listener
	opsListener    net.Listener // nil without ops
	socket         net.Listener
}

// newDaemon takes the ports, reads the certificates and opens the node, in this
// order: what is easily mended fails before the token is bothered.
func newDaemon(ctx context.Context, cfg *configFile, log *slog.Logger) (_ *daemon, err error) {
	if err := desWorks(); err != nil {
		return nil, err
	}
	locked, err := lockMemory()
	if !locked {
		log.Warn("memory can be swapped to disk", "err", err)
	}
	d := &daemon{cfg: cfg, log: log, locked: locked, metrics: newMetrics(), hangup: make(chan os.Signal, 1)}
	d.ops = newOps(&cfg.Ops, d.metrics, log)
	// From the first moment on, a SIGHUP must not end the process.
	signal.Notify(d.hangup, syscall.SIGHUP)
	defer func() {
		if err != nil {
			signal.Stop(d.hangup)
			d.closeListeners()
			if d.node != nil {
				err = errors.Join(err, d.node.close(context.WithoutCancel(ctx)))
			}
		}
	}()
	if err := d.listen(); err != nil {
		return nil, err
	}
	if d.switchListener != nil {
		d.ops.expect(partUpstream, cfg.Ops.ReadyNeedsUpstream)
	}
	if d.opsListener != nil {
		d.ops.serve(d.opsListener)
	}
	if err := d.openVault(ctx); err != nil {
		return nil, err
	}
	apiTLS, err := d.certificates("api", cfg.API.tls())
	if err != nil {
		return nil, err
	}
	if d.node, err = openNode(ctx, cfg, log, d.metrics); err != nil {
		return nil, err
	}
	d.watchNode()
	limitMemory(cfg.Token.CacheKeys)
	useProcessors()
	handler, err := api.New(api.Config{Custody: d.node.custody, Region: cfg.API.Region, Account: cfg.API.Account, Log: log, Limits: cfg.limits(), Peers: apiTLS})
	if err != nil {
		return nil, err
	}
	if d.api, err = api.Server(handler, apiTLS.Server("h2", "http/1.1")); err != nil {
		return nil, err
	}
	if d.ceremonies, err = d.node.newCeremonies(); err != nil {
		return nil, err
	}
	files, err := audit.OpenReader(cfg.Audit.Dir)
	if err != nil {
		return nil, err
	}
	d.api.Handler, d.door = besideAPI(d.metrics.measured(handler), handler.Beside(d.ceremonies.Handler()), handler.Beside(handler.AuditFiles(files))), handler
	if d.switchListener != nil {
		if d.sw, err = d.newSwitch(); err != nil {
			return nil, err
		}
		d.watchUpstream(d.sw)
	}
	if d.hook, err = d.newHook(ctx); err != nil {
		return nil, err
	}
	if err := d.newSinks(); err != nil {
		return nil, err
	}
	if d.socket, err = listenSocket(cfg.Ops.Socket); err != nil {
		return nil, err
	}
	d.metrics.registry.MustRegister(newLimitCollector(handler))
	d.watchConfig()
	return d, nil
}

// listen takes the ports.
func (d *daemon) listen() error {
	d.furtherSwitch = make([]net.Listener, len(d.cfg.Listener))
	type end struct {
		key, addr string
		into      *net.Listener
	}
	ends := []end{
		{"api.listen", d.cfg.API.Listen, &d.apiListener},
		{"switch.listen", d.cfg.Switch.Listen, &d.switchListener},
		{"ops.listen", d.cfg.Ops.Listen, &d.opsListener},
	}
	for i, l := range d.cfg.Listener {
		ends = append(ends, end{fmt.Sprintf("switch_listener[%d].listen", i), l.Listen, &d.furtherSwitch[i]})
	}
	for _, l := range ends {
		if l.addr == "" {
			continue
		}
		listener, err := net.Listen("tcp", l.addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return advise(fmt.Errorf("taking the port of %s: %w", l.key, err), "another process has it: stop that one, or change %s in %s", l.key, d.cfg.path)
		}
		if err != nil {
			return advise(fmt.Errorf("taking the port of %s: %w", l.key, err), "change %s in %s", l.key, d.cfg.path)
		}
		*l.into = listener
	}
	return nil
}

func (d *daemon) closeListeners() {
	for _, l := range append([]net.Listener{d.apiListener, d.switchListener, d.opsListener, d.socket}, d.furtherSwitch...) {
		if l != nil {
			_ = l.Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.ops.close(ctx)
}

// certificates reads the files of one end and follows them.
func (d *daemon) certificates(section string, t tlsConfig) (*credentials.TLS, error) {
	version, _ := tlsVersion(t.MinTLS)
	t.Cert, t.Key = d.cfg.files(t.Cert, t.Key)
	c, err := credentials.NewTLS(credentials.TLSFiles{
		Cert: t.Cert, Key: t.Key, CA: t.CA, CRL: t.CRL, CRLStrict: t.CRLStrict, MinVersion: version,
		Alarm: func(err error) {
			d.metrics.certs.WithLabelValues(section).Inc()
			d.log.Error("certificate alarm", "section", section, "err", err)
		},
		Changed: func(before, after [32]byte) { d.credentialChanged(section, before, after) },
	})
	if err != nil {
		return nil, advise(fmt.Errorf("reading the certificates of [%s]: %w", section, err), "check the file and its rights, and [%s] in %s", section, d.cfg.path)
	}
	d.tls = append(d.tls, c)
	d.metrics.watchCertificates(section, c)
	return c, nil
}

// serve answers until ctx ends or a listener fails, then drains. ready is
// called once everything answers; it may be nil.
func (d *daemon) serve(ctx context.Context, ready func() error) error {
	failed := make(chan error, 8)
	var group sync.WaitGroup
	start := func(what string, work func() error) {
		group.Go(func() {
			if err := work(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	switching, stopSwitch := context.WithCancel(background)
	defer stopSwitch()
	switchDone := make(chan struct{})

	start("api", func() error { return d.api.Serve(d.door.Listen(d.apiListener, d.api.TLSConfig)) })
	if d.sw != nil {
		start("switch", func() error {
			defer close(switchDone)
			return d.sw.Serve(switching, d.switchListener, d.furtherSwitch...)
		})
	} else {
		close(switchDone)
	}
	local := d.localServer()
	start("local socket", func() error { return local.Serve(d.socket) })
	for _, c := range d.tls {
		group.Go(func() { c.Watch(background, reloadEvery) })
	}
	group.Go(func() { d.reloadOnHangup(background) })
	group.Go(func() { d.watchdog(background) })
	group.Go(func() { d.node.sweep(background) })
	group.Go(func() { d.node.keepIndex(background) })
	if d.hook != nil {
		group.Go(func() { d.hook.Run(background) })
	}
	d.sinks.start(ctx)
	group.Go(func() { d.node.patrolJournal(background) })
	group.Go(func() { d.report(background) })
	d.watchVault(background, &group)
	group.Go(func() { d.watchLives(background) })

	d.ops.watch(partProcess, true, d.running)
	err := d.announce(ctx, ready)
	if err == nil {
		select {
		case <-ctx.Done():
			d.log.Info("stopping")
		case err = <-failed:
			d.log.Error("stopping", "err", err)
		case err = <-d.ops.failed:
			d.log.Error("stopping", "err", err)
		}
	}

	errs := []error{err, d.drain(background)}
	stopSwitch()
	<-switchDone
	errs = append(errs, d.closeLocal(background, local))
	drain, cancel := context.WithTimeout(background, otherDrain)
	defer cancel()
	errs = append(errs, d.ops.close(drain))
	stopBackground()
	group.Wait()
	closing, cancelClosing := context.WithTimeout(context.WithoutCancel(ctx), auditDrain)
	defer cancelClosing()
	errs = append(errs, d.node.close(closing))
	d.sinks.end()
	return errors.Join(errs...)
}

// closeLocal waits for the commands at the local socket for a while, then breaks
// them off: an export whose reader is slow holds a connection of the store.
func (d *daemon) closeLocal(ctx context.Context, local *http.Server) error {
	drain, cancel := context.WithTimeout(ctx, otherDrain)
	defer cancel()
	err := local.Shutdown(drain)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	d.log.Warn("a command at the local socket was broken off by the stop")
	return local.Close()
}

// announce tells whoever waits that the daemon answers.
func (d *daemon) announce(ctx context.Context, ready func() error) error {
	if ready != nil {
		if err := ready(); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		notify(d.log, systemd.SdNotifyReady)
	}
	d.log.Info("serving", "version", thisBuild().name(), "api", addrOf(d.apiListener), "switch", addrOf(d.switchListener), "ops", addrOf(d.opsListener))
	return nil
}

func addrOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// notify tells systemd; without systemd it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.Warn("systemd was not told", "state", state, "err", err)
	}
}

// reloadOnHangup reads certificates and configuration again at SIGHUP.
func (d *daemon) reloadOnHangup(ctx context.Context) {
	defer signal.Stop(d.hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.hangup:
			d.reloadAtSignal(ctx)
		}
	}
}

// watchdog pats systemd's watchdog, where there is one, while the parts answer.
func (d *daemon) watchdog(ctx context.Context) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A lost token comes back by itself; only a log or a database that
			// is gone for this process is mended by a restart.
			if d.node.audit.Ready() == nil && d.node.db.Ready(ctx) == nil {
				notify(d.log, systemd.SdNotifyWatchdog)
			}
		}
	}
}
