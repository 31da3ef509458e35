package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/isoswitch"
)

// keptRow is a row that a transaction has read or written, as its MAC was made of
// it: an update takes from it what is written once, without reading it again, and
// writes only what differs.
type keptRow struct {
	table *sealed
	id    [32]byte
	seq   int64
	text  []byte
	ends  []int
}

// from gives the columns of the row their text.
func (k *keptRow) from(g *guard) { k.text, k.ends = slices.Clone(g.text), slices.Clone(g.ends) }

// textOf is the part of a text that is one column; not the first.
func textOf(text []byte, ends []int, i int) []byte { return text[ends[i-1]:ends[i]] }

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

// keep keeps a row that was just read for its update.
func (t *tx) keep(row any) {
	if !t.writes {
		return
	}
	switch row := row.(type) {
	case *isoswitch.Txn:
		t.keepAs(row.OID)
	case *isoswitch.Reversal:
		t.keepAs(row.RID)
	}
}

// keepAs keeps the row that the guard has at hand under its name.
func (t *tx) keepAs(id [32]byte) *keptRow {
	g := &t.s.guard
	k := t.keptRow(g.table, id)
	if k == nil {
		t.kept = append(t.kept, keptRow{table: g.table, id: id, seq: g.number})
		k = &t.kept[len(t.kept)-1]
	}
	k.from(g)
	return k
}

func (t *tx) keptRow(table *sealed, id [32]byte) *keptRow {
	for i := range t.kept {
		if k := &t.kept[i]; k.table == table && k.id == id {
			return k
		}
	}
	return nil
}

// manySealed reads rows until there are enough that keyd wrote, and leaves the
// others out.
func manySealed[T any](t *tx, table *sealed, read func(scanner) (*T, error), limit int, where string, args ...any) ([]*T, error) {
	if t.s == nil {
		return nil, errEnded
	}
	var all []*T
	err := t.s.each(table.selects()+where, args, func(r scanner) (more bool, err error) {
		if limit <= 0 {
			return false, nil
		}
		one, err := read(watched{t, t.s.guard.of(table, r)})
		if _, is := tampered(err); is {
			return true, nil
		}
		if err == nil {
			all = append(all, one)
		}
		return len(all) < limit, err
	})
	if err != nil {
		return nil, err
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

// updateSealed writes those values of a row that change and differ from what is
// there. What is written once is taken from the database, where its MAC must be
// right.
func (t *tx) updateSealed(table *sealed, id [32]byte, values []any) error {
	s, err := t.write()
	if err != nil {
		return err
	}
	k := t.keptRow(table, id)
	if k == nil {
		if k, err = t.readToUpdate(table, id); err != nil {
			return err
		}
	}
	g := &s.guard
	g.ends = append(g.ends[:0], k.ends[:table.fixed]...)
	g.text = append(g.text[:0], k.text[:k.ends[table.fixed-1]]...)
	if err := g.sealRest(table, values); err != nil {
		return err
	}
	changed := columnSet(0)
	differ := values[:0]
	for i, v := range values {
		if n := table.fixed + i; !bytes.Equal(textOf(k.text, k.ends, n), textOf(g.text, g.ends, n)) {
			changed |= 1 << n
			differ = append(differ, v)
		}
	}
	if changed == 0 {
		return nil
	}
	if err := s.run(table.updateOf(changed), append(differ, g.mac[:], k.seq)...); err != nil {
		return err
	}
	k.from(g)
	return nil
}

// readToUpdate reads a row that is to be changed, and that the transaction has
// not read yet.
func (t *tx) readToUpdate(table *sealed, id [32]byte) (*keptRow, error) {
	err := t.guarded(table, "WHERE "+table.key+" = ?", id[:]).Scan(make([]any, len(table.columns))...)
	if err != nil {
		return nil, err
	}
	return t.keepAs(id), nil
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
