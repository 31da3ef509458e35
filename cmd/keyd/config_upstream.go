package main

import (
	"fmt"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// linkConfig is one of several links to an upstream.
type linkConfig struct {
	Name        string   `toml:"name" comment:"Name in metrics, primary say."`
	Addr        string   `toml:"addr" comment:"Address and port."`
	ServerName  string   `toml:"server_name,omitempty" comment:"Name in its certificate; default the host of addr."`
	CA          string   `toml:"ca,omitempty" comment:"Who may sign its certificate, PEM; default that of the upstream."`
	Cert        string   `toml:"cert,omitempty" comment:"Our client certificate, PEM, or vault:NAME of a [[vault_certificate]]; default that of the upstream."`
	Key         string   `toml:"key,omitempty" comment:"Its key, PEM; default that of the upstream."`
	MinTLS      string   `toml:"min_tls,omitempty" comment:"\"1.3\" or \"1.2\"; default that of the upstream."`
	DialTimeout duration `toml:"dial_timeout,omitempty" comment:"Time to connect; default that of the upstream."`
}

// routeConfig says which sales go to an upstream.
type routeConfig struct {
	Name      string   `toml:"name" comment:"Name of the route." reload:"yes"`
	Upstream  string   `toml:"upstream" comment:"Name of the [[upstream]]." reload:"yes"`
	Merchants []string `toml:"merchants,omitempty" comment:"MIDs whose sales take it, 15 characters each; default all of them." reload:"yes"`
	BINs      []string `toml:"bins,omitempty" comment:"Beginnings of card numbers, \"4000\", or ranges of them, \"510000-559999\"; default all of them." reload:"yes"`
}

// ends are the links of an upstream: those that it lists, with what it says for
// all of them, or the one that it is in its short form.
func (u *upstreamConfig) ends() []linkConfig {
	if len(u.Link) == 0 {
		return []linkConfig{{"primary", u.Addr, u.ServerName, u.CA, u.Cert, u.Key, u.MinTLS, u.DialTimeout}}
	}
	ends := make([]linkConfig, 0, len(u.Link))
	for _, l := range u.Link {
		def(&l.CA, u.CA)
		if l.Cert == "" && l.Key == "" {
			l.Cert, l.Key = u.Cert, u.Key
		}
		def(&l.MinTLS, u.MinTLS)
		def(&l.DialTimeout, u.DialTimeout)
		ends = append(ends, l)
	}
	return ends
}

func (l *linkConfig) tls() tlsConfig {
	return tlsConfig{Cert: l.Cert, Key: l.Key, CA: l.CA, MinTLS: l.MinTLS}
}

// at is where the n-th link stands in the file.
func (u *upstreamConfig) at(upstream, n int) string {
	if len(u.Link) == 0 {
		return fmt.Sprintf("upstream[%d]", upstream)
	}
	return fmt.Sprintf("upstream[%d].link[%d]", upstream, n)
}

// links checks all links of all upstreams, and that nothing is called as another.
func (k *configCheck) links(list []upstreamConfig) {
	hosts := make(map[string]bool)
	for i := range list {
		u, links := &list[i], make(map[string]bool)
		at := fmt.Sprintf("upstream[%d]", i)
		k.want(!hosts[u.Name], at+".name", "%q stands twice", u.Name)
		hosts[u.Name] = true
		for n := range i {
			other := &list[n]
			changes := u.ExchangeKey != "" || other.ExchangeKey != ""
			k.want(!changes || u.ZPK != other.ZPK, at+".zpk", "%q is that of upstream[%d] too, and a host with key_exchange_key would change it for both; give each upstream a zone key of its own", u.ZPK, n)
			k.want(!changes || u.ZAK != other.ZAK, at+".zak", "%q is that of upstream[%d] too, and a host with key_exchange_key would change it for both; give each upstream a zone key of its own", u.ZAK, n)
		}
		k.want(len(u.Link) == 0 || u.Addr == "" && u.ServerName == "", at+".addr", "stands beside [[upstream.link]]; give each link its addr and server_name")
		for n, l := range u.ends() {
			at := u.at(i, n)
			k.address(at+".addr", l.Addr)
			k.want(l.CA != "", at+".ca", "needs the CA file that the upstream's certificate is checked against")
			k.want((l.Cert == "") == (l.Key == "") || isIssued(l.Cert), at+".cert", "cert and key go together")
			k.minTLS(at, l.MinTLS)
			k.span(at+".dial_timeout", l.DialTimeout, 100*time.Millisecond, time.Minute)
			k.want(len(u.Link) == 0 || clientName.MatchString(l.Name), at+".name", "needs a name of letters, digits and ._:/@+-")
			k.want(!links[l.Name], at+".name", "%q stands twice", l.Name)
			links[l.Name] = true
		}
	}
}

// routes checks each route for itself, and then that no two are for the same
// sales.
func (k *configCheck) routes(c *config) {
	if c.Switch.Listen == "" {
		return
	}
	k.want(len(c.Upstream) > 0, "upstream", "the switch needs an [[upstream]] to which sales go")
	names := make(map[string]bool)
	good := len(c.Upstream) > 0
	for i, r := range c.Route {
		at := fmt.Sprintf("switch_route[%d]", i)
		k.want(clientName.MatchString(r.Name), at+".name", "needs a name of letters, digits and ._:/@+-")
		k.want(!names[r.Name], at+".name", "%q stands twice", r.Name)
		names[r.Name] = true
		for key, one := range map[string]isoswitch.Route{
			"upstream": {}, "merchants": {Merchants: r.Merchants}, "bins": {BINs: r.BINs},
		} {
			one.Name, one.Upstream = r.Name, r.Upstream
			known := c.upstreamNames()
			if key != "upstream" {
				known = []string{r.Upstream}
			}
			err := isoswitch.CheckRoutes([]isoswitch.Route{one}, known)
			k.want(err == nil, at+"."+key, "%s", inWords(err))
			good = good && err == nil
		}
	}
	if good {
		err := isoswitch.CheckRoutes(c.routesOf(), c.upstreamNames())
		k.want(err == nil, "switch_route[0]", "%s", inWords(err))
	}
}

func (c *config) upstreamNames() []string {
	names := make([]string, 0, len(c.Upstream))
	for i := range c.Upstream {
		names = append(names, c.Upstream[i].Name)
	}
	return names
}

func (c *config) routesOf() []isoswitch.Route {
	routes := make([]isoswitch.Route, 0, len(c.Route))
	for _, r := range c.Route {
		routes = append(routes, isoswitch.Route{Name: r.Name, Upstream: r.Upstream, Merchants: r.Merchants, BINs: r.BINs})
	}
	return routes
}

// issuerAddr is where the issuer of `keyd dev` answers: the first upstream's link,
// or the last of its links, so that a trial can leave those before it unanswered.
func (c *config) issuerAddr() *string {
	u := &c.Upstream[0]
	if n := len(u.Link); n > 0 {
		return &u.Link[n-1].Addr
	}
	return &u.Addr
}
