package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

// Update implements [isoswitch.Journal].
func (db *DB) Update(ctx context.Context, fn func(isoswitch.Tx) error) error {
	return db.update(ctx, func(s *session) error {
		t := &tx{s: s, writes: true, lookBack: db.lookBack}
		defer t.end()
		return fn(t)
	})
}

// View implements [isoswitch.Journal].
func (db *DB) View(ctx context.Context, fn func(isoswitch.Tx) error) error {
	return db.view(ctx, func(s *session) error {
		t := &tx{s: s, lookBack: db.lookBack}
		defer t.end()
		return fn(t)
	})
}

// The errors of wrong use; a caller that meets one has a mistake in it.
var (
	errReadOnly = errors.New("store: a view cannot write")
	errEnded    = errors.New("store: the transaction has ended")
)

// tx implements [isoswitch.Tx].
type tx struct {
	s        *session // nil once the transaction has ended
	writes   bool
	lookBack time.Duration
}

func (t *tx) end() { t.s = nil }

// write gives the session to a method that changes something.
func (t *tx) write() (*session, error) {
	if t.s == nil {
		return nil, errEnded
	}
	if !t.writes {
		return nil, errReadOnly
	}
	return t.s, nil
}

// query asks for one row, or gives ErrNotFound from Scan.
func (t *tx) query(query string, args ...any) scanner {
	if t.s == nil {
		return row{err: errEnded}
	}
	return found{t.s.query(query, args...)}
}

// found turns the absence of a row into the journal's error.
type found struct{ row }

// Scan implements scanner.
func (f found) Scan(dest ...any) error {
	err := f.row.Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return isoswitch.ErrNotFound
	}
	return err
}

// insert runs an INSERT; a key or index in use is ErrExists.
func (t *tx) insert(query string, args ...any) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	if _, err = s.exec(query, args...); taken(err) {
		return fmt.Errorf("%w: %w", isoswitch.ErrExists, err)
	}
	return err
}

// change runs an UPDATE of one row, or returns ErrNotFound.
func (t *tx) change(query string, args ...any) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	n, err := s.exec(query, args...)
	if err == nil && n == 0 {
		err = isoswitch.ErrNotFound
	}
	return err
}

// LastCounter implements [isoswitch.Tx].
func (t *tx) LastCounter(device isoswitch.Device) (uint32, error) {
	var counter uint32
	err := t.query("SELECT counter FROM ksn WHERE device = ?", string(device)).Scan(&counter)
	if errors.Is(err, isoswitch.ErrNotFound) {
		return 0, nil
	}
	return counter, err
}

// AcceptedUnder implements [isoswitch.Tx].
func (t *tx) AcceptedUnder(device isoswitch.Device, counter uint32) (isoswitch.Hash, error) {
	var message isoswitch.Hash
	err := t.query("SELECT message FROM accepted WHERE device = ? AND counter = ?", string(device), counter).
		Scan(digest{(*[32]byte)(&message)})
	return message, err
}

// Accept implements [isoswitch.Tx].
func (t *tx) Accept(device isoswitch.Device, counter uint32, message isoswitch.Hash, at time.Time) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	if counter == 0 {
		return fmt.Errorf("store: device %s: %w: counters start at 1", device, isoswitch.ErrExists)
	}
	n, err := s.exec("UPDATE ksn SET counter = ?2, at = ?3 WHERE device = ?1 AND counter < ?2",
		string(device), counter, nanos(at))
	if err == nil && n == 0 {
		err = t.insert("INSERT INTO ksn (device, counter, at) VALUES (?, ?, ?)", string(device), counter, nanos(at))
	}
	if err == nil {
		err = t.insert("INSERT INTO accepted (device, counter, message, at) VALUES (?, ?, ?, ?)",
			string(device), counter, message[:], nanos(at))
	}
	if err == nil && counter%forgetEvery == 0 {
		err = t.forget(device, at)
	}
	if err != nil {
		return fmt.Errorf("store: accept counter %d of device %s: %w", counter, device, err)
	}
	return nil
}

// forgetEvery is how many counters lie between two times of forgetting.
const forgetEvery = 64

// forget lets go of the device's oldest messages if no repeat of them can come
// any more: of twice as many as came since, so that they become fewer where they
// were too many.
func (t *tx) forget(device isoswitch.Device, now time.Time) error {
	_, err := t.s.exec(`DELETE FROM accepted WHERE device = ?1 AND at < ?2 AND counter IN
		(SELECT counter FROM accepted WHERE device = ?1 ORDER BY counter LIMIT ?3)`,
		string(device), nanos(now.Add(-t.lookBack-24*time.Hour)), 2*forgetEvery)
	return err
}

// Reserve implements [isoswitch.Tx].
func (t *tx) Reserve(name string, n uint64) (first uint64, err error) {
	if _, err := t.write(); err != nil {
		return 0, err
	}
	if n == 0 || n > math.MaxInt64/2 {
		return 0, fmt.Errorf("store: reserve %d of %q", n, name)
	}
	var after int64
	err = t.query(`INSERT INTO counter (name, value) VALUES (?1, ?2)
		ON CONFLICT (name) DO UPDATE SET value = value + ?2 RETURNING value`, name, int64(n)).Scan(&after)
	if err != nil {
		return 0, fmt.Errorf("store: reserve %d of %q: %w", n, name, err)
	}
	return uint64(after) - n, nil
}
