package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
)

// otherName stands for what has no name of its own in a label.
const otherName = "other"

// apiMetrics is what the daemon counts of requests, and of the operations with
// keys inside them and inside the switch's messages.
type apiMetrics struct {
	requests *prometheus.CounterVec
	latency  *histograms
	inWork   prometheus.Gauge
	work     map[custody.Operation]*[classes]*histogram // by audit.Custody

	paths, verbs, targets map[string]string // to names of operations
}

func (a *apiMetrics) register(m *metrics) {
	a.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_api_requests_total", Help: "API requests by operation and HTTP status.",
	}, []string{"operation", "status"})
	a.inWork = prometheus.NewGauge(prometheus.GaugeOpts{Name: "keyd_api_in_work", Help: "API requests that have no answer yet."})
	a.paths, a.verbs, a.targets = make(map[string]string), make(map[string]string), make(map[string]string)
	names := [][]string{{otherName}}
	for _, op := range api.Operations() {
		names = append(names, []string{op.Name})
		switch {
		case op.Target != "":
			a.targets[op.Target] = op.Name
		case op.KeyMember != "":
			a.verbs[lastSegment(op.Path)] = op.Name
		default:
			a.paths[op.Path] = op.Name
		}
	}
	a.latency = newHistograms("keyd_api_request_seconds", "Time of API requests.", requestBounds(), []string{"operation"}, names...)
	m.registry.MustRegister(a.requests, a.inWork, a.latency, a.operations())
}

// classes is how many custody classes there are, none among them.
const classes = int(audit.CustodyProcess) + 1

// operations makes the histograms of operations with keys.
func (a *apiMetrics) operations() *histograms {
	class := [classes]string{"none", audit.CustodyToken.String(), audit.CustodyProcess.String()}
	var rows [][]string
	a.work = map[custody.Operation]*[classes]*histogram{otherName: {}}
	for op := range custody.Permissions() {
		a.work[op] = new([classes]*histogram)
	}
	for op := range a.work {
		for _, name := range class {
			rows = append(rows, []string{string(op), name})
		}
	}
	all := newHistograms("keyd_custody_operation_seconds",
		"Time of operations with keys, of the API and of the switch, up to their record: in the token or, in part, in the process.",
		requestBounds(), []string{"operation", "custody"}, rows...)
	for op, each := range a.work {
		for n, name := range class {
			each[n] = all.of(string(op), name)
		}
	}
	return all
}

// operated hears of each operation with a key.
func (a *apiMetrics) operated(o custody.Measure) {
	each := a.work[o.Operation]
	if each == nil {
		each = a.work[otherName]
	}
	each[o.Custody].observe(o.Took)
}

// measured counts and times what next answers.
func (m *metrics) measured(next http.Handler) http.Handler {
	a := &m.api
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		a.inWork.Inc()
		defer a.inWork.Dec()
		next.ServeHTTP(seen, r)
		op := a.operationOf(r)
		a.requests.WithLabelValues(op, strconv.Itoa(seen.status)).Inc()
		a.latency.of(op).observe(time.Since(start))
	})
}

// operationOf names a request by a closed list: that of what keyd serves.
func (a *apiMetrics) operationOf(r *http.Request) string {
	name, known := a.paths[r.URL.Path]
	if !known && strings.HasPrefix(r.URL.Path, "/keys/") {
		name, known = a.verbs[lastSegment(r.URL.Path)]
	}
	if !known {
		name, known = a.targets[r.Header.Get("X-Amz-Target")]
	}
	if !known {
		return otherName
	}
	return name
}

func lastSegment(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

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
