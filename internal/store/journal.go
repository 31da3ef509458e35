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
	db.ending.RLock()
	defer db.ending.RUnlock()
	if db.ended.Load() {
		return ErrClosed
	}
	var t *tx
	err := db.writer.do(ctx, &job{journal: true, done: make(chan struct{}), fn: func(s *session) error {
		t = &tx{db: db, s: s, writes: true, lookBack: db.lookBack}
		defer t.end()
		return fn(t)
	}})
	if t != nil {
		t.told(err)
	}
	return err
}

// View implements [isoswitch.Journal].
func (db *DB) View(ctx context.Context, fn func(isoswitch.Tx) error) error {
	var t *tx
	err := db.view(ctx, func(s *session) error {
		t = &tx{db: db, s: s, lookBack: db.lookBack}
		defer t.end()
		return fn(t)
	})
	if t != nil {
		t.told(err)
	}
	return err
}

// The errors of wrong use; a caller that meets one has a mistake in it.
var (
	errReadOnly = errors.New("store: a view cannot write")
	errEnded    = errors.New("store: the transaction has ended")
)

// tx implements [isoswitch.Tx].
type tx struct {
	db       *DB
	s        *session // nil once the transaction has ended
	writes   bool
	lookBack time.Duration

	last  lastCounter    // that was read or written
	kept  []keptRow      // rows that were read, for their updates
	tide  []highWater    // of what was written, once it is committed
	wrong []*TamperedRow // that were met
}

// lastCounter is the highest counter of a device.
type lastCounter struct {
	device  isoswitch.Device
	counter uint32
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

// LastCounter implements [isoswitch.Tx].
func (t *tx) LastCounter(device isoswitch.Device) (uint32, error) {
	if t.s == nil {
		return 0, errEnded
	}
	if device != "" && device == t.last.device {
		return t.last.counter, nil
	}
	counter, known := uint32(0), false
	if t.writes {
		counter, known = t.s.memory.counters[device]
	}
	if known {
		t.last.device, t.last.counter = device, counter
		return counter, nil
	}
	err := t.guarded(ksnTable, "WHERE device = ?", string(device)).Scan(nil, &counter, nil)
	if errors.Is(err, isoswitch.ErrNotFound) {
		counter, err = 0, nil
	}
	if err == nil {
		err = t.notBelow(ksnTable, string(device), int64(counter))
	}
	if err == nil && t.writes { // nobody else can change it before the transaction ends
		t.last.device, t.last.counter = device, counter
	}
	return counter, err
}

// AcceptedUnder implements [isoswitch.Tx].
func (t *tx) AcceptedUnder(device isoswitch.Device, counter uint32) (isoswitch.Hash, error) {
	var message isoswitch.Hash
	err := t.guarded(acceptedTable, "WHERE device = ? AND counter = ?", string(device), counter).
		Scan(nil, nil, digest{(*[32]byte)(&message)}, nil)
	return message, err
}

// Accept implements [isoswitch.Tx].
func (t *tx) Accept(device isoswitch.Device, counter uint32, message isoswitch.Hash, at time.Time) error {
	err := t.advance(device, counter, at)
	if err == nil {
		err = exists(t.s.insertSealed(acceptedTable, []any{string(device), int64(counter), message[:], nanos(at)}))
	}
	if err != nil {
		return fmt.Errorf("store: accept counter %d of device %s: %w", counter, device, err)
	}
	return nil
}

// Advance implements [isoswitch.Tx].
func (t *tx) Advance(device isoswitch.Device, counter uint32, at time.Time) error {
	if err := t.advance(device, counter, at); err != nil {
		return fmt.Errorf("store: advance to counter %d of device %s: %w", counter, device, err)
	}
	return nil
}

func (t *tx) advance(device isoswitch.Device, counter uint32, at time.Time) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	last, err := t.LastCounter(device)
	switch {
	case err != nil:
		return err
	case counter == 0:
		return fmt.Errorf("%w: counters start at 1", isoswitch.ErrExists)
	case counter <= last:
		return fmt.Errorf("%w: counter %d was accepted", isoswitch.ErrExists, last)
	}
	row := []any{string(device), int64(counter), nanos(at)}
	if last == 0 {
		err = exists(s.insertSealed(ksnTable, row))
	} else if err = s.guard.seal(ksnTable, row); err == nil {
		err = s.run(ksnTable.update(), row[1], row[2], s.guard.mac[:], row[0])
	}
	if err == nil && counter%forgetEvery == 0 {
		err = t.forget(device, at)
	}
	if err == nil {
		t.last.device, t.last.counter = device, counter
		room(s.memory.counters)[device] = counter
	}
	t.rose(ksnTable, string(device), int64(counter))
	return err
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
	s, err := t.write()
	if err != nil {
		return 0, err
	}
	if n == 0 || n > math.MaxInt64/2 {
		return 0, fmt.Errorf("store: reserve %d of %q", n, name)
	}
	var before int64
	err = t.guarded(counterTable, "WHERE name = ?", name).Scan(nil, &before)
	fresh := errors.Is(err, isoswitch.ErrNotFound)
	if err == nil || fresh {
		err = t.notBelow(counterTable, name, before)
	}
	after := before + int64(n)
	row := []any{name, after}
	switch {
	case err != nil:
	case fresh:
		err = s.insertSealed(counterTable, row)
	default:
		if err = s.guard.seal(counterTable, row); err == nil {
			_, err = s.exec(counterTable.update(), after, s.guard.mac[:], name)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("store: reserve %d of %q: %w", n, name, err)
	}
	t.rose(counterTable, name, after)
	return uint64(before), nil
}

// Reserved implements [isoswitch.Tx].
func (t *tx) Reserved(name string) (uint64, error) {
	var value int64
	err := t.guarded(counterTable, "WHERE name = ?", name).Scan(nil, &value)
	if errors.Is(err, isoswitch.ErrNotFound) {
		err = nil
	}
	if err == nil {
		err = t.notBelow(counterTable, name, value)
	}
	if err != nil {
		return 0, fmt.Errorf("store: read counter %q: %w", name, err)
	}
	return uint64(value), nil
}
