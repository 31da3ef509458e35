package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// write makes so many changes, each for itself.
func write(t *testing.T, db *DB, n int) {
	t.Helper()
	for range n {
		if err := db.update(t.Context(), touch); err != nil {
			t.Fatal(err)
		}
	}
}

// logged is how many frames of the log are not in the database yet, of how many.
// The caller has taken free.
func (c *copier) logged(t *testing.T) (left, frames int) {
	t.Helper()
	var busy, done int
	if err := c.session.query("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &frames, &done); err != nil {
		t.Fatal(err)
	}
	return frames - done, frames
}

// TestCopyBesideTheWriter: changes are written while the log is copied, and what
// waits for the copy begins when it has ended.
func TestCopyBesideTheWriter(t *testing.T) {
	db := open(t)
	err := db.update(t.Context(), func(*session) error {
		db.writer.pending = 0
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := db.writer.copier
	write(t, db, checkpointAfter-2)
	<-c.free // a copy is under way
	write(t, db, checkpointAfter)
	if left, frames := c.logged(t); left < 2*checkpointAfter-2 {
		t.Errorf("%d of %d frames left: something copied beside the copy", left, frames)
	}
	c.free <- struct{}{}
	write(t, db, 2) // the copy has begun before the second at the latest
	<-c.free
	if left, frames := c.logged(t); left > 2 || frames < 2*checkpointAfter {
		t.Errorf("%d of %d frames left", left, frames)
	}
	c.free <- struct{}{}
}

// TestScrubBehindTheCopy: SQLite would refuse to truncate the log at once while
// it is copied.
func TestScrubBehindTheCopy(t *testing.T) {
	db := open(t)
	write(t, db, 1)
	<-db.writer.copier.free
	// Without the wait the scrub takes a few milliseconds.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	done := make(chan error)
	go func() { done <- db.Scrub(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("scrubbed beside a copy: %v", err)
	case <-ctx.Done():
	}
	db.writer.copier.free <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(db.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 2*(4096+24)+32 {
		t.Errorf("the log after the scrub has %d bytes", info.Size())
	}
}

// TestCopyThatFails: after a copy that leaves the file in doubt nothing is
// written any more.
func TestCopyThatFails(t *testing.T) {
	damaged := openAt(t, filepath.Join(t.TempDir(), "damaged.db"), Serve)
	write(t, damaged, 1)
	other, err := newCopier(t.Context(), damaged.pool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.session.checkpoint("TRUNCATE"); err != nil {
		t.Fatal(err)
	}
	write(t, damaged, 1)
	if err := os.Truncate(damaged.path, 0); err != nil {
		t.Fatal(err)
	}
	db := open(t)
	err = db.update(t.Context(), func(*session) error {
		first := db.writer.copier
		db.writer.copier, db.writer.pending = other, 0
		return first.close()
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, checkpointAfter-1)
	_ = db.update(t.Context(), touch) // behind it the copy has begun
	<-db.writer.copier.free
	db.writer.copier.free <- struct{}{}
	if err := db.update(t.Context(), touch); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("update: %v, want ErrUnavailable", err)
	}
	if err := db.Ready(t.Context()); !errors.Is(err, custody.ErrUnavailable) {
		t.Errorf("Ready: %v, want ErrUnavailable", err)
	}
}

// TestCloseBehindTheCopy: the file is not closed under a copy.
func TestCloseBehindTheCopy(t *testing.T) {
	db := open(t)
	write(t, db, 1)
	c := db.writer.copier
	<-c.free
	closed := make(chan error)
	go func() { closed <- db.Close() }()
	<-db.writer.ended
	for range 100 {
		if _, err := c.session.checkpoint("PASSIVE"); err != nil {
			t.Fatal(err)
		}
	}
	c.free <- struct{}{}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
