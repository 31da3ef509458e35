package audit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// alarms collects alarm codes.
type alarms struct {
	mu    sync.Mutex
	codes []string
}

func (a *alarms) raise(al Alarm, _ error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.codes = append(a.codes, al.Code)
}

func (a *alarms) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.codes)
}

func (a *alarms) has(code string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.codes, code)
}

// inBubble runs a subtest in which time passes only while everybody waits.
func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// eventually waits for something that a goroutine of the log does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 10000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func appendOne(l *Log, id LogID, r Record) (Pos, error) {
	t, err := l.Reserve(context.Background(), id, 1)
	if err != nil {
		return Pos{}, err
	}
	defer t.Release()
	pos, err := t.Append(r)
	if err != nil {
		return Pos{}, err
	}
	return pos[0], nil
}

func secRecord() Record {
	return Record{Action: AuthAccept, Outcome: OutcomeOK, Actor: Actor{ID: "switch-a", Kind: ActorSwitch, Authn: AuthnMTLS}}
}

// TestPoison is L-22 and L-195: after a failed write or sync of the write-ahead
// log nothing is written any more and everything is refused until the restart,
// which records it.
func TestPoison(t *testing.T) {
	for _, op := range []string{"write", "fdatasync"} {
		for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
			t.Run(fmt.Sprintf("L-195 %v on %s", cause, op), func(t *testing.T) {
				fsys := newSimFS()
				raised := &alarms{}
				o := simOptions(fsys)
				o.Alarm = raised.raise
				l, err := Open("sim", testSigner(), o)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := appendOne(l, Ops, benchRecord()); err != nil {
					t.Fatal(err)
				}
				var broken atomic.Bool
				var later atomic.Int32
				fsys.mu.Lock()
				fsys.fault = func(o, name string) error {
					if !strings.HasPrefix(name, "wal/wal-") || strings.HasSuffix(name, ".tmp") || o != "write" && o != "fdatasync" {
						return nil
					}
					if broken.Load() {
						later.Add(1)
						return nil
					}
					if o == op {
						broken.Store(true)
						return cause
					}
					return nil
				}
				fsys.mu.Unlock()
				if _, err := appendOne(l, Ops, benchRecord()); !errors.Is(err, ErrUnavailable) || !errors.Is(err, cause) {
					t.Errorf("Append = %v, want %v and its cause", err, ErrUnavailable)
				}
				if err := l.Ready(); !errors.Is(err, ErrUnavailable) {
					t.Errorf("Ready = %v", err)
				}
				for _, id := range []LogID{Sec, Ops} {
					if _, err := l.Reserve(context.Background(), id, 1); !errors.Is(err, ErrUnavailable) || ReasonOf(err) != ReasonLogUnavailable {
						t.Errorf("Reserve(%v) = %v", id, err)
					}
				}
				if !raised.has("log_unavailable") {
					t.Error("no alarm")
				}
				if err := l.Close(context.Background()); err == nil {
					t.Error("Close of a poisoned log reports nothing")
				}
				if later.Load() != 0 {
					t.Errorf("L-22: %d writes or syncs after the failure", later.Load())
				}
				fsys.mu.Lock()
				fsys.fault = nil
				fsys.mu.Unlock()
				if l, err = Open("sim", testSigner(), simOptions(fsys)); err != nil {
					t.Fatal(err)
				}
				if err := l.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				if !hasRecord(t, fsys, "sec", LogPoisoned) {
					t.Error("L-63: no log.poisoned")
				}
			})
		}
	}
}

func hasRecord(t testing.TB, fsys fileSystem, log string, a Action) bool {
	t.Helper()
	return countRecords(t, fsys, log, a) > 0
}

func countRecords(t testing.TB, fsys fileSystem, log string, a Action) int {
	t.Helper()
	n := 0
	for e, err := range (&Reader{fsys}).Records(log, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if hasAction(e.Raw, a) {
			n++
		}
	}
	return n
}

// TestTilesFail is L-135: tiles that cannot be written do not hold up Append,
// and are made good later.
func TestTilesFail(t *testing.T) {
	for _, op := range []string{"write", "rename", "syncfs", "mkdir"} {
		inBubble(t, "L-195 "+op, func(t *testing.T) {
			fsys := newSimFS()
			l, err := Open("sim", testSigner(), simOptions(fsys))
			if err != nil {
				t.Fatal(err)
			}
			fsys.mu.Lock()
			fsys.fault = func(o, name string) error {
				if o == op && !strings.HasPrefix(name, "wal") {
					return syscall.ENOSPC
				}
				return nil
			}
			fsys.mu.Unlock()
			for range 600 {
				if _, err := appendOne(l, Ops, benchRecord()); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the watch learns of it", func() bool {
				l.watch.mu.Lock()
				defer l.watch.mu.Unlock()
				return errors.Is(l.watch.cause, syscall.ENOSPC)
			})
			fsys.mu.Lock()
			fsys.fault = nil
			fsys.mu.Unlock()
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Errorf("%v, %v", err, report.Findings)
			}
		})
	}
}

// TestNoSpace is L-133, L-134 and L-195: when no segment can be made, ops is
// refused first and sec goes on in the reserve.
func TestNoSpace(t *testing.T) { synctest.Test(t, testNoSpace) }

func testNoSpace(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	spares := func() int {
		l.wal.mu.Lock()
		defer l.wal.mu.Unlock()
		return len(l.wal.spares)
	}
	eventually(t, "two spares and the reserve", func() bool { return spares() == 3 })
	fsys.mu.Lock()
	fsys.fault = func(op, name string) error {
		if strings.HasSuffix(name, ".tmp") && strings.HasPrefix(name, "wal/") {
			return syscall.ENOSPC
		}
		return nil
	}
	fsys.mu.Unlock()
	for err = nil; err == nil; {
		_, err = appendOne(l, Ops, benchRecord())
	}
	if !errors.Is(err, ErrDiskCritical) || ReasonOf(err) != ReasonDiskCritical || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("L-133: Append to ops = %v, want %v", err, ErrDiskCritical)
	}
	if n := spares(); n != 1 {
		t.Errorf("L-134: %d segments are left to sec, want the reserve", n)
	}
	n := 0
	for err = nil; err == nil; n++ {
		_, err = appendOne(l, Sec, secRecord())
	}
	if !errors.Is(err, ErrUnavailable) || n < 100 {
		t.Errorf("L-134: sec ended after %d records with %v", n, err)
	}
	fsys.mu.Lock()
	fsys.fault = nil
	fsys.mu.Unlock()
	eventually(t, "space again", func() bool {
		_, err := appendOne(l, Ops, benchRecord())
		return err == nil
	})
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v", err, report.Findings)
	}
}

// TestDiskWatermarks is L-133.
func TestDiskWatermarks(t *testing.T) { synctest.Test(t, testDiskWatermarks) }

func testDiskWatermarks(t *testing.T) {
	fsys := newSimFS()
	raised := &alarms{}
	o := simOptions(fsys)
	o.Alarm, o.CheckpointInterval = raised.raise, time.Second
	l, err := Open("sim", testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		free  int64
		ready bool
		alarm string
	}{{19, true, "disk_low"}, {9, false, "disk_critical"}, {11, false, ""}, {12, true, ""}, {50, true, "disk_recovered"}}
	for _, s := range steps {
		fsys.mu.Lock()
		fsys.free = s.free
		fsys.mu.Unlock()
		time.Sleep(2 * watchInterval)
		if ready := l.Ready() == nil; ready != s.ready || s.alarm != "" && !raised.has(s.alarm) {
			t.Errorf("%d%% free: ready %v, alarms %v", s.free, ready, raised.all())
		}
		_, err := appendOne(l, Ops, benchRecord())
		if s.ready != (err == nil) || !s.ready && !errors.Is(err, ErrDiskCritical) {
			t.Errorf("%d%% free: ops: %v", s.free, err)
		}
		if _, err := appendOne(l, Sec, secRecord()); err != nil {
			t.Errorf("%d%% free: sec: %v", s.free, err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if countRecords(t, fsys, "sec", LogDisk) < 3 {
		t.Error("the states of the disk are not recorded")
	}
}

// TestQueue is L-131: a full queue refuses before the work, and keeps room for
// sec.
func TestQueue(t *testing.T) {
	l, err := Open("sim", testSigner(), simOptions(newSimFS()))
	if err != nil {
		t.Fatal(err)
	}
	var held []*Ticket
	for {
		ticket, err := l.Reserve(context.Background(), Ops, maxPerTicket)
		if err != nil {
			if !errors.Is(err, ErrQueueFull) || ReasonOf(err) != ReasonQueueFull {
				t.Errorf("Reserve = %v", err)
			}
			break
		}
		held = append(held, ticket)
	}
	if got := len(held) * maxPerTicket; got != queueSize-queueForSec {
		t.Errorf("ops got %d places, want %d", got, queueSize-queueForSec)
	}
	for range queueForSec / maxPerTicket {
		ticket, err := l.Reserve(context.Background(), Sec, maxPerTicket)
		if err != nil {
			t.Fatalf("sec: %v", err)
		}
		held = append(held, ticket)
	}
	if _, err := l.Reserve(context.Background(), Sec, 1); !errors.Is(err, ErrQueueFull) {
		t.Errorf("sec beyond its places: %v", err)
	}
	if _, err := held[0].Append(benchRecord()); err != nil {
		t.Errorf("a full queue refuses one who has a place: %v", err)
	}
	for _, ticket := range held {
		ticket.Release()
		ticket.Release()
	}
	if _, err := held[0].Append(benchRecord()); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Release = %v", err)
	}
	if _, err := appendOne(l, Ops, benchRecord()); err != nil {
		t.Errorf("after release: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Reserve(ctx, Ops, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Reserve with a context that ended = %v", err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Reserve(context.Background(), Ops, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("Reserve after Close = %v", err)
	}
	if err := l.Ready(); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready after Close = %v", err)
	}
}

// TestRecordRefused: what the catalogue does not allow is not written.
func TestRecordRefused(t *testing.T) {
	l, err := Open("sim", testSigner(), simOptions(newSimFS()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	tests := []struct {
		name string
		id   LogID
		r    Record
	}{
		{"L-80 unknown action", Sec, Record{Action: 255, Outcome: OutcomeOK}},
		{"L-80 no action", Sec, Record{Outcome: OutcomeOK}},
		{"L-40 wrong log", Sec, benchRecord()},
		{"L-11 intent of an action without", Ops, Record{Action: PINTranslate, Phase: PhaseIntent}},
		{"L-11 intent with outcome", Sec, Record{Action: KeyCreate, Phase: PhaseIntent, Outcome: OutcomeOK}},
		{"L-11 outcome without intent", Sec, Record{Action: KeyCreate, Outcome: OutcomeOK}},
		{"L-11 no outcome", Ops, Record{Action: PINTranslate}},
		{"unknown phase", Ops, Record{Action: PINTranslate, Phase: 7, Outcome: OutcomeOK}},
		{"unknown outcome", Ops, Record{Action: PINTranslate, Outcome: 77}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := appendOne(l, tt.id, tt.r); !errors.Is(err, ErrRecord) {
				t.Errorf("Append = %v, want %v", err, ErrRecord)
			}
		})
	}
}

// badSigner fails in the ways of L-195 once it is armed.
type badSigner struct {
	crypto.Signer
	mode atomic.Int32 // 1 error, 2 wrong signature, 3 hangs
	hang chan struct{}
}

func (s *badSigner) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	switch s.mode.Load() {
	case 1:
		return nil, errors.New("CKR_DEVICE_ERROR")
	case 2:
		sig, err := s.Signer.Sign(r, msg, o)
		sig[3] ^= 1
		return sig, err
	case 3:
		<-s.hang
	}
	return s.Signer.Sign(r, msg, o)
}

// TestSignerFails is L-58 and L-195: recording goes on, the unsigned tail ends
// service after its limit, and nothing wrong is published.
func TestSignerFails(t *testing.T) {
	for mode, name := range map[int32]string{1: "error", 2: "wrong signature", 3: "hangs"} {
		inBubble(t, "L-195 signer: "+name, func(t *testing.T) {
			raised := &alarms{}
			s := &badSigner{Signer: testSigner(), hang: make(chan struct{})}
			fsys := newSimFS()
			o := simOptions(fsys)
			o.UnsignedLimit, o.Alarm, o.CheckpointInterval = time.Minute, raised.raise, time.Second
			l, err := Open("sim", s, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := appendOne(l, Ops, benchRecord()); err != nil {
				t.Fatal(err)
			}
			s.mode.Store(mode)
			if _, err := appendOne(l, Ops, benchRecord()); err != nil {
				t.Errorf("L-58: a signer that fails stopped recording: %v", err)
			}
			time.Sleep(signAlarmAfter + 3*watchInterval)
			if err := l.Ready(); err != nil || !raised.has("checkpoint_failed") {
				t.Errorf("L-58: after 13 s: %v, alarms %v", err, raised.all())
			}
			time.Sleep(time.Minute)
			if _, err := l.Reserve(context.Background(), Ops, 1); !errors.Is(err, ErrUnsigned) || !errors.Is(l.Ready(), ErrUnsigned) {
				t.Errorf("L-58: after a minute: %v", err)
			}
			if _, err := appendOne(l, Sec, secRecord()); err != nil {
				t.Errorf("sec: %v", err)
			}
			s.mode.Store(0)
			close(s.hang)
			time.Sleep(3 * watchInterval) // a checkpoint, then the watch
			if err := l.Ready(); err != nil {
				t.Errorf("the signer is back: %v", err)
			}
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n := countRecords(t, fsys, "sec", LogCheckpointFail); n != 2 {
				t.Errorf("L-138: %d log.checkpoint.fail, want the beginning and the end", n)
			}
			report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
			if err != nil || !report.OK() {
				t.Errorf("%v, %v", err, report.Findings)
			}
		})
	}
	t.Run("L-55 self-test", func(t *testing.T) {
		s := &badSigner{Signer: testSigner()}
		s.mode.Store(2)
		if _, err := Open("sim", s, simOptions(newSimFS())); !errors.Is(err, ErrSignature) {
			t.Errorf("Open = %v, want %v", err, ErrSignature)
		}
	})
	t.Run("L-58 Close does not wait for a signer that hangs", func(t *testing.T) {
		s := &badSigner{Signer: testSigner(), hang: make(chan struct{})}
		l, err := Open("sim", s, simOptions(newSimFS()))
		if err != nil {
			t.Fatal(err)
		}
		s.mode.Store(3)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		close(s.hang)
	})
}

// TestTokener is L-103: without a token the operation is refused, and the
// record of that has the truncated PAN alone.
func TestTokener(t *testing.T) {
	fail := HMACTokener{Version: 1, HMAC: func([]byte) ([]byte, error) { return nil, errors.New("CKR_SESSION_HANDLE_INVALID") }}
	for name, tok := range map[string]Tokener{"none": nil, "fails": fail, "wrong": wrongTokener{}} {
		t.Run("L-103 tokener: "+name, func(t *testing.T) {
			l := &Log{o: Options{Tokener: tok}}
			p, err := l.PAN([]byte("4111111111111111"))
			if !errors.Is(err, ErrToken) || ReasonOf(err) != ReasonHSMUnavailable || p != (PAN{truncated: "411111******1111"}) {
				t.Errorf("PAN = %+v, %v", p, err)
			}
			if strings.Contains(err.Error(), "4111111111111111") {
				t.Error("the error shows the PAN")
			}
		})
	}
	t.Run("L-104 overlap", func(t *testing.T) {
		l := &Log{o: Options{Tokener: wrongVersion{testTokener()}, PreviousTokener: testTokener()}}
		p, err := l.PAN([]byte("4111111111111111"))
		if err != nil || p.prev != "k1:gv0DR9eyf1tnkhAjMPpPKQ" || p.tok != "k2:gv0DR9eyf1tnkhAjMPpPKQ" {
			t.Errorf("PAN = %+v, %v", p, err)
		}
	})
}

type wrongTokener struct{}

func (wrongTokener) Token(string, []byte) (string, error) { return "4111111111111111", nil }

type wrongVersion struct{ Tokener }

func (w wrongVersion) Token(label string, data []byte) (string, error) {
	tok, err := w.Tokener.Token(label, data)
	return "k2" + strings.TrimPrefix(tok, "k1"), err
}
