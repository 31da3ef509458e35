package audit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

// TestKeyRotation is L-57 with a month that ended before: its checkpoint has the
// old line alone for ever, and the log opens with the old key's public half.
func TestKeyRotation(t *testing.T) {
	_, fsys := closedLog(t, 100)
	next := ed25519.NewKeyFromSeed(append(countingBytes(31), 0xff))
	vkey, err := Vkey("audit.example/n1/sec", next.Public())
	if err != nil {
		t.Fatal(err)
	}
	both := []string{testVkey(t), vkey}
	at := time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)
	life := func(change func(*Options)) error {
		o := simOptions(fsys)
		o.Clock = func() time.Time { return at }
		change(&o)
		l, err := Open("sim", next, o)
		if err != nil {
			return err
		}
		produce(l, 2, 20, "r", &acknowledged{pos: map[string]string{}})
		return l.Close(context.Background())
	}
	if err := life(func(*Options) {}); !errors.Is(err, ErrSignature) {
		t.Fatalf("a key that nobody announced: %v", err)
	}
	if _, err := (&Reader{fsys}).KeySince(vkey); !errors.Is(err, ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	for _, keys := range []func(*Options){
		func(o *Options) { o.Previous, o.Retired = testSigner(), []crypto.PublicKey{testSigner().Public()} },
		func(o *Options) { o.Retired = []crypto.PublicKey{testSigner().Public()} },
	} {
		if err := life(keys); err != nil {
			t.Fatal(err)
		}
		report, err := verify(fsys, "sim", both, VerifyOptions{})
		if err != nil || !report.OK() {
			t.Fatal(err, report.Findings)
		}
		at = at.Add(30 * time.Hour)
	}
	since, err := (&Reader{fsys}).KeySince(vkey)
	if err != nil || !since.At.Equal(time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)) {
		t.Errorf("the rotation began at %v, %v", since.At, err)
	}
	for _, one := range both {
		if report, err := verify(fsys, "sim", []string{one}, VerifyOptions{}); err != nil || report.OK() {
			t.Errorf("one key alone proves what the other signed: %v", err)
		}
	}
	if n := countRecords(t, fsys, "sec", LogKeyRotate); n != 1 {
		t.Errorf("%d records of log.key.rotate; a retired key is not a lost one", n)
	}
	if err := life(func(*Options) {}); !errors.Is(err, ErrSignature) {
		t.Errorf("without the old key's public half: %v", err)
	}
}
