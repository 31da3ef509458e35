package main

import (
	"context"
	"net"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// upstreams are those of the configuration, with their certificates.
func (d *daemon) upstreams() ([]isoswitch.Upstream, error) {
	hosts := make([]isoswitch.Upstream, 0, len(d.cfg.Upstream))
	routed := len(d.cfg.Route) == 0
	for i := range d.cfg.Upstream {
		u := &d.cfg.Upstream[i]
		speaks, head, err := u.hostSpeech()
		if err != nil {
			return nil, err
		}
		host := isoswitch.Upstream{
			Profile: speaks, Head: head,
			Name:   u.Name,
			PINKey: custody.Ref{Alias: u.ZPK}, MACKey: custody.Ref{Alias: u.ZAK}, ExchangeKey: custody.Ref{Alias: u.ExchangeKey}, KeyAge: u.KeyAge.std(),
			TID: u.TID, MID: u.MID, Acquirer: u.AcquirerID,
			Echo: u.Echo.std(), FailBack: u.FailBack.std(), Silence: u.Silence,
		}
		for _, l := range u.ends() {
			end, err := d.endpoint(u, &l)
			if err != nil {
				return nil, err
			}
			host.Links = append(host.Links, end)
		}
		hosts = append(hosts, host)
		if !routed && !d.cfg.isRouted(u.Name) {
			d.log.Warn("no route leads to an upstream: it gets what is owed to it, and no sales", "upstream", u.Name)
		}
	}
	return hosts, nil
}

func (d *daemon) endpoint(u *upstreamConfig, l *linkConfig) (isoswitch.Endpoint, error) {
	files, err := d.certificates(d.cfg.endName(u, l), l.tls())
	if err != nil {
		return isoswitch.Endpoint{}, err
	}
	name := l.ServerName
	if name == "" {
		if name, _, err = net.SplitHostPort(l.Addr); err != nil {
			return isoswitch.Endpoint{}, err
		}
	}
	wait := l.DialTimeout.std()
	return isoswitch.Endpoint{
		Name: l.Name, Addr: l.Addr, TLS: files.Client(name),
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Timeout: wait}).DialContext(ctx, "tcp", addr)
		},
	}, nil
}

// endName is what metrics and messages call a link: "upstream" where there is one
// alone.
func (c *config) endName(u *upstreamConfig, l *linkConfig) string {
	if len(c.Upstream) == 1 && len(u.Link) == 0 {
		return "upstream"
	}
	return "upstream " + u.Name + " " + l.Name
}

func (c *config) isRouted(upstream string) bool {
	for _, r := range c.Route {
		if r.Upstream == upstream {
			return true
		}
	}
	return false
}
