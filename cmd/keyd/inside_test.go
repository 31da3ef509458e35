//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/sandbox"
)

// insidePlan is what the daemon that tries itself is told, by a file.
type insidePlan struct {
	Config   string
	Outside  string            // a folder that is of no use to the daemon
	Readable map[string]string // files that it must still be able to read
	Writable map[string]string // folders that it must still be able to write
	Closed   map[string]string // files that it needed and needs no more
	Served   uint16            // the upstream's port, where the test listens
	Private  uint16            // another port of the test
	Other    uint16            // a free port
}

// insideFinding is what it found.
type insideFinding struct {
	Held    sandbox.State
	Results map[string]string // errno, "" for success
	Back    string            // what the token says after the module was taken away
}

// inside is `keyd serve` in a process of its own that, once it is in its
// sandbox, tries what it can still do: the command keyd-inside PLAN RESULT.
func inside() {
	if err := serveInside(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "keyd-inside:", err)
		os.Exit(1)
	}
}

func serveInside(planFile, resultFile string) error {
	var p insidePlan
	text, err := os.ReadFile(planFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	// What is open stays open: the result is written after the sandbox is entered.
	result, err := os.Create(resultFile)
	if err != nil {
		return err
	}
	defer result.Close()
	cfg, err := loadConfig(p.Config)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if err := harden(); err != nil {
		return err
	}
	d, err := newDaemon(ctx, cfg, newLogger(os.Stderr, "info"))
	if err != nil {
		return err
	}
	if err := d.confine(); err != nil {
		return d.abandon(ctx, err)
	}
	return d.serve(ctx, func() error {
		f := insideFinding{Held: d.held, Results: make(map[string]string)}
		for name, try := range insideTries(p) {
			f.Results[name] = insideErrno(try())
		}
		f.Back = d.loseModule(ctx)
		stop()
		return json.NewEncoder(result).Encode(f)
	})
}

// loseModule ends the module's initialisation behind the daemon's back, waits
// until the daemon has started it again, and says what the token answers.
func (d *daemon) loseModule(ctx context.Context) string {
	module := pkcs11.New(d.cfg.Token.Module)
	if module == nil {
		return "the module cannot be loaded"
	}
	if err := module.Finalize(); err != nil {
		return err.Error()
	}
	err := errors.New("not asked")
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = d.node.token.Check(ctx); err == nil && d.node.token.Stats().Reloads > 0 {
			return ""
		}
	}
	return fmt.Sprintf("%d starts of the module, %v", d.node.token.Stats().Reloads, err)
}

func insideErrno(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func insideTries(p insidePlan) map[string]func() error {
	listen := func(port uint16) func() error {
		return func() error {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if err == nil {
				err = l.Close()
			}
			return err
		}
	}
	dial := func(port uint16) func() error {
		return func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		}
	}
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	write := func(dir string) func() error {
		return func() error {
			file := filepath.Join(dir, "inside.tmp")
			return errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Rename(file, file+"2"), os.Remove(file+"2"))
		}
	}
	tries := map[string]func() error{
		"- read outside":         read(filepath.Join(p.Outside, "file")),
		"- list outside":         func() error { _, err := os.ReadDir(p.Outside); return err },
		"- write outside":        func() error { return os.WriteFile(filepath.Join(p.Outside, "new"), nil, 0o600) },
		"- remove outside":       func() error { return os.Remove(filepath.Join(p.Outside, "file")) },
		"- write beside config":  func() error { return os.WriteFile(filepath.Join(filepath.Dir(p.Config), "new"), nil, 0o600) },
		"- write to temporary":   func() error { return os.WriteFile(filepath.Join(os.TempDir(), "inside.tmp"), nil, 0o600) },
		"- run a shell":          func() error { return exec.Command("/bin/sh", "-c", "true").Run() },
		"- listen elsewhere":     listen(p.Other),
		"- listen anywhere":      listen(0),
		"- connect elsewhere":    dial(p.Private),
		"+ connect to upstream":  dial(p.Served),
		"+ load another module":  func() error { return loadSoftokn() },
		"+ find the local zone":  func() error { _, err := time.LoadLocation("Europe/Berlin"); return err },
		"+ read the own process": read("/proc/self/stat"),
	}
	for name, path := range p.Readable {
		tries["+ read "+name] = read(path)
	}
	for name, path := range p.Closed {
		tries["- read "+name] = read(path)
	}
	for name, path := range p.Writable {
		tries["+ write "+name] = write(path)
	}
	return tries
}

// loadSoftokn loads a library of several parts that the process does not have yet.
func loadSoftokn() error {
	path, err := hsm.FindSoftokn()
	if err != nil {
		return err
	}
	module := pkcs11.New(path)
	if module == nil {
		return errors.New("it cannot be loaded")
	}
	module.Destroy()
	return nil
}

// apart makes a node whose parts are in folders of their own, from that of a
// development daemon.
func apart(t *testing.T, dev, dir string, change func(string) string) (config string) {
	t.Helper()
	for _, sub := range []string{"etc", "tls", "pin", "data", "audit", "backups", "softhsm", "outside"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	moves := map[string]string{
		"keyd.db": "data/keyd.db", "audit": "audit/log", "tokens": "softhsm/tokens", "softhsm2.conf": "softhsm/softhsm2.conf",
		"token.pin": "pin/token.pin", "pki/server.pem": "tls/server.pem", "pki/server.key": "tls/server.key", "pki/ca.pem": "tls/ca.pem",
		"pki/keyd-upstream.pem": "tls/keyd-upstream.pem", "pki/keyd-upstream.key": "tls/keyd-upstream.key",
	}
	text, err := os.ReadFile(filepath.Join(dev, "keyd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(dev, "softhsm2.conf"))
	if err != nil {
		t.Fatal(err)
	}
	config = string(text)
	for from, to := range moves {
		from, to = filepath.Join(dev, from), filepath.Join(dir, to)
		config = strings.ReplaceAll(config, "'"+from+"'", "'"+to+"'")
		config = strings.ReplaceAll(config, "'file:"+from+"'", "'file:"+to+"'")
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	config = strings.ReplaceAll(config, "'"+filepath.Join(dev, "backups")+"'", "'"+filepath.Join(dir, "backups")+"'")
	if strings.Contains(config, dev) {
		t.Fatalf("something stayed in the first folder:\n%s", config)
	}
	if change != nil {
		config = change(config)
	}
	for path, text := range map[string]string{
		"etc/keyd.toml":         config,
		"softhsm/softhsm2.conf": strings.ReplaceAll(string(conf), filepath.Join(dev, "tokens"), filepath.Join(dir, "softhsm", "tokens")),
		"outside/file":          "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "etc", "keyd.toml")
}

// program is the test binary under the name by which TestMain takes it for a command.
func programAs(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// devFolder is a folder that a development daemon has made and left.
func devFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	r := startDev(t, dir, "--no-sim")
	r.stop()
	return dir
}

func insidePort(t *testing.T) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestDaemonInside is C-17 on the daemon itself: it serves a node whose parts
// are in folders of their own, tries what it can still do, loses its module and
// starts it again.
func TestDaemonInside(t *testing.T) {
	for _, mode := range []sandbox.Mode{sandbox.Strict, sandbox.BestEffort} {
		t.Run("C-17 "+string(mode), func(t *testing.T) {
			dir := t.TempDir()
			_, served := insidePort(t)
			config := apart(t, devFolder(t), dir, func(text string) string {
				text = strings.Replace(text, "sandbox = 'best_effort'", "sandbox = '"+string(mode)+"'", 1)
				at := strings.Index(text, "[[upstream]]")
				upstream := text[at:]
				_, rest, _ := strings.Cut(upstream, "addr = '127.0.0.1:")
				port, _, _ := strings.Cut(rest, "'")
				return text[:at] + strings.Replace(upstream, "127.0.0.1:"+port, fmt.Sprintf("127.0.0.1:%d", served), 1)
			})
			_, private := insidePort(t)
			free, other := insidePort(t)
			if err := free.Close(); err != nil {
				t.Fatal(err)
			}
			in := func(name string) string { return filepath.Join(dir, name) }
			plan := insidePlan{
				Config: config, Outside: in("outside"), Served: served, Private: private, Other: other,
				Readable: map[string]string{"the configuration": config, "a certificate": in("tls/server.pem"), "the module's configuration": in("softhsm/softhsm2.conf")},
				Writable: map[string]string{"the database's folder": in("data"), "the log's folder": in("audit/log"), "the backups": in("backups"), "the tokens": in("softhsm/tokens")},
				Closed:   map[string]string{"the PIN's file": in("pin/token.pin")},
			}
			text, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(in("plan.json"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, programAs(t, "keyd-inside"), in("plan.json"), in("result.json")).CombinedOutput()
			can := sandbox.Supported()
			if mode == sandbox.Strict && !(can.Files && can.Ports) {
				t.Logf("THIS KERNEL CANNOT HOLD FILES AND PORTS (Landlock %d): only the refusal was tested", can.ABI)
				if err == nil || !strings.Contains(string(out), "does not support it") || !strings.Contains(string(out), "best_effort") {
					t.Errorf("%v:\n%s", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			var f insideFinding
			if text, err = os.ReadFile(in("result.json")); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &f); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(can, f.Held); d != "" {
				t.Errorf("(-can +held):\n%s", d)
			}
			want := make(map[string]string)
			for name, got := range f.Results {
				port := strings.Contains(name, "listen") || strings.Contains(name, "connect")
				switch {
				case name[0] == '+':
					want[name] = ""
				case port && !can.Ports, !port && !can.Files:
					want[name] = got
				default:
					want[name] = "EACCES"
				}
			}
			if d := cmp.Diff(want, f.Results); d != "" || len(want) < 20 {
				t.Errorf("C-17 (-want +got):\n%s\n%s", d, out)
			}
			if f.Back != "" {
				t.Errorf("C-17 the module was taken away, and then: %s\n%s", f.Back, out)
			}
		})
	}
}
