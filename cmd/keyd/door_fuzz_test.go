package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// fuzzCanary stands in the seeds where a request holds what must not come back nor
// reach a log: PIN blocks, messages, MACs, key blocks.
const fuzzCanary = "C0FFEE5EED0DDBA11C0FFEE5EED0DDBA"

// The ways in which FuzzDoor sends its input.
const (
	sendRequest = iota // a request whose target and body are the input
	sendHTTP1          // the input as it is, on a connection of HTTP/1.1
	sendHTTP2          // the input behind the preface of HTTP/2
	ways
)

// FuzzDoor brings anything to the API's listener of a whole daemon on a real
// token: requests to every operation of both planes, keyd's own and those of
// ceremonies, raw bytes, and frames of HTTP/2, from clients of every role.
// Nothing may die, nothing may be the daemon's fault, each answer is whole, and
// no value of a request is in an answer to a refusal or in the daemon's log.
func FuzzDoor(f *testing.F) {
	for _, p := range probes() {
		if p.op == custody.OpImportParams { // a pair of RSA keys takes as long as a thousand other requests
			p.body = strings.Replace(p.body, "RSA_2048", "RSA_1024", 1)
		}
		for _, client := range []uint8{0, 1} {
			f.Add(uint8(sendRequest), client, p.path+" "+p.target, []byte(p.body))
		}
	}
	for _, p := range exampleProbes(f) {
		if strings.Contains(p.body, `"RSA_`) {
			continue
		}
		f.Add(uint8(sendRequest), uint8(0), p.path+" "+p.target, []byte(p.body))
	}
	var mac probe
	for _, p := range probes() {
		if p.op == custody.OpGenerateMAC {
			mac = p
		}
	}
	head := "POST " + mac.path + " HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\n"
	for _, raw := range []string{
		head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(mac.body), mac.body),
		head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		head + "Content-Length: 2\r\n\r\n{}" + head + "Content-Length: 2\r\n\r\n{}",
		head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
		head + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
		"GET / HTTP/1.1\r\nHost: keyd\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: " + awsTarget + "ListKeys\r\n\r\n",
	} {
		f.Add(uint8(sendHTTP1), uint8(0), "", []byte(raw))
	}
	for _, frames := range frameSeeds(mac) {
		f.Add(uint8(sendHTTP2), uint8(0), "", frames)
	}
	var once sync.Once
	var d *fuzzedDoor
	f.Cleanup(func() {
		if d != nil {
			d.stop(f)
		}
	})
	f.Fuzz(func(t *testing.T, way, client uint8, target string, input []byte) {
		once.Do(func() { d = startFuzzed(t) })
		if d == nil {
			t.Fatal("the daemon did not start")
		}
		d.try(t, way%ways, d.names[int(client)%len(d.names)], target, input)
	})
}

// exampleProbes are the requests of the API's examples, with the keys of a
// development daemon and the fuzzCanary in the place of their data.
func exampleProbes(f *testing.F) []probe {
	f.Helper()
	raw, err := os.ReadFile("../../internal/api/testdata/examples.json")
	if err != nil {
		f.Fatal(err)
	}
	var file struct {
		Examples []struct {
			Plane, Operation string
			Request          map[string]any
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		f.Fatal(err)
	}
	paths := make(map[string]string)
	for _, p := range probes() {
		if p.target == "" {
			paths[string(p.op)] = p.path
		}
	}
	var all []probe
	for _, e := range file.Examples {
		for _, member := range []string{"MessageData", "Mac", "EncryptedPinBlock", "PlainText", "CipherText"} {
			if text, ok := e.Request[member].(string); ok {
				e.Request[member] = fuzzCanary[:min(len(text), len(fuzzCanary))]
			}
		}
		body, err := json.Marshal(e.Request)
		if err != nil {
			f.Fatal(err)
		}
		text := strings.NewReplacer("alias/bdk-tdes", aliasBDKTDES, "alias/bdk-aes", aliasBDKAES, "alias/zpk-a", aliasZPK, "alias/zpk-b", aliasZPK,
			"alias/tak-42", aliasZAK, "alias/zmk-aes", aliasKEK).Replace(string(body))
		p := probe{path: "/", target: awsTarget + e.Operation, body: text}
		if e.Plane == "data" {
			path, ok := paths[e.Operation]
			if !ok {
				continue
			}
			p.path, p.target = path, ""
		}
		all = append(all, p)
	}
	return all
}

// frameSeeds are requests in frames of HTTP/2 (RFC 9113), and what is wrong with such.
func frameSeeds(p probe) [][]byte {
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		b = append(b, flags)
		return append(binary.BigEndian.AppendUint32(b, stream), payload...)
	}
	var block []byte // literals without indexing, RFC 7541 section 6.2.2
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", p.path}, {":authority", "keyd"}, {"content-type", "application/json"}} {
		block = append(append(block, 0, byte(len(h[0]))), h[0]...)
		block = append(append(block, byte(len(h[1]))), h[1]...)
	}
	const data, headers, reset, settings, ping, goAway, window, continuation = 0, 1, 3, 4, 6, 7, 8, 9
	const endStream, endHeaders = 1, 4
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	request := join(frame(headers, endHeaders, 1, block), frame(data, endStream, 1, []byte(p.body)))
	return [][]byte{
		request,
		join(request, frame(headers, endHeaders, 3, block), frame(reset, 0, 3, []byte{0, 0, 0, 8})),
		join(frame(headers, 0, 1, block[:9]), frame(continuation, endHeaders, 1, block[9:]), frame(data, endStream, 1, []byte("{}"))),
		join(frame(settings, 0, 0, []byte{0, 4, 0, 0, 0, 0}), request, frame(window, 0, 1, []byte{0, 0, 0, 1})),
		join(frame(ping, 0, 0, make([]byte, 8)), frame(goAway, 0, 0, make([]byte, 8))),
		frame(data, endStream, 7, []byte("{}")),
	}
}

// fuzzedDoor is a daemon and connections to it.
type fuzzedDoor struct {
	dir    string
	dev    devReport
	log    *watchedLog
	names  []string
	config map[string]*tls.Config
	open   map[string]*tls.Conn // of requests, by client
	cancel context.CancelFunc
	ended  chan int
}

// watchedLog keeps the lines of a daemon's log that must not be there.
type watchedLog struct {
	mu  sync.Mutex
	bad []byte
}

// Write implements io.Writer; the logger writes a line at a time.
func (l *watchedLog) Write(line []byte) (int, error) {
	for _, word := range []string{"not served", "request broken", "panic", "not recorded", fuzzCanary, strings.ToLower(fuzzCanary)} {
		if bytes.Contains(line, []byte(word)) {
			l.mu.Lock()
			l.bad = append(l.bad, line...)
			l.mu.Unlock()
		}
	}
	return len(line), nil
}

func (l *watchedLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	bad := string(l.bad)
	l.bad = nil
	return bad
}

func startFuzzed(t *testing.T) *fuzzedDoor {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyd-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	d := &fuzzedDoor{
		dir: dir, log: new(watchedLog), ended: make(chan int, 1), config: make(map[string]*tls.Config), open: make(map[string]*tls.Conn),
		names: []string{"switch", "admin", "switch", "admin", "operator", "custodian-1", "auditor", "admin-2", "nobody", "terminal"},
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() {
		d.ended <- run(ctx, []string{"dev", "--no-sim", "--sandbox", "off", "--dir", dir}, strings.NewReader(""), io.Discard, d.log)
	}()
	poll(t, "dev.json", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "dev.json"))
		return err == nil && json.Unmarshal(text, &d.dev) == nil
	})
	for _, name := range d.names {
		if d.config[name], err = devTLS(&d.dev, name); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *fuzzedDoor) stop(f *testing.F) {
	f.Helper()
	for _, conn := range d.open {
		_ = conn.Close()
	}
	d.cancel()
	if code := <-d.ended; code != exitDone {
		f.Errorf("the daemon ended with %d", code)
	}
	if bad := d.log.take(); bad != "" {
		f.Errorf("the daemon's log has: %s", bad)
	}
	_ = os.RemoveAll(d.dir)
}

// try sends one input and looks at what comes back.
func (d *fuzzedDoor) try(t *testing.T, way uint8, client, target string, input []byte) {
	t.Helper()
	switch way {
	case sendRequest:
		d.request(t, client, target, input)
	case sendHTTP1:
		d.raw(t, client, input)
	case sendHTTP2:
		d.frames(t, client, input)
	}
	if bad := d.log.take(); bad != "" {
		t.Fatalf("the daemon's log has: %s", bad)
	}
	select {
	case code := <-d.ended:
		t.Fatalf("the daemon ended with %d", code)
	default:
	}
}

// dial makes a connection that speaks one protocol.
func (d *fuzzedDoor) dial(t *testing.T, client, protocol string) *tls.Conn {
	t.Helper()
	config := d.config[client].Clone()
	config.NextProtos = []string{protocol}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", strings.TrimPrefix(d.dev.APIURL, "https://"), config)
	if err != nil {
		t.Fatalf("no connection any more: %v", err)
	}
	return conn
}

// fuzzPatience is how long an answer may take; ceremonies hold a status back
// for longer, which is no fault.
const fuzzPatience = 20 * time.Second

// request sends a request with the input as body; target is the path and, behind
// a space, the operation. What would break the head goes as raw bytes.
func (d *fuzzedDoor) request(t *testing.T, client, target string, body []byte) {
	t.Helper()
	path, operation, _ := strings.Cut(target, " ")
	for i := range len(target) {
		if target[i] < ' ' || target[i] > '~' {
			path, operation = "/mac/generate", ""
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /%s HTTP/1.1\r\nHost: keyd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", strings.TrimPrefix(path, "/"), len(body))
	if operation != "" {
		fmt.Fprintf(&b, "X-Amz-Target: %s\r\n", operation)
	}
	b.WriteString("\r\n")
	b.Write(body)
	// A connection of before may have been closed meanwhile.
	for try := 0; ; try++ {
		conn, reused := d.open[client], true
		if conn == nil {
			conn, reused = d.dial(t, client, "http/1.1"), false
		}
		delete(d.open, client)
		_ = conn.SetDeadline(time.Now().Add(fuzzPatience))
		_, err := conn.Write(b.Bytes())
		var response *http.Response
		if err == nil {
			response, err = http.ReadResponse(bufio.NewReader(conn), nil)
		}
		if err != nil {
			_ = conn.Close()
			if reused && try == 0 || slowCeremony(path, err) {
				if reused && try == 0 {
					continue
				}
				return
			}
			t.Fatalf("no answer to %q: %v", target, err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatalf("half an answer: %v", err)
		}
		judge(t, response, text)
		if response.Close {
			_ = conn.Close()
			return
		}
		d.open[client] = conn
		return
	}
}

func slowCeremony(path string, err error) bool {
	var slow net.Error
	return strings.Contains(path, "ceremony") && errors.As(err, &slow) && slow.Timeout()
}

// judge looks at one answer.
func judge(t *testing.T, r *http.Response, text []byte) {
	t.Helper()
	if r.StatusCode >= 500 {
		t.Errorf("answered %s: %.200q", r.Status, text)
	}
	if r.StatusCode == http.StatusMovedPermanently || r.StatusCode == http.StatusTemporaryRedirect || strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
		return // the router's and the server's own answers have no values in them
	}
	if !json.Valid(text) {
		t.Errorf("answer %s is no JSON: %.200q", r.Status, text)
	}
	if r.StatusCode == http.StatusOK {
		return
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Errorf("answer %s is no object: %v: %.200q", r.Status, err, text)
	}
	delete(object, "ResourceId")
	rest, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	// A name in a conflict may come back (section 13 of the API).
	if strings.Contains(strings.ToUpper(string(rest)), fuzzCanary) && r.Header.Get("x-amzn-ErrorType") != "ConflictException" {
		t.Errorf("a value of the request is in the answer: %s", rest)
	}
}

// raw sends bytes as they are and reads all answers. What is no request of
// HTTP/1.1 is answered by the server itself, in the words of the standard
// library: 505 and 501 among them.
func (d *fuzzedDoor) raw(t *testing.T, client string, input []byte) {
	t.Helper()
	conn := d.dial(t, client, "http/1.1")
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(fuzzPatience))
	_, _ = conn.Write(input) // it may be closed in the middle of it
	_ = conn.CloseWrite()
	in := bufio.NewReader(conn)
	for {
		if _, err := in.Peek(1); err != nil {
			if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() && !bytes.Contains(input, []byte("ceremony")) {
				t.Errorf("the connection stays open")
			}
			return
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return // of a HEAD or of an answer that was cut off with the connection
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return
		}
		if response.StatusCode == http.StatusServiceUnavailable {
			return // this end has said that it goes, and the daemon noticed it in the middle of the work
		}
		if response.StatusCode >= 500 && response.Header.Get("x-amzn-RequestId") == "" && strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") {
			return
		}
		if response.StatusCode == http.StatusContinue || len(text) == 0 {
			continue
		}
		judge(t, response, text)
	}
}

// frames sends bytes behind the preface of HTTP/2 and reads until the other end
// closes. What the daemon could not serve is in its log.
func (d *fuzzedDoor) frames(t *testing.T, client string, input []byte) {
	t.Helper()
	conn := d.dial(t, client, "h2")
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(fuzzPatience))
	_, _ = conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), input...))
	_ = conn.CloseWrite()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		var slow net.Error
		if errors.As(err, &slow) && slow.Timeout() {
			t.Error("the connection stays open")
		}
	}
}
