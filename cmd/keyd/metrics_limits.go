package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/api"
)

// limitCollector shows what clients have of the API, and what they were refused
// of it. Its labels are names of the configuration and "unknown".
type limitCollector struct {
	door                                      *api.Handler
	requests, connections, throttled, waiting *prometheus.Desc
}

func newLimitCollector(door *api.Handler) *limitCollector {
	return &limitCollector{
		door:        door,
		requests:    prometheus.NewDesc("keyd_api_client_requests", "Requests of a client that have no answer yet.", []string{"client"}, nil),
		connections: prometheus.NewDesc("keyd_api_client_connections", "Open connections of a client.", []string{"client"}, nil),
		throttled:   prometheus.NewDesc("keyd_api_throttled_total", "Requests and connections of a client that were refused for their number, by the limit.", []string{"client", "limit"}, nil),
		waiting:     prometheus.NewDesc("keyd_api_waiting", "API requests that wait for their turn.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *limitCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.connections, c.throttled, c.waiting} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *limitCollector) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(c.door.Waiting()))
	for _, use := range c.door.Use() {
		to <- prometheus.MustNewConstMetric(c.requests, prometheus.GaugeValue, float64(use.Requests), use.Client)
		to <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(use.Connections), use.Client)
		for limit, n := range use.Throttled {
			to <- prometheus.MustNewConstMetric(c.throttled, prometheus.CounterValue, float64(n), use.Client, limit)
		}
	}
}
