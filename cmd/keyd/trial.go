package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// trial is a daemon in a process of its own, as `keyd dev` starts it, with an
// issuer in this one: what the demonstration and the benchmarks work on.
type trial struct {
	p      *program
	dir    string
	dev    *devReport
	issuer *sim.Issuer

	daemon    *exec.Cmd
	output    *said
	ended     chan error
	stopOnce  sync.Once
	issuing   context.CancelFunc
	issuerEnd chan error
}

// How long the parts of a trial may take.
const (
	trialStart = 30 * time.Second
	trialStop  = 20 * time.Second
	trialPoll  = 20 * time.Millisecond
)

// trialDir makes dir, or a temporary folder that clean removes.
func trialDir(dir string) (path string, clean func(), err error) {
	if dir != "" {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return "", nil, advise(err, "name a folder that does not exist yet")
		}
		return dir, func() {}, nil
	}
	dir, err = os.MkdirTemp("", "keyd-trial-")
	if err != nil {
		return "", nil, err
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// launchTrial starts the daemon and returns once it has said where it answers. more
// are further flags of `keyd dev`. No daemon stays behind an error.
func launchTrial(p *program, dir string, more ...string) (*trial, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &trial{p: p, dir: dir, output: new(said), ended: make(chan error, 1), issuerEnd: make(chan error, 1)}
	t.daemon = exec.Command(self, append([]string{"dev", "--dir", t.devDir(), "--no-sim"}, more...)...)
	if err := t.launch(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *trial) launch() error {
	t.daemon.Stdout, t.daemon.Stderr = t.output, t.output
	if err := t.daemon.Start(); err != nil {
		return err
	}
	go func() { t.ended <- t.daemon.Wait() }()
	err := t.await(t.readDev)
	if err != nil {
		t.stop()
	}
	return err
}

// startTrial returns once the daemon and its link to the issuer are ready. more
// are further flags of `keyd dev`.
func startTrial(p *program, dir string, more ...string) (*trial, error) {
	t, err := launchTrial(p, dir, more...)
	if err != nil {
		return nil, err
	}
	if err := t.startIssuer(); err != nil {
		t.stop()
		return nil, err
	}
	if err := t.await(t.ready); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// devDir is the daemon's folder.
func (t *trial) devDir() string { return filepath.Join(t.dir, "dev") }

// errNotYet: ask again.
var errNotYet = errors.New("not yet")

// await asks until the answer is not errNotYet.
func (t *trial) await(ask func() error) error {
	late := time.After(trialStart)
	tick := time.NewTicker(trialPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := ask(); !errors.Is(err, errNotYet) {
				return err
			}
		case err := <-t.ended:
			t.ended <- err
			return fmt.Errorf("keyd dev ended (%w):\n%s", err, t.output)
		case <-late:
			_ = t.daemon.Process.Kill()
			return fmt.Errorf("keyd dev was not ready after %v:\n%s", trialStart, t.output)
		case <-t.p.ctx.Done():
			_ = t.daemon.Process.Kill()
			return t.p.ctx.Err()
		}
	}
}

func (t *trial) readDev() (err error) {
	if t.dev, err = readDev(t.devDir()); errors.Is(err, fs.ErrNotExist) {
		return errNotYet
	}
	return err
}

// ready asks the daemon whether it is, and whether it has signed on upstream.
func (t *trial) ready() error {
	resp, err := http.Get("http://" + t.dev.OpsAddr + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var report readiness
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
		return fmt.Errorf("readiness of keyd dev: %w", err)
	}
	if !report.Ready || !report.Parts["upstream"].OK {
		return errNotYet
	}
	return nil
}

// startIssuer answers at the upstream address; it knows the PIN of the test
// cards, so that its book can tell whether the right one arrived.
func (t *trial) startIssuer() error {
	cert, err := tls.LoadX509KeyPair(t.dev.Issuer.Cert, t.dev.Issuer.Key)
	if err != nil {
		return err
	}
	t.issuer, err = sim.NewIssuer(sim.IssuerConfig{
		TLS:    &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		PINKey: t.dev.TestKeys[aliasZPK], MACKey: t.dev.TestKeys[aliasZAK], PIN: testPIN,
		Rules: sim.DefaultRules(), Log: slog.New(slog.NewTextHandler(t.output, nil)),
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", t.dev.Issuer.Addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.p.ctx))
	t.issuing = cancel
	go func() { t.issuerEnd <- t.issuer.Serve(ctx, listener) }()
	return nil
}

// stop ends the daemon as an operator would, then the issuer.
func (t *trial) stop() {
	t.stopOnce.Do(func() {
		_ = t.daemon.Process.Signal(syscall.SIGTERM)
		select {
		case <-t.ended:
		case <-time.After(trialStop):
			_ = t.daemon.Process.Kill()
			<-t.ended
		}
		if t.issuing != nil {
			t.issuing()
			<-t.issuerEnd
		}
	})
}

// said collects what a daemon prints. It is safe for concurrent use.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
