package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// readyTimeout bounds a readiness check: a prober that waits longer learns less.
const readyTimeout = 3 * time.Second

// part is one line of the readiness report.
type part struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready bool            `json:"ready"`
	Parts map[string]part `json:"parts"`
}

// opsHandler serves health and metrics. It is read only and shows nothing that
// a user of this machine may not see.
func (d *daemon) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report := d.readiness(r.Context())
		w.Header().Set("Content-Type", "application/json")
		if !report.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(report)
	})
	mux.Handle("GET /metrics", d.metrics.handler())
	return mux
}

// readiness asks every part. The upstream link is reported and does not make
// the node unready: reversals are still taken and kept while it is down.
func (d *daemon) readiness(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	report := readiness{Ready: true, Parts: make(map[string]part)}
	for name, err := range d.node.ready(ctx) {
		p := part{OK: err == nil}
		if err != nil {
			p.Detail = err.Error()
			report.Ready = false
		}
		report.Parts[name] = p
	}
	if d.draining.Load() {
		report.Ready = false
		report.Parts["process"] = part{Detail: "draining"}
	}
	if d.sw != nil {
		status := d.sw.Status()
		p := part{OK: status.LinkUp && status.SignedOn}
		switch {
		case !status.LinkUp:
			p.Detail = "not connected"
		case !status.SignedOn:
			p.Detail = "connected, not signed on"
		}
		report.Parts["upstream"] = p
	}
	return report
}
