package api_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzHandler sends any body to each operation: nothing may panic, nothing may
// be the server's fault, and each answer is JSON in the form of the API.
func FuzzHandler(f *testing.F) {
	for _, e := range loadWireExamples(f) {
		f.Add(e.Operation, []byte(e.Request))
	}
	f.Add("EncryptData", []byte(encryptBody("alias/pay/data-aes", symmetric("CFB8", vectorAES), dataPlain, "")))
	f.Add("DecryptData", []byte(decryptBody("alias/bdk-tdes", dukptOf("FFFF9876543210E00001", ""), dataPlain, "")))
	f.Add("ReEncryptData", []byte(reencryptBody("alias/pay/data-aes", "alias/pay/data-tdes", symmetric("OFB", ""), symmetric("ECB", ""), dataPlain, "")))
	f.Add("VerifyMac", []byte("{"))
	f.Add("GetKey", []byte(`{"KeyIdentifier":"alias/\ud83d\ude00"}`))
	b := newDataBench(f)
	cert := &x509.Certificate{Raw: []byte("fuzz"), NotAfter: b.ca.NotAfter}
	f.Fuzz(func(t *testing.T, operation string, body []byte) {
		_, control := dataPath(operation)
		path := pathOf(operation, string(body))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		name := "switch-a"
		if control {
			name = "admin"
			r.Header["X-Amz-Target"] = []string{"PaymentCryptographyControlPlane." + operation}
		}
		leaf := *cert
		leaf.URIs = []*url.URL{{Scheme: "spiffe", Host: "keyd.test", Path: "/" + name}}
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{&leaf}, VerifiedChains: [][]*x509.Certificate{{&leaf, b.ca}}}
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		response := w.Result()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		a := answer{status: response.StatusCode, header: response.Header, body: text}
		if a.status >= 500 || a.status == http.StatusTooManyRequests {
			t.Fatalf("status %d", a.status)
		}
		a.json(t)
		if a.status != http.StatusOK && a.header.Get("x-amzn-ErrorType") == "" {
			t.Error("an error without its header")
		}
		if b.errors.String() != "" {
			t.Fatal("something went to the daemon's log")
		}
	})
}
