package api_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// quiet is a response writer that keeps nothing.
type quiet struct {
	header http.Header
	status int
}

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) WriteHeader(status int)      { q.status = status }

// BenchmarkHandler measures the handler without the network: alone, by a
// request that is read whole and refused for one member at the end of it, and
// with the token and the log.
func BenchmarkHandler(b *testing.B) {
	bench := newBench(b)
	leaf := &x509.Certificate{Raw: []byte("bench"), NotAfter: bench.ca.NotAfter, URIs: []*url.URL{{Scheme: "spiffe", Host: "keyd.test", Path: "/switch-a"}}}
	body := string(loadWireExamples(b)["tp-out-dukpt-tdes"].Request)
	static := string(loadWireExamples(b)["tp-static-1-to-3"].Request)
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"alone", strings.Replace(body, "{", `{"IncomingAs2805Attributes":{},`, 1), 400},
		{"TDES DUKPT", body, 200},
		{"static", static, 200},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := &quiet{header: make(http.Header)}
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/pindata/translate", nil)
			r.Header.Set("Content-Type", "application/json")
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf, bench.ca}}}
			r = r.WithContext(bench.handler.ConnContext(b.Context(), nil))
			text := strings.NewReader(c.body)
			r.Body, r.ContentLength = readCloser{text}, int64(len(c.body))
			b.ReportAllocs()
			for b.Loop() {
				text.Reset(c.body)
				bench.handler.ServeHTTP(w, r)
				if w.status != c.status {
					b.Fatalf("status %d", w.status)
				}
			}
		})
	}
}

// BenchmarkWire measures the whole way over mutual TLS, the clients beside it.
func BenchmarkWire(b *testing.B) {
	bench := newBench(b)
	body := string(loadWireExamples(b)["tp-static-1-to-3"].Request)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: bench.roots, Certificates: []tls.Certificate{bench.named(b, "spiffe://keyd.test/switch-a")}},
		MaxIdleConnsPerHost: 64,
	}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	b.SetParallelism(16)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := post(client, bench.url+"/pindata/translate", body); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func post(client *http.Client, url, body string) error {
	response, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
