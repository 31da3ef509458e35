package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/hsm"
)

// tokenMetrics is what the daemon counts of the token: time in the module apart
// from the wait for a session, so that it can be told from keyd's own.
type tokenMetrics struct {
	up    prometheus.Gauge
	lost  prometheus.Counter
	wait  *histogram
	calls []*histogram // by hsm.Kind
}

func (t *tokenMetrics) register(m *metrics) {
	t.up = prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyd_token_up", Help: "1 while the PKCS#11 token can be used."})
	t.lost = prometheus.NewCounter(prometheus.CounterOpts{Name: "keyd_token_losses_total", Help: "Outages of the token."})
	t.wait = m.histogram("keyd_token_wait_seconds", "Time that calls into the module waited for a session.", stepBounds())
	var rows [][]string
	for _, k := range hsm.Kinds() {
		rows = append(rows, []string{k.String()})
	}
	calls := newHistograms("keyd_token_call_seconds", "Time inside the PKCS#11 module, by kind of call.", stepBounds(), []string{"kind"}, rows...)
	for _, k := range hsm.Kinds() {
		t.calls = append(t.calls, calls.of(k.String()))
	}
	m.registry.MustRegister(t.up, t.lost, calls)
}

// observe hears of each call into the module.
func (t *tokenMetrics) observe(c hsm.Timing) {
	t.wait.observe(c.Wait)
	t.calls[c.Kind].observe(c.Inside)
}

// state hears of outages.
func (t *tokenMetrics) state(why error) {
	if why == nil {
		t.up.Set(1)
		return
	}
	t.up.Set(0)
	t.lost.Inc()
}

// watch shows what an open token counts itself.
func (t *tokenMetrics) watch(m *metrics, token *hsm.Token) {
	type value struct {
		desc *prometheus.Desc
		kind prometheus.ValueType
		of   func(hsm.Stats) float64
	}
	var values []value
	add := func(kind prometheus.ValueType, name, help string, of func(hsm.Stats) float64) {
		values = append(values, value{describe(name, help), kind, of})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add(counter, "keyd_token_calls_total", "Calls into the PKCS#11 module.", func(s hsm.Stats) float64 { return float64(s.Calls) })
	add(counter, "keyd_token_gathered_total", "Uses of a key that shared the call of another.", func(s hsm.Stats) float64 { return float64(s.Gathered) })
	add(counter, "keyd_token_late_total", "Calls that found no session in time.", func(s hsm.Stats) float64 { return float64(s.Late) })
	add(counter, "keyd_token_abandoned_total", "Calls that did not return in time.", func(s hsm.Stats) float64 { return float64(s.Abandoned) })
	add(gauge, "keyd_token_stuck_calls", "Of these, calls that have not come back yet.", func(s hsm.Stats) float64 { return float64(s.Stuck) })
	add(gauge, "keyd_token_sessions", "Sessions that calls share.", func(s hsm.Stats) float64 { return float64(s.Sessions) })
	add(gauge, "keyd_token_sessions_busy", "Sessions in a call, that which keeps the key objects among them.", func(s hsm.Stats) float64 { return float64(s.Busy) })
	add(gauge, "keyd_token_waiters", "Calls that wait for a session.", func(s hsm.Stats) float64 { return float64(s.Waiting) })
	add(counter, "keyd_token_epochs_total", "Times that the token's objects were found anew: once at the start, then after losses.", func(s hsm.Stats) float64 { return float64(s.Epochs) })
	add(counter, "keyd_token_logins_total", "Logins to the token.", func(s hsm.Stats) float64 { return float64(s.Logins) })
	add(counter, "keyd_token_reloads_total", "Times that the module was loaded anew.", func(s hsm.Stats) float64 { return float64(s.Reloads) })
	add(counter, "keyd_token_objects_made_total", "Key objects made in the token.", func(s hsm.Stats) float64 { return float64(s.Made) })
	add(counter, "keyd_token_objects_destroyed_total", "Key objects destroyed in the token.", func(s hsm.Stats) float64 { return float64(s.Destroyed) })
	add(counter, "keyd_token_cache_hits_total", "Keys found loaded in the token.", func(s hsm.Stats) float64 { return float64(s.Hits) })
	add(counter, "keyd_token_cache_misses_total", "Keys that had to be loaded.", func(s hsm.Stats) float64 { return float64(s.Misses) })
	add(counter, "keyd_token_cache_evictions_total", "Keys that made room for others.", func(s hsm.Stats) float64 { return float64(s.Evictions) })
	add(gauge, "keyd_token_cached_keys", "Keys loaded in the token.", func(s hsm.Stats) float64 { return float64(s.Held) })
	selfTest := describe("keyd_token_self_test_seconds", "Time of the module's last self-test; a rise is an early sign of trouble.")
	all := asked{descs: []*prometheus.Desc{selfTest}, read: func(_ context.Context, ch chan<- prometheus.Metric) {
		s := token.Stats()
		for _, v := range values {
			ch <- prometheus.MustNewConstMetric(v.desc, v.kind, v.of(s))
		}
		ch <- gaugeOf(selfTest, token.Info().SelfTest.Seconds())
	}}
	for _, v := range values {
		all.descs = append(all.descs, v.desc)
	}
	m.registry.MustRegister(all)
}
