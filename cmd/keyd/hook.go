package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hook"
)

type hookConfig struct {
	URL    string `toml:"url,omitempty" comment:"Where events are posted, https://host/path; default nowhere."`
	CA     string `toml:"ca,omitempty" comment:"Who may sign the receiver's certificate, PEM; needed with url; default none."`
	Cert   string `toml:"cert,omitempty" comment:"Our client certificate, PEM, or vault:NAME of a [[vault_certificate]]; default none."`
	Key    string `toml:"key,omitempty" comment:"Its key, PEM."`
	MinTLS string `toml:"min_tls,omitempty" comment:"\"1.3\" (default) or \"1.2\"."`
	MACKey string `toml:"mac_key,omitempty" comment:"Alias of the key that signs events: HMAC_SHA256 of usage M7; needed with url; default none."`
}

func (h *hookConfig) tls() tlsConfig {
	return tlsConfig{Cert: h.Cert, Key: h.Key, CA: h.CA, MinTLS: h.MinTLS}
}

func (h *hookConfig) fillDefaults() { def(&h.MinTLS, "1.3") }

// hook refuses a receiver without HTTPS, without a CA or without a key.
func (k *configCheck) hook(c *config) {
	h := &c.Hook
	if h.URL == "" {
		k.want(*h == hookConfig{MinTLS: h.MinTLS}, "hook.url", "needs the address of the receiver, https://host/path; without one leave [hook] out")
		return
	}
	u, err := url.Parse(h.URL)
	k.want(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil, "hook.url", "must begin with https:// and hold no password")
	k.want(h.CA != "", "hook.ca", "needs the CA file that the receiver's certificate is checked against")
	k.want((h.Cert == "") == (h.Key == "") || isIssued(h.Cert), "hook.cert", "cert and key go together")
	k.minTLS("hook", h.MinTLS)
	k.want(aliasName.MatchString(h.MACKey), "hook.mac_key", "%q is not an alias, alias/hook say: events are signed", h.MACKey)
}

// newHook makes what delivers events, and lets the database write them; without a
// configured receiver it stops that, and returns nil.
func (d *daemon) newHook(ctx context.Context) (*hook.Hook, error) {
	c := &d.cfg.Hook
	if c.URL == "" {
		return nil, d.node.db.SetHook(ctx, false)
	}
	certs, err := d.certificates("hook", c.tls())
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("starting the hook: %w", err)
	}
	h, err := hook.New(hook.Config{
		Custody: d.node.custody.WithoutMaker(), Outbox: d.node.db, URL: c.URL, TLS: certs.Client(u.Hostname()),
		Key: custody.Ref{Alias: c.MACKey}, Log: d.log, Clock: d.cfg.now, Observe: d.metrics.delivered,
	})
	if err == nil {
		err = h.Check(ctx)
	}
	if err != nil {
		return nil, advise(fmt.Errorf("starting the hook: %w", err), "make the key with `keyd key create`, or see [hook] in %s", d.cfg.path)
	}
	return h, d.node.db.SetHook(ctx, true)
}

func (m *metrics) registerHook() {
	m.hook = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_hook_deliveries_total", Help: "Deliveries of events and what came of them: acknowledged, refused, unreachable, unsigned.",
	}, []string{"result"})
	for _, result := range hook.Results() {
		m.hook.WithLabelValues(string(result))
	}
	m.registry.MustRegister(m.hook)
}

// delivered hears of each delivery.
func (m *metrics) delivered(r hook.Result) { m.hook.WithLabelValues(string(r)).Inc() }
