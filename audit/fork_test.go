package audit

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFork is L-66: what is left of a lost log is sealed, a new generation names
// its last known trees and has origins of its own, and the old ones are never
// signed again.
func TestFork(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old")
	var kept [][]byte
	for range 2 {
		l, err := Open(old, testSigner(), testOptions())
		if err != nil {
			t.Fatal(err)
		}
		produce(l, 2, 20, "f", &acknowledged{pos: map[string]string{}})
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		msg, err := os.ReadFile(filepath.Join(old, "sec", "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, msg)
	}
	// An older copy came back, and the newest checkpoint is elsewhere.
	if err := os.WriteFile(filepath.Join(old, "sec", "checkpoint"), kept[0], 0o640); err != nil {
		t.Fatal(err)
	}
	trees, err := LastKnown(Remains{Dir: old, Checkpoints: kept, Vkeys: []string{testVkey(t)}})
	if err != nil {
		t.Fatal(err)
	}
	newest, err := unverifiedCheckpoint(kept[1])
	if err != nil || len(trees) != 2 || trees[0].Log != "sec" || uint64(trees[0].Size) != newest.Size || *trees[0].Root != newest.Root {
		t.Fatalf("%+v, %v; want sec of size %d and a month", trees, err, newest.Size)
	}
	for range 2 { // again, as after a power cut
		if err := Seal(old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(old, testSigner(), testOptions()); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "L-66") {
		t.Errorf("the sealed directory was opened: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	o := testOptions()
	o.Fork = trees
	for life := range 3 {
		l, err := Open(dir, testSigner(), o)
		if err != nil {
			t.Fatal(err)
		}
		produce(l, 2, 20, "g", &acknowledged{pos: map[string]string{}})
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if life == 0 {
			if _, err := Open(dir, testSigner(), o); !errors.Is(err, ErrConfig) {
				t.Errorf("a second fork into the same directory: %v", err)
			}
		}
		o.Fork = nil
	}
	wantGeneration(t, dir, trees)
	if again, err := nextGeneration("example", "n1", []Tree{trees[0], {Log: "sec", Origin: "audit.example/n1-g7/sec"}}); err != nil || again != "n1-g8" {
		t.Errorf("after generation 7 comes %s, %v", again, err)
	}
}

// wantGeneration checks the second generation of a node.
func wantGeneration(t *testing.T, dir string, trees []Tree) {
	t.Helper()
	if report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{}); err != nil || report.OK() {
		t.Errorf("the new generation verifies under the vkey of the old one: %v", err)
	}
	vkey, err := Vkey("audit.example/n1-g2/sec", testSigner().Public())
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(dir, []string{vkey}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatal(err, report.Findings)
	}
	for _, l := range report.Logs {
		if !strings.HasPrefix(l.Origin, "audit.example/n1-g2/") {
			t.Errorf("an old origin was signed: %s", l.Origin)
		}
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for seq, action := range []Action{LogOpen, LogFork} {
		raw, err := r.Get("sec", uint64(seq))
		if err != nil {
			t.Fatal(err)
		}
		f, err := parseRecord(raw)
		if err != nil || f.action != action || len(f.trees) != len(trees) {
			t.Fatalf("%s, %v", raw, err)
		}
		for i, tree := range f.trees {
			if tree.origin != trees[i].Origin || tree.size != uint64(trees[i].Size) || tree.root == "" {
				t.Errorf("%v names %+v, want %+v", action, tree, trees[i])
			}
		}
	}
}

// TestForkRefused is L-66: a fork needs a checkpoint that verifies, of this node,
// and no two that contradict each other.
func TestForkRefused(t *testing.T) {
	sign := func(origin string, size uint64, root Hash, key ed25519.PrivateKey) []byte {
		msg, err := signCheckpoint(Checkpoint{origin, size, root}, key)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	ours, other := testSigner(), ed25519.NewKeyFromSeed(append(countingBytes(31), 0xff))
	sec := "audit.example/n1/sec"
	tests := []struct {
		name string
		msgs [][]byte
		want error
	}{
		{"nothing", nil, ErrNotFound},
		{"another key", [][]byte{sign(sec, 5, Hash{1}, other)}, ErrNotFound},
		{"two histories", [][]byte{sign(sec, 5, Hash{1}, ours), sign(sec, 5, Hash{2}, ours)}, ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := LastKnown(Remains{Checkpoints: tt.msgs, Vkeys: []string{testVkey(t)}}); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	for _, origin := range []string{"audit.example/n2/sec", "audit.other/n1/sec", "audit.example/n1-g1/sec", "audit.example/n1-g02/sec", "audit.example/n1"} {
		if _, err := nextGeneration("example", "n1", []Tree{{Log: "sec", Origin: origin}}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", origin, err)
		}
	}
}

// TestSeal is L-66: sealing takes the right to write from the files of the log,
// of no file that a link leads to, and from no node that runs.
func TestSeal(t *testing.T) {
	dir, outside := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "outside")
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if err := Seal(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a node that runs: %v, want %v", err, ErrLocked)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, testSigner(), testOptions()); err != nil {
		t.Fatalf("what was not sealed: %v", err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "sec", "tile", "link")); err != nil {
		t.Fatal(err)
	}
	if err := Seal(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file behind a link has mode %v, %v", info.Mode(), err)
	}
	for name := range filesOf(t, dir) {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s can be written: %v", name, info.Mode())
		}
	}
}
