package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/mattn/go-sqlite3"
)

// openRegister builds the register from the database and compares it with what
// the token holds.
func (db *DB) openRegister(ctx context.Context, cfg Config) error {
	r := &register{anchor: cfg.Anchor, tell: cfg.Suspicion, changing: make(chan struct{}, 1)}
	t, err := db.scanRegister(ctx)
	if err != nil {
		return fmt.Errorf("store: read the register of %s: %w", cfg.Path, err)
	}
	r.current.Store(t)
	roots, err := cfg.Anchor.Roots(ctx)
	if err != nil {
		return fmt.Errorf("store: the anchor of %s: %w", cfg.Path, err)
	}
	switch {
	case slices.Contains(roots, t.root):
	case cfg.Adopt:
		if err := cfg.Anchor.Add(ctx, t.root); err != nil {
			return fmt.Errorf("store: adopt %s: %w", cfg.Path, err)
		}
	case len(roots) == 0:
		return fmt.Errorf("%w: the token knows no database of this node; %s has %d registered rows, root %x", ErrRegister, cfg.Path, t.size, t.root)
	default:
		return fmt.Errorf("%w: %s has %d registered rows, root %x; the token knows %x", ErrRegister, cfg.Path, t.size, t.root, roots)
	}
	for _, root := range roots {
		if root != t.root {
			r.leftover = append(r.leftover, root)
		}
	}
	if err := r.dropLeftover(ctx); err != nil {
		return fmt.Errorf("store: anchors of before: %w", err)
	}
	r.unlock()
	db.register = r
	if err := db.openJournal(ctx, cfg); err != nil {
		return err
	}
	return db.nextEpoch(ctx)
}

// nextEpoch counts this start, so that every copy of the database that was made
// before it is told from it.
func (db *DB) nextEpoch(ctx context.Context) error {
	const name = "start"
	err := db.Change(ctx, nil, func(ch *Change) error {
		if err := db.noteTide(ch, false); err != nil {
			return err
		}
		at := nanos(time.Now())
		if !ch.has(epochTable, name) {
			return ch.insert(epochTable, name, []any{int64(1), at}, nil)
		}
		number, err := find(ch, epochTable, name, readEpoch)
		if err != nil {
			return err
		}
		return ch.update(epochTable, name, []any{number + 1, at}, nil)
	})
	if err != nil {
		return fmt.Errorf("store: count the start: %w", err)
	}
	return nil
}

func readEpoch(r scanner) (number int64, err error) {
	var name string
	var at int64
	err = r.Scan(&name, &number, &at)
	return number, err
}

// scanRegister reads every registered row.
func (db *DB) scanRegister(ctx context.Context) (*tree, error) {
	var entries []entry
	err := db.view(ctx, func(s *session) error {
		for _, t := range registered {
			some, err := s.scanTable(ctx, t)
			if err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
			entries = append(entries, some...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newTree(entries), nil
}

// Counts returns how many rows of each registered table there are, by kind, and
// the root over all of them.
func (db *DB) Counts(ctx context.Context) (rows map[string]int, root [32]byte, err error) {
	rows = make(map[string]int)
	err = db.view(ctx, func(s *session) error {
		var entries []entry
		for _, t := range registered {
			some, err := s.scanTable(ctx, t)
			if err != nil {
				return fmt.Errorf("store: table %s: %w", t.name, err)
			}
			rows[t.kind] = len(some)
			entries = append(entries, some...)
		}
		root = newTree(entries).root
		return nil
	})
	return rows, root, err
}

// scanTable returns the entries of a table. It takes the rows from the driver
// itself: there may be several hundred thousand, and the daemon waits.
func (s *session) scanTable(ctx context.Context, t *table) ([]entry, error) {
	var entries []entry
	err := s.conn.Raw(func(any) error {
		stmt, err := s.lite.PrepareContext(ctx, t.selects())
		if err != nil {
			return explained(err)
		}
		defer stmt.Close()
		rows, err := stmt.(*sqlite3.SQLiteStmt).Query(nil)
		if err != nil {
			return explained(err)
		}
		defer rows.Close()
		row := make([]driver.Value, 1+len(t.columns))
		values := make([]any, len(t.columns))
		for {
			switch err := rows.Next(row); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return explained(err)
			}
			name, ok := row[0].(string)
			if !ok {
				return fmt.Errorf("%w: a name that is a %T", ErrCorrupt, row[0])
			}
			for i, v := range row[1:] {
				values[i] = v
			}
			sum, err := t.sum(name, values)
			if err != nil {
				return err
			}
			entries = append(entries, entry{t.id(name), sum})
		}
	})
	return entries, err
}
