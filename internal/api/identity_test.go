package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/custody"
)

// TestRoles is the matrix of roles and operations over the real listener
// . What a role may not do is AccessDeniedException, whether or not the
// key exists.
func TestRoles(t *testing.T) {
	b := newBench(t)
	all := loadWireExamples(t)
	data := []string{"TranslatePinData", "GenerateMac", "VerifyMac"}
	read := []string{"GetKey", "ListKeys", "GetAlias"}
	write := []string{"CreateKey", "CreateAlias"}
	requests := map[string]string{
		"TranslatePinData": string(all["tp-static-1-to-3"].Request),
		"GenerateMac":      string(all["gm-alg3"].Request),
		"VerifyMac":        string(all["vm-alg3"].Request),
		"GetKey":           string(all["get-key"].Request),
		"ListKeys":         `{}`,
		"GetAlias":         string(all["get-alias"].Request),
		"CreateKey":        string(all["create-key"].Request),
		"CreateAlias":      b.local(string(all["create-alias"].Request)),
	}
	missing := map[string]string{
		"TranslatePinData": strings.Replace(requests["TranslatePinData"], "alias/tpk-17", "alias/none", 1),
		"GenerateMac":      strings.Replace(requests["GenerateMac"], "alias/tak-42", "alias/none", 1),
		"VerifyMac":        strings.Replace(requests["VerifyMac"], "alias/tak-42", "alias/none", 1),
		"GetKey":           `{"KeyIdentifier":"alias/none"}`,
		"GetAlias":         `{"AliasName":"alias/none"}`,
	}
	may := map[string][]string{
		"switch-a":  append(append([]string{}, data...), read...),
		"admin":     append(append([]string{}, write...), read...),
		"operator":  read,
		"custodian": nil, "auditor": nil, "terminal": nil, "nobody": nil,
	}
	for name, allowed := range may {
		client := b.client(t, name)
		granted := make(map[string]bool)
		for _, op := range allowed {
			granted[op] = true
		}
		for _, op := range append(append(append([]string{}, data...), read...), write...) {
			t.Run("R-56 "+name+" "+op, func(t *testing.T) {
				a := b.call(t, client, op, requests[op])
				_, control := dataPath(op)
				status := 403
				if control {
					status = 400
				}
				if granted[op] {
					b.success(t, a, op)
					return
				}
				answer := b.failure(t, a, op, "AccessDeniedException", status)
				want := "caller may not use this key for this operation"
				if control {
					want = "caller may not perform " + op
				}
				if answer["Message"] != want {
					t.Errorf("message %v, want %s", answer["Message"], want)
				}
				if body, ok := missing[op]; ok {
					other := b.failure(t, b.call(t, client, op, body), op, "AccessDeniedException", status)
					if other["Message"] != want {
						t.Errorf("a key that does not exist is told apart: %v", other["Message"])
					}
				}
			})
		}
	}
}

// TestKeyPatterns: a client with patterns may use the keys of fitting aliases,
// however it names them, and learns nothing of others (section 17, row 2).
func TestKeyPatterns(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-b") // alias/zpk-*
	get := func(t *testing.T, name string) answer {
		t.Helper()
		return b.call(t, client, "GetKey", `{"KeyIdentifier":"`+name+`"}`)
	}
	t.Run("by alias", func(t *testing.T) { b.success(t, get(t, "alias/zpk-a"), "GetKey") })
	t.Run("by ARN", func(t *testing.T) { b.success(t, get(t, b.arn("alias/zpk-a")), "GetKey") })
	t.Run("alias that fits and does not exist", func(t *testing.T) {
		b.failure(t, get(t, "alias/zpk-none"), "GetKey", "ResourceNotFoundException", 400)
	})
	for _, name := range []string{
		"alias/tak-42", b.arn("alias/tak-42"), "alias/none",
		"arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/00000000000000000000000000000000",
	} {
		t.Run("refused "+name[:10], func(t *testing.T) {
			b.failure(t, get(t, name), "GetKey", "AccessDeniedException", 400)
		})
	}
	t.Run("both keys of a translation", func(t *testing.T) {
		body := string(loadWireExamples(t)["tp-static-1-to-3"].Request)
		b.failure(t, b.call(t, client, "TranslatePinData", body), "TranslatePinData", "AccessDeniedException", 403)
	})
	t.Run("lists only what it may use", func(t *testing.T) {
		list := b.success(t, b.call(t, client, "ListKeys", `{}`), "ListKeys")["Keys"].([]any)
		if len(list) != 3 {
			t.Errorf("%d keys, want the 3 zone PIN keys", len(list))
		}
	})
}

// TestCertificates: who gets as far as an answer (C-06, section 2).
func TestCertificates(t *testing.T) {
	b := newBench(t)
	body := string(loadWireExamples(t)["vm-alg3"].Request)
	u := func(text string) *url.URL {
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, c := range []struct {
		name string
		cert func(*x509.Certificate)
		ok   bool
	}{
		{"C-06 URI of a client", func(c *x509.Certificate) { c.URIs = []*url.URL{u("spiffe://keyd.test/switch-a")} }, true},
		{"C-06 DNS name of a client", byDNS, true},
		{"C-06 the URI counts, not the DNS name", func(c *x509.Certificate) {
			c.URIs, c.DNSNames = []*url.URL{u("spiffe://keyd.test/other")}, []string{"switch-dns.keyd.test"}
		}, false},
		{"C-06 the first URI counts", func(c *x509.Certificate) {
			c.URIs = []*url.URL{u("spiffe://keyd.test/other"), u("spiffe://keyd.test/switch-a")}
		}, false},
		{"C-06 unknown URI", func(c *x509.Certificate) { c.URIs = []*url.URL{u("spiffe://keyd.test/other")} }, false},
		{"C-06 unknown DNS name", func(c *x509.Certificate) { c.DNSNames = []string{"other.keyd.test"} }, false},
		{"C-06 common name only", func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "spiffe://keyd.test/switch-a"}
		}, false},
		{"C-06 no name at all", func(*x509.Certificate) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := b.clientWith(t, b.certificate(t, c.cert))
			a := b.call(t, client, "VerifyMac", body)
			if c.ok {
				b.success(t, a, "VerifyMac")
				return
			}
			b.failure(t, a, "VerifyMac", "AccessDeniedException", 403)
			b.failure(t, b.call(t, client, "ListKeys", `{}`), "ListKeys", "AccessDeniedException", 400)
			b.failure(t, b.call(t, client, "Nothing", `{}`), "ListKeys", "AccessDeniedException", 400)
		})
	}
}

// TestHandshake: without a certificate of the CA there is no HTTP at all, and
// TLS is what C-07 says.
func TestHandshake(t *testing.T) {
	b := newBench(t)
	stranger := strangerCertificate(t)
	for _, c := range []struct {
		name   string
		config *tls.Config
	}{
		{"no certificate", &tls.Config{}},
		{"certificate of another CA", &tls.Config{Certificates: []tls.Certificate{stranger}}},
		{"expired certificate", &tls.Config{Certificates: []tls.Certificate{b.certificate(t, func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "keyd.test", Path: "/switch-a"}}
			c.NotAfter = time.Now().Add(-time.Minute)
		})}}},
		{"server's certificate", &tls.Config{Certificates: []tls.Certificate{b.certificate(t, func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "keyd.test", Path: "/switch-a"}}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})}}},
		{"C-07 TLS 1.2", &tls.Config{Certificates: []tls.Certificate{b.named(t, "spiffe://keyd.test/switch-a")}, MaxVersion: tls.VersionTLS12}},
		{"C-07 TLS 1.1", &tls.Config{Certificates: []tls.Certificate{b.named(t, "spiffe://keyd.test/switch-a")}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.RootCAs = b.roots
			if answered(t, b, c.config) {
				t.Error("there is an answer")
			}
		})
	}
	t.Run("C-07 with a certificate there is an answer, by TLS 1.3, and no ticket", func(t *testing.T) {
		cache := &noTickets{t: t}
		config := &tls.Config{RootCAs: b.roots, Certificates: []tls.Certificate{b.named(t, "spiffe://keyd.test/switch-a")}, ClientSessionCache: cache}
		if !answered(t, b, config) {
			t.Error("there is no answer")
		}
	})
	t.Run("HTTP/2 and HTTP/1.1", func(t *testing.T) {
		for _, want := range []string{"HTTP/2.0", "HTTP/1.1"} {
			transport := &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: b.roots, Certificates: []tls.Certificate{b.named(t, "spiffe://keyd.test/switch-a")}},
				ForceAttemptHTTP2: want == "HTTP/2.0",
			}
			response, err := (&http.Client{Transport: transport}).Get(b.url + "/")
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			transport.CloseIdleConnections()
			if response.Proto != want {
				t.Errorf("got %s, want %s", response.Proto, want)
			}
		}
	})
}

// noTickets is a session cache that wants nothing.
type noTickets struct{ t *testing.T }

func (noTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (n *noTickets) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		n.t.Error("the server gave a session ticket")
	}
}

// answered reports whether an HTTP answer comes over a connection of the config.
func answered(t *testing.T, b *bench, config *tls.Config) bool {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), config)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: keyd\r\nConnection: close\r\n\r\n"); err != nil {
		return false
	}
	text, _ := io.ReadAll(conn)
	if bytes.HasPrefix(text, []byte("HTTP/")) {
		return true
	}
	if len(text) > 0 {
		t.Errorf("something that is not HTTP came back")
	}
	return false
}

// byDNS names the client that has a DNS name.
func byDNS(c *x509.Certificate) { c.DNSNames = []string{"switch-dns.keyd.test"} }

// strangerCertificate signs itself for a name that the table has.
func strangerCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "keyd.test", Path: "/switch-a"}},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// TestUnverifiedCertificate: behind a listener that does not verify, the
// handler itself refuses.
func TestUnverifiedCertificate(t *testing.T) {
	b := newBench(t)
	server := &http.Server{Handler: b.handler, ReadHeaderTimeout: time.Second}
	server.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{b.certificate(t, func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
		ClientAuth: tls.RequestClientCert,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	defer func() {
		_ = server.Close()
		<-done
	}()
	lax := *b
	lax.url = "https://" + listener.Addr().String()
	for name, certs := range map[string][]tls.Certificate{"none": nil, "of nobody's CA": {strangerCertificate(t)}} {
		t.Run("certificate "+name, func(t *testing.T) {
			a := lax.call(t, lax.clientWith(t, certs...), "ListKeys", `{}`)
			lax.failure(t, a, "ListKeys", "AccessDeniedException", 400)
		})
	}
}

// TestServerConfig: a listener that is less than C-07 is refused.
func TestServerConfig(t *testing.T) {
	b := newBench(t)
	cert := b.named(t, "spiffe://keyd.test/x")
	good := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: b.roots}
	}
	for _, c := range []struct {
		name   string
		change func(*tls.Config)
		ok     bool
		least  uint16
	}{
		{"C-07 default", func(*tls.Config) {}, true, tls.VersionTLS13},
		{"C-07 TLS 1.2 by config", func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }, true, tls.VersionTLS12},
		{"R-53 TLS 1.1", func(c *tls.Config) { c.MinVersion = tls.VersionTLS11 }, false, 0},
		{"R-53 nothing above TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false, 0},
		{"R-53 weak suites are replaced", func(c *tls.Config) {
			c.MinVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}, true, tls.VersionTLS12},
		{"client certificates not asked for", func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }, true, tls.VersionTLS13},
		{"no certificate", func(c *tls.Config) { c.Certificates = nil }, false, 0},
		{"no client CAs", func(c *tls.Config) { c.ClientCAs = nil }, false, 0},
		{"no verification", func(c *tls.Config) { c.InsecureSkipVerify = true }, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good()
			c.change(config)
			server, err := api.Server(b.handler, config)
			if !c.ok {
				if err == nil {
					t.Error("accepted")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := server.TLSConfig
			if got.MinVersion != c.least || got.ClientAuth != tls.RequireAndVerifyClientCert || !got.SessionTicketsDisabled {
				t.Errorf("least version %s, client certificates %v, tickets off %v", tls.VersionName(got.MinVersion), got.ClientAuth, got.SessionTicketsDisabled)
			}
			for _, suite := range got.CipherSuites {
				if !strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_ECDHE_") {
					t.Errorf("suite %s is not forward secret", tls.CipherSuiteName(suite))
				}
			}
			if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 {
				t.Error("a limit is missing")
			}
		})
	}
	t.Run("nothing at all", func(t *testing.T) {
		if _, err := api.Server(b.handler, nil); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("a config chosen by the hello is hardened too", func(t *testing.T) {
		chosen := good()
		chosen.MinVersion = tls.VersionTLS12
		server, err := api.Server(b.handler, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, nil }})
		if err != nil {
			t.Fatal(err)
		}
		got, err := server.TLSConfig.GetConfigForClient(nil)
		if err != nil || got.ClientAuth != tls.RequireAndVerifyClientCert || !got.SessionTicketsDisabled {
			t.Errorf("got %v, %v", got, err)
		}
		chosen.MinVersion = tls.VersionTLS10
		if _, err := server.TLSConfig.GetConfigForClient(nil); err == nil {
			t.Error("TLS 1.0 accepted")
		}
	})
}

// TestNewRefuses: a handler that could not work is not made.
func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  api.Config
	}{
		{"no custody", api.Config{}},
		{"region", api.Config{Custody: new(custody.Custody), Region: "keyd"}},
		{"account", api.Config{Custody: new(custody.Custody), Account: "1"}},
		{"page life", api.Config{Custody: new(custody.Custody), PageLife: -time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := api.New(c.cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}
