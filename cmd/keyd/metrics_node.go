package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/store"
)

// watchAudit shows how far records are on their way to a checkpoint (L-138).
func (m *metrics) watchAudit(log *audit.Log) {
	var (
		ready      = describe("keyd_audit_ready", "1 while the audit log takes records.")
		records    = describe("keyd_audit_records_total", "Records made durable.")
		reserved   = describe("keyd_audit_reserved_records", "Records that requests in work have room for; 8192 is the most.")
		unsigned   = describe("keyd_audit_unsigned_records", "Durable records that no checkpoint covers yet.")
		age        = describe("keyd_audit_unsigned_seconds", "Age of the oldest of them; above audit.unsigned_limit operations are refused.")
		unmerged   = describe("keyd_audit_unmerged_records", "Durable records that are in no tree yet.")
		checkpoint = describe("keyd_audit_checkpoint_age_seconds", "Age of the newest checkpoint.")
		ratio      = describe("keyd_audit_disk_free_ratio", "Free part of the disk that holds the log, 0 to 1.")
		free       = describe("keyd_audit_disk_free_bytes", "Free bytes of the disk that holds the log.")
	)
	descs := []*prometheus.Desc{ready, records, reserved, unsigned, age, unmerged, checkpoint, ratio, free}
	m.registry.MustRegister(asked{descs, func(_ context.Context, ch chan<- prometheus.Metric) {
		s := log.Stats()
		ch <- gaugeOf(ready, truth(log.Ready() == nil))
		ch <- counterOf(records, float64(s.Durable))
		ch <- gaugeOf(reserved, float64(s.Reserved))
		ch <- gaugeOf(unsigned, float64(s.Unsigned))
		ch <- gaugeOf(age, s.UnsignedAge.Seconds())
		ch <- gaugeOf(unmerged, float64(s.Unmerged))
		ch <- gaugeOf(checkpoint, s.Checkpoint.Seconds())
		if s.DiskTotal > 0 {
			ch <- gaugeOf(ratio, float64(s.DiskFree)/float64(s.DiskTotal))
			ch <- gaugeOf(free, float64(s.DiskFree))
		}
	}})
}

// watchStore shows the writer's queue and what waits in the database for upstream,
// and for a second person. The states of reversals for these upstreams are
// counted from 0, so that an alert sees the first.
func (m *metrics) watchStore(db *store.DB, upstreams []upstreamConfig) {
	var (
		queue     = describe("keyd_store_queue", "Changes that wait to be committed; 8192 is the most.")
		reversals = describe("keyd_reversals_queued", "Reversals that upstream has not confirmed.")
		oldest    = describe("keyd_reversals_oldest_seconds", "Age of the oldest of them; 0 where there is none.")
		depth     = describe("keyd_reversals_open", "Reversals by upstream and state, but for those that are confirmed, closed, or settled with a case.", "upstream", "state")
		age       = describe("keyd_reversals_open_oldest_seconds", "Age of the oldest of them.", "upstream", "state")
		events    = describe("keyd_hook_waiting", "Events of the hook that nobody has acknowledged.")
		lag       = describe("keyd_hook_lag_seconds", "Age of the oldest of them; 0 where there is none.")
		approvals = describe("keyd_approvals_waiting", "Requests that wait for a second person.")
		waited    = describe("keyd_approvals_oldest_seconds", "Age of the oldest of them; 0 where there is none.")
	)
	descs := []*prometheus.Desc{queue, reversals, oldest, depth, age, events, lag, approvals, waited}
	m.registry.MustRegister(asked{descs, func(ctx context.Context, ch chan<- prometheus.Metric) {
		ch <- gaugeOf(queue, float64(db.Load().Waiting))
		b, err := db.Backlog(ctx)
		if err != nil {
			return // keyd_part_ready{part="store"} says that the database is away
		}
		ch <- gaugeOf(reversals, float64(b.Reversals))
		ch <- gaugeOf(oldest, sinceOr0(b.Oldest))
		for _, q := range withEmpty(b.Queues, upstreams) {
			ch <- gaugeOf(depth, float64(q.Reversals), q.Upstream, q.State)
			ch <- gaugeOf(age, sinceOr0(q.Oldest), q.Upstream, q.State)
		}
		ch <- gaugeOf(events, float64(b.Events))
		ch <- gaugeOf(lag, sinceOr0(b.Event))
		ch <- gaugeOf(approvals, float64(b.Approvals))
		ch <- gaugeOf(waited, sinceOr0(b.Asked))
	}})
}

// withEmpty adds the queues that are empty.
func withEmpty(queues []store.Queue, upstreams []upstreamConfig) []store.Queue {
	for i := range upstreams {
		for _, state := range []string{"WAITING", "QUEUED", "SENT", "HELD", "PARKED", "FAILED"} {
			name := upstreams[i].Name
			if !slices.ContainsFunc(queues, func(q store.Queue) bool { return q.Upstream == name && q.State == state }) {
				queues = append(queues, store.Queue{Upstream: name, State: state})
			}
		}
	}
	return queues
}

// watchKeys shows how many keys come to the end of their time or uses, as the
// sweeper found them.
func (m *metrics) watchKeys(c *custody.Custody) {
	near := describe("keyd_keys_near_end", "Keys in use that are past the first threshold of their limit, or refused for it (over).", "limit", "state")
	next := describe("keyd_keys_next_end_seconds", "Seconds until the next cryptoperiod ends; absent where no key in use has one.")
	m.registry.MustRegister(asked{[]*prometheus.Desc{near, next}, func(_ context.Context, ch chan<- prometheus.Metric) {
		l := c.KeyLimits()
		ch <- gaugeOf(near, float64(l.PeriodWarned), "period", "warned")
		ch <- gaugeOf(near, float64(l.PeriodOver), "period", "over")
		ch <- gaugeOf(near, float64(l.UsesWarned), "uses", "warned")
		ch <- gaugeOf(near, float64(l.UsesOver), "uses", "over")
		if !l.NextEnd.IsZero() {
			ch <- gaugeOf(next, time.Until(l.NextEnd).Seconds())
		}
	}})
}

// sweepMetrics is what the daemon counts of the sweeper of keys.
type sweepMetrics struct {
	runs *prometheus.CounterVec
	last atomic.Int64 // Unix nanoseconds of the last success; of the start before
}

func (s *sweepMetrics) register(m *metrics) {
	s.runs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keyd_sweeps_total", Help: "Runs of the sweeper of keys: ok, or failed, which is tried again.",
	}, []string{"result"})
	s.runs.WithLabelValues("ok")
	s.runs.WithLabelValues("failed")
	s.last.Store(time.Now().UnixNano())
	m.registry.MustRegister(s.runs)
	m.gauge("keyd_sweep_age_seconds", "Time since the last run of the sweeper that did all it had to.", nil, func() float64 {
		return time.Since(time.Unix(0, s.last.Load())).Seconds()
	})
}

// swept hears of each run.
func (s *sweepMetrics) swept(err error) {
	if err != nil {
		s.runs.WithLabelValues("failed").Inc()
		return
	}
	s.runs.WithLabelValues("ok").Inc()
	s.last.Store(time.Now().UnixNano())
}

// watchCertificates shows the lives of the certificates in use, of the CAs that
// peers are checked against and of revocation lists.
func (m *metrics) watchCertificates(section string, c *credentials.TLS) {
	m.certs.WithLabelValues(section)
	label := prometheus.Labels{"section": section}
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, label) }
	var (
		left = desc("keyd_certificate_expiry_seconds", "Seconds until keyd's own certificate expires.")
		life = desc("keyd_certificate_life_seconds", "Its whole life.")
		ca   = desc("keyd_certificate_ca_expiry_seconds", "Seconds until the first of the CAs expires that peers are checked against.")
		crl  = desc("keyd_crl_next_update_seconds", "Seconds until the revocation list must be renewed; negative: it is out of date. Absent without one.")
	)
	m.registry.MustRegister(asked{[]*prometheus.Desc{left, life, ca, crl}, func(_ context.Context, ch chan<- prometheus.Metric) {
		l := c.Life()
		if !l.Ends.IsZero() {
			ch <- gaugeOf(left, time.Until(l.Ends).Seconds())
			ch <- gaugeOf(life, l.Ends.Sub(l.Begins).Seconds())
		}
		if !l.CA.IsZero() {
			ch <- gaugeOf(ca, time.Until(l.CA).Seconds())
		}
		if !l.NextUpdate.IsZero() {
			ch <- gaugeOf(crl, time.Until(l.NextUpdate).Seconds())
		}
	}})
}
