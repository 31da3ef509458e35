//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awsv2 "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/paymentcryptographydata"

	"keyd.dev/keyd/internal/api"
)

// devRegion is the region of a development daemon, which is in no partition.
const devRegion = "xx-keyd-1"

// wireLog is a transport that notes which operations went over it and hands
// them on to the next.
type wireLog struct {
	next http.RoundTripper
	lose int // answers that are lost on the way, the first ones

	mu      sync.Mutex
	targets map[string]int    // by path or target
	ids     []string          // amz-sdk-invocation-id of each delivery
	custody map[string]string // x-keyd-custody by path or target
}

// RoundTrip implements http.RoundTripper.
func (w *wireLog) RoundTrip(r *http.Request) (*http.Response, error) {
	name := r.Header.Get("X-Amz-Target")
	if name == "" {
		name = r.URL.EscapedPath()
	}
	response, err := w.next.RoundTrip(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets[name]++
	w.ids = append(w.ids, r.Header.Get("amz-sdk-invocation-id"))
	if err == nil && response.StatusCode == http.StatusOK {
		w.custody[name] = response.Header.Get("x-keyd-custody")
	}
	if err == nil && w.lose > 0 {
		w.lose--
		_ = response.Body.Close()
		return nil, &url.Error{Op: r.Method, URL: r.URL.Path, Err: connectionReset{}}
	}
	return response, err
}

// Do makes a wireLog an HTTP client of the second SDK.
func (w *wireLog) Do(r *http.Request) (*http.Response, error) { return w.RoundTrip(r) }

// connectionReset is what a network that lost an answer says.
type connectionReset struct{}

func (connectionReset) Error() string   { return "connection reset by peer" }
func (connectionReset) Timeout() bool   { return true }
func (connectionReset) Temporary() bool { return true }

// wire is a transport under the certificate of a client of the daemon.
func (r *running) wire(client string) *wireLog {
	r.t.Helper()
	transport := &http.Transport{TLSClientConfig: r.tls(client), ForceAttemptHTTP2: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &wireLog{next: transport, targets: make(map[string]int), custody: make(map[string]string)}
}

// dataSDK is the official client of the data plane, as an integrator sets it
// up: an endpoint, a client certificate, no retries of its own.
func (r *running) dataSDK(over http.RoundTripper, retries int) *paymentcryptographydata.PaymentCryptographyData {
	r.t.Helper()
	r.t.Setenv("AWS_CA_BUNDLE", "") // when set, the SDK puts its content in place of RootCAs
	if err := os.Unsetenv("AWS_CA_BUNDLE"); err != nil {
		r.t.Fatal(err)
	}
	sess, err := session.NewSession(&aws.Config{
		Endpoint: &r.dev.APIURL, Region: aws.String(devRegion), Credentials: credentials.AnonymousCredentials,
		MaxRetries: aws.Int(retries), HTTPClient: &http.Client{Timeout: 30 * time.Second, Transport: over},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return paymentcryptographydata.New(sess)
}

// controlSDK is the official client of the control plane.
func (r *running) controlSDK(over *wireLog, attempts int) *paymentcryptography.Client {
	return paymentcryptography.New(paymentcryptography.Options{
		BaseEndpoint: &r.dev.APIURL, Region: devRegion, Credentials: awsv2.AnonymousCredentials{},
		HTTPClient: over, RetryMaxAttempts: attempts,
	})
}

// wantEveryOperation fails unless each operation of a plane went over one of
// the transports: what keyd serves and no SDK was tried with is not proved.
func wantEveryOperation(t *testing.T, plane string, over ...*wireLog) {
	t.Helper()
	tried := make(map[string]bool)
	for _, w := range over {
		for name := range w.targets {
			if rest, keyed := strings.CutPrefix(name, "/keys/"); keyed {
				_, verb, _ := strings.Cut(rest, "/")
				name = "/keys/" + verb
			}
			tried[name] = true
		}
	}
	for _, op := range api.Operations() {
		name := op.Target
		if op.Plane == "data" {
			name = strings.Replace(op.Path, "{"+op.KeyMember+"}/", "", 1)
		}
		if op.Plane == plane && !tried[name] {
			t.Errorf("keyd serves %s (%s) and no SDK has called it; called were %q", op.Name, name, slices.Sorted(maps.Keys(tried)))
		}
	}
}
