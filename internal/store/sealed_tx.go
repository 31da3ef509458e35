package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/isoswitch"
)

// keptRow is a row that a transaction has read: the part of its text that is
// written once, so that an update makes its MAC without reading it again.
type keptRow struct {
	table *sealed
	id    [32]byte
	text  []byte
}

// guarded asks for one row of a sealed table; its Scan takes a place for each of
// the columns.
func (t *tx) guarded(table *sealed, where string, args ...any) scanner {
	if t.s == nil {
		return row{err: errEnded}
	}
	return watched{t, t.s.guard.of(table, found{t.s.query(table.selects()+where, args...)})}
}

// watched remembers the row that was tampered with.
type watched struct {
	t *tx
	r scanner
}

// Scan implements scanner.
func (w watched) Scan(dest ...any) error {
	err := w.r.Scan(dest...)
	if wrong, is := tampered(err); is {
		w.t.wrong = append(w.t.wrong, wrong)
	}
	return err
}

// oneSealed reads one row, or returns [isoswitch.ErrNotFound] or a [TamperedRow].
func oneSealed[T any](t *tx, table *sealed, read func(scanner) (*T, error), where string, args ...any) (*T, error) {
	row, err := read(t.guarded(table, where, args...))
	if err == nil {
		t.keep(row)
	}
	return row, err
}

// keep keeps what an update of a row that was just read will need.
func (t *tx) keep(row any) {
	if !t.writes {
		return
	}
	g := &t.s.guard
	k := keptRow{table: g.table, text: slices.Clone(g.text[:g.fixed])}
	switch row := row.(type) {
	case *isoswitch.Txn:
		k.id = row.OID
	case *isoswitch.Reversal:
		k.id = row.RID
	}
	t.kept = append(t.kept, k)
}

// manySealed reads rows until there are enough that keyd wrote, and leaves the
// others out.
func manySealed[T any](t *tx, table *sealed, read func(scanner) (*T, error), limit int, where string, args ...any) ([]*T, error) {
	if t.s == nil {
		return nil, errEnded
	}
	stmt, err := t.s.prepared(table.selects() + where)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.Query(args...)
	if err != nil {
		return nil, t.s.failed(err)
	}
	defer rows.Close()
	var all []*T
	for len(all) < limit && rows.Next() {
		one, err := read(watched{t, t.s.guard.of(table, rows)})
		if _, is := tampered(err); is {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, t.s.failed(err)
	}
	return all, nil
}

// insertSealed adds a row. Where its identity is taken it looks whether by a row
// that keyd wrote: one that was changed is not found by what was changed in it.
func (t *tx) insertSealed(table *sealed, values []any, id []byte) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	if err = exists(s.insertSealed(table, values)); errors.Is(err, isoswitch.ErrExists) {
		there := t.guarded(table, "WHERE "+table.key+" = ?", id).Scan(make([]any, len(table.columns))...)
		if _, is := tampered(there); is {
			return there
		}
	}
	if err == nil {
		number := s.guard.number
		if high := t.db.waters.of(sealID(table, "")); number <= high {
			t.wrong = append(t.wrong, missing(table, number, high))
		}
		t.rose(table, "", number)
	}
	return err
}

// exists makes a key or an index in use the journal's error.
func exists(err error) error {
	if taken(err) {
		return fmt.Errorf("%w: %w", isoswitch.ErrExists, err)
	}
	return err
}

// updateSealed writes the values of a row that change. What is written once is
// taken from the database, where its MAC must be right.
func (t *tx) updateSealed(table *sealed, id [32]byte, values []any) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	text, err := t.writtenOnce(table, id)
	if err != nil {
		return err
	}
	if err := s.guard.sealRest(table, append(s.guard.text[:0], text...), table.fixed, values); err != nil {
		return err
	}
	n, err := s.exec(table.update(), append(values, s.guard.mac[:], id[:])...)
	if err == nil && n == 0 {
		err = isoswitch.ErrNotFound
	}
	return err
}

func (t *tx) writtenOnce(table *sealed, id [32]byte) ([]byte, error) {
	for _, k := range t.kept {
		if k.table == table && k.id == id {
			return k.text, nil
		}
	}
	err := t.guarded(table, "WHERE "+table.key+" = ?", id[:]).Scan(make([]any, len(table.columns))...)
	if err != nil {
		return nil, err
	}
	g := &t.s.guard
	return slices.Clone(g.text[:g.fixed]), nil
}

// told ends a transaction whose outcome is known: what it met is told, and what
// it wrote is remembered where it was committed.
func (t *tx) told(err error) {
	if wrong, is := tampered(err); is && len(t.wrong) == 0 {
		t.wrong = append(t.wrong, wrong)
	}
	for _, wrong := range t.wrong {
		t.db.tellTampered(wrong)
	}
	if err == nil && t.writes {
		t.db.waters.rise(t.tide)
	}
}

// tellTampered tells of a row, once.
func (db *DB) tellTampered(wrong *TamperedRow) {
	if db.register != nil {
		db.register.tellOnce(Suspicion{Kind: wrong.Table, Name: wrong.Name, Sealed: true, Err: wrong})
	}
}

// telling tells of the row of an error and returns the error.
func (db *DB) telling(err error) error {
	if wrong, is := tampered(err); is {
		db.tellTampered(wrong)
	}
	return err
}

// noRows reports whether there is no such row.
func noRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
