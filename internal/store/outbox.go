package store

import (
	"context"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/hook"
	"keyd.dev/keyd/internal/isoswitch"
)

// SetHook says whether changes of reversals are to be written into the outbox.
// What is in there stays until it is acknowledged.
func (db *DB) SetHook(ctx context.Context, on bool) error {
	statement := "DELETE FROM hook"
	if on {
		statement = "INSERT INTO hook (one) VALUES (1) ON CONFLICT (one) DO NOTHING"
	}
	err := db.update(ctx, func(s *session) error {
		_, err := s.exec(statement)
		return err
	})
	if err != nil {
		return fmt.Errorf("store: set the hook: %w", err)
	}
	return nil
}

// outboxRow is an event before what it is about is read.
type outboxRow struct {
	hook.Event
	rid isoswitch.RID
	oid isoswitch.OID
}

func readOutbox(r scanner) (o outboxRow, err error) {
	err = r.Scan(&o.Seq, digest{(*[32]byte)(&o.rid)}, digest{(*[32]byte)(&o.oid)}, &o.Kind, &o.N, instant{&o.At},
		&o.State, &o.UpAnswer, &o.Tries, &o.Sent)
	return o, err
}

// Undelivered implements [hook.Outbox]. An event whose reversal or original
// cannot be read, or says otherwise, is given without what it is about, so that
// it is not delivered and hinders no other.
func (db *DB) Undelivered(ctx context.Context, at time.Time, limit int) ([]hook.Event, error) {
	var rows []outboxRow
	err := db.read(ctx, func(s *session) (err error) {
		rows, err = collect(s, readOutbox, `SELECT o.seq, o.rid, o.oid, o.kind, o.n, o.at, o.state, o.up_answer, o.tries, o.sent
			FROM outbox o WHERE o.acknowledged = 0 AND o.next <= ? AND NOT EXISTS
				(SELECT 1 FROM outbox e WHERE e.oid = o.oid AND e.seq < o.seq AND e.acknowledged = 0)
			ORDER BY o.next, o.seq LIMIT ?`, nanos(at), max(limit, 0))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: read the outbox: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	events := make([]hook.Event, len(rows))
	err = db.View(ctx, func(tx isoswitch.Tx) error {
		for i := range rows {
			events[i] = rows[i].about(tx)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("store: read what events are about: %w", err)
	}
	return events, nil
}

// about adds what the journal says.
func (o outboxRow) about(tx isoswitch.Tx) hook.Event {
	e := o.Event
	r, err := tx.Reversal(o.rid)
	if err != nil || r.OID != o.oid || e.Kind == hook.Done && r.State != isoswitch.Confirmed {
		return e
	}
	t, err := tx.Txn(o.oid)
	if err != nil {
		return e
	}
	e.Reversal, e.Cause, e.Reason, e.Full, e.Rest = o.rid.Name(), string(r.Cause), r.Reason, r.Full, r.Rest
	e.MTI, e.TID, e.MID, e.STAN, e.DateTime, e.RRN = t.MTI, t.TID, t.MID, t.STAN, t.Sent, t.RRN
	e.Amount, e.Currency = t.Amount, t.Currency
	return e
}

// Acknowledge implements [hook.Outbox].
func (db *DB) Acknowledge(ctx context.Context, seq int64, at time.Time) error {
	return db.changeEvent(ctx, "UPDATE outbox SET acknowledged = ?, sent = sent + 1 WHERE seq = ? AND acknowledged = 0", nanos(at), seq)
}

// Postpone implements [hook.Outbox].
func (db *DB) Postpone(ctx context.Context, seq int64, next time.Time) error {
	return db.changeEvent(ctx, "UPDATE outbox SET next = ?, sent = sent + 1 WHERE seq = ? AND acknowledged = 0", nanos(next), seq)
}

func (db *DB) changeEvent(ctx context.Context, statement string, args ...any) error {
	err := db.update(ctx, func(s *session) error {
		_, err := s.exec(statement, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("store: change an event of the outbox: %w", err)
	}
	return nil
}
