package audit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shelf is an anchor in memory, which fails or hangs when it is told to.
type shelf struct {
	name string

	mu    sync.Mutex
	held  map[string][]byte
	times map[string][]time.Time // of the updates, by origin
	fails error
	hangs bool
}

// release ends what hangs, and gives it the time to go.
func release(shelves ...*shelf) {
	for _, s := range shelves {
		s.set(nil, false)
	}
	time.Sleep(2 * time.Second)
}

func (s *shelf) updates(origin string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.times[origin])
}

func newShelf(name string) *shelf {
	return &shelf{name: name, held: map[string][]byte{}, times: map[string][]time.Time{}}
}

func (s *shelf) Name() string { return s.name }

// state waits for ever where the shelf hangs, whatever ctx says.
func (s *shelf) state() error {
	s.mu.Lock()
	fails, hangs := s.fails, s.hangs
	s.mu.Unlock()
	for hangs {
		time.Sleep(time.Second)
		s.mu.Lock()
		hangs = s.hangs
		s.mu.Unlock()
	}
	return fails
}

func (s *shelf) set(fails error, hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails, s.hangs = fails, hangs
}

func (s *shelf) Load(_ context.Context, origin string) ([]byte, error) {
	if err := s.state(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	msg, ok := s.held[origin]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, origin)
	}
	return slices.Clone(msg), nil
}

func (s *shelf) Store(_ context.Context, msg []byte) error {
	if err := s.state(); err != nil {
		return err
	}
	c, err := unverifiedCheckpoint(msg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[c.Origin] = slices.Clone(msg)
	s.times[c.Origin] = append(s.times[c.Origin], time.Now())
	return nil
}

// put keeps the current checkpoints of a log.
func (s *shelf) put(t *testing.T, fsys *simFS) {
	t.Helper()
	for _, dir := range []string{"sec", "ops/2026-11", "ops/2026-12"} {
		if f := fsys.names[dir+"/checkpoint"]; f != nil {
			if err := s.Store(t.Context(), f.data); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (s *shelf) size(t *testing.T, origin string) uint64 {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := unverifiedCheckpoint(s.held[origin])
	if err != nil {
		t.Fatalf("%s: %v", origin, err)
	}
	return c.Size
}

func (a *alarms) count(code string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, c := range a.codes {
		if c == code {
			n++
		}
	}
	return n
}

const secOrigin, novemberOrigin = "audit.example/n1/sec", "audit.example/n1/ops-2026-11"

// anchoredLog opens a log of [closedLog] with anchors, none of them required.
func anchoredLog(fsys *simFS, raised *alarms, anchors ...AnchorConfig) (*Log, error) {
	o := simOptions(fsys)
	o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
	o.Anchors, o.Alarm = anchors, raised.raise
	return Open("sim", testSigner(), o)
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// signed makes a checkpoint of a log as its key would have signed it.
func signed(t *testing.T, fsys *simFS, origin string, size uint64, keys ...crypto.Signer) []byte {
	t.Helper()
	shard, err := parseShard(origin[lastSlash(origin)+1:])
	if err != nil {
		t.Fatal(err)
	}
	cp, err := unverifiedCheckpoint(fsys.names[shard.dir()+"/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	root, err := (&tiles{fsys, shard.dir(), cp.Size}).rootAt(size)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) == 0 {
		keys = []crypto.Signer{testSigner()}
	}
	msg, err := signCheckpoint(Checkpoint{origin, size, root}, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// TestAnchorFindsOlderCopy is L-61(g) and L-193: a log that an anchor has another
// or a later state of does not start, and neither does one whose anchor holds
// something else than its checkpoints.
func TestAnchorFindsOlderCopy(t *testing.T) {
	older, log := closedLog(t, 300)
	key := ed25519.NewKeyFromSeed(append(countingBytes(31), 0xee))
	forged := func(t *testing.T, change func(*Checkpoint)) []byte {
		t.Helper()
		c, err := unverifiedCheckpoint(log.names["sec/checkpoint"].data)
		if err != nil {
			t.Fatal(err)
		}
		change(&c)
		msg, err := signCheckpoint(c, testSigner())
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	for _, c := range []struct {
		name   string
		want   error
		change func(*testing.T, *simFS, *shelf)
	}{
		{"the whole directory of before", ErrRollback, func(_ *testing.T, s *simFS, _ *shelf) { s.names = older.snapshot().names }},
		{"a new directory in its place", ErrRollback, func(_ *testing.T, s *simFS, _ *shelf) { s.names = map[string]*simFile{} }},
		{"an anchor that is one record ahead", ErrRollback, func(t *testing.T, _ *simFS, a *shelf) {
			a.held[secOrigin] = forged(t, func(c *Checkpoint) { c.Size++ })
		}},
		{"another history of the same size", ErrRollback, func(t *testing.T, _ *simFS, a *shelf) {
			a.held[secOrigin] = forged(t, func(c *Checkpoint) { c.Root[0] ^= 1 })
		}},
		{"another history at a size of before", ErrRollback, func(t *testing.T, s *simFS, a *shelf) {
			a.held[secOrigin] = forged(t, func(c *Checkpoint) { c.Size = 7 })
		}},
		{"another history of a month that ended", ErrRollback, func(t *testing.T, s *simFS, a *shelf) {
			c, err := unverifiedCheckpoint(s.names["ops/2026-11/checkpoint"].data)
			if err != nil {
				t.Fatal(err)
			}
			c.Root[31] ^= 1
			if a.held[novemberOrigin], err = signCheckpoint(c, testSigner()); err != nil {
				t.Fatal(err)
			}
		}},
		{"a checkpoint of another key", ErrAnchor, func(t *testing.T, s *simFS, a *shelf) { a.held[secOrigin] = signed(t, s, secOrigin, 9, key) }},
		{"a checkpoint of another log", ErrAnchor, func(_ *testing.T, _ *simFS, a *shelf) { a.held[secOrigin] = a.held[novemberOrigin] }},
		{"nothing in the file", ErrAnchor, func(_ *testing.T, _ *simFS, a *shelf) { a.held[secOrigin] = []byte{} }},
		{"a file that was cut", ErrAnchor, func(_ *testing.T, _ *simFS, a *shelf) {
			a.held[secOrigin] = a.held[secOrigin][:len(a.held[secOrigin])-1]
		}},
		{"a file that goes on", ErrAnchor, func(_ *testing.T, _ *simFS, a *shelf) { a.held[secOrigin] = append(a.held[secOrigin], 'x') }},
		{"what the anchor says is no checkpoint", ErrAnchor, func(_ *testing.T, _ *simFS, a *shelf) { a.set(ErrFormat, false) }},
	} {
		inBubble(t, "L-61(g) "+c.name, func(t *testing.T) {
			bad, a := log.snapshot(), newShelf("vault-a")
			a.put(t, log)
			c.change(t, bad, a)
			l, err := anchoredLog(bad, &alarms{}, AnchorConfig{Anchor: a})
			if err == nil {
				shut(t, l)
				t.Fatal("L-65: Open took it")
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "L-61(g)") || !strings.Contains(err.Error(), "vault-a") {
				t.Errorf("Open = %v, want %v, the rule and the anchor", err, c.want)
			}
		})
	}
}

// TestAnchorEachByte is L-193: one byte of what an anchor holds, altered, refuses
// the start.
func TestAnchorEachByte(t *testing.T) {
	_, log := closedLog(t, 20)
	for at := range log.names["sec/checkpoint"].data {
		a := newShelf("vault-a")
		a.put(t, log)
		a.held[secOrigin][at] ^= 0x10 // no bit that base64 leaves unused
		o := simOptions(log)
		o.Anchors = []AnchorConfig{{Anchor: a}}
		m, err := readManifest(log)
		if err != nil {
			t.Fatal(err)
		}
		r := &recovery{log: &Log{o: o, fsys: log, signers: []crypto.Signer{testSigner()}}, manifest: m, shards: map[Shard]*shardState{}, anchorsAway: map[string]error{}}
		if err := r.run(); err == nil || !strings.Contains(err.Error(), "L-61(g)") {
			t.Errorf("byte %d of %q: %v", at, log.names["sec/checkpoint"].data, err)
		}
	}
}

// TestAnchorLags is L-61(g) where nothing is wrong: what an anchor holds is any
// earlier state of the log, under any key that the log had.
func TestAnchorLags(t *testing.T) {
	_, log := closedLog(t, 600)
	thin := log.snapshot()
	pruned(t, thin, 512)
	next := ed25519.NewKeyFromSeed(append(countingBytes(31), 0xff))
	month, err := unverifiedCheckpoint(log.names["ops/2026-11/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		fsys *simFS
		hold func(*testing.T, *shelf)
		keys func(*Options)
	}{
		{"the current state", log, func(t *testing.T, a *shelf) { a.put(t, log) }, nil},
		{"the first record of each", log, func(t *testing.T, a *shelf) {
			a.held[secOrigin], a.held[novemberOrigin] = signed(t, log, secOrigin, 1), signed(t, log, novemberOrigin, 1)
		}, nil},
		{"no record at all", log, func(t *testing.T, a *shelf) { a.held[secOrigin] = signed(t, log, secOrigin, 0) }, nil},
		{"each side of a full tile", log, func(t *testing.T, a *shelf) {
			a.held[secOrigin], a.held[novemberOrigin] = signed(t, log, secOrigin, 255), signed(t, log, novemberOrigin, 257)
		}, nil},
		{"the month alone", log, func(t *testing.T, a *shelf) { a.held[novemberOrigin] = signed(t, log, novemberOrigin, 256) }, nil},
		{"a month that was pruned, whole", thin, func(t *testing.T, a *shelf) { a.put(t, thin) }, nil},
		{"a month that was pruned, below the range", thin, func(t *testing.T, a *shelf) {
			a.held[secOrigin], a.held[novemberOrigin] = signed(t, log, secOrigin, 5), signed(t, log, novemberOrigin, 300)
		}, nil},
		{"a month that was pruned, above the range", thin, func(t *testing.T, a *shelf) {
			a.held[secOrigin], a.held[novemberOrigin] = signed(t, log, secOrigin, 5), signed(t, log, novemberOrigin, month.Size-1)
		}, nil},
		{"logs that a fork gave up", log, func(t *testing.T, a *shelf) {
			a.held["audit.example/n1-g0/sec"] = []byte("anything")
			a.put(t, log)
		}, nil},
		{"the old key, in the overlap", log, func(t *testing.T, a *shelf) { a.held[secOrigin] = signed(t, log, secOrigin, 40) }, func(o *Options) {
			o.Previous, o.Retired = testSigner(), []crypto.PublicKey{testSigner().Public()}
		}},
		{"the old key, long after the overlap", log, func(t *testing.T, a *shelf) { a.held[secOrigin] = signed(t, log, secOrigin, 40) }, func(o *Options) {
			o.Retired = []crypto.PublicKey{testSigner().Public()}
		}},
		{"the key that was lost", log, func(t *testing.T, a *shelf) { a.held[secOrigin] = signed(t, log, secOrigin, 40) }, func(o *Options) {
			o.Accept = []crypto.PublicKey{testSigner().Public()}
		}},
	} {
		inBubble(t, "L-61(g) "+c.name, func(t *testing.T) {
			fsys, a, raised := c.fsys.snapshot(), newShelf("vault-a"), &alarms{}
			c.hold(t, a)
			o := simOptions(fsys)
			o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
			o.Anchors, o.Alarm = []AnchorConfig{{Anchor: a}}, raised.raise
			var signer crypto.Signer = testSigner()
			if c.keys != nil {
				signer = next
				c.keys(&o)
			}
			l, err := Open("sim", signer, o)
			if err != nil {
				t.Fatal(err)
			}
			shut(t, l)
			if now := a.size(t, secOrigin); now <= 40 {
				t.Errorf("the anchor still has size %d", now)
			}
		})
	}
}

// TestAnchorAway is L-62: a required anchor that does not answer, or holds nothing
// of a log that was signed, refuses the start; any other raises an alarm and a
// record. One that hangs is waited for 10 s, however many there are.
func TestAnchorAway(t *testing.T) {
	_, log := closedLog(t, 20)
	away := errors.New("no route to host")
	for _, c := range []struct {
		name   string
		change func(*shelf)
		reason Reason
		waits  time.Duration
	}{
		{"fails", func(a *shelf) { a.set(away, false) }, ReasonInternal, 0},
		{"hangs", func(a *shelf) { a.set(nil, true) }, ReasonTimeout, anchorWait},
		{"is empty", func(a *shelf) { clear(a.held) }, ReasonInternal, 0},
		{"has a month alone", func(a *shelf) { delete(a.held, secOrigin) }, ReasonInternal, 0},
	} {
		for _, required := range []bool{false, true} {
			inBubble(t, fmt.Sprintf("L-62 %s, required %v", c.name, required), func(t *testing.T) {
				fsys, raised := log.snapshot(), &alarms{}
				a, b, good := newShelf("vault-a"), newShelf("vault-b"), newShelf("vault-c")
				for _, s := range []*shelf{a, b, good} {
					s.put(t, log)
				}
				c.change(a)
				c.change(b)
				defer release(a, b)
				began := time.Now()
				l, err := anchoredLog(fsys, raised, AnchorConfig{good, true}, AnchorConfig{a, required}, AnchorConfig{b, false})
				if took := time.Since(began); took != c.waits {
					t.Errorf("it took %v, want %v", took, c.waits)
				}
				if required {
					if !errors.Is(err, ErrAnchor) || !strings.Contains(err.Error(), "L-62") || !strings.Contains(err.Error(), "vault-a") {
						t.Errorf("Open = %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if n := raised.count("anchor_unreachable"); n != 2 {
					t.Errorf("%d alarms, want one of each anchor that is away", n)
				}
				shut(t, l)
				wantAway(t, fsys, c.reason, "anchor.vault-a", "anchor.vault-b")
				if n := good.size(t, secOrigin); n <= 20 {
					t.Errorf("the other anchor has size %d", n)
				}
			})
		}
	}
}

// wantAway checks the records of anchors that were away.
func wantAway(t *testing.T, fsys *simFS, reason Reason, corrs ...string) {
	t.Helper()
	var got []string
	for e, err := range (&Reader{fsys}).Records("sec", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if hasAction(e.Raw, SysAlarm) && strings.Contains(string(e.Raw), `"alarm":{"code":"anchor_unreachable","level":"warn"}`) {
			got = append(got, stringMember(e.Raw, "corr"))
			if !strings.Contains(string(e.Raw), `"reason":"`+reason.String()+`"`) {
				t.Errorf("%s, want reason %v", e.Raw, reason)
			}
		}
	}
	if !slices.Equal(got, corrs) {
		t.Errorf("records of %v, want %v", got, corrs)
	}
}

// TestAnchorUpdates is L-62 and L-53(8): an anchor has what is newest once a
// minute and no more often, and a record never waits for it.
func TestAnchorUpdates(t *testing.T) {
	inBubble(t, "L-62", func(t *testing.T) {
		fsys, a, slow := newSimFS(), newShelf("vault-a"), newShelf("vault-b")
		raised := &alarms{}
		o := simOptions(fsys)
		o.CheckpointInterval = time.Second
		o.Anchors, o.Alarm = []AnchorConfig{{Anchor: a, Required: true}, {Anchor: slow}}, raised.raise
		l, err := Open("sim", testSigner(), o)
		if err != nil {
			t.Fatalf("a new log with a new anchor: %v", err)
		}
		slow.set(nil, true)
		began := time.Now()
		for i := range 300 {
			before := time.Now()
			if _, err := appendOne(l, Sec, secRecord()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(before); took != 0 {
				t.Fatalf("a record waited %v for an anchor", took)
			}
			time.Sleep(time.Second)
			if i == 100 {
				if n := raised.count("anchor_unreachable"); n != 1 {
					t.Errorf("%d alarms of the anchor that hangs, want 1", n)
				}
				slow.set(nil, false) // and is updated at once
			}
		}
		times := a.updates(secOrigin)
		if len(times) < 5 || times[0].Sub(began) > 3*time.Second {
			t.Errorf("updates at %v, began at %v", times, began)
		}
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d < anchorInterval || d > anchorInterval+2*time.Second {
				t.Errorf("%v between two updates", d)
			}
		}
		for _, s := range []*shelf{a, slow} {
			if n := s.size(t, secOrigin); n < 200 {
				t.Errorf("%s has size %d", s.name, n)
			}
		}
		shut(t, l)
		wantAway(t, fsys, ReasonTimeout, "anchor.vault-b")
	})
}

// TestAnchorComesBack is L-62: each time that an anchor goes away is told, once.
func TestAnchorComesBack(t *testing.T) {
	inBubble(t, "L-62", func(t *testing.T) {
		fsys, a, raised := newSimFS(), newShelf("vault-a"), &alarms{}
		o := simOptions(fsys)
		o.CheckpointInterval = time.Second
		o.Anchors, o.Alarm = []AnchorConfig{{Anchor: a}}, raised.raise
		l, err := Open("sim", testSigner(), o)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			a.set(errors.New("read only"), false)
			time.Sleep(5 * time.Minute)
			if n := raised.count("anchor_unreachable"); n != round+1 {
				t.Errorf("round %d: %d alarms", round, n)
			}
			a.set(nil, false)
			was := len(a.updates(secOrigin))
			time.Sleep(5 * time.Minute)
			if len(a.updates(secOrigin)) == was {
				t.Error("no update after it came back")
			}
		}
		shut(t, l)
		wantAway(t, fsys, ReasonInternal, "anchor.vault-a", "anchor.vault-a")
	})
}

// TestAnchorAtClose is L-62: a process that lives for less than a minute leaves
// its last checkpoint, and its end waits for no anchor longer than 10 s.
func TestAnchorAtClose(t *testing.T) {
	for _, c := range []struct {
		name         string
		lives, waits time.Duration
		change       func(*shelf)
		left         bool // the very last checkpoint
		alarms       int
	}{
		{"at once", 0, 0, func(*shelf) {}, true, 0},
		{"within the minute of an update", 30 * time.Second, 0, func(*shelf) {}, false, 0},
		{"hangs", 0, anchorWait, func(a *shelf) { a.set(nil, true) }, false, 1},
		{"is known to hang", 20 * time.Second, 0, func(a *shelf) { a.set(nil, true) }, false, 1},
		{"fails", 0, 0, func(a *shelf) { a.set(errors.New("gone"), false) }, false, 1},
	} {
		inBubble(t, "L-62 "+c.name, func(t *testing.T) {
			fsys, a, raised := newSimFS(), newShelf("vault-a"), &alarms{}
			o := simOptions(fsys)
			o.CheckpointInterval = time.Second
			o.Anchors, o.Alarm = []AnchorConfig{{Anchor: a}}, raised.raise
			l, err := Open("sim", testSigner(), o)
			if err != nil {
				t.Fatal(err)
			}
			c.change(a)
			defer release(a)
			time.Sleep(c.lives)
			began := time.Now()
			shut(t, l)
			if took := time.Since(began); took != c.waits {
				t.Errorf("Close took %v, want %v", took, c.waits)
			}
			if n := raised.count("anchor_unreachable"); n != c.alarms {
				t.Errorf("%d alarms, want %d", n, c.alarms)
			}
			if left := string(a.held[secOrigin]) == string(fsys.names["sec/checkpoint"].data); left != c.left {
				t.Errorf("the last checkpoint was left: %v, want %v", left, c.left)
			}
		})
	}
}

// TestAnchorOptions: each anchor has a name of its own that a record can hold.
func TestAnchorOptions(t *testing.T) {
	for name, anchors := range map[string][]AnchorConfig{
		"nothing":        {{}},
		"no name":        {{Anchor: newShelf("")}},
		"twice":          {{Anchor: newShelf("a")}, {Anchor: newShelf("a")}},
		"too long":       {{Anchor: newShelf(strings.Repeat("a", 122))}},
		"not a name":     {{Anchor: newShelf("a b")}},
		"a card's digit": {{Anchor: newShelf("4111111111111111")}},
	} {
		o := simOptions(newSimFS())
		o.Anchors = anchors
		if _, err := Open("sim", testSigner(), o); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDirAnchor: a directory keeps the newest checkpoint of each origin, does not
// go back, and tells that it is away from that it is empty.
func TestDirAnchor(t *testing.T) {
	_, log := closedLog(t, 300)
	dir := filepath.Join(t.TempDir(), "anchor")
	a, err := NewDirAnchor("vault-a", dir)
	if err != nil {
		t.Fatal(err)
	}
	load := func(origin string) (string, error) {
		msg, err := a.Load(t.Context(), origin)
		return string(msg), err
	}
	store := func(msg []byte) error { return a.Store(t.Context(), msg) }
	if _, err := load(secOrigin); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if err := store(signed(t, log, secOrigin, 9)); err == nil {
		t.Error("stored in a directory that is not there")
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := load(secOrigin); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	for _, msg := range [][]byte{signed(t, log, secOrigin, 9), signed(t, log, novemberOrigin, 4), signed(t, log, secOrigin, 9), signed(t, log, secOrigin, 30)} {
		if err := store(msg); err != nil {
			t.Fatal(err)
		}
	}
	if msg, err := load(secOrigin); err != nil || msg != string(signed(t, log, secOrigin, 30)) {
		t.Errorf("%q, %v", msg, err)
	}
	if names, err := osFS(dir).ReadDir("."); err != nil || !slices.Equal(names, []string{"audit.example_n1_ops-2026-11", "audit.example_n1_sec"}) {
		t.Errorf("%v, %v", names, err)
	}
	c, err := unverifiedCheckpoint(signed(t, log, secOrigin, 30))
	if err != nil {
		t.Fatal(err)
	}
	c.Root[0] ^= 1
	other, err := signCheckpoint(c, testSigner())
	if err != nil {
		t.Fatal(err)
	}
	for name, msg := range map[string][]byte{"a smaller one": signed(t, log, secOrigin, 29), "another of its size": other} {
		if err := store(msg); !errors.Is(err, ErrRollback) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := store([]byte("text")); !errors.Is(err, ErrFormat) {
		t.Errorf("no checkpoint: %v", err)
	}
	file := filepath.Join(dir, AnchorFile(secOrigin))
	if err := os.WriteFile(file, make([]byte, maxAnchored+1), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := load(secOrigin); !errors.Is(err, ErrFormat) {
		t.Errorf("a file that is too long: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := store(signed(t, log, secOrigin, 31)); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("L-62: the directory was emptied, or unmounted, and it was not told: %v", err)
	}
	for _, bad := range []string{"", "a b", "vault-a"} {
		if _, err := NewDirAnchor(bad, ""); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestDirAnchorOlderCopy is L-61(g) with files: a log's directory that is put back
// as it was before does not open, a fork of it does, and the anchor has both.
func TestDirAnchorOlderCopy(t *testing.T) {
	dir, held := filepath.Join(t.TempDir(), "log"), t.TempDir()
	life := func(o Options) error {
		t.Helper()
		a, err := NewDirAnchor("vault-a", held)
		if err != nil {
			t.Fatal(err)
		}
		o.Anchors = []AnchorConfig{{Anchor: a, Required: true}}
		l, err := Open(dir, testSigner(), o)
		if err != nil {
			return err
		}
		produce(l, 1, 3, "a", &acknowledged{pos: map[string]string{}})
		return l.Close(context.Background())
	}
	if err := life(testOptions()); err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(t.TempDir(), "older")
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := life(testOptions()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(older, dir)); err != nil {
		t.Fatal(err)
	}
	if err := life(testOptions()); !errors.Is(err, ErrRollback) || !strings.Contains(err.Error(), "L-61(g)") {
		t.Fatalf("an older copy: %v", err)
	}
	kept, err := os.ReadFile(filepath.Join(held, AnchorFile(secOrigin)))
	if err != nil {
		t.Fatal(err)
	}
	trees, err := LastKnown(Remains{Dir: dir, Checkpoints: [][]byte{kept}, Vkeys: []string{testVkey(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Fork = trees
	if err := errors.Join(life(o), life(testOptions())); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(filepath.Join(held, AnchorFile(secOrigin))); err != nil || string(again) != string(kept) {
		t.Errorf("the old generation's checkpoint changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(held, AnchorFile("audit.example/n1-g2/sec"))); err != nil {
		t.Error(err)
	}
}
