package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/api"
)

const aMAC = `{"KeyIdentifier":"alias/tak-42","MessageData":"3030303030303030","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`

// limited is a bench under limits.
func limited(t *testing.T, l api.Limits) *bench {
	t.Helper()
	b := newBench(t)
	if err := b.handler.SetLimits(l); err != nil {
		t.Fatal(err)
	}
	return b
}

// throttled checks the two forms of the refusal (section 6).
func (a answer) throttled(t *testing.T, status int, message string) {
	t.Helper()
	if a.status != status || a.header.Get("x-amzn-ErrorType") != "ThrottlingException" {
		t.Fatalf("answered %d %s, want %d ThrottlingException: %s", a.status, a.header.Get("x-amzn-ErrorType"), status, a.body)
	}
	if object := a.json(t); object["__type"] != "ThrottlingException" || object["Message"] != message {
		t.Errorf("body %s, want __type and the message %q", a.body, message)
	}
}

// TestRateLimit: beyond its rate a client is told so at once, others are not,
// and the log has one record with the exact number.
func TestRateLimit(t *testing.T) {
	b := limited(t, api.Limits{Clients: map[string]api.ClientLimits{
		"switch-a": {PerSecond: 1, Burst: 3}, "admin": {PerSecond: 1, Burst: 2},
	}})
	busy, other, admin := b.client(t, "switch-a"), b.client(t, "switch-b"), b.client(t, "admin")
	// flood asks 20 times, at a rate of one in a second; it returns the refusals.
	flood := func(client *http.Client, operation, body string, burst, status int) (refused int64) {
		start := time.Now()
		through := 0
		for range 20 {
			a := b.call(t, client, operation, body)
			if a.status == http.StatusOK {
				through++
				continue
			}
			a.throttled(t, status, "request rate exceeded")
			refused++
		}
		if most := burst + int(time.Since(start).Seconds()) + 1; through < burst || through > most {
			t.Errorf("%s: %d of 20 requests went through in %v, want %d to %d", operation, through, time.Since(start), burst, most)
		}
		return refused
	}
	want := map[string]int64{
		"switch-a": flood(busy, "GenerateMac", aMAC, 3, http.StatusTooManyRequests),
		"admin":    flood(admin, "ListKeys", "{}", 2, http.StatusBadRequest),
	}
	for range 10 {
		if a := b.call(t, other, "ListKeys", "{}"); a.status != http.StatusOK {
			t.Fatalf("another client: %d %s", a.status, a.body)
		}
	}
	if n := strings.Count(b.errors.String(), "client throttled"); n < 2 || n > 4 {
		t.Errorf("the daemon's log has %d lines, want one for each client and minute:\n%s", n, b.errors.String())
	}
	if err := b.handler.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.handler.Report(t.Context()); err != nil { // nothing happened since
		t.Fatal(err)
	}
	for _, r := range b.aggregates(t) {
		if r.Count.N != want[r.Count.Peer] || len(r.Count.By) != 1 || r.Count.By[0].Reason != "rate_limited" || r.Count.By[0].N != r.Count.N {
			t.Errorf("record %+v, want %d", r, want[r.Count.Peer])
		}
		delete(want, r.Count.Peer)
	}
	if len(want) > 0 {
		t.Errorf("no record of %v", want)
	}
}

// aggregate is a record of many refusals.
type aggregate struct {
	Action, Outcome string
	Count           struct {
		N    int64
		Peer string
		By   []struct {
			Reason string
			N      int64
		}
	}
}

func (b *bench) aggregates(t *testing.T) (all []aggregate) {
	t.Helper()
	reader, err := audit.OpenReader(b.logDir)
	if err != nil {
		t.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			var r aggregate
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				t.Fatal(err)
			}
			if r.Action == "refuse.aggregate" {
				all = append(all, r)
			}
		}
	}
	return all
}

// TestWaitIsBounded: where all places are taken, a request waits as long as it
// may and no longer, and beyond a client's number it does not wait at all.
func TestWaitIsBounded(t *testing.T) {
	b := limited(t, api.Limits{InWork: 2, Wait: 50 * time.Millisecond, Default: api.ClientLimits{Concurrent: 3}})
	client := b.client(t, "switch-a")
	giveBack := b.handler.OccupyData("switch-b", 2)
	b.call(t, client, "GenerateMac", aMAC).throttled(t, http.StatusTooManyRequests, "no capacity is available")
	b.success(t, b.call(t, client, "ListKeys", "{}"), "ListKeys") // the control plane has places of its own
	if err := b.handler.SetLimits(api.Limits{InWork: 2, Wait: 30 * time.Second, Default: api.ClientLimits{Concurrent: 3}}); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() {
			if a := b.call(t, client, "GenerateMac", aMAC); a.status != http.StatusOK {
				t.Errorf("a request that waited for its turn: %d %s", a.status, a.body)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); b.handler.Waiting() < 3 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	b.call(t, client, "GenerateMac", aMAC).throttled(t, http.StatusTooManyRequests, "too many requests at a time")
	giveBack()
	work.Wait()
	if n := b.handler.InWork(); n != 0 {
		t.Errorf("%d requests are still in work", n)
	}
}

// TestLateRequest is section 3.3: what nobody waits for any more is not done.
func TestLateRequest(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	for _, test := range []struct {
		name, header string
		late         bool
	}{
		{"in time", "attempt=2; max=5; ttl=" + time.Now().Add(time.Minute).UTC().Format("20060102T150405Z"), false},
		{"too late", "attempt=2; max=5; ttl=" + time.Now().Add(-time.Minute).UTC().Format("20060102T150405Z"), true},
		{"no deadline", "attempt=1; max=5", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := b.call(t, client, "GenerateMac", aMAC, "amz-sdk-request", test.header)
			if !test.late {
				b.success(t, a, "GenerateMac")
				return
			}
			a.throttled(t, http.StatusTooManyRequests, "the deadline of the request has passed")
		})
	}
}

// TestHeadIsBounded: too many header fields, or too large ones.
func TestHeadIsBounded(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("x-a-%d", i), "1")
	}
	if a := b.call(t, client, "GenerateMac", aMAC, many...); a.status != http.StatusBadRequest || !strings.Contains(string(a.body), "header fields") {
		t.Errorf("a hundred fields: %d %s", a.status, a.body)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/mac/generate", strings.NewReader(aMAC))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-large", strings.Repeat("a", 1<<20))
	response, err := client.Do(r)
	if err == nil {
		_ = response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a field of a megabyte: %s", response.Status)
		}
	}
}

func serverAddress(c *x509.Certificate) {
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// door is a server with a listener of the handler's own.
type door struct {
	b    *bench
	addr string
}

// listen serves the bench's handler at another port, as a daemon does.
func (b *bench) listen(t *testing.T, change func(*http.Server)) *door {
	t.Helper()
	cert := b.certificate(t, serverAddress)
	server, err := api.Server(b.handler, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: b.roots})
	if err != nil {
		t.Fatal(err)
	}
	change(server)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(b.handler.Listen(small{inner}, server.TLSConfig)) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("closing the server: %v", err)
		}
		<-done
	})
	return &door{b, inner.Addr().String()}
}

// small is a listener whose connections have little room for what is not read.
type small struct{ net.Listener }

func (l small) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(4096)
	}
	return conn, err
}

// as is the TLS of a client that speaks HTTP/1.1 alone.
func (d *door) as(t *testing.T, name string) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: d.b.roots, Certificates: []tls.Certificate{d.b.named(t, "spiffe://keyd.test/"+name)}}
}

func (d *door) dial(t *testing.T, config *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", d.addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// serves makes a request on a connection of its own.
func (d *door) serves(t *testing.T, config *tls.Config) error {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+d.addr+"/mac/generate", strings.NewReader(aMAC))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return err
}

const macHead = "POST /mac/generate HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\n"

// TestSlowClients: who is slow loses the connection, over real TLS. The times
// are those of a test; that a server has them is checked, too.
func TestSlowClients(t *testing.T) {
	b := newBench(t)
	d := b.listen(t, func(s *http.Server) {
		for name, set := range map[string]*time.Duration{
			"header": &s.ReadHeaderTimeout, "read": &s.ReadTimeout, "write": &s.WriteTimeout, "idle": &s.IdleTimeout,
		} {
			if *set <= 0 || *set > 2*api.MostTimeout {
				t.Errorf("time-out %s is %v", name, *set)
			}
			*set = 300 * time.Millisecond
		}
		if s.HTTP2.WriteByteTimeout <= 0 || s.HTTP2.PingTimeout <= 0 || s.HTTP2.MaxConcurrentStreams <= 0 {
			t.Errorf("HTTP/2 has no limits: %+v", s.HTTP2)
		}
	})
	config := d.as(t, "switch-a")
	gone := func(t *testing.T, conn net.Conn) string {
		t.Helper()
		start := time.Now()
		text, err := io.ReadAll(conn)
		var slow net.Error
		if errors.As(err, &slow) && slow.Timeout() || time.Since(start) > 20*time.Second {
			t.Error("the connection stays open")
		}
		return string(text)
	}
	t.Run("says nothing", func(t *testing.T) {
		if got := gone(t, d.dial(t, config)); got != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("slow header", func(t *testing.T) {
		conn := d.dial(t, config)
		for i := range macHead {
			if _, err := io.WriteString(conn, macHead[i:i+1]); err != nil {
				return // it was closed
			}
			time.Sleep(20 * time.Millisecond)
		}
		gone(t, conn)
	})
	t.Run("slow body", func(t *testing.T) {
		conn := d.dial(t, config)
		if _, err := io.WriteString(conn, macHead+"Content-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		if got := gone(t, conn); got != "" && !strings.Contains(got, "the body did not arrive whole") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("slow reader", func(t *testing.T) {
		conn := d.dial(t, config)
		if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(1024); err != nil {
			t.Fatal(err)
		}
		// Requests without reading an answer, until nothing more is taken.
		request := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", macHead, len(aMAC), aMAC)
		for start := time.Now(); ; {
			if _, err := io.WriteString(conn, request); err != nil {
				break
			}
			if time.Since(start) > 20*time.Second {
				t.Fatal("the connection stays open for somebody who reads nothing")
			}
		}
	})
	t.Run("others meanwhile", func(t *testing.T) {
		for range 20 {
			conn := d.dial(t, config)
			if _, err := io.WriteString(conn, macHead+"Content-Length: 1000\r\n\r\n{"); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.serves(t, config); err != nil {
			t.Errorf("beside slow bodies: %v", err)
		}
	})
}

// TestConnectionsAreBounded: of one client, and of all.
func TestConnectionsAreBounded(t *testing.T) {
	b := limited(t, api.Limits{Connections: 5, Clients: map[string]api.ClientLimits{"switch-a": {Connections: 3}}})
	d := b.listen(t, func(*http.Server) {})
	a, other := d.as(t, "switch-a"), d.as(t, "switch-b")
	// use makes a request, so that the connection is known to be in.
	use := func(conn *tls.Conn) error {
		request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\nX-Amz-Target: %sListKeys\r\nContent-Length: 2\r\n\r\n{}", "PaymentCryptographyControlPlane.")
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	var open []*tls.Conn
	for i := range 3 {
		conn := d.dial(t, a)
		if err := use(conn); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, conn)
	}
	if err := use(d.dial(t, a)); err == nil {
		t.Error("a fourth connection of a client that may have three")
	}
	for i := range 2 {
		if err := use(d.dial(t, other)); err != nil {
			t.Fatalf("connection %d of another client: %v", i, err)
		}
	}
	if err := use(d.dial(t, other)); err == nil {
		t.Error("a sixth connection of five in all")
	}
	for _, u := range b.handler.Use() {
		if u.Client == "switch-a" && (u.Connections != 3 || u.Throttled["client_connections"] != 1) {
			t.Errorf("use %+v, want three connections and one refused", u)
		}
		if u.Client == "switch-b" && (u.Connections != 2 || u.Throttled["connections"] != 1) {
			t.Errorf("use %+v, want two connections and one refused for all", u)
		}
	}
	_ = open[0].Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := use(d.dial(t, a)); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("after one was closed: %v", err)
		}
	}
}

// TestHandshakesAreBounded: connections that say nothing, or stop in the middle,
// keep nobody out.
func TestHandshakesAreBounded(t *testing.T) {
	b := limited(t, api.Limits{Handshakes: 8})
	d := b.listen(t, func(*http.Server) {})
	config := d.as(t, "switch-a")
	var silent []net.Conn
	for i := range 40 {
		conn, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if i%2 == 0 { // the beginning of a ClientHello
			if _, err := conn.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}); err != nil {
				t.Fatal(err)
			}
		}
		silent = append(silent, conn)
		if i%10 == 9 {
			if err := d.serves(t, config); err != nil {
				t.Errorf("behind %d that say nothing: %v", i+1, err)
			}
		}
	}
	// The oldest were ended, long before their time.
	if err := silent[0].SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the oldest handshake: %v, want an end", err)
	} else if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() {
		t.Error("the oldest handshake is still under way")
	}
}

// TestFailedHandshakesAreCounted is L-14 at the door: a flood of them has no
// record each.
func TestFailedHandshakesAreCounted(t *testing.T) {
	b := newBench(t)
	d := b.listen(t, func(*http.Server) {})
	const flood = 150
	var work sync.WaitGroup
	for range 5 {
		work.Go(func() {
			for range flood / 5 {
				conn, err := net.Dial("tcp", d.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, "this is no handshake\n")
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		})
	}
	work.Wait()
	var alone, counted int64
	for end := time.Now().Add(10 * time.Second); alone+counted != flood && time.Now().Before(end); {
		// A connection is closed a moment before it is counted.
		if err := b.handler.Report(t.Context()); err != nil {
			t.Fatal(err)
		}
		alone, counted = int64(strings.Count(b.errors.String(), "handshake failed")), 0
		for _, r := range b.aggregates(t) { // a log is listed a moment after its first record
			if r.Count.Peer != "127.0.0.1" {
				t.Errorf("counted for %q", r.Count.Peer)
			}
			counted += r.Count.N
		}
	}
	if alone+counted != flood {
		t.Errorf("%d alone and %d counted, want %d in all", alone, counted, flood)
	}
	if alone == flood {
		t.Errorf("each of %d has a record of its own", flood)
	}
}
