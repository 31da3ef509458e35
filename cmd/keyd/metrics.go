package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// metrics is what the daemon counts. No label holds anything that a peer
// chooses, so that nobody can blow them up or smuggle card data into them.
type metrics struct {
	registry *prometheus.Registry
	tokenUp  prometheus.Gauge
	lost     prometheus.Counter
	alarms   *prometheus.CounterVec
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	inWork   prometheus.Gauge
	events   *prometheus.CounterVec
	answers  *prometheus.HistogramVec

	operations map[string]bool // those with a name of their own
}

// latencyBuckets are seconds, from what a PIN translation takes to what a
// switch gives up at.
func latencyBuckets() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		tokenUp:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyd_token_up", Help: "1 while the PKCS#11 token can be used."}),
		lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "keyd_token_losses_total", Help: "Outages of the token."}),
		alarms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_audit_alarms_total", Help: "Alarms of the audit log.",
		}, []string{"code", "level"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_api_requests_total", Help: "API requests by operation and HTTP status.",
		}, []string{"operation", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyd_api_request_seconds", Help: "Time of API requests.", Buckets: latencyBuckets(),
		}, []string{"operation"}),
		inWork: prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyd_api_in_work", Help: "API requests that have no answer yet."}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keyd_switch_decisions_total", Help: "Decisions of the switch: what it was, DE 39 or a state, row of the decision table.",
		}, []string{"name", "code", "rule"}),
		answers: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keyd_switch_answer_seconds", Help: "Time from a message's arrival to its answer.", Buckets: latencyBuckets(),
		}, []string{"name"}),
	}
	m.operations = make(map[string]bool)
	for op := range custody.Permissions() {
		m.operations[string(op)] = true
	}
	b := thisBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keyd_build_info", Help: "What this binary was made of; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go},
	})
	info.Set(1)
	m.registry.MustRegister(info, m.tokenUp, m.lost, m.alarms, m.requests, m.latency, m.inWork, m.events, m.answers,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// gauge adds a value that is read when somebody asks.
func (m *metrics) gauge(name, help string, labels prometheus.Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// counter adds a total that is kept elsewhere.
func (m *metrics) counter(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

func (m *metrics) tokenState(why error) {
	if why == nil {
		m.tokenUp.Set(1)
		return
	}
	m.tokenUp.Set(0)
	m.lost.Inc()
}

func (m *metrics) alarm(a audit.Alarm) { m.alarms.WithLabelValues(a.Code, a.Level.String()).Inc() }

func (m *metrics) event(e isoswitch.Event) {
	m.events.WithLabelValues(e.Name, e.Code, e.Rule).Inc()
	if e.Took > 0 {
		m.answers.WithLabelValues(e.Name).Observe(e.Took.Seconds())
	}
}

// measured counts and times what next answers.
func (m *metrics) measured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		m.inWork.Inc()
		defer m.inWork.Dec()
		next.ServeHTTP(seen, r)
		op := m.operationOf(r)
		m.requests.WithLabelValues(op, strconv.Itoa(seen.status)).Inc()
		m.latency.WithLabelValues(op).Observe(time.Since(start).Seconds())
	})
}

// operationOf names a request by a closed list: that of the permission matrix.
func (m *metrics) operationOf(r *http.Request) string {
	switch r.URL.Path {
	case "/pindata/translate":
		return "TranslatePinData"
	case "/mac/generate":
		return "GenerateMac"
	case "/mac/verify":
		return "VerifyMac"
	}
	_, name, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if m.operations[name] {
		return name
	}
	return "other"
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
