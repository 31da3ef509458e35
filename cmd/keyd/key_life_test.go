package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// mac DEV.JSON KEY VARIABLE makes a CMAC of a fixed message under a key, as the
// client switch of a development daemon, and sets a variable to it. With a
// leading ! the daemon must refuse, and the refusal is printed.
func cmdMAC(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] mac DEV.JSON KEY VARIABLE")
	}
	status, body := useKey(ts, args[0], "/mac/generate", map[string]any{
		"KeyIdentifier": args[1], "MessageData": "00112233", "GenerationAttributes": map[string]string{"Algorithm": "CMAC"},
	})
	if (status == http.StatusOK) == neg {
		ts.Fatalf("status %d: %s", status, body)
	}
	fmt.Fprintf(ts.Stdout(), "%d %s\n", status, body)
	var out struct{ Mac string }
	ts.Check(json.Unmarshal(body, &out))
	ts.Setenv(args[2], out.Mac)
}

// verifies DEV.JSON KEY MAC says that a MAC is good under a key. With a leading
// ! it waits until it is not.
func cmdVerifies(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] verifies DEV.JSON KEY MAC")
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, body := useKey(ts, args[0], "/mac/verify", map[string]any{
			"KeyIdentifier": args[1], "MessageData": "00112233", "Mac": args[2], "VerificationAttributes": map[string]string{"Algorithm": "CMAC"},
		})
		if (status == http.StatusOK) != neg {
			return
		}
		if !neg || time.Now().After(end) {
			ts.Fatalf("status %d: %s", status, body)
		}
	}
}

// becomes PATTERN COMMAND... repeats a command until what it prints has the pattern.
func cmdBecomes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: becomes PATTERN COMMAND...")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("it did not within a minute: %s", args[0])
}

// useKey sends a request of the data plane as the client switch.
func useKey(ts *testscript.TestScript, report, path string, request any) (int, []byte) {
	var dev devReport
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(report)), &dev))
	client := dev.Clients["switch"]
	cert, err := tls.LoadX509KeyPair(client.Cert, client.Key)
	ts.Check(err)
	ca, err := os.ReadFile(dev.CACert)
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	text, err := json.Marshal(request)
	ts.Check(err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Post(dev.APIURL+path, "application/json", strings.NewReader(string(text)))
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	return resp.StatusCode, body
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 7 * day, "0d": 0, "0": 0, "12h": 12 * time.Hour, "90s": 90 * time.Second} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err != nil || time.Duration(s) != want {
			t.Errorf("%s is %v, %v; want %v", text, time.Duration(s), err, want)
		}
	}
	for _, text := range []string{"", "7", "-1d", "-1h", "1.5d", "d", "10ms", "99999d"} {
		var s span
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
	for s, want := range map[span]string{span(7 * day): "7d", span(90 * time.Minute): "1h30m0s", 0: "0s"} {
		if s.String() != want {
			t.Errorf("got %s, want %s", s, want)
		}
	}
}

// TestDaemonDestroysKeys: when the waiting time of a key is over the daemon's
// sweeper destroys it, and says so to nobody but the log.
func TestDaemonDestroysKeys(t *testing.T) {
	dir := t.TempDir()
	startDev(t, dir, "--no-sim").stop()
	cfg, err := loadConfig(filepath.Join(dir, "keyd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64
	cfg.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &buffer{}
	d, err := newDaemon(ctx, cfg, newLogger(stderr, "warn"))
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.serve(ctx, func() error { close(ready); return nil }) }()
	<-ready

	var code int
	pki := filepath.Join(dir, "pki")
	as := []string{"--url", "https://" + d.apiListener.Addr().String(), "--ca", filepath.Join(pki, "ca.pem"),
		"--cert", filepath.Join(pki, "admin.pem"), "--key", filepath.Join(pki, "admin.key")}
	keyd := func(args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), append(args, as...), strings.NewReader(""), &stdout, &stderr)
		return stdout.String() + stderr.String()
	}
	made := keyd("key", "create", "--usage", "M6", "--algorithm", "AES_128", "--mode", "C", "--alias", "alias/mac")
	arn, _, _ := strings.Cut(made, ": check")
	if out := keyd("key", "delete", "alias/mac", "--days", "3"); code != exitDone {
		t.Fatal(out)
	}
	ahead.Store(int64(3*day - time.Minute))
	if out := keyd("key", "show", arn); !strings.Contains(out, "to be destroyed") {
		t.Errorf("a minute before its time: %s", out)
	}
	ahead.Store(int64(3*day + time.Minute))
	poll(t, "the destruction", func() bool { return strings.Contains(keyd("key", "show", arn), "state             destroyed") })
	if out := keyd("key", "show", "alias/mac"); !strings.Contains(out, "destroyed") {
		t.Errorf("by its alias: %s", out)
	}
	if out := keyd("key", "restore", arn); code != exitFailed || !strings.Contains(out, "ConflictException") {
		t.Errorf("restored after its destruction: %d, %s", code, out)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}
