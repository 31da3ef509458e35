package custody_test

import (
	"crypto/x509"
	"net/url"
	"testing"

	"keyd.dev/keyd/internal/custody"
)

// TestScope: which terminals a client of the role terminal may speak for.
func TestScope(t *testing.T) {
	const mid = "M00000000000001"
	for _, c := range []struct {
		name                 string
		uri                  string // of the client; the certificate's is spiffe://x/T0000105
		terminals, merchants []string
		has, hasNot          []string
	}{
		{"no list", "spiffe://x/T0000105", nil, nil, []string{"T0000105", "anything"}, nil},
		{"a name", "spiffe://x/T0000105", []string{"T0000001"}, nil, []string{"T0000001"}, []string{"T0000002", "t0000001", ""}},
		{"a range", "spiffe://x/T0000105", []string{"T0000100-T0000149"}, nil, []string{"T0000100", "T0000149", "T0000120"}, []string{"T0000099", "T0000150", "T00001", "T0000120X"}},
		{"a pattern", "spiffe://x/T0000105", []string{"K*", "T00000??"}, nil, []string{"K1234567", "T0000012"}, []string{"T0000112"}},
		{"merchants", "spiffe://x/T0000105", nil, []string{mid}, []string{"T0000001", "K0000000"}, nil},
		{"another merchant", "spiffe://x/T0000105", nil, []string{"M00000000000002"}, nil, []string{"T0000001"}},
		{"both must fit", "spiffe://x/T0000105", []string{"T0000001"}, []string{"M00000000000002"}, nil, []string{"T0000001"}},
		{"its own certificate", "spiffe://x/{tid}", nil, nil, []string{"T0000105"}, []string{"T0000106", ""}},
		{"its own, and in the list", "spiffe://x/{tid}", []string{"T0000100-T0000149"}, nil, []string{"T0000105"}, []string{"T0000106"}},
		{"its own, and not in the list", "spiffe://x/{tid}", []string{"T0000106"}, nil, nil, []string{"T0000105", "T0000106"}},
		{"its own, of another merchant", "spiffe://x/{tid}", nil, []string{"M00000000000002"}, nil, []string{"T0000105"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRoom(t, nil)
			client := custody.Client{Name: "link", URI: c.uri, Roles: []custody.Role{custody.RoleTerminal}, Terminals: c.terminals, Merchants: c.merchants}
			if _, err := b.Custody.Renew(t.Context(), custody.Settings{Clients: []custody.Client{client}}); err != nil {
				t.Fatal(err)
			}
			found, err := b.Custody.Identify(identity(t, "spiffe://x/T0000105"))
			if err != nil {
				t.Fatal(err)
			}
			for _, tid := range c.has {
				if !found.Scope().Has(tid, mid) {
					t.Errorf("%q is not in it", tid)
				}
			}
			for _, tid := range c.hasNot {
				if found.Scope().Has(tid, mid) {
					t.Errorf("%q is in it", tid)
				}
			}
			for _, uri := range []string{"spiffe://x/T00001050", "spiffe://x/T000010", "spiffe://y/T0000105", "spiffe://x/"} {
				if _, err := b.Custody.Identify(identity(t, uri)); err == nil {
					t.Errorf("%s is a client", uri)
				}
			}
			if _, err := b.Custody.Identify(&x509.Certificate{DNSNames: []string{c.uri}}); c.uri == "spiffe://x/{tid}" && err == nil {
				t.Error("a certificate for {tid} itself is a client")
			}
		})
	}
}

func identity(t *testing.T, uri string) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{URIs: []*url.URL{u}}
}

// TestScopeRefused: what no client can have.
func TestScopeRefused(t *testing.T) {
	terminal := []custody.Role{custody.RoleTerminal}
	for name, client := range map[string]custody.Client{
		"a short TID":                      {Roles: terminal, Terminals: []string{"T1"}},
		"a range that ends too early":      {Roles: terminal, Terminals: []string{"T0000002-T0000001"}},
		"a range of MIDs":                  {Roles: terminal, Terminals: []string{"M00000000000001-M00000000000002"}},
		"a pattern that is none":           {Roles: terminal, Terminals: []string{"T[000000"}},
		"a short MID":                      {Roles: terminal, Merchants: []string{"M1"}},
		"terminals of an administrator":    {Roles: []custody.Role{custody.RoleAdmin}, Terminals: []string{"T0000001"}},
		"terminals beside another role":    {Roles: []custody.Role{custody.RoleTerminal, custody.RoleApplication}, Terminals: []string{"T0000001"}},
		"many certificates, administrator": {URI: "x/{tid}", Roles: []custody.Role{custody.RoleAdmin}},
		"{tid} twice":                      {URI: "x/{tid}/{tid}", Roles: terminal},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRoom(t, nil)
			client.Name = "link"
			if client.URI == "" {
				client.URI = "spiffe://x/y"
			}
			if _, err := b.Custody.Renew(t.Context(), custody.Settings{Clients: []custody.Client{client}}); err == nil {
				t.Error("it was taken")
			}
		})
	}
}
