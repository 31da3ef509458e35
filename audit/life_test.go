package audit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeys is L-52, L-57 and L-198: an ECDSA key works like an Ed25519 key,
// rotation signs with both, and an unknown key refuses the start.
func TestKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := Vkey("audit.example/n1/sec", ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	fsys := newSimFS()
	life := func(t *testing.T, s crypto.Signer, change func(*Options), keys ...string) {
		t.Helper()
		o := simOptions(fsys)
		if change != nil {
			change(&o)
		}
		l, err := Open("sim", s, o)
		if err != nil {
			t.Fatal(err)
		}
		produce(l, 2, 20, "k", &acknowledged{pos: map[string]string{}})
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			report, err := verify(fsys, "sim", []string{k}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Errorf("%v, %v", err, report.Findings)
			}
		}
	}
	t.Run("L-52 ECDSA P-256", func(t *testing.T) { life(t, ec, nil, vkey) })
	t.Run("L-61 c unknown key", func(t *testing.T) {
		if _, err := Open("sim", testSigner(), simOptions(fsys)); !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "L-61(c)") {
			t.Errorf("Open = %v", err)
		}
		report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
		if err != nil || report.OK() {
			t.Errorf("verified under another key: %+v, %v", report, err)
		}
	})
	t.Run("L-57 rotation with overlap", func(t *testing.T) {
		life(t, testSigner(), func(o *Options) { o.Previous = ec }, vkey, testVkey(t))
		life(t, testSigner(), nil, testVkey(t))
		if !hasRecord(t, fsys, "sec", LogKeyRotate) {
			t.Error("no log.key.rotate")
		}
	})
	t.Run("L-57 lost key", func(t *testing.T) {
		life(t, ec, func(o *Options) { o.Accept = []crypto.PublicKey{testSigner().Public()} }, vkey)
		if countRecords(t, fsys, "sec", LogKeyRotate) != 2 {
			t.Error("no log.key.rotate")
		}
	})
	t.Run("refused curve", func(t *testing.T) {
		p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open("sim", p384, simOptions(newSimFS())); !errors.Is(err, ErrConfig) {
			t.Errorf("Open = %v", err)
		}
		if _, err := Vkey("audit.example/n1/sec", ed25519.PublicKey{1}); !errors.Is(err, ErrConfig) {
			t.Errorf("Vkey = %v", err)
		}
	})
}

// TestDangling is L-63: an intent that a crash left without outcome is recorded
// at the next start, once, with an alarm.
func TestDangling(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	keys := []Key{{Role: KeyRoleTarget, ID: "zpk/x", Version: 1}}
	lost, err := appendOne(l, Sec, Record{Action: KeyCreate, Phase: PhaseIntent, Actor: System(), Keys: keys, Change: &Change{Kind: ChangeKey, Object: "zpk/x"}})
	if err != nil {
		t.Fatal(err)
	}
	inOps, err := appendOne(l, Ops, Record{Action: KeyDistribute, Phase: PhaseIntent, Actor: System(), Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	done, err := appendOne(l, Sec, Record{Action: KeySuspend, Phase: PhaseIntent, Actor: System(), Keys: keys, Change: &Change{Kind: ChangeKey, Object: "zpk/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendOne(l, Sec, Record{Action: KeySuspend, Outcome: OutcomeOK, Ref: done.ID, Actor: System(), Keys: keys, Change: &Change{Kind: ChangeKey, Object: "zpk/x"}}); err != nil {
		t.Fatal(err)
	}
	killed := fsys.now()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	raised := &alarms{}
	for range 2 {
		o := simOptions(killed)
		o.Alarm = raised.raise
		if l, err = Open("sim", testSigner(), o); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	var refs []string
	for e, err := range (&Reader{killed}).Records("sec", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if hasAction(e.Raw, LogDangling) {
			refs = append(refs, stringMember(e.Raw, "ref"))
		}
	}
	if want := []string{lost.ID.String(), inOps.ID.String()}; !slices.Equal(refs, want) {
		t.Errorf("log.dangling for %v, want %v", refs, want)
	}
	if !raised.has("intent_without_outcome") {
		t.Error("no alarm")
	}
	report, err := verify(killed, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", err, report.Findings)
	}
}

// TestMonths is L-171 and L-198: the month changes while producers are at work,
// a clock that steps back reopens nothing, and old segments go.
func TestMonths(t *testing.T) { synctest.Test(t, testMonths) }

func testMonths(t *testing.T) {
	fsys := newSimFS()
	var now atomic.Int64
	now.Store(time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC).UnixNano())
	o := simOptions(fsys)
	o.Clock = func() time.Time { return time.Unix(0, now.Load()) }
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	acks := &acknowledged{pos: map[string]string{}}
	var group sync.WaitGroup
	for _, d := range []time.Duration{time.Hour, -2 * time.Hour, 40 * 24 * time.Hour} {
		// The clock moves while they are at work.
		group.Go(func() { produce(l, 8, 50, d.String(), acks) })
		group.Go(func() { now.Add(int64(d)) })
		group.Wait()
	}
	produce(l, 1, 10, "end", acks)
	closed := func() int { return countRecords(t, fsys, "sec", LogRotate) }
	logs, err := (&Reader{fsys}).Logs()
	if err != nil {
		t.Fatal(err)
	}
	months := len(logs) - 1
	eventually(t, "all months but the last are closed", func() bool { return closed() == months-1 })
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	checkAcks(t, fsys, acks)
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", err, report.Findings)
	}
	if months < 2 {
		t.Errorf("%d months of ops", months)
	}
	for _, log := range logs[1:] {
		if n := countRecords(t, fsys, log, LogOpen); n != 1 {
			t.Errorf("%s has %d log.open", log, n)
		}
	}
	segs, err := listSegments(fsys)
	if err != nil || segs[0] == 1 {
		t.Errorf("L-33: no segment was removed: %v, %v", segs, err)
	}
	if l, err = Open("sim", testSigner(), simOptions(fsys)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestOptions: an unsafe configuration is refused.
func TestOptions(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
	}{
		{"no site", func(o *Options) { o.Site = "" }},
		{"node with a slash", func(o *Options) { o.Node = "a/b" }},
		{"upper case", func(o *Options) { o.Node = "N1" }},
		{"L-23 segment too small", func(o *Options) { o.SegmentSize = 1 << 20 }},
		{"L-23 segment too large", func(o *Options) { o.SegmentSize = 512 << 20 }},
		{"L-51 interval too short", func(o *Options) { o.CheckpointInterval = time.Millisecond }},
		{"L-58 unsigned limit too long", func(o *Options) { o.UnsignedLimit = 2 * time.Hour }},
		{"L-92 PAN in the build", func(o *Options) { o.Build = "4111111111111111" }},
		{"L-133 limits the wrong way round", func(o *Options) { o.Disk = DiskLimits{WarnPercent: 5, CriticalPercent: 10} }},
		{"L-41 names too long", func(o *Options) { o.Site, o.Node = strings.Repeat("a", 63), strings.Repeat("b", 63) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := testOptions()
			tt.change(&o)
			if _, err := Open(t.TempDir(), testSigner(), o); !errors.Is(err, ErrConfig) {
				t.Errorf("Open = %v, want %v", err, ErrConfig)
			}
		})
	}
	t.Run("another node's directory", func(t *testing.T) {
		fsys := newSimFS()
		l, err := Open("sim", testSigner(), simOptions(fsys))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		o := simOptions(fsys)
		o.Node = "n2"
		if _, err := Open("sim", testSigner(), o); !errors.Is(err, ErrConfig) {
			t.Errorf("Open = %v", err)
		}
	})
}

// TestWatch is the once-a-second work over some minutes: heartbeats in quiet
// logs, cross-anchors when ops grew, and steps of the clock.
func TestWatch(t *testing.T) { synctest.Test(t, testWatch) }

func testWatch(t *testing.T) {
	fsys := newSimFS()
	var offset atomic.Int64
	raised := &alarms{}
	o := simOptions(fsys)
	o.Clock = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	o.CheckpointInterval = time.Second
	o.Alarm = raised.raise
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendOne(l, Ops, benchRecord()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10*time.Minute + 30*time.Second)
	log := l.ops.logName()
	if n := countRecords(t, fsys, log, LogHeartbeat); n != 10 {
		t.Errorf("%d heartbeats of ops in ten minutes", n)
	}
	if n := countRecords(t, fsys, "sec", LogCheckpoint); n != 10 {
		t.Errorf("L-59: %d cross-anchors in ten minutes", n)
	}
	if n := countRecords(t, fsys, "sec", SysTime); n != 0 {
		t.Errorf("%d steps of a steady clock", n)
	}
	for _, step := range []time.Duration{time.Second, -time.Second} {
		offset.Add(int64(step))
		time.Sleep(3 * watchInterval)
	}
	if n := countRecords(t, fsys, "sec", SysTime); n != 2 || !raised.has("clock_step") {
		t.Errorf("L-195: %d steps of the clock recorded, alarms %v", n, raised.all())
	}
	if _, err := appendOne(l, Ops, func() Record { r := benchRecord(); r.Corr = "4111111111111111"; return r }()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * watchInterval)
	if n := countRecords(t, fsys, "sec", LogScrub); n != 1 || !raised.has("scrub") {
		t.Errorf("L-74: %d log.scrub, alarms %v", n, raised.all())
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", err, report.Findings)
	}
}
