package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
)

// Change is a set of changes of registered rows that are made together or not
// at all. Its methods look at the rows as they were before the change, and note
// what is to be written. It is valid inside [DB.Change] only.
type Change struct {
	db    *DB
	s     *session // reads
	g     reading
	edits []edit
	last  map[rowID]*rowSum // of each row, what the last edit leaves; nil for none
	rest  []func(*session) error
}

// edit is one row to be written.
type edit struct {
	table     *table
	name      string
	statement string
	args      []any
	mustHit   bool                  // it is an error when no row is changed
	explain   func(err error) error // of a constraint's violation; nil for none
}

// Change runs fn, which notes changes of registered rows, and then makes them in
// one durable commit, together with the answer of once, which may be nil and may
// be filled in by fn. Changes are made one after the other, each at the cost of
// two calls of the token, whatever the number of its rows. fn must not block and
// must make no other change; it is run at most once.
//
// It returns the error of fn, [ErrVisitor], [custody.ErrRepeated] for a once
// that was carried out before, [custody.ErrUnavailable] when the token or the
// database cannot be written to (then nothing was changed), and [ErrCorrupt].
func (db *DB) Change(ctx context.Context, once *custody.Once, fn func(*Change) error) error {
	r := db.register
	if r == nil {
		return ErrVisitor
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	ch := &Change{db: db, last: make(map[rowID]*rowSum)}
	err := db.view(ctx, func(s *session) error {
		if err := notRepeated(s, db, once); err != nil {
			return err
		}
		ch.s, ch.g = s, reading{r, &s.row}
		defer func() { ch.s = nil }()
		return fn(ch)
	})
	if err == nil {
		err = db.commitChange(ctx, ch, once)
	}
	var wrong *mismatch
	if errors.As(err, &wrong) {
		return r.corrupt(wrong)
	}
	return err
}

// commitChange anchors what is to be, commits, and lets the old anchor go.
func (db *DB) commitChange(ctx context.Context, ch *Change, once *custody.Once) error {
	r := db.register
	old := r.current.Load()
	next := old
	if len(ch.last) > 0 {
		next = old.with(ch.last)
	}
	if next.root == old.root {
		return db.update(ctx, func(s *session) error { return ch.write(s, once) })
	}
	if err := db.sweep(ctx); err != nil {
		return fmt.Errorf("%w: the token holds a root of before that it does not let go: %w", custody.ErrUnavailable, err)
	}
	if err := r.anchor.Add(ctx, next.root); err != nil {
		r.leftover = append(r.leftover, next.root) // it may be there all the same
		db.sweepLater()
		return fmt.Errorf("%w: anchoring the change in the token: %w", custody.ErrUnavailable, err)
	}
	r.pending.Store(next)
	defer r.pending.Store(nil)
	wrote, err := false, error(nil)
	failed := db.update(ctx, func(s *session) error {
		wrote = true
		err = ch.write(s, once)
		return err
	})
	if failed != nil {
		// Only a commit that failed leaves it open what the file has: who knows
		// rows of before looks again.
		again := *old
		r.current.Store(&again)
		db.letGo(context.WithoutCancel(ctx), next.root, !wrote || err != nil)
		return failed
	}
	r.current.Store(next)
	db.letGo(context.WithoutCancel(ctx), old.root, true)
	return nil
}

// letGo removes a root of which it is sure, or not, that the file does not have it.
func (db *DB) letGo(ctx context.Context, root [32]byte, sure bool) {
	r := db.register
	r.leftover = append(r.leftover, root)
	var err error
	if sure {
		err = r.dropLeftover(ctx)
	}
	if err != nil {
		r.tell(Suspicion{Err: fmt.Errorf("store: the token still holds a root that an older database would match; it is removed as soon as the token lets it: %w", err)})
	}
	if len(r.leftover) > 0 {
		db.sweepLater()
	}
}

// write carries the edits out.
func (ch *Change) write(s *session, once *custody.Once) error {
	if err := ch.db.addAnswer(s, once); err != nil {
		return err
	}
	for i := range ch.edits {
		e := &ch.edits[i]
		n, err := s.exec(e.statement, e.args...)
		switch {
		case err != nil && e.explain != nil:
			return e.explain(err)
		case err != nil:
			return fmt.Errorf("%s %s: %w", e.table.kind, e.name, err)
		case e.mustHit && n != 1:
			return &mismatch{table: e.table, name: e.name, gone: true}
		}
	}
	for _, fn := range ch.rest {
		if err := fn(s); err != nil {
			return err
		}
	}
	return nil
}

// also has fn write rows that are not registered in the same commit, after those
// that are.
func (ch *Change) also(fn func(*session) error) { ch.rest = append(ch.rest, fn) }

// has reports whether the row is there, or will be after what was noted.
func (ch *Change) has(t *table, name string) bool {
	id := t.id(name)
	if sum, edited := ch.last[id]; edited {
		return sum != nil
	}
	_, found := ch.db.register.current.Load().find(id)
	return found
}

// insert notes a new row; values are in the order of t.columns. explain turns
// the violation of a constraint into the caller's error; it may be nil.
func (ch *Change) insert(t *table, name string, values []any, explain func(error) error) error {
	sum, err := t.sum(name, plain(values))
	if err != nil {
		return err
	}
	ch.last[t.id(name)] = &sum
	ch.edits = append(ch.edits, edit{t, name, t.insert(), append([]any{name}, values...), true, explain})
	return nil
}

// update notes the new content of a row that is there.
func (ch *Change) update(t *table, name string, values []any, explain func(error) error) error {
	sum, err := t.sum(name, plain(values))
	if err != nil {
		return err
	}
	ch.last[t.id(name)] = &sum
	ch.edits = append(ch.edits, edit{t, name, t.update(), append(values[:len(values):len(values)], name), true, explain})
	return nil
}

// delete notes that a row goes.
func (ch *Change) delete(t *table, name string) {
	ch.last[t.id(name)] = nil
	ch.edits = append(ch.edits, edit{t, name, t.delete(), []any{name}, true, nil})
}

// find reads a row as it was before the change; [sql.ErrNoRows] where there is none.
func find[T any](ch *Change, t *table, name string, read func(scanner) (T, error)) (T, error) {
	return one(ch.g, ch.s, t, name, read)
}

// notRepeated returns [custody.ErrRepeated] for a once with a stored answer.
func notRepeated(s *session, db *DB, once *custody.Once) error {
	if once == nil {
		return nil
	}
	var one int
	err := s.query("SELECT 1 FROM answer WHERE principal = ? AND invocation = ? AND at > ?",
		once.Principal, once.Invocation, nanos(db.clock().Add(-answerLife))).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return custody.ErrRepeated
}
