package main

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/credentials/vault"
)

// vaultMetrics is what is counted of Vault. Labels are closed lists.
type vaultMetrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	alarms   *prometheus.CounterVec
}

func newVaultMetrics(registry *prometheus.Registry) *vaultMetrics {
	m := &vaultMetrics{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_vault_requests_total", Help: "Requests to Vault, by operation (health, login, renew, revoke, kv, unwrap, sign, transit) and result (ok, sealed, unreachable, fault, configuration, stolen).",
		}, []string{"operation", "result"}),
		alarms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_vault_alarms_total", Help: "Times that only an operator could mend what Vault answered, by cause (configuration, stolen).",
		}, []string{"cause"}),
	}
	for _, cause := range []string{vault.CauseConfiguration, vault.CauseStolen} {
		m.alarms.WithLabelValues(cause)
	}
	registry.MustRegister(m.requests, m.alarms)
	return m
}

// request counts what was asked of Vault.
func (m *vaultMetrics) request(operation, result string) {
	m.requests.WithLabelValues(operation, result).Inc()
}

// alarm counts what an operator must mend.
func (m *vaultMetrics) alarm(err error) {
	cause := vault.CauseConfiguration
	if vault.Cause(err) == vault.CauseStolen {
		cause = vault.CauseStolen
	}
	m.alarms.WithLabelValues(cause).Inc()
}

// show adds the gauges of a session.
func (m *vaultMetrics) show(c *vault.Client) {
	gauge := func(name, help string, read func(vault.Status) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return read(c.Status()) }))
	}
	gauge("keyd_vault_up", "1 while Vault answers and is unsealed.", func(s vault.Status) float64 { return truth(s.Up) })
	gauge("keyd_vault_sealed", "1 while Vault says that it is sealed.", func(s vault.Status) float64 { return truth(s.Sealed) })
	gauge("keyd_vault_login_failed", "1 while the last login to Vault failed.", func(s vault.Status) float64 { return truth(s.LoginFailed) })
	gauge("keyd_vault_token_expiry_seconds", "Seconds until keyd's token for Vault ends; 0 without one, +Inf for one that does not end and where none is needed.", func(s vault.Status) float64 {
		switch {
		case !s.HasToken && c.LogsIn():
			return 0
		case s.TokenExpires.IsZero():
			return math.Inf(1)
		}
		return time.Until(s.TokenExpires).Seconds()
	})
}
