package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"keyd.dev/keyd/internal/isoswitch"
)

// watchUpstreams shows the state of each upstream and of each link to it.
func (m *metrics) watchUpstreams(sw *isoswitch.Switch) {
	var (
		up       = describe("keyd_upstream_up", "1 while messages go to this upstream, over a link that is signed on.", "upstream")
		resting  = describe("keyd_upstream_breaker_open", "1 while the queue of reversals for this upstream rests, because it answers none of them.", "upstream")
		moved    = describe("keyd_upstream_link_changes_total", "How often messages went over another link than before.", "upstream")
		linkUp   = describe("keyd_upstream_link_up", "1 while this link is connected, signed on, and its messages are answered.", "upstream", "link")
		chosen   = describe("keyd_upstream_link_chosen", "1 while messages go over this link.", "upstream", "link")
		connects = describe("keyd_upstream_link_connections_total", "Connections that were made.", "upstream", "link")
		messages = describe("keyd_upstream_link_messages_total", "Messages sent over this link, received, and sent and not answered in time (silent).", "upstream", "link", "kind")
	)
	descs := []*prometheus.Desc{up, resting, moved, linkUp, chosen, connects, messages}
	m.registry.MustRegister(asked{descs, func(_ context.Context, ch chan<- prometheus.Metric) {
		for _, u := range sw.Status().Upstreams {
			ch <- gaugeOf(up, truth(u.Up && u.SignedOn), u.Name)
			ch <- gaugeOf(resting, truth(u.Resting), u.Name)
			ch <- counterOf(moved, float64(u.Moved), u.Name)
			for _, l := range u.Links {
				ch <- gaugeOf(linkUp, truth(l.State == isoswitch.LinkSignedOn), u.Name, l.Name)
				ch <- gaugeOf(chosen, truth(l.Chosen), u.Name, l.Name)
				ch <- counterOf(connects, float64(l.Connects), u.Name, l.Name)
				for kind, n := range map[string]uint64{"sent": l.Sent, "received": l.Frames, "silent": l.Silent} {
					ch <- counterOf(messages, float64(n), u.Name, l.Name, kind)
				}
			}
		}
	}})
}
