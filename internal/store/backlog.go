package store

import (
	"context"
	"fmt"
	"time"
)

// Backlog is what waits in the database for somebody.
type Backlog struct {
	Reversals int       // that upstream has not confirmed
	Oldest    time.Time // when the oldest of them was taken; zero where there is none

	Approvals int       // requests that wait for a second person
	Asked     time.Time // when the oldest of them was made; zero where there is none
}

// Backlog counts what waits. It reads rows without comparing them with the
// register: it is for metrics, and decides nothing.
func (db *DB) Backlog(ctx context.Context) (Backlog, error) {
	var b Backlog
	err := db.read(ctx, func(s *session) error {
		err := s.query("SELECT count(*), ifnull(min(built), 0) FROM reversal WHERE state IN ('QUEUED', 'SENT')").
			Scan(&b.Reversals, instant{&b.Oldest})
		if err != nil {
			return err
		}
		return s.query(`SELECT count(*), ifnull(min(asked), 0) FROM approval
			WHERE state IN ('WAITING', 'APPROVED') AND state = 'WAITING' AND deadline > ?`, nanos(db.clock())).
			Scan(&b.Approvals, instant{&b.Asked})
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("store: count what waits: %w", err)
	}
	return b, nil
}

// Load is the writer's work, for metrics.
type Load struct {
	Waiting int // changes that wait to be committed
	Room    int // the most of these
}

// Load returns what the writer has to do.
func (db *DB) Load() Load {
	q := &db.writer.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return Load{Waiting: len(q.jobs), Room: mostQueued}
}
