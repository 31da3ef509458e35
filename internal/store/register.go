package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
)

// The register finds out when a registered row was changed, taken away or put
// back by somebody who can write to the database and is not keyd. It is in
// memory as a tree; the token holds the tree's root, see [Anchor]. A change of
// rows first makes the token hold the root that is to be, then commits, then
// makes it forget the old one, so that at every moment the token holds the root
// of what the database holds. Rows that are read are compared with the tree.

// Anchor is where roots are kept that the database must have: the token. It is
// safe for concurrent use.
type Anchor interface {
	// Roots returns the roots that are held.
	Roots(ctx context.Context) ([][32]byte, error)
	// Add holds a root; one that is held already stays.
	Add(ctx context.Context, root [32]byte) error
	// Remove lets a root go; one that is not held is no error.
	Remove(ctx context.Context, root [32]byte) error
}

// Found begins the register of a new node: the anchor holds the root of an empty
// database. It returns [ErrRegister] when the anchor knows another one already.
func Found(ctx context.Context, anchor Anchor) error {
	roots, err := anchor.Roots(ctx)
	if err != nil {
		return fmt.Errorf("store: begin the register: %w", err)
	}
	empty := newTree(nil).root
	for _, root := range roots {
		if root != empty {
			return fmt.Errorf("%w: the token knows a database of this node already", ErrRegister)
		}
	}
	if err := anchor.Add(ctx, empty); err != nil {
		return fmt.Errorf("store: begin the register: %w", err)
	}
	return nil
}

// Suspicion is what the register has to tell an operator.
type Suspicion struct {
	Kind string // of the row: key, alias, terminal …; "" when it is about no row
	Name string // of the row
	// Sealed is set for a row that carries a MAC; Kind is its table.
	Sealed bool
	Err    error
}

// register is the tree and its anchor.
type register struct {
	anchor Anchor
	tell   func(Suspicion)

	changing chan struct{} // holds one while nobody changes registered rows
	current  atomic.Pointer[tree]
	// pending is the tree of a change whose commit is under way: rows of both
	// are right until it is known which of them the database has.
	pending atomic.Pointer[tree]
	// leftover are roots that the token may hold and should not; for who has changing.
	leftover [][32]byte

	told     sync.Map // of Suspicion.Kind and Name, each told once
	sweeping atomic.Bool
	sweepers sync.WaitGroup
}

// lock waits for the right to change registered rows.
func (r *register) lock(ctx context.Context) error {
	select {
	case <-r.changing:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("store: another change is under way: %w", ctx.Err())
	}
}

func (r *register) unlock() { r.changing <- struct{}{} }

// right reports whether a row that was just read is as it should be.
func (r *register) right(id rowID, sum rowSum) bool {
	if r.current.Load().is(id, sum) {
		return true
	}
	next := r.pending.Load()
	return next != nil && next.is(id, sum)
}

// rightlyGone reports whether a row that was just looked for should not be there.
func (r *register) rightlyGone(id rowID) bool {
	if _, found := r.current.Load().find(id); !found {
		return true
	}
	next := r.pending.Load()
	if next == nil {
		return false
	}
	_, found := next.find(id)
	return !found
}

// tellOnce tells of a row the first time.
func (r *register) tellOnce(s Suspicion) {
	if _, before := r.told.LoadOrStore(s.Kind+"\x00"+s.Name, true); !before {
		r.tell(s)
	}
}

// mismatch is a row that is not what the register knows.
type mismatch struct {
	table *table
	name  string
	gone  bool
}

func (m *mismatch) Error() string {
	if m.gone {
		return fmt.Sprintf("%s %s was taken out of the database", m.table.kind, m.name)
	}
	return fmt.Sprintf("%s %s is not the row that keyd wrote", m.table.kind, m.name)
}

// reading compares registered rows with the register as they are read. That of
// a visitor, who has no register, compares nothing.
type reading struct {
	r   *register
	row *rowBuffer // of the session
}

// rowBuffer is where a row is put to be compared, again and again.
type rowBuffer struct {
	name   string
	values []any
	into   []any // points to name and values
}

// of returns a reader of rows of t, which must be selected with t.selects. It
// fails with a mismatch before read sees the row.
func of[T any](g reading, t *table, read func(scanner) (T, error)) func(scanner) (T, error) {
	if g.r == nil {
		return read
	}
	return func(r scanner) (T, error) {
		if err := g.compare(t, r); err != nil {
			var none T
			return none, err
		}
		return read(r)
	}
}

func (g reading) compare(t *table, r scanner) error {
	name, values, err := g.row.scan(len(t.columns), r)
	if err != nil {
		return err
	}
	sum, err := t.sum(name, values)
	if err != nil || !g.r.right(t.id(name), sum) {
		return &mismatch{table: t, name: name}
	}
	return nil
}

// scan reads a name and so many values as they are stored, valid until the next row.
func (b *rowBuffer) scan(columns int, r scanner) (name string, values []any, err error) {
	if len(b.values) < columns {
		b.values = make([]any, columns)
		b.into = []any{&b.name}
		for i := range b.values {
			b.into = append(b.into, &b.values[i])
		}
	}
	err = r.Scan(b.into[:1+columns]...)
	return b.name, b.values[:columns], err
}

// one reads the row of t with this name: [sql.ErrNoRows] where there is none,
// and should be none.
func one[T any](g reading, s *session, t *table, name string, read func(scanner) (T, error)) (T, error) {
	all, err := collect(s, of(g, t, read), t.selectsOne(), name)
	switch {
	case err == nil && len(all) > 0:
		return all[0], nil
	case err == nil && g.r != nil && !g.r.rightlyGone(t.id(name)):
		err = &mismatch{table: t, name: name, gone: true}
	case err == nil:
		err = sql.ErrNoRows
	}
	var none T
	return none, err
}

// registered runs fn, which reads registered rows by way of its reading, until
// no change came between the reading and the comparing. What is wrong then is
// [ErrCorrupt], and is told.
func (db *DB) registered(run func(func(*session) error) error, fn func(*session, reading) error) error {
	for {
		var before *tree
		if db.register != nil {
			before = db.register.current.Load()
		}
		err := run(func(s *session) error { return fn(s, reading{db.register, &s.row}) })
		var wrong *mismatch
		if !errors.As(err, &wrong) {
			return err
		}
		if db.register.current.Load() != before {
			continue
		}
		return db.register.corrupt(wrong)
	}
}

func (r *register) corrupt(wrong *mismatch) error {
	err := fmt.Errorf("%w: %w: %w; the database was changed by something else than keyd, or rolled back", ErrCorrupt, custody.ErrTampered, wrong)
	r.tellOnce(Suspicion{Kind: wrong.table.kind, Name: wrong.name, Err: err})
	return err
}

// viewRegistered is view for registered rows.
func (db *DB) viewRegistered(ctx context.Context, fn func(*session, reading) error) error {
	return db.registered(func(f func(*session) error) error { return db.view(ctx, f) }, fn)
}

// readRegistered is read for registered rows.
func (db *DB) readRegistered(ctx context.Context, fn func(*session, reading) error) error {
	return db.registered(func(f func(*session) error) error { return db.read(ctx, f) }, fn)
}

// sweepEvery is how often roots that the token could not forget are tried again.
const sweepEvery = 2 * time.Second

// sweepLater has leftover roots removed as soon as that is possible.
func (db *DB) sweepLater() {
	r := db.register
	if !r.sweeping.CompareAndSwap(false, true) {
		return
	}
	r.sweepers.Go(func() {
		defer r.sweeping.Store(false)
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-db.closed:
				return
			case <-tick.C:
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			err := r.lock(ctx)
			if err == nil {
				err = db.sweep(ctx)
				r.unlock()
			}
			cancel()
			if err == nil {
				return
			}
		}
	})
}

// sweep removes leftover roots. It writes first: after a commit that failed,
// only the next one makes sure which of the two trees the file has.
func (db *DB) sweep(ctx context.Context) error {
	r := db.register
	if len(r.leftover) == 0 {
		return nil
	}
	err := db.update(ctx, func(s *session) error {
		_, err := s.exec("UPDATE probe SET n = n + 1")
		return err
	})
	if err != nil {
		return err
	}
	return r.dropLeftover(ctx)
}

// dropLeftover removes leftover roots from the token.
func (r *register) dropLeftover(ctx context.Context) error {
	for len(r.leftover) > 0 {
		if root := r.leftover[0]; root != r.current.Load().root {
			if err := r.anchor.Remove(ctx, root); err != nil {
				return err
			}
		}
		r.leftover = r.leftover[1:]
	}
	return nil
}
