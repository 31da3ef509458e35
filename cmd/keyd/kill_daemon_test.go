package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// killable is `keyd dev --no-sim` in a process of its own, which can be killed
// and started again in the same folder.
type killable struct {
	t     *testing.T
	base  string
	addrs []string
	dir   string
	said  *os.File // what all its processes print
	dev   atomic.Pointer[devReport]
	proc  *exec.Cmd
	ended chan struct{} // closed when the process is gone

	planted bool     // what is started has the planted bug, see planted
	under   []string // the program, with its arguments, that starts it
}

const (
	killableStart = 60 * time.Second // race detector, two cores, a busy machine
	killableStop  = 60 * time.Second
)

// newKillable takes addresses for good: outside the range from which the kernel
// takes source ports, so that no connection can have one while keyd is down.
func newKillable(t *testing.T) *killable {
	t.Helper()
	if _, err := findModule(""); err != nil {
		t.Fatalf("this test needs SoftHSM: %v", err)
	}
	base := t.TempDir()
	said, err := os.Create(filepath.Join(base, "keyd.said"))
	if err != nil {
		t.Fatal(err)
	}
	k := &killable{t: t, base: base, addrs: quietAddrs(t, 4), said: said}
	k.move("d")
	t.Cleanup(func() {
		if k.proc != nil {
			k.kill()
		}
		if t.Failed() {
			t.Logf("the end of what keyd said:\n%s", tail(k.output(), 8000))
		}
		_ = said.Close()
	})
	return k
}

// move makes another folder that of keyd.
func (k *killable) move(name string) { k.dir = filepath.Join(k.base, name) }

// keydCommand is the program itself. A process under the race detector sleeps a
// second before it ends, unless it is told not to.
func keydCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "keyd", args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

// quietAddrs are free ports of 127.0.0.1 below the ephemeral ones.
func quietAddrs(t *testing.T, n int) []string {
	t.Helper()
	d := newDice(randomSeed(t))
	var addrs []string
	for tries := 0; len(addrs) < n; tries++ {
		if tries == 1000 {
			t.Fatal("no free ports between 10000 and 30000")
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+d.below(20000)))
		if err != nil {
			continue
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// launch starts a process and does not wait for it to be ready.
func (k *killable) launch() {
	k.t.Helper()
	if k.planted {
		k.begin(exec.Command("keyd-planted", k.dev.Load().Config))
		return
	}
	// What an earlier process left would be taken for that of this one.
	if err := os.Remove(filepath.Join(k.dir, "dev.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Fatal(err)
	}
	cmd := keydCommand(context.Background(), "dev", "--dir", k.dir, "--no-sim",
		"--api", k.addrs[0], "--switch", k.addrs[1], "--ops", k.addrs[2], "--upstream", k.addrs[3])
	if len(k.under) > 0 {
		args := append(slices.Clone(k.under[1:]), cmd.Path)
		cmd.Path, cmd.Args = k.under[0], append([]string{k.under[0]}, append(args, cmd.Args[1:]...)...)
	}
	k.begin(cmd)
}

// begin starts a process and learns of its end.
func (k *killable) begin(cmd *exec.Cmd) {
	k.t.Helper()
	k.proc = cmd
	k.proc.Stdout, k.proc.Stderr = k.said, k.said
	if err := k.proc.Start(); err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan struct{})
	k.ended = ended
	go func(p *exec.Cmd) {
		_ = p.Wait() // stop looks at the exit code
		close(ended)
	}(k.proc)
}

// start launches and waits until keyd answers.
func (k *killable) start() {
	k.t.Helper()
	k.launch()
	k.await("keyd is ready", killableStart, func() bool {
		dev, err := readDev(k.dir)
		if errors.Is(err, os.ErrNotExist) {
			return false
		}
		if err != nil {
			k.t.Fatal(err)
		}
		k.dev.Store(dev)
		report, err := k.readiness()
		return err == nil && report.Ready
	})
}

// await asks until ok holds, and fails when the process ends before or when it
// takes too long.
func (k *killable) await(what string, most time.Duration, ok func() bool) {
	k.t.Helper()
	late := time.After(most)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-k.ended:
			k.t.Fatalf("waiting until %s: keyd ended: %v", what, k.proc.ProcessState)
		case <-late:
			k.t.Fatalf("waiting until %s: not within %v", what, most)
		}
	}
}

func (k *killable) readiness() (report readiness, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + k.dev.Load().OpsAddr + "/readyz")
	if err != nil {
		return report, err
	}
	defer resp.Body.Close()
	return report, json.NewDecoder(resp.Body).Decode(&report)
}

// linked waits until keyd has signed on upstream.
func (k *killable) linked() {
	k.t.Helper()
	k.await("keyd has signed on upstream", 30*time.Second, func() bool {
		report, err := k.readiness()
		return err == nil && report.Parts["upstream"].OK
	})
}

// kill ends the process at once, as a power cut does for it.
func (k *killable) kill() {
	_ = k.proc.Process.Kill()
	<-k.ended
}

// stop ends the process as an operator does, and wants exit code 0.
func (k *killable) stop() {
	k.t.Helper()
	if err := k.proc.Process.Signal(syscall.SIGTERM); err != nil {
		k.t.Fatalf("stopping keyd: %v", err)
	}
	select {
	case <-k.ended:
	case <-time.After(killableStop):
		k.kill()
		k.t.Fatalf("keyd did not stop within %v", killableStop)
	}
	if code := k.proc.ProcessState.ExitCode(); code != exitDone {
		k.t.Errorf("keyd ended with %v, want exit status 0", k.proc.ProcessState)
	}
}

// alive reports whether the process has not ended by itself.
func (k *killable) alive() bool {
	select {
	case <-k.ended:
		return false
	default:
		return true
	}
}

// verify runs `keyd audit verify` over the log as it now is.
func (k *killable) verify(ctx context.Context) error {
	cmd := keydCommand(ctx, "audit", "verify", "--dir", filepath.Join(k.dir, "audit"), "--vkey", filepath.Join(k.dir, devVkey))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("keyd audit verify: %w\n%s", err, tail(string(out), 2000))
	}
	return nil
}

// edit replaces a line of the configuration that `keyd dev` wrote.
func (k *killable) edit(key, value string) {
	k.t.Helper()
	path := filepath.Join(k.dir, "keyd.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		k.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	found := 0
	for i, line := range lines {
		if name, _, ok := strings.Cut(line, " = "); ok && name == key {
			lines[i] = key + " = " + value
			found++
		}
	}
	if found != 1 {
		k.t.Fatalf("%d lines of %s set %s, want one", found, path, key)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// output is all that its processes have printed.
func (k *killable) output() string {
	text, err := os.ReadFile(k.said.Name())
	if err != nil {
		k.t.Error(err)
	}
	return string(text)
}

// healthy looks for what no process of keyd may ever print.
func (k *killable) healthy() {
	k.t.Helper()
	said := k.output()
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:", "goroutine 1 ["} {
		if at := strings.Index(said, sign); at >= 0 {
			k.t.Errorf("keyd said %q:\n%s", sign, tail(said[:min(len(said), at+3000)], 4000))
		}
	}
}

// holds returns the files under the folder in which text stands.
func (k *killable) holds(text string) (files []string) {
	k.t.Helper()
	paths := []string{k.said.Name()}
	err := filepath.WalkDir(k.dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			k.t.Fatal(err)
		}
		if bytes.Contains(content, []byte(text)) {
			files = append(files, path)
		}
	}
	return files
}

func tail(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return "…" + text[len(text)-most:]
}
