package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/sim"
)

type devCmd struct {
	Dir      string `required:"" placeholder:"DIR" help:"Folder of everything; made when it is not there. A second start goes on with what is in it."`
	API      string `name:"api" placeholder:"ADDR" help:"Address of the API; default a free port on 127.0.0.1."`
	Switch   string `placeholder:"ADDR" help:"Address of the switch."`
	Ops      string `placeholder:"ADDR" help:"Address of health and metrics."`
	UnionPay bool   `name:"unionpay" help:"Let UnionPay terminals in as well, by a listener of their own: 10000198 and ten more, with published master keys."`
	Upstream string `placeholder:"ADDR" help:"Address that keyd connects to, and where the simulated issuer listens."`
	Pprof    bool   `help:"Offer profiles under /debug/pprof/ beside health and metrics."`
	NoSim    bool   `name:"no-sim" help:"Start no issuer: run one of your own at the upstream address."`
	Sandbox  string `placeholder:"MODE" help:"off, best_effort or strict, in place of process.sandbox of the configuration."`
	Module   string `placeholder:"FILE" help:"SoftHSM's PKCS#11 module, where it is not found by itself."`
}

// devWarning is what everybody must know about a development daemon.
const devWarning = "keyd dev: every key in this daemon is a PUBLISHED TEST KEY. Never let real cards or PINs near it."

// Run makes the folder, or goes on with it, and serves until interrupted.
func (c *devCmd) Run(p *program) error {
	if c.Pprof && c.Ops != "" {
		return usageError("--pprof is for the loopback address that keyd picks itself; leave --ops out")
	}
	if err := errors.Join(desWorks(), harden()); err != nil {
		return err
	}
	warn(p.stderr, devWarning)
	dir, err := c.claim()
	if err != nil {
		return err
	}
	defer dir.release()
	cfg, err := dir.prepare(p, c)
	if err != nil {
		return err
	}
	return dir.serve(p, cfg, !c.NoSim)
}

// warn prints a line, in red where somebody looks at it.
func warn(w io.Writer, text string) {
	if isTerminal(w) {
		text = "\x1b[1;31m" + text + "\x1b[0m"
	}
	fmt.Fprintln(w, text)
}

// devDir is the folder of a development daemon, held by this process.
type devDir struct {
	path string // absolute
	lock *os.File
}

func (d *devDir) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// claim makes or enters the folder. A folder with files in it that no
// development daemon made is refused: it would be filled with test keys.
func (c *devCmd) claim() (*devDir, error) {
	path, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder: %w", err)
	}
	d := &devDir{path: path}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("reading the folder: %w", err)
	}
	if _, err := os.Stat(d.file("dev.lock")); err != nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s holds files that `keyd dev` did not make; name an empty folder", path)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, fmt.Errorf("closing the folder to others: %w", err)
	}
	if d.lock, err = os.OpenFile(d.file("dev.lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		d.lock.Close()
		return nil, fmt.Errorf("another `keyd dev` runs in %s; stop it first, or name another folder", path)
	}
	if err := d.forget(); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

// forget removes dev.json: who waits for it must not find that of an earlier
// start.
func (d *devDir) forget() error {
	if err := os.Remove(d.file("dev.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// release lets the next one in; the kernel does it as well when the process dies.
func (d *devDir) release() { _ = d.lock.Close() }

// serve runs the daemon and the issuer behind it.
func (d *devDir) serve(p *program, cfg *configFile, withIssuer bool) error {
	log := cfg.logger(p.stderr)
	daemon, err := newDaemon(p.ctx, cfg, log)
	if err != nil {
		return err
	}
	abandon := func(err error) error {
		daemon.closeListeners()
		return errors.Join(err, daemon.node.close(context.WithoutCancel(p.ctx)))
	}
	if err := daemon.node.loadTestKeys(p.ctx); err != nil {
		return abandon(err)
	}
	// The issuer outlives the switch, which may still have to tell it something.
	issuing, stopIssuer := context.WithCancel(context.WithoutCancel(p.ctx))
	defer stopIssuer()
	issuerDone := make(chan error, 1)
	if withIssuer {
		issuer, listener, err := d.newIssuer(daemon, cfg)
		if err != nil {
			return abandon(err)
		}
		go func() { issuerDone <- issuer.Serve(issuing, listener) }()
	} else {
		close(issuerDone)
	}
	if err := daemon.confine(d.path); err != nil {
		return abandon(err)
	}
	err = daemon.serve(p.ctx, func() error {
		if err := d.writeVkey(daemon.node); err != nil {
			return err
		}
		if err := d.writeJSON(cfg); err != nil {
			return err
		}
		return d.tell(p.stdout, cfg)
	})
	stopIssuer()
	return errors.Join(err, <-issuerDone, d.forget())
}

// tell says where everything is.
func (d *devDir) tell(w io.Writer, cfg *configFile) error {
	_, err := fmt.Fprintf(w, "ready: %s\n"+
		"  API      https://%s  (mutual TLS; clients in %s)\n"+
		"  switch   %s\n  issuer   %s\n  health   http://%s/readyz\n",
		d.file("dev.json"), cfg.API.Listen, d.file("pki"), cfg.Switch.Listen, *cfg.issuerAddr(), cfg.Ops.Listen)
	if addr := cfg.unionPayAddr(); err == nil && addr != "" {
		_, err = fmt.Fprintf(w, "  unionpay %s\n", addr)
	}
	return err
}

// newIssuer makes the simulated issuer and takes its port.
func (d *devDir) newIssuer(daemon *daemon, cfg *configFile) (*sim.Issuer, net.Listener, error) {
	files, err := credentials.NewTLS(credentials.TLSFiles{
		Cert: d.file("pki", "issuer.pem"), Key: d.file("pki", "issuer.key"), CA: d.file("pki", "ca.pem"),
	})
	if err != nil {
		return nil, nil, err
	}
	issuer, err := sim.NewIssuer(sim.IssuerConfig{
		TLS:    files.Server(),
		PINKey: testZPK, MACKey: testZAK, KEK: testKEK, KeysPath: d.file(devBook) + issuerKeys,
		Rules:    sim.DefaultRules(),
		BookPath: d.file(devBook),
		Log:      daemon.log.With("part", "issuer"),
	})
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", *cfg.issuerAddr())
	if err != nil {
		return nil, nil, advise(fmt.Errorf("taking the port of the simulated issuer: %w", err), "stop what has it, start with --no-sim, or change the addr of [[upstream]] in %s", cfg.path)
	}
	return issuer, listener, nil
}

// writeVkey puts the audit log's verification key outside of the log's folder.
func (d *devDir) writeVkey(n *node) error {
	key, err := n.audit.Vkey("sec")
	if err != nil {
		return err
	}
	return writeFile(d.file(devVkey), []byte(key+"\n"), 0o644)
}

// writeFile replaces a file as a whole.
func writeFile(path string, text []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // gone already when all went well
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
