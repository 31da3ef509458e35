package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

// twoHosts has two upstreams, the second with two links, and routes.
var twoHosts = strings.Replace(goodConfig, "[[client]]", `[[upstream]]
name = "other"
ca = "other.pem"
cert = "us.pem"
key = "us.key"
zpk = "alias/zpk2"
zak = "alias/zak2"
acquirer_id = "123456"
[[upstream.link]]
name = "primary"
addr = "p.example:1"
[[upstream.link]]
name = "secondary"
addr = "s.example:2"
server_name = "host.example"
ca = "second.pem"
cert = "second-us.pem"
key = "second-us.key"
min_tls = "1.2"
[[switch_route]]
name = "cards"
upstream = "other"
bins = ["4000", "510000-559999"]
[[switch_route]]
name = "rest"
upstream = "host"
[[client]]`, 1)

func TestUpstreamLinks(t *testing.T) {
	cfg, err := loadText(t, twoHosts)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(filepath.Dir(cfg.path), name) }
	wait := duration(5 * time.Second)
	want := [][]linkConfig{
		{{"primary", "host.example:8583", "", in("ca.pem"), "", "", "1.3", wait}},
		{
			{"primary", "p.example:1", "", in("other.pem"), in("us.pem"), in("us.key"), "1.3", wait},
			{"secondary", "s.example:2", "host.example", in("second.pem"), in("second-us.pem"), in("second-us.key"), "1.2", wait},
		},
	}
	got := [][]linkConfig{cfg.Upstream[0].ends(), cfg.Upstream[1].ends()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	routes := []isoswitch.Route{
		{Name: "cards", Upstream: "other", BINs: []string{"4000", "510000-559999"}}, {Name: "rest", Upstream: "host"},
	}
	if diff := cmp.Diff(routes, cfg.routesOf()); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if got := cfg.connects()[:3]; !cmp.Equal(got, []string{"host.example:8583", "p.example:1", "s.example:2"}) {
		t.Errorf("the sandbox lets the daemon connect to %v", got)
	}
}

func TestUpstreamsRefused(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"two of one name", `name = "other"`, `name = "host"`, `upstream[1].name: "host" stands twice`},
		{"an address beside links", `acquirer_id = "123456"`, `addr = "a:1"`, "upstream[1].addr: stands beside [[upstream.link]]"},
		{"no address and no link", `addr = "host.example:8583"`, ``, "upstream[0].addr:"},
		{"a link without an address", `addr = "s.example:2"`, ``, "upstream[1].link[1].addr:"},
		{"the line of a link", `addr = "s.example:2"`, `addr = "s.example"`, ":41: upstream[1].link[1].addr:"},
		{"two links of one name", `name = "secondary"`, `name = "primary"`, `upstream[1].link[1].name: "primary" stands twice`},
		{"a link without a name", `name = "secondary"`, ``, "upstream[1].link[1].name: needs"},
		{"a certificate without its key", `key = "second-us.key"`, ``, "upstream[1].link[1].cert: cert and key go together"},
		{"no CA", `ca = "other.pem"`, ``, "upstream[1].link[0].ca: needs the CA file"},
		{"TLS of before", `min_tls = "1.2"`, `min_tls = "1.1"`, "upstream[1].link[1].min_tls"},
		{"a zone PIN key of two, one of whom changes it", `zpk = "alias/zpk2"`, "zpk = \"alias/zpk\"\nkey_exchange_key = \"alias/kek\"", `upstream[1].zpk: "alias/zpk" is that of upstream[0] too`},
		{"a zone MAC key of two, one of whom changes it", `zak = "alias/zak2"`, "zak = \"alias/zak\"\nkey_exchange_key = \"alias/kek\"", `upstream[1].zak: "alias/zak" is that of upstream[0] too`},
		{"an acquirer id of letters", `"123456"`, `"x"`, "upstream[1].acquirer_id"},
		{"a route to nobody", `upstream = "other"`, `upstream = "nobody"`, `switch_route[0].upstream: route cards: there is no upstream "nobody"`},
		{"a BIN that is none", `"4000"`, `"4x"`, `switch_route[0].bins: route cards: "4x" is neither`},
		{"a merchant that is none", `bins = [`, "merchants = [\"M1\"]\nbins = [", `switch_route[0].merchants: route cards: "M1" is no merchant`},
		{"two routes for one sale", `bins = ["4000", "510000-559999"]`, ``, "routes cards and rest are for the same sales"},
		{"two routes of one name", `name = "rest"`, `name = "cards"`, `switch_route[1].name: "cards" stands twice`},
		{"no routes to two", "[[switch_route]]\nname = \"cards\"\nupstream = \"other\"\nbins = [\"4000\", \"510000-559999\"]\n[[switch_route]]\nname = \"rest\"\nupstream = \"host\"\n", "", "there are 2 upstreams and no routes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(twoHosts, tt.old, tt.new, 1)
			if text == twoHosts {
				t.Fatal("the case changes nothing")
			}
			_, err := loadText(t, text)
			if !errors.Is(err, errConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v does not say %q", err, tt.want)
			}
		})
	}
}
