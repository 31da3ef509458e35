package audit

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"
)

// lostKeyLog is a log with a month that is over, in December, and its lives.
type lostKeyLog struct {
	fsys *simFS
	open func(s crypto.Signer, change func(*Options)) (*Log, error)
}

func newLostKeyLog(t *testing.T) *lostKeyLog {
	t.Helper()
	_, fsys := closedLog(t, 100)
	return &lostKeyLog{fsys, func(s crypto.Signer, change func(*Options)) (*Log, error) {
		o := simOptions(fsys)
		o.Clock = func() time.Time { return time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC) }
		change(&o)
		return Open("sim", s, o)
	}}
}

// life opens the log and closes it again.
func (k *lostKeyLog) life(s crypto.Signer, change func(*Options)) error {
	l, err := k.open(s, change)
	if err != nil {
		return err
	}
	return l.Close(context.Background())
}

func otherKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(countingBytes(31), n))
}

func vkeyOf(t *testing.T, s crypto.Signer) string {
	t.Helper()
	vkey, err := Vkey("audit.example/n1/sec", s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

func accept(keys ...crypto.Signer) func(*Options) {
	return func(o *Options) {
		for _, k := range keys {
			o.Accept = append(o.Accept, k.Public())
		}
	}
}

func asIs(*Options) {}

// TestLostKey is L-57 for a key that was lost, with a month that ended before: the
// new key takes over what goes on, at once and without an overlap; what was over
// stays as it was signed, and the log goes on without being told again.
func TestLostKey(t *testing.T) {
	k, next := newLostKeyLog(t), otherKey(0xfe)
	if err := k.life(next, asIs); !errors.Is(err, ErrSignature) {
		t.Fatalf("a key that nobody announced: %v", err)
	}
	if err := k.life(next, accept(otherKey(1))); !errors.Is(err, ErrSignature) {
		t.Fatalf("the lost key is another one: %v", err)
	}
	if err := k.life(next, accept(otherKey(1), otherKey(2), otherKey(3), testSigner())); !errors.Is(err, ErrConfig) {
		t.Fatalf("more lost keys than a record names: %v", err)
	}
	l, err := k.open(next, accept(testSigner()))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(log string, s crypto.Signer) bool {
		msg, err := (&Reader{k.fsys}).Checkpoint(log)
		if err == nil {
			_, err = CheckNewest(msg, []string{vkeyOf(t, s)})
		}
		return err == nil
	}
	eventually(t, "L-57 December, which did not grow, is signed anew", func() bool { return signed("sec", next) && signed("ops-2026-12", next) })
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !signed(november, testSigner()) {
		t.Error("L-171: the month that was over is signed by another key")
	}
	if err := k.life(next, accept(testSigner())); !errors.Is(err, ErrConfig) {
		t.Errorf("the key is not lost twice: %v", err)
	}
	if err := k.life(next, asIs); err != nil {
		t.Fatalf("the next start: %v", err)
	}
	if n := countRecords(t, k.fsys, "sec", LogKeyRotate); n != 1 {
		t.Errorf("%d records of log.key.rotate", n)
	}
	k.proves(t, next)
}

// proves holds verification to both keys, and to what it says under one of them.
func (k *lostKeyLog) proves(t *testing.T, next crypto.Signer) {
	t.Helper()
	old, newer := testVkey(t), vkeyOf(t, next)
	report, err := verify(k.fsys, "sim", []string{old, newer}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatal(err, report.Findings)
	}
	if len(report.KeyChanges) != 1 || !report.KeyChanges[0].Lost || strings.Join(report.KeyChanges[0].Vkeys, " ") != newer+" "+old {
		t.Fatalf("changes: %+v", report.KeyChanges)
	}
	since, err := (&Reader{k.fsys}).KeySince(newer)
	if err != nil || !since.Lost || since.Seq != report.KeyChanges[0].Seq || !since.At.Equal(report.KeyChanges[0].At) {
		t.Errorf("KeySince: %+v, %v; verified %+v", since, err, report.KeyChanges[0])
	}
	says := func(vkey, file, text string) {
		report, err := verify(k.fsys, "sim", []string{vkey}, VerifyOptions{})
		if err != nil || report.OK() {
			t.Fatalf("one key alone proves what the other signed: %v", err)
		}
		for _, f := range report.Findings {
			if f.Where == file && strings.Contains(f.Detail, text) {
				return
			}
		}
		t.Errorf("L-57: nothing says of %s that %q: %v", file, text, report.Findings)
	}
	says(old, "sec/checkpoint", "that of this log from sec:")
	says(old, "ops/2026-12/checkpoint", "because the one before was lost")
	says(newer, "ops/2026-11/checkpoint", "that of this log until sec:")
	text, err := readFile(k.fsys, "sec/vkey", maxKeyFile)
	if err != nil || string(text) != newer+"\n"+old+"\n" {
		t.Errorf("the keys beside the log: %q, %v", text, err)
	}
}

// TestLostWithinOverlap is L-57: the key before one that was lost does not stand
// for it, though its line is there.
func TestLostWithinOverlap(t *testing.T) {
	k, first, second, third := newLostKeyLog(t), testSigner(), otherKey(2), otherKey(3)
	retired := func(o *Options) { o.Retired = append(o.Retired, first.Public()) }
	if err := k.life(second, func(o *Options) { o.Previous = first }); err != nil {
		t.Fatal(err)
	}
	if err := k.life(first, asIs); !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "newer key") {
		t.Fatalf("back to the key before: %v", err)
	}
	if err := k.life(third, func(o *Options) { retired(o); accept(second)(o) }); err != nil {
		t.Fatal(err)
	}
	if err := k.life(third, asIs); !errors.Is(err, ErrSignature) {
		t.Errorf("November is of the first key, which nobody lost: %v", err)
	}
	if err := k.life(third, retired); err != nil {
		t.Error(err)
	}
	report, err := verify(k.fsys, "sim", []string{testVkey(t), vkeyOf(t, third)}, VerifyOptions{})
	if err != nil || !report.OK() || len(report.KeyChanges) != 2 || report.KeyChanges[0].Lost || !report.KeyChanges[1].Lost {
		t.Errorf("%v, %v, changes %+v", err, report.Findings, report.KeyChanges)
	}
}

// TestLostRetiredKey: a key that signed only what is over is lost by the same
// rule, and who signs goes on.
func TestLostRetiredKey(t *testing.T) {
	k, first, second := newLostKeyLog(t), testSigner(), otherKey(2)
	if err := k.life(second, func(o *Options) { o.Previous = first }); err != nil {
		t.Fatal(err)
	}
	if err := k.life(second, asIs); !errors.Is(err, ErrSignature) {
		t.Fatalf("November without its key: %v", err)
	}
	if err := k.life(second, accept(first)); err != nil {
		t.Fatal(err)
	}
	if err := k.life(second, asIs); err != nil {
		t.Error(err)
	}
}

// TestNamedKeyIsProved: a record that the checkpoint of sec does not prove opens
// nothing.
func TestNamedKeyIsProved(t *testing.T) {
	k, next := newLostKeyLog(t), otherKey(0xfe)
	l, err := k.open(next, accept(testSigner()))
	if err != nil {
		t.Fatal(err)
	}
	produce(l, 4, 700, "s", &acknowledged{pos: map[string]string{}}) // so that the bundle is full
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := k.life(next, asIs); err != nil {
		t.Fatal(err)
	}
	since, err := (&Reader{k.fsys}).KeySince(vkeyOf(t, next))
	if err != nil {
		t.Fatal(err)
	}
	name := "sec/" + tilePath(bundleLevel, since.Seq/tileWidth, 0)
	text, err := readFile(k.fsys, name, maxTileFile)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte(testVkey(t)))
	for i := at; i >= 0; i = bytes.Index(text, []byte(testVkey(t))) {
		copy(text[i:], vkeyOf(t, otherKey(9))) // as long
	}
	if err := writeDurable(k.fsys, name, text); err != nil || at < 0 {
		t.Fatal(at, err)
	}
	if err := k.life(next, asIs); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "L-57") {
		t.Errorf("a key that somebody put there: %v", err)
	}
}
