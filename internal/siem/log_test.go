package siem

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
)

// patient is how long a test waits for what must come.
const patient = 2 * time.Minute

// testLog is a real log that is written to while it is exported.
type testLog struct {
	t    testing.TB
	dir  string
	feed *Feed
	log  *audit.Log
	now  atomic.Int64 // offset of the log's clock, nanoseconds
}

func newTestLog(t testing.TB) *testLog {
	t.Helper()
	l := &testLog{t: t, dir: filepath.Join(t.TempDir(), "audit"), feed: NewFeed()}
	if err := os.Mkdir(l.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	l.open()
	t.Cleanup(l.close)
	return l
}

func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func (l *testLog) open() {
	l.t.Helper()
	log, err := audit.Open(l.dir, testKey(), audit.Options{
		Site: "example", Node: "n1", SegmentSize: 8 << 20, CheckpointInterval: 100 * time.Millisecond,
		Disk:      audit.DiskLimits{WarnPercent: 1, CriticalPercent: 1, ClearPercent: 1},
		Published: l.feed.Published,
		Clock:     func() time.Time { return time.Now().Add(time.Duration(l.now.Load())) },
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.log = log
}

func (l *testLog) close() {
	if l.log == nil {
		return
	}
	if err := l.log.Close(context.Background()); err != nil {
		l.t.Error(err)
	}
	l.log = nil
}

// write appends n records to a log, with several producers.
func (l *testLog) write(id audit.LogID, n int) {
	l.t.Helper()
	var group sync.WaitGroup
	next := atomic.Int64{}
	for range 8 {
		group.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := l.tell(context.Background(), record(id, int(i))); err != nil {
					l.t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// record is one of the log sec or ops.
func record(id audit.LogID, i int) audit.Record {
	if id == audit.Sec {
		return audit.Record{Action: audit.AuthAccept, Actor: audit.Actor{ID: "anna", Kind: audit.ActorOperator, Authn: audit.AuthnMTLS}, Outcome: audit.OutcomeOK, Corr: fmt.Sprintf("t.%d", i)}
	}
	return audit.Record{Action: audit.FrameRefuse, Actor: audit.Actor{ID: "pos-1", Kind: audit.ActorSwitch}, Outcome: audit.OutcomeRefused, Reason: audit.ReasonFormatError, Corr: fmt.Sprintf("t.%d", i)}
}

// tell makes a record durable.
func (l *testLog) tell(ctx context.Context, r audit.Record) error {
	id := audit.Sec
	if r.Action == audit.FrameRefuse {
		id = audit.Ops
	}
	ticket, err := l.log.Reserve(ctx, id, 1)
	if err != nil {
		return err
	}
	defer ticket.Release()
	_, err = ticket.Append(r)
	return err
}

// running is an exporter at work.
type running struct {
	*Exporter
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	alarms []string
}

// export starts an exporter of the log.
func (l *testLog) export(target Target, change func(*Config)) *running {
	l.t.Helper()
	reader, err := audit.OpenReader(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	f, err := NewFormatter(examplePEN, DefaultFacility)
	if err != nil {
		l.t.Fatal(err)
	}
	r := &running{done: make(chan struct{})}
	cfg := Config{
		Name: "siem-a", Reader: reader, Feed: l.feed, Formatter: f, Target: target,
		Cursor: filepath.Join(filepath.Dir(l.dir), "siem-a.json"), Log: slog.New(slog.NewTextHandler(testWriter{l.t}, nil)),
		Tell: l.tell, Ceiling: 500 * time.Millisecond,
		Alarm: func(a audit.Alarm, cause error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alarms = append(r.alarms, a.Code)
			l.t.Logf("alarm %s: %v", a.Code, cause)
		},
	}
	if change != nil {
		change(&cfg)
	}
	if r.Exporter, err = New(cfg); err != nil {
		l.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.done)
		r.Run(ctx)
	}()
	l.t.Cleanup(r.kill)
	return r
}

// kill ends an exporter where it stands.
func (r *running) kill() {
	r.stop()
	<-r.done
}

// testWriter is the log of a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// seen says how often an alarm was raised.
func (r *running) seen(code string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.alarms {
		if c == code {
			n++
		}
	}
	return n
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// sizes are those of the log as readers see them.
func (l *testLog) sizes() map[string]uint64 {
	l.t.Helper()
	reader, err := audit.OpenReader(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		l.t.Fatal(err)
	}
	all := make(map[string]uint64)
	for _, log := range logs {
		if covered, _, err := reader.Size(log); err == nil {
			all[log] = covered
		}
	}
	return all
}

// vkey is the log's public key.
func (l *testLog) vkey() string {
	l.t.Helper()
	vkey, err := audit.Vkey("audit.example/n1/sec", testKey().Public())
	if err != nil {
		l.t.Fatal(err)
	}
	return vkey
}

// holds reports whether a file of what arrived proves each log of a size at least.
func (l *testLog) holds(file string, want map[string]uint64) bool {
	l.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	logs, _, err := Check(f, []string{l.vkey()})
	if err != nil {
		l.t.Fatal(err)
	}
	found := 0
	for _, r := range logs {
		if r.Altered > 0 || r.Wrong > 0 {
			l.t.Fatalf("%+v", r)
		}
		if r.Whole() && r.Proved >= want[r.Log] && want[r.Log] > 0 {
			found++
		}
	}
	return found == len(want)
}
