package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// partCollector shows what /readyz says. The parts are a closed list.
type partCollector struct {
	ops  *opsServer
	desc *prometheus.Desc
}

func newPartCollector(ops *opsServer) partCollector {
	return partCollector{ops, prometheus.NewDesc("keyd_part_ready",
		"1 while this part of the node is usable; /readyz says why it is not.", []string{"part"}, nil)}
}

// Describe implements prometheus.Collector.
func (c partCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c partCollector) Collect(ch chan<- prometheus.Metric) {
	for name, p := range c.ops.examine(context.Background()) {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, truth(p.err == nil), name)
	}
}
