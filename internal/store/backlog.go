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

	Queues []Queue // open reversals by upstream and state

	Events int       // of the hook that nobody has acknowledged
	Event  time.Time // when the oldest of them was written; zero where there is none

	Approvals int       // requests that wait for a second person
	Asked     time.Time // when the oldest of them was made; zero where there is none
}

// Queue are the reversals of one upstream that are in one state, but for those
// that are confirmed, closed, or settled with a case.
type Queue struct {
	Upstream, State string
	Reversals       int
	Oldest          time.Time // when the oldest of them was taken
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
		b.Queues, err = collect(s, func(r scanner) (q Queue, err error) {
			err = r.Scan(&q.Upstream, &q.State, &q.Reversals, instant{&q.Oldest})
			return q, err
		}, `SELECT t.link, r.state, count(*), min(r.built) FROM reversal r JOIN txn t ON t.oid = r.oid
			WHERE r.state NOT IN ('CONFIRMED', 'CLOSED') AND r.case_id = '' GROUP BY t.link, r.state`)
		if err != nil {
			return err
		}
		err = s.query("SELECT count(*), ifnull(min(at), 0) FROM outbox WHERE acknowledged = 0").Scan(&b.Events, instant{&b.Event})
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
