package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// checkpointAfter is the number of jobs after which what stands in the
	// write-ahead log is copied into the database.
	checkpointAfter = 1000
	// restartAfter is the number of frames (a page each) that the log may hold
	// until it is made to begin anew.
	restartAfter    = 8192
	restartPatience = 50 * time.Millisecond
)

// copier copies the write-ahead log into the database, on a connection of its
// own beside the writer, who would else keep every change waiting meanwhile.
type copier struct {
	session *session
	// free holds one while nothing is copied. SQLite refuses a second copy at the
	// same time without any patience, so whoever copies takes it.
	free chan struct{}
	long atomic.Bool // the log is to begin anew, which only the writer can do
}

func newCopier(ctx context.Context, db *sql.DB) (*copier, error) {
	s, err := newSession(ctx, db)
	if err != nil {
		return nil, err
	}
	if _, err := s.exec("PRAGMA query_only = ON"); err != nil {
		return nil, errors.Join(err, s.close())
	}
	c := &copier{session: s, free: make(chan struct{}, 1)}
	c.free <- struct{}{}
	return c, nil
}

// copy copies what it can without waiting for anybody. Who calls it has taken
// free, which copy gives back.
func (c *copier) copy(done func(error)) {
	frames, err := c.session.checkpoint("PASSIVE")
	done(err)
	c.long.Store(err == nil && frames > restartAfter)
	c.free <- struct{}{}
}

// close waits for the copy that is under way.
func (c *copier) close() error {
	<-c.free
	return c.session.close()
}

// checkpoint has the write-ahead log copied into the database now and then: not
// inside a commit, where SQLite would keep a failed sync to itself, and not by the
// writer, except for what has come since the last copy when the log begins anew.
func (w *writer) checkpoint(jobs int) {
	w.pending += jobs
	c := w.copier
	switch {
	case w.scrub.Load():
		<-c.free
		w.checked(w.scrubbed())
		c.free <- struct{}{}
	case c.long.Load():
		<-c.free
		c.long.Store(false)
		_, err := w.anew("RESTART")
		w.checked(err)
		c.free <- struct{}{}
	case w.pending >= checkpointAfter:
		select {
		case <-c.free:
			w.pending = 0
			go c.copy(w.checked)
		default: // the one before is still under way
		}
	}
}

// checked stops the writer for good after a checkpoint that failed in a way
// after which the file cannot be trusted.
func (w *writer) checked(err error) {
	if err != nil && fatal(err) {
		err = fmt.Errorf("store: checkpoint: %w; look at the disk, then start again", err)
		w.broken.CompareAndSwap(nil, &err)
	}
}

// anew begins the log anew, by the mode RESTART or TRUNCATE, and returns how many
// frames are left in it. While there is always someone reading, SQLite only
// appends to it, so it waits a moment for those who read.
func (w *writer) anew(mode string) (frames int, err error) {
	var patience int64
	if err := w.session.query("PRAGMA busy_timeout").Scan(&patience); err != nil {
		return 0, err
	}
	wait := func(ms int64) error {
		return w.session.query(fmt.Sprintf("PRAGMA busy_timeout = %d", ms)).Scan(&ms)
	}
	if err := wait(restartPatience.Milliseconds()); err != nil {
		return 0, err
	}
	frames, err = w.session.checkpoint(mode)
	return frames, errors.Join(err, wait(patience))
}

// checkpoint returns how many frames the log holds.
func (s *session) checkpoint(mode string) (frames int, err error) {
	var busy, done int
	err = s.query("PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &frames, &done)
	return frames, err
}
