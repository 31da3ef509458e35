package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/isoswitch"
)

// serveOps is the operators' listener of a process whose node is not open.
func serveOps(t *testing.T, cfg opsConfig) (*opsServer, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := newOps(&cfg, newMetrics(), newLogger(io.Discard, "error"))
	o.serve(listener)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := o.close(ctx); err != nil {
			t.Error(err)
		}
	})
	return o, listener.Addr().String()
}

// TestOpsBeforeTheNode is C-10 from the operators' side: before the node is
// open the process is live and not ready, and says what it waits for.
func TestOpsBeforeTheNode(t *testing.T) {
	o, addr := serveOps(t, opsConfig{})
	want := func(name string, status int, not, part, detail string) {
		t.Helper()
		got, body := opsGet(addr, "/readyz")
		var r readiness
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		if got != status || strings.Join(r.NotReady, " ") != not || r.Ready != (not == "") || !strings.Contains(r.Parts[part].Detail, detail) {
			t.Errorf("%s: %d %s", name, got, body)
		}
		if live, text := opsGet(addr, "/healthz"); live != http.StatusOK || text != "ok\n" {
			t.Errorf("%s: /healthz %d %q", name, live, text)
		}
		if status, metrics := opsGet(addr, "/metrics"); status != http.StatusOK || !strings.Contains(metrics, "keyd_build_info{") {
			t.Errorf("%s: /metrics %d", name, status)
		}
	}
	const all = "audit process store token"
	want("starting", http.StatusServiceUnavailable, all, "token", "starting")
	o.waits(partToken, errors.New("Vault is sealed"))
	want("waiting", http.StatusServiceUnavailable, all, "token", "Vault is sealed")
	o.waits(partToken, nil)
	want("no longer", http.StatusServiceUnavailable, all, "token", "starting")

	fine := func(context.Context) error { return nil }
	for _, part := range []string{partProcess, partToken, partStore, partAudit} {
		o.watch(part, true, fine)
	}
	o.expect(partUpstream, false)
	want("open, the link is not", http.StatusOK, "", partUpstream, "starting")
	o.waits(partToken, errors.New("too late"))
	want("open parts wait for nothing", http.StatusOK, "", partToken, "")
	release := make(chan struct{})
	defer close(release)
	o.watch(partToken, true, func(context.Context) error { <-release; return nil })
	want("a part hangs", http.StatusServiceUnavailable, partToken, partToken, "no answer within")
}

// TestProfiles: profiles are there when they are asked for, and nothing that
// shows values of requests.
func TestProfiles(t *testing.T) {
	_, without := serveOps(t, opsConfig{})
	_, with := serveOps(t, opsConfig{Pprof: true})
	for _, path := range []string{"heap", "allocs", "goroutine", "threadcreate", "profile?seconds=1"} {
		if status, _ := opsGet(without, "/debug/pprof/"+path); status != http.StatusNotFound {
			t.Errorf("%s unasked: %d", path, status)
		}
		status, body := opsGet(with, "/debug/pprof/"+path)
		zip, err := gzip.NewReader(strings.NewReader(body))
		if status != http.StatusOK || err != nil {
			t.Errorf("%s: %d, %v", path, status, err)
			continue
		}
		if _, err := io.Copy(io.Discard, zip); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"", "cmdline", "symbol", "trace", "goroutine/", "profile?seconds=0", "profile?seconds=61", "profile?seconds=x"} {
		if status, _ := opsGet(with, "/debug/pprof/"+path); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("%q: %d", path, status)
		}
	}
	// A dump with the arguments of functions is not to be had by a parameter.
	if _, body := opsGet(with, "/debug/pprof/goroutine?debug=2"); bytes.Contains([]byte(body), []byte("goroutine ")) {
		t.Error("goroutine?debug=2 is a text")
	}
}

// TestLabelsAreClosed: what a peer sends makes no series.
func TestLabelsAreClosed(t *testing.T) {
	m := newMetrics()
	for _, code := range []string{"00", "ZZ", "\x00\"", "4111111111111111"} {
		for _, name := range []string{"sale", "forward", "late"} {
			m.event(isoswitch.Event{Name: name, Code: code, Took: time.Second})
		}
	}
	handler := m.measured(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	for _, r := range []struct{ path, target string }{
		{"/keys/alias%2F4111111111111111/encrypt", ""}, {"/keys/alias%2Fx/4111111111111111", ""}, {"/4111111111111111", ""},
		{"/", "PaymentCryptographyControlPlane.4111111111111111"}, {"/", "PaymentCryptographyControlPlane.ListKeys"}, {"/mac/generate", ""},
	} {
		req, err := http.NewRequest(http.MethodPost, "http://keyd"+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Amz-Target", r.target)
		handler.ServeHTTP(&discard{}, req)
	}
	m.api.operated(custody.Measure{Operation: "4111111111111111"})
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	operations := make(map[string]bool)
	for _, f := range all {
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if strings.Contains(l.GetValue(), "4111") || l.GetValue() == "ZZ" || strings.ContainsRune(l.GetValue(), 0) {
					t.Errorf("%s has a label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
				if f.GetName() == "keyd_api_requests_total" && l.GetName() == "operation" {
					operations[l.GetValue()] = true
				}
			}
		}
	}
	for _, want := range []string{"EncryptData", "ListKeys", "GenerateMac", otherName} {
		if !operations[want] {
			t.Errorf("no request was counted as %s: %v", want, operations)
		}
	}
}

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = make(http.Header)
	}
	return d.header
}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkObserve is what a call into the token and an operation cost to
// measure, beside the two readings of the clock.
func BenchmarkObserve(b *testing.B) {
	m := newMetrics()
	b.Run("token call", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				m.token.observe(hsm.Timing{Kind: hsm.KindSign, Wait: 3 * time.Microsecond, Inside: 60 * time.Microsecond})
			}
		})
	})
	b.Run("token call with its clock", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				asked := time.Now()
				begun := time.Now()
				m.token.observe(hsm.Timing{Kind: hsm.KindSign, Wait: begun.Sub(asked), Inside: 60 * time.Microsecond})
			}
		})
	})
	b.Run("operation", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				m.api.operated(custody.Measure{Operation: custody.OpTranslatePIN, Custody: audit.CustodyProcess, Took: 400 * time.Microsecond})
			}
		})
	})
}

// TestOpsRemote: another address than loopback needs a setting that says so.
func TestOpsRemote(t *testing.T) {
	text := strings.Replace(goodConfig, `listen = "127.0.0.1:9100"`, "listen = \"0.0.0.0:9100\"\ninsecure_allow_remote = true", 1)
	cfg, err := loadText(t, text)
	if err != nil || cfg.Ops.Listen != "0.0.0.0:9100" {
		t.Errorf("%v, with leave", err)
	}
}
