package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is a daemon in a process of its own, with a second application client
// beside "switch".
type crowd struct {
	k   *killable
	dev *devReport
}

const (
	crowdMAC    = `{"KeyIdentifier":"alias/dev/zak","MessageData":"30303030303030303030303030303030","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`
	floodClient = "flood"
)

// newCrowd starts a daemon with more in its configuration: api in [api], by key,
// client in the table of the second client.
func newCrowd(t *testing.T, api map[string]string, client string) *crowd {
	t.Helper()
	k := newKillable(t)
	k.start()
	k.stop()
	dev := k.dev.Load()
	pki := filepath.Dir(dev.CACert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, upstreamClient+".pem"), filepath.Join(pki, upstreamClient+".key"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pair.Leaf.URIs) == 0 {
		t.Fatal("the certificate that no client has has no URI")
	}
	text, err := os.ReadFile(dev.Config)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "[api]\n")
	for key, value := range api { // the file has every key
		rest = regexp.MustCompile(`(?m)^`+key+` = .*\n`).ReplaceAllLiteralString(rest, "")
		rest = key + " = " + value + "\n" + rest
	}
	whole := head + "[api]\n" + rest + fmt.Sprintf("\n[[client]]\nname = %q\nuri = %q\nroles = [\"application\"]\nkeys = [\"*\"]\n%s\n", floodClient, pair.Leaf.URIs[0], client)
	if err := os.WriteFile(dev.Config, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	return &crowd{k: k, dev: k.dev.Load()}
}

// as is the TLS of a client.
func (c *crowd) as(t *testing.T, client string) *tls.Config {
	t.Helper()
	if client != floodClient {
		config, err := devTLS(c.dev, client)
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	pki := filepath.Dir(c.dev.CACert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, upstreamClient+".pem"), filepath.Join(pki, upstreamClient+".key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.dev.CACert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

// caller is a connection that sends one request after the other.
type caller struct {
	conn *tls.Conn
	in   *bufio.Reader
}

func (c *crowd) dial(config *tls.Config) (*caller, error) {
	conn, err := tls.Dial("tcp", strings.TrimPrefix(c.dev.APIURL, "https://"), config)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReader(conn)}, nil
}

// call sends a request and reads the whole answer.
func (c *caller) call(path, target, invocation, body string) (status int, answer string, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, len(body))
	if target != "" {
		fmt.Fprintf(&b, "X-Amz-Target: %s\r\n", target)
	}
	if invocation != "" {
		fmt.Fprintf(&b, "amz-sdk-invocation-id: %s\r\n", invocation)
	}
	b.WriteString("\r\n" + body)
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, "", err
	}
	if _, err := io.WriteString(c.conn, b.String()); err != nil {
		return 0, "", err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// callers are the connections of one client, and what they got.
type callers struct {
	served, refused atomic.Int64
	mu              sync.Mutex
	took            []time.Duration // of those that were served
}

// run lets connections of a client ask until the time is over.
func (c *crowd) run(t *testing.T, work *sync.WaitGroup, client string, conns []*caller, end time.Time) *callers {
	t.Helper()
	l := new(callers)
	for _, conn := range conns {
		work.Go(func() {
			var took []time.Duration
			for time.Now().Before(end) {
				start := time.Now()
				status, answer, err := conn.call("/mac/generate", "", "", crowdMAC)
				switch {
				case err != nil:
					t.Errorf("%s: %v", client, err)
					return
				case status == http.StatusOK:
					l.served.Add(1)
					took = append(took, time.Since(start))
				case status == http.StatusTooManyRequests && strings.Contains(answer, "ThrottlingException"):
					l.refused.Add(1)
				default:
					t.Errorf("%s: %d %s", client, status, answer)
					return
				}
			}
			l.mu.Lock()
			l.took = append(l.took, took...)
			l.mu.Unlock()
		})
	}
	return l
}

func (l *callers) String() string {
	return fmt.Sprintf("%d served, %d refused, p50 %v, p99 %v", l.served.Load(), l.refused.Load(), l.at(.5), l.at(.99))
}

// at is the time below which that part of the served calls stayed.
func (l *callers) at(part float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	slices.Sort(l.took)
	return l.took[int(part*float64(len(l.took)-1))].Round(10 * time.Microsecond)
}

// floodTime is how long each load lasts.
const floodTime = 2 * time.Second

// TestFloodGetsItsShare: a client with eight times the connections of another
// gets no more than half of the daemon, and one that is refused for its rate
// leaves the other more than that.
func TestFloodGetsItsShare(t *testing.T) {
	c := newCrowd(t, map[string]string{"requests_in_work": "4"}, "")
	few, many := c.many(t, "switch", 12), c.many(t, floodClient, 96)
	var work sync.WaitGroup
	alone := c.run(t, &work, "switch", few, time.Now().Add(floodTime))
	work.Wait()
	end := time.Now().Add(floodTime)
	flood := c.run(t, &work, floodClient, many, end)
	polite := c.run(t, &work, "switch", few, end)
	work.Wait()
	t.Logf("12 connections alone: %s", alone)
	t.Logf("beside 96 of another:  %s", polite)
	t.Logf("the 96:                %s", flood)
	both := polite.served.Load() + flood.served.Load()
	if polite.served.Load()*100 < both*35 {
		t.Errorf("the polite client was served %d of %d, want about a half", polite.served.Load(), both)
	}
	c.k.stop()
}

// TestRefusedFlood: a flood that is refused for its rate hardly slows the others,
// is told so with each answer, and does not grow the log.
func TestRefusedFlood(t *testing.T) {
	c := newCrowd(t, nil, "requests_per_second = 20\nburst = 20")
	few, many := c.many(t, "switch", 12), c.many(t, floodClient, 96)
	var work sync.WaitGroup
	alone := c.run(t, &work, "switch", few, time.Now().Add(floodTime))
	work.Wait()
	end := time.Now().Add(floodTime)
	flood := c.run(t, &work, floodClient, many, end)
	polite := c.run(t, &work, "switch", few, end)
	work.Wait()
	t.Logf("12 connections alone:  %s", alone)
	t.Logf("beside a refused flood: %s", polite)
	t.Logf("the flood:              %s", flood)
	if most := int64(20 * (2 + floodTime.Seconds())); flood.served.Load() > most {
		t.Errorf("the flood was served %d, want at most %d", flood.served.Load(), most)
	}
	if flood.refused.Load() == 0 || polite.refused.Load() != 0 {
		t.Errorf("refused: flood %d, polite %d", flood.refused.Load(), polite.refused.Load())
	}
	// Without the pace of refusals it was eighteen times as long. The share of a
	// second run would tell more of what else the machine does.
	if a, b := alone.at(.5), polite.at(.5); b > 6*a {
		t.Errorf("half of the polite client's calls took more than %v beside a flood, and %v alone", b, a)
	}
	c.k.stop()
	counted := int64(0)
	records := 0
	c.records(t, func(action string, raw []byte) {
		if action != "refuse.aggregate" {
			return
		}
		var r struct {
			Count struct {
				N    int64
				Peer string
			}
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		if r.Count.Peer == floodClient {
			counted += r.Count.N
			records++
		}
	})
	// The first call of each connection may have been refused, too.
	if n := flood.refused.Load(); counted < n || counted > n+int64(len(many)) || records > 3 {
		t.Errorf("L-14: %d refusals in %d records, want %d and a few in one a minute", counted, records, n)
	}
}
