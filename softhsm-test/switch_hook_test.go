package softhsmtest_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/hook"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// TestSwitchHook is the delivery of events about reversals, by a real switch with
// a real token and database, to a receiver behind TLS.
func TestSwitchHook(t *testing.T) {
	t.Run("R-05 created arrives while upstream is silent, done after it", toldBeforeSent)
	t.Run("R-54 until it is acknowledged, under one id, with one effect", toldUntilAcknowledged)
	t.Run("R-54 no hurry where an acknowledgement cannot be written down", toldUnwritten)
	t.Run("R-05 after a restart", toldAfterRestart)
	t.Run("A-26 the receiver's verification of the documentation", verifiedAsDocumented)
	t.Run("neither another receiver nor one without TLS", toldNobodyElse)
}

// hookKey is the key of events in the tests, which only the receiver knows else.
var hookKey = []byte("the key of events, known to two.")

// delivery is one message that a receiver got.
type delivery struct {
	id, signature string
	body          []byte
}

// receiver is whom events go to. It answers with status until it is told
// otherwise.
type receiver struct {
	*httptest.Server
	status atomic.Int32

	mu  sync.Mutex
	got []delivery
}

func (h *house) startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.status.Store(http.StatusNoContent)
	cert := h.ca.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "receiver"}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.got = append(r.got, delivery{q.Header.Get("Keyd-Event"), q.Header.Get("Keyd-Signature"), body})
		r.mu.Unlock()
		w.WriteHeader(int(r.status.Load()))
	}))
	r.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

// all are the deliveries so far.
func (r *receiver) all() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// ids are those of the events that came, each once, in the order of their first.
func (r *receiver) ids() (ids []string) {
	for _, d := range r.all() {
		if !slices.Contains(ids, d.id) {
			ids = append(ids, d.id)
		}
	}
	return ids
}

func (h *house) hookConfig(r *receiver) hook.Config {
	return hook.Config{
		Custody: h.custody, Outbox: h.db, URL: r.URL, Key: custody.Ref{Alias: "alias/hook"},
		TLS: &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", MinVersion: tls.VersionTLS12},
		Log: slog.New(slog.NewTextHandler(h.logs, nil)), Clock: time.Now,
		First: 20 * time.Millisecond, Ceiling: 100 * time.Millisecond, Timeout: 2 * time.Second, Poll: 10 * time.Millisecond,
	}
}

// tell begins a hook; what it returns ends it.
func (h *house) tell(t *testing.T, r *receiver) (stop func()) {
	t.Helper()
	k, err := hook.New(h.hookConfig(r))
	must(t, err)
	must(t, k.Check(t.Context()))
	must(t, h.db.SetHook(t.Context(), true))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// giveHookKey imports the key of events.
func (h *house) giveHookKey(t *testing.T) {
	t.Helper()
	_, err := h.custody.ImportClear(t.Context(), custody.SystemCaller("test", custody.RoleCustodian), "test", custody.ImportClear{
		Attributes: keys.Attributes{Usage: keys.UsageHMAC, Algorithm: keys.HMACSHA256, Mode: keys.ModeMAC, Exportability: keys.NonExportable},
		Value:      secret.From(slices.Clone(hookKey)), Alias: "alias/hook",
	})
	must(t, err)
}

// genuine verifies a delivery as a receiver must.
func genuine(d delivery) error {
	parts := make(map[string]string)
	for part := range strings.SplitSeq(d.signature, ",") {
		name, value, _ := strings.Cut(part, "=")
		parts[name] = value
	}
	mac := hmac.New(sha256.New, hookKey)
	fmt.Fprintf(mac, "%s.%s", parts["t"], d.body)
	got, err := hex.DecodeString(parts["v1"])
	at, numeric := strconv.ParseInt(parts["t"], 10, 64)
	switch {
	case err != nil || !hmac.Equal(got, mac.Sum(nil)):
		return errors.New("the signature does not verify")
	case numeric != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute:
		return errors.New("the time of the signature is not now")
	case len(parts["k"]) != 32:
		return errors.New("no id of a key")
	}
	return nil
}

// event is the part of an event that the tests look at.
type event struct {
	ID       string
	Type     string
	Reversal struct{ State, Cause string }
	Original struct{ State, STAN string }
}

func (d delivery) event(t *testing.T) (e event) {
	t.Helper()
	must(t, json.Unmarshal(d.body, &e))
	return e
}

func toldBeforeSent(t *testing.T) {
	var awake atomic.Bool
	h, b := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte {
		if m.MTI().Class() == '4' && !awake.Load() {
			return nil
		}
		return [][]byte{b.approve(m)}
	}, func(c *isoswitch.Config) { c.Timers.Upstream = 100 * time.Millisecond })
	h.giveHookKey(t)
	r := h.startReceiver(t)
	h.tell(t, r)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "created arrives", func() bool { return len(r.ids()) == 1 })
	eventually(t, "upstream was asked twice", func() bool { return len(b.reversals()) >= 2 })
	awake.Store(true)
	eventually(t, "done arrives", func() bool { return len(r.ids()) == 2 })
	name := h.nameOf(sale)
	if diff := cmp.Diff([]string{name + "-created", name + "-done"}, r.ids()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for i, want := range []event{{Type: "reversal.created"}, {Type: "reversal.done"}} {
		d := r.all()[i]
		got := d.event(t)
		if err := genuine(d); err != nil || got.Type != want.Type || got.ID != d.id {
			t.Errorf("delivery %d is %s %s: %v", i, got.Type, got.ID, err)
		}
		if state := []string{"REVERSAL_PENDING", "REVERSED"}[i]; got.Original.State != state {
			t.Errorf("the original is told to be %s, want %s", got.Original.State, state)
		}
		for _, leak := range []string{visa.PAN, visa.PIN + `"`, hex.EncodeToString([]byte(visa.PAN)), visa.PAN[:6]} {
			if bytes.Contains(d.body, []byte(leak)) {
				t.Errorf("A-26: the event holds card data: %s", d.body)
			}
		}
	}
	if n := len(r.all()); n != 2 {
		t.Errorf("%d deliveries of two acknowledged events", n)
	}
}

func toldUntilAcknowledged(t *testing.T) {
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	h.giveHookKey(t)
	r := h.startReceiver(t)
	r.status.Store(http.StatusInternalServerError)
	h.tell(t, r)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "the reversal is confirmed", func() bool { return h.find(sale).State == isoswitch.Reversed })
	eventually(t, "created came again and again", func() bool { return len(r.all()) >= 4 })
	name := h.nameOf(sale)
	first := r.all()[0]
	for _, d := range r.all() {
		if d.id != name+"-created" || !bytes.Equal(d.body, first.body) || genuine(d) != nil {
			t.Fatalf("a redelivery is %s: %s", d.id, d.body)
		}
	}
	r.status.Store(http.StatusTemporaryRedirect) // no acknowledgement either
	n := len(r.all())
	eventually(t, "and again", func() bool { return len(r.all()) >= n+2 })
	r.status.Store(http.StatusOK)
	eventually(t, "done follows", func() bool { return len(r.ids()) == 2 })
	if diff := cmp.Diff([]string{name + "-created", name + "-done"}, r.ids()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	eventually(t, "nothing is left", func() bool {
		b, err := h.db.Backlog(t.Context())
		return err == nil && b.Events == 0
	})
}

// deaf is an outbox that cannot write an acknowledgement down.
type deaf struct {
	hook.Outbox
	asked chan struct{}
}

func (d deaf) Acknowledge(context.Context, int64, time.Time) error {
	d.asked <- struct{}{}
	return errors.New("the disk is full")
}

func toldUnwritten(t *testing.T) {
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	h.giveHookKey(t)
	cfg := h.hookConfig(h.startReceiver(t))
	d := deaf{h.db, make(chan struct{}, 1000)}
	cfg.Outbox, cfg.First, cfg.Ceiling = d, time.Hour, time.Hour
	k, err := hook.New(cfg)
	must(t, err)
	must(t, h.db.SetHook(t.Context(), true))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { k.Run(ctx) })
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	<-d.asked
	select {
	case <-d.asked:
		t.Error("the same event is delivered again at once")
	case <-time.After(time.Second): // without a rest it would come many times
	}
}

func toldAfterRestart(t *testing.T) {
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	h.giveHookKey(t)
	r := h.startReceiver(t)
	r.status.Store(http.StatusServiceUnavailable)
	stop := h.tell(t, r)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "created was refused", func() bool { return len(r.all()) > 0 })
	stop()
	h.reopen()
	r.status.Store(http.StatusAccepted)
	h.tell(t, r)
	eventually(t, "both arrive", func() bool { return len(r.ids()) == 2 })
	name := h.nameOf(sale)
	if diff := cmp.Diff([]string{name + "-created", name + "-done"}, r.ids()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// verifiedAsDocumented runs the receiver's example of docs/SWITCH.md over a
// genuine delivery and over changed ones.
func verifiedAsDocumented(t *testing.T) {
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	h.giveHookKey(t)
	r := h.startReceiver(t)
	h.tell(t, r)
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	eventually(t, "created arrives", func() bool { return len(r.all()) > 0 })
	text, err := os.ReadFile(filepath.Join("..", "docs", "SWITCH.md"))
	must(t, err)
	_, example, found := strings.Cut(string(text), "```python\n")
	example, _, closed := strings.Cut(example, "```")
	if !found || !closed {
		t.Fatal("docs/SWITCH.md has no example in Python")
	}
	d := r.all()[0]
	old := strings.Replace(d.signature, "t=1", "t=0", 1)
	for name, c := range map[string]struct {
		header, body string
		want         string
	}{
		"genuine":      {d.signature, string(d.body), "True"},
		"another body": {d.signature, strings.Replace(string(d.body), "created", "doneeee", 1), "False"},
		"another time": {old, string(d.body), "False"},
		"another MAC":  {d.signature[:len(d.signature)-2] + "zz", string(d.body), "False"},
	} {
		script := example + fmt.Sprintf("\nimport sys\nprint(genuine(sys.argv[1], sys.argv[2].encode(), bytes.fromhex(%q)))\n", hex.EncodeToString(hookKey))
		out, err := exec.CommandContext(t.Context(), "python3", "-c", script, c.header, c.body).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: %s, want %s: %v", name, got, c.want, err)
		}
	}
}

func toldNobodyElse(t *testing.T) {
	h, _ := newScripted(t, func(b *bank, m *iso8583.Message) [][]byte { return [][]byte{b.approve(m)} }, nil)
	h.giveHookKey(t)
	r := h.startReceiver(t)
	good := h.hookConfig(r)
	for name, change := range map[string]func(*hook.Config){
		"http":              func(c *hook.Config) { c.URL = strings.Replace(c.URL, "https", "http", 1) },
		"a password":        func(c *hook.Config) { c.URL = strings.Replace(c.URL, "https://", "https://u:p@", 1) },
		"no host":           func(c *hook.Config) { c.URL = "https:///x" },
		"nobody's CA":       func(c *hook.Config) { c.TLS = &tls.Config{MinVersion: tls.VersionTLS13} },
		"old TLS":           func(c *hook.Config) { c.TLS = &tls.Config{RootCAs: h.ca.pool, MinVersion: tls.VersionTLS10} },
		"no outbox":         func(c *hook.Config) { c.Outbox = nil },
		"unverified server": func(c *hook.Config) { c.TLS = good.TLS.Clone(); c.TLS.InsecureSkipVerify = true },
	} {
		cfg := good
		change(&cfg)
		if _, err := hook.New(cfg); !errors.Is(err, hook.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, alias := range []string{"alias/nothing", "alias/dev/zak"} {
		cfg := good
		cfg.Key = custody.Ref{Alias: alias}
		k, err := hook.New(cfg)
		must(t, err)
		if err := k.Check(t.Context()); !errors.Is(err, hook.ErrConfig) {
			t.Errorf("%s: %v", alias, err)
		}
	}
	// A receiver with the certificate of another authority gets nothing.
	other := newAuthority(t)
	cfg := good
	cfg.TLS = &tls.Config{RootCAs: other.pool, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	results := make(chan hook.Result, 100)
	cfg.Observe = func(r hook.Result) { results <- r }
	k, err := hook.New(cfg)
	must(t, err)
	must(t, h.db.SetHook(t.Context(), true))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	p := h.pos(0)
	sale, answer := p.sell(1000)
	wantCode(t, p.undo(iso8583.ReversalAdvice, sale, answer, nil), "00")
	if got := <-results; got != hook.Unreachable {
		t.Errorf("the delivery was %s", got)
	}
	cancel()
	<-done
	if n := len(r.all()); n != 0 {
		t.Errorf("%d deliveries to a receiver that was not verified", n)
	}
}
