package audit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestSyncHeld is L-22: who writes syncs by a directory that was open before it
// wrote anything, lest a failed write be told to somebody else alone. It shows
// where the directory is somewhere else by then.
func TestSyncHeld(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	held := newHeldFS(dir)
	lock, err := held.Lock("lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newHeldFS(dir).Lock("lock"); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := held.SyncFS(nil); err != nil {
		t.Errorf("by the directory that is open: %v", err)
	}
	if err := osFS(dir).SyncFS(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("by one that is opened anew: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	if err := held.SyncFS(nil); err == nil {
		t.Error("a directory that is not locked any more is still open")
	}
}

// TestSyncHeldByWriters: a log is written by such a directory.
func TestSyncHeldByWriters(t *testing.T) {
	l, err := Open(t.TempDir(), testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	held, ok := l.fsys.(*heldFS)
	if !ok || held.root == nil || l.tiles.fsys != l.fsys {
		t.Errorf("a log syncs by %T", l.tiles.fsys)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
