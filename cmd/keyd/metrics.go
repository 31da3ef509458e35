package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what the daemon counts. docs/OPERATIONS.md lists all of it, and a
// test compares. No label holds anything that a peer chooses, so that nobody
// can blow them up or smuggle card data into them.
type metrics struct {
	registry *prometheus.Registry
	alarms   *prometheus.CounterVec
	certs    *prometheus.CounterVec

	token   tokenMetrics
	api     apiMetrics
	sw      switchMetrics
	flush   *histogram // of the audit log
	commit  *histogram // of the database
	sweeps  sweepMetrics
	hook    *prometheus.CounterVec // deliveries
	patrol  patrol
	written prometheus.Counter // changes committed to the database
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		alarms:   newAlarmCounter(),
		certs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_certificate_alarms_total", Help: "Changed certificate files that could not be used, and revocation lists out of date.",
		}, []string{"section"}),
		written: prometheus.NewCounter(prometheus.CounterOpts{Name: "keyd_store_changes_total", Help: "Changes committed to the database."}),
	}
	b := thisBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keyd_build_info", Help: "What this binary was made of; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go},
	})
	info.Set(1)
	m.registry.MustRegister(info, m.alarms, m.certs, m.written,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.flush = m.histogram("keyd_audit_flush_seconds", "Time in which the disk took a batch of records (fdatasync).", stepBounds())
	m.commit = m.histogram("keyd_store_commit_seconds", "Time of a commit of the database, its sync included.", stepBounds())
	m.token.register(m)
	m.api.register(m)
	m.sw.register(m)
	m.sweeps.register(m)
	m.registerHook()
	return m
}

// histogram adds a histogram without labels.
func (m *metrics) histogram(name, help string, bounds []time.Duration) *histogram {
	h := newHistograms(name, help, bounds, nil, nil)
	m.registry.MustRegister(h)
	return h.of()
}

// gauge adds a value that is read when somebody asks.
func (m *metrics) gauge(name, help string, labels prometheus.Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// synced hears of each flush of the audit log.
func (m *metrics) synced(took time.Duration, _ int) { m.flush.observe(took) }

// committed hears of each commit of the database.
func (m *metrics) committed(took time.Duration, changes int) {
	m.commit.observe(took)
	m.written.Add(float64(changes))
}

// askTimeout bounds what a scrape asks of the database.
const askTimeout = 2 * time.Second

// asked adds metrics that are read together, when somebody asks. What cannot be
// read is left out of the answer.
type asked struct {
	descs []*prometheus.Desc
	read  func(ctx context.Context, ch chan<- prometheus.Metric)
}

// Describe implements prometheus.Collector.
func (a asked) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range a.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a asked) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	a.read(ctx, ch)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// gaugeOf is a value of an asked gauge.
func gaugeOf(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// counterOf is a value of an asked total.
func counterOf(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// describe is prometheus.NewDesc without constant labels.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// sinceOr0 is the age of a moment in seconds, 0 where there is none.
func sinceOr0(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return time.Since(at).Seconds()
}
