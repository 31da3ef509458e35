package main

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram counts durations in fixed buckets. It is observed on the path of
// every request: an observation is two atomic additions and a search among a
// dozen numbers.
type histogram struct {
	bounds []time.Duration // upper, ascending
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64    // nanoseconds
}

func newHistogram(bounds []time.Duration) *histogram {
	return &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(d time.Duration) {
	n := 0
	for n < len(h.bounds) && d > h.bounds[n] {
		n++
	}
	h.counts[n].Add(1)
	h.sum.Add(int64(d))
}

// metric shows what was counted; ok is false where nothing was.
func (h *histogram) metric(desc *prometheus.Desc, labels ...string) (m prometheus.Metric, ok bool) {
	buckets := make(map[float64]uint64, len(h.bounds))
	total := uint64(0)
	for n, bound := range h.bounds {
		total += h.counts[n].Load()
		buckets[bound.Seconds()] = total
	}
	total += h.counts[len(h.bounds)].Load()
	sum := time.Duration(h.sum.Load()).Seconds()
	return prometheus.MustNewConstHistogram(desc, total, sum, buckets, labels...), total > 0
}

// histograms are histograms of one name, one for each combination of labels.
// The combinations are a closed list, made before the first observation, so
// that finding one takes no lock.
type histograms struct {
	desc *prometheus.Desc
	each map[[2]string]*histogram
	n    int // labels
}

// newHistograms makes a histogram for each row of values, which has as many as
// there are labels: none, one or two.
func newHistograms(name, help string, bounds []time.Duration, labels []string, values ...[]string) *histograms {
	h := &histograms{desc: prometheus.NewDesc(name, help, labels, nil), each: make(map[[2]string]*histogram), n: len(labels)}
	for _, row := range values {
		h.each[labelKey(row)] = newHistogram(bounds)
	}
	return h
}

func labelKey(values []string) (key [2]string) {
	copy(key[:], values)
	return key
}

// of returns the histogram with these values; nil for values that are not of
// the list.
func (h *histograms) of(values ...string) *histogram { return h.each[labelKey(values)] }

// Describe implements prometheus.Collector.
func (h *histograms) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector. What was never observed is not shown.
func (h *histograms) Collect(ch chan<- prometheus.Metric) {
	for key, one := range h.each {
		if m, seen := one.metric(h.desc, key[:h.n]...); seen || h.n == 0 {
			ch <- m
		}
	}
}

// requestBounds are from what a MAC takes to what a switch gives up at.
func requestBounds() []time.Duration {
	return milliseconds(.1, .25, .5, 1, 2, 5, 10, 15, 20, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000)
}

// stepBounds are for the steps inside: a call into the module, a flush.
func stepBounds() []time.Duration {
	return milliseconds(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000, 2500)
}

func milliseconds(all ...float64) []time.Duration {
	out := make([]time.Duration, len(all))
	for i, ms := range all {
		out[i] = time.Duration(ms * float64(time.Millisecond))
	}
	return out
}
