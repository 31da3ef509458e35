package main

import (
	"time"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
)

const mostRate = 10_000_000 // requests in a second

// limitDefaults puts the documented defaults where the file says nothing.
func (a *apiConfig) limitDefaults() {
	def(&a.ConcurrentRequests, api.DefaultConcurrent)
	def(&a.RequestsInWork, api.DefaultInWork)
	def(&a.QueueWait, duration(api.DefaultWait))
	def(&a.Connections, api.DefaultConnections)
	def(&a.ClientConnections, api.DefaultClientConnections)
	def(&a.Handshakes, api.DefaultHandshakes)
	def(&a.DrainLimit, duration(10*time.Second))
}

// limits checks the limits of [api].
func (k *configCheck) limits(a *apiConfig) {
	k.between("api.requests_per_second", a.RequestsPerSecond, 0, mostRate)
	k.between("api.burst", a.Burst, 0, mostRate)
	k.want(a.Burst == 0 || a.RequestsPerSecond > 0, "api.burst", "is of no use without requests_per_second")
	k.between("api.concurrent_requests", a.ConcurrentRequests, 1, 1_000_000)
	k.between("api.requests_in_work", a.RequestsInWork, 1, 100_000)
	k.span("api.queue_wait", a.QueueWait, time.Millisecond, 30*time.Second)
	k.between("api.connections", a.Connections, 1, 1_000_000)
	k.between("api.client_connections", a.ClientConnections, 1, 1_000_000)
	k.between("api.handshakes", a.Handshakes, 1, 100_000)
	k.between("api.most_keys", a.MostKeys, 0, 1_000_000_000)
	k.between("api.most_aliases", a.MostAliases, 0, 1_000_000_000)
	k.span("api.drain_grace", a.DrainGrace, 0, 10*time.Minute)
	k.span("api.drain_limit", a.DrainLimit, 100*time.Millisecond, 10*time.Minute)
}

// clientLimits checks what a client has in place of the limits of [api].
func (k *configCheck) clientLimits(at string, c clientConfig) {
	k.between(at+".requests_per_second", c.RequestsPerSecond, 0, mostRate)
	k.between(at+".burst", c.Burst, 0, mostRate)
	k.between(at+".concurrent_requests", c.ConcurrentRequests, 0, 1_000_000)
	k.between(at+".connections", c.Connections, 0, 1_000_000)
}

// limits are those of the API as it takes them.
func (c *config) limits() api.Limits {
	a := &c.API
	l := api.Limits{
		Default: api.ClientLimits{PerSecond: a.RequestsPerSecond, Burst: a.Burst, Concurrent: a.ConcurrentRequests, Connections: a.ClientConnections},
		Clients: make(map[string]api.ClientLimits),
		InWork:  a.RequestsInWork, Wait: a.QueueWait.std(), Connections: a.Connections, Handshakes: a.Handshakes,
	}
	for _, one := range c.Client {
		l.Clients[one.Name] = api.ClientLimits{
			PerSecond: one.RequestsPerSecond, Burst: one.Burst, Concurrent: one.ConcurrentRequests, Connections: one.Connections,
		}
	}
	return l
}

// quotas bound what may be stored.
func (c *config) quotas() custody.Quotas {
	return custody.Quotas{Keys: c.API.MostKeys, Aliases: c.API.MostAliases}
}
