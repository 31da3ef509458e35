package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// The conditions of the indices key_due and key_timed, word for word: only so
// does SQLite use them.
const (
	isDue   = "state = 'DELETE_PENDING' AND delete_pending <= ? "
	isTimed = `enabled = 1
	AND (instr(life, '"retires"') > 0 OR instr(block, CAST('keyd:not-after=' AS BLOB)) > 0) `
)

// DueKeys returns up to limit keys whose waiting time ended at now.
func (db *DB) DueKeys(ctx context.Context, now time.Time, limit int) ([]custody.KeyRecord, error) {
	return db.keysWhere(ctx, "due keys", isDue+"ORDER BY delete_pending LIMIT ?", nanos(now), limit)
}

// TimedKeys returns up to limit enabled keys after the id whose policy names a
// time at which their use ends, in the order of their ids.
func (db *DB) TimedKeys(ctx context.Context, after keys.ID, limit int) ([]custody.KeyRecord, error) {
	return db.keysWhere(ctx, "timed keys", isTimed+"AND id > ? ORDER BY id LIMIT ?", string(after), limit)
}

// keysWhere returns keys with their aliases.
func (db *DB) keysWhere(ctx context.Context, what, where string, args ...any) ([]custody.KeyRecord, error) {
	var all []custody.KeyRecord
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		if all, err = collect(s, of(g, keyTable, readKey), keyTable.selects()+"WHERE "+where, args...); err != nil {
			return err
		}
		for i := range all {
			if all[i], err = keyWithAliases(s, g, all[i].Block.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", what, err)
	}
	return all, nil
}

// Aliases returns up to q.Limit aliases in the order of their names, those
// after q.After. A limit below 1, or above 1000, is 1000.
func (db *DB) Aliases(ctx context.Context, q custody.AliasQuery) ([]custody.Alias, error) {
	if q.Limit < 1 || q.Limit > mostKeys {
		q.Limit = mostKeys
	}
	var all []custody.Alias
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		read := of(g, aliasTable, readAlias)
		if q.Key == "" {
			all, err = collect(s, read, aliasTable.selects()+"WHERE name > ? ORDER BY name LIMIT ?", q.After, q.Limit)
		} else {
			all, err = collect(s, read, aliasTable.selects()+"WHERE key = ? AND name > ? ORDER BY name LIMIT ?", string(q.Key), q.After, q.Limit)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: aliases: %w", err)
	}
	return all, nil
}

// KeyUse returns the counter of a key, zero where it has none.
func (db *DB) KeyUse(ctx context.Context, id keys.ID) (custody.KeyUse, error) {
	use := custody.KeyUse{Key: id}
	var uses, reserved, warned int64
	err := db.read(ctx, func(s *session) error {
		row := s.query("SELECT uses, reserved, first, last, warned_uses, warned_time FROM key_use WHERE id = ?", string(id))
		return row.Scan(&uses, &reserved, instant{&use.First}, instant{&use.Last}, &warned, instant{&use.WarnedTime})
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return use, fmt.Errorf("store: counter of key %s: %w", id, err)
	}
	use.Uses, use.Reserved, use.WarnedUses = uint64(uses), uint64(reserved), uint64(warned)
	return use, nil
}

// SaveKeyUses makes counters durable, all or none. It returns [ErrRule] for a
// count that would fall, or that is of no key.
func (db *DB) SaveKeyUses(ctx context.Context, uses []custody.KeyUse) error {
	err := db.update(ctx, func(s *session) error {
		for _, u := range uses {
			_, err := s.exec(`INSERT INTO key_use (id, uses, reserved, first, last, warned_uses, warned_time) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (id) DO UPDATE SET uses = excluded.uses, reserved = excluded.reserved, first = excluded.first,
				last = excluded.last, warned_uses = excluded.warned_uses, warned_time = excluded.warned_time`,
				string(u.Key), int64(u.Uses), int64(u.Reserved), nanos(u.First), nanos(u.Last), int64(u.WarnedUses), nanos(u.WarnedTime))
			if err != nil {
				return fmt.Errorf("counter of key %s: %w", u.Key, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// How long Scrub waits for readers of before the change to end.
const (
	scrubTries = 40
	scrubPause = 50 * time.Millisecond
)

// Scrub overwrites what earlier commits have left in the write-ahead log: a
// deleted value is zeroed in the database (secure_delete), and stays in the log
// until the log begins anew. It returns [custody.ErrUnavailable] when readers
// keep the log from it; then it is to be tried again.
func (db *DB) Scrub(ctx context.Context) error {
	w := db.writer
	w.scrub.Store(true)
	for range scrubTries {
		// The writer scrubs behind a commit; that of the second is behind the scrub of the first.
		for range 2 {
			if err := w.update(ctx, touch); err != nil {
				return fmt.Errorf("store: scrub: %w", err)
			}
		}
		if !w.scrub.Load() {
			return nil
		}
		select {
		case <-ctx.Done():
			w.scrub.Store(false)
			return ctx.Err()
		case <-time.After(scrubPause):
		}
	}
	w.scrub.Store(false) // else each commit would wait for the readers
	return fmt.Errorf("store: scrub: %w: readers hold the write-ahead log", custody.ErrUnavailable)
}

func touch(s *session) error {
	_, err := s.exec("UPDATE probe SET n = n + 1")
	return err
}

// scrubbed copies the write-ahead log into the database and truncates it.
func (w *writer) scrubbed() error {
	frames, err := w.anew("TRUNCATE")
	if err == nil && frames == 0 {
		w.scrub.Store(false)
	}
	return err
}
