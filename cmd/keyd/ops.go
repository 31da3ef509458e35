package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// The times of the operators' listener. A prober that waits longer than
// readyTimeout learns less.
const (
	readyTimeout  = 3 * time.Second
	opsHeaderWait = 5 * time.Second
	opsWriteWait  = mostProfile + 10*time.Second
	opsHeaderSize = 16 << 10
)

// The parts of the node in /readyz.
const (
	partProcess  = "process"
	partToken    = "token"
	partStore    = "store"
	partAudit    = "audit"
	partUpstream = "upstream"
)

// errStarting: a part that has not been opened yet.
var errStarting = errors.New("starting")

// part is one line of the readiness report.
type part struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// readiness is the answer of /readyz. NotReady names the parts for which Ready
// is false; a part that is not ok and not named there does not count.
type readiness struct {
	Ready    bool            `json:"ready"`
	NotReady []string        `json:"not_ready,omitempty"`
	Parts    map[string]part `json:"parts"`
}

// opsServer is the operators' surface: health, readiness, metrics, and profiles
// where they are asked for. It answers before the node is open, so that a start
// which has to wait is seen to wait. It is read only and shows nothing that a
// user of this machine may not see. It is safe for concurrent use.
type opsServer struct {
	server *http.Server
	ended  chan struct{} // closed when the listener is no longer served; nil before
	failed chan error    // holds one: why it is no longer served, where nobody wanted that

	mu    sync.Mutex
	parts map[string]*opsPart
}

// opsPart is something that must work for the node to be ready.
type opsPart struct {
	vital bool
	check func(context.Context) error // nil before the part is open
	waits error                       // what an unopened part waits for
}

func newOps(cfg *opsConfig, m *metrics, log *slog.Logger) *opsServer {
	o := &opsServer{parts: make(map[string]*opsPart), failed: make(chan error, 1)}
	for _, name := range []string{partProcess, partToken, partStore, partAudit} {
		o.expect(name, true)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", o.health)
	mux.HandleFunc("GET /readyz", o.ready)
	mux.Handle("GET /metrics", m.handler())
	if cfg.Pprof {
		profiles(mux)
	}
	o.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: opsHeaderWait, ReadTimeout: opsHeaderWait, WriteTimeout: opsWriteWait,
		MaxHeaderBytes: opsHeaderSize, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	m.registry.MustRegister(newPartCollector(o))
	return o
}

// expect adds a part that is not open yet. One that is not vital is reported and
// does not make the node unready.
func (o *opsServer) expect(name string, vital bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parts[name] = &opsPart{vital: vital, waits: errStarting}
}

// waits says what a part that is not open yet waits for; nil is "starting".
func (o *opsServer) waits(name string, why error) {
	if why == nil {
		why = errStarting
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.parts[name]; p != nil && p.check == nil {
		p.waits = why
	}
}

// watch opens a part: from now on check says how it is.
func (o *opsServer) watch(name string, vital bool, check func(context.Context) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parts[name] = &opsPart{vital: vital, check: check}
}

// serve answers on the listener from now on.
func (o *opsServer) serve(listener net.Listener) {
	o.ended = make(chan struct{})
	go func() {
		defer close(o.ended)
		if err := o.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			o.failed <- fmt.Errorf("ops: %w", err)
		}
	}()
}

// close ends the server, with the answers that are under way while ctx lasts.
func (o *opsServer) close(ctx context.Context) error {
	err := o.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, o.server.Close())
	}
	if o.ended != nil {
		<-o.ended
	}
	return err
}

func (o *opsServer) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

func (o *opsServer) ready(w http.ResponseWriter, r *http.Request) {
	report := o.readiness(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report)
}

// readiness asks every part, all at once.
func (o *opsServer) readiness(ctx context.Context) readiness {
	report := readiness{Ready: true, Parts: make(map[string]part)}
	for name, p := range o.examine(ctx) {
		line := part{OK: p.err == nil}
		if p.err != nil {
			line.Detail = p.err.Error()
			if p.vital {
				report.Ready = false
				report.NotReady = append(report.NotReady, name)
			}
		}
		report.Parts[name] = line
	}
	slices.Sort(report.NotReady)
	return report
}

// finding is how a part was found.
type finding struct {
	vital bool
	err   error
}

// examine asks every part, all at once; one that does not answer in time, a
// module that hangs say, is reported as such and waited for no longer.
func (o *opsServer) examine(ctx context.Context) map[string]finding {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	type answer struct {
		name string
		err  error
	}
	found := make(map[string]finding)
	o.mu.Lock()
	answers := make(chan answer, len(o.parts))
	for name, p := range o.parts {
		if p.check == nil {
			found[name] = finding{p.vital, p.waits}
			answers <- answer{name, p.waits}
			continue
		}
		found[name] = finding{p.vital, fmt.Errorf("no answer within %v", readyTimeout)}
		check := p.check
		go func() { answers <- answer{name, check(ctx)} }()
	}
	o.mu.Unlock()
	for range found {
		select {
		case a := <-answers:
			found[a.name] = finding{found[a.name].vital, a.err}
		case <-ctx.Done():
			return found
		}
	}
	return found
}

// watchNode tells the operators of the open node's parts from now on.
func (d *daemon) watchNode() {
	d.ops.watch(partToken, true, d.node.token.Check)
	d.ops.watch(partStore, true, d.node.db.Ready)
	d.ops.watch(partAudit, true, func(context.Context) error { return d.node.audit.Ready() })
	d.metrics.token.watch(d.metrics, d.node.token)
	d.metrics.watchAudit(d.node.audit)
	d.metrics.watchStore(d.node.db, d.cfg.Upstream)
	d.metrics.watchPatrol()
	d.metrics.watchKeys(d.node.custody)
}

// The states of a node that serves nothing new, or no sales.
var (
	errDraining     = errors.New("draining: the process is ending")
	errNotConnected = errors.New("not connected")
	errNotSignedOn  = errors.New("connected, not signed on")
)

// running says whether new work is taken.
func (d *daemon) running(context.Context) error {
	if d.draining.Load() {
		return errDraining
	}
	return nil
}

// watchUpstream tells whether sales can be forwarded. Reversals are taken and
// kept while they cannot, so that this alone makes no node unready unless the
// configuration says so.
func (d *daemon) watchUpstream(sw *isoswitch.Switch) {
	d.metrics.sw.watch(d.metrics, sw, d.cfg.Switch.Connections)
	d.metrics.watchUpstreams(sw)
	d.ops.watch(partUpstream, d.cfg.Ops.ReadyNeedsUpstream, func(context.Context) error {
		return reachable(sw.Status().Upstreams)
	})
}
