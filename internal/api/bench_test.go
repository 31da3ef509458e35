package api_test

import (
	"crypto/tls"
	"crypto/x509"
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

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
