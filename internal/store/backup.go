package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// RowSink takes the rows of tables, one table after the other: the columns,
// then a value of nil, int64, string or []byte for each in every row.
type RowSink interface {
	Table(name string, columns []string) error
	Row(values []any) error
}

// keptBack are the tables that a backup leaves out: the journal, which belongs
// to the node that answered its messages as its starts do, and the events of it;
// what is only good for a while; and what goes with key pairs of the token.
var keptBack = []string{"probe", "txn", "reversal", "outbox", "hook", "accepted", "answer", "approval", "epoch", "exchange_token", "issuer", "ksn_request", "journal"}

// Backup gives every row of the tables of keys, registry and policies, as they
// were at one moment, to the sink. Tables and rows come in the order of their
// names and keys.
func (db *DB) Backup(ctx context.Context, sink RowSink) error {
	err := db.view(ctx, func(s *session) error {
		names, err := tables(s)
		if err != nil {
			return err
		}
		for _, name := range names {
			if slices.Contains(keptBack, name) {
				continue
			}
			if err := copyTable(ctx, s, name, sink); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: back up: %w", db.telling(err))
	}
	return nil
}

// SchemaVersion is the version of the schema that this program makes.
func SchemaVersion() int {
	files, err := fs.Glob(schema, "schema/*.sql")
	if err != nil { // only for a bad pattern
		return 0
	}
	return len(files)
}

func tables(s *session) ([]string, error) {
	name := func(r scanner) (name string, err error) { err = r.Scan(&name); return name, err }
	return collect(s, name, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
}

// columns returns the columns of a table and those of its primary key, both in order.
func columns(s *session, table string) (all, primary []string, err error) {
	type column struct {
		name  string
		place int
	}
	read := func(r scanner) (c column, err error) { err = r.Scan(&c.name, &c.place); return c, err }
	found, err := collect(s, read, "SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", table)
	if err != nil {
		return nil, nil, err
	}
	keyed := make(map[int]string)
	for _, c := range found {
		all = append(all, c.name)
		if c.place > 0 {
			keyed[c.place] = c.name
		}
	}
	for i := range len(keyed) {
		primary = append(primary, keyed[i+1])
	}
	return all, primary, nil
}

func copyTable(ctx context.Context, s *session, table string, sink RowSink) error {
	all, primary, err := columns(s, table)
	if err != nil {
		return err
	}
	if err := sink.Table(table, all); err != nil {
		return err
	}
	rows, err := s.conn.QueryContext(ctx, "SELECT "+quoted(all)+" FROM "+quoted([]string{table})+" ORDER BY "+quoted(primary))
	if err != nil {
		return s.failed(err)
	}
	defer rows.Close()
	seal, err := s.checkedCopy(table, all)
	if err != nil {
		return err
	}
	values, into := make([]any, len(all)), make([]any, len(all))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return s.failed(err)
		}
		if err := seal(values); err != nil {
			return err
		}
		if err := sink.Row(values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return s.failed(err)
	}
	return nil
}

// checkedCopy returns what makes a row ready to be copied out: where it carries a
// MAC that must be right, and it goes without it, since the database that it is
// restored into has another key.
func (s *session) checkedCopy(name string, all []string) (func(values []any) error, error) {
	i := slices.IndexFunc(sealedTables, func(t *sealed) bool { return t.name == name })
	if i < 0 {
		return func([]any) error { return nil }, nil
	}
	t := sealedTables[i]
	var from []int
	for _, c := range append(t.names(), "row_mac") {
		from = append(from, slices.Index(all, c))
	}
	if len(from) != len(all) || slices.Contains(from, -1) {
		return nil, fmt.Errorf("%w: table %s has other columns than its rows' MACs", ErrSchema, name)
	}
	return func(values []any) error {
		err := s.guard.of(t, copied{values, from}).Scan(make([]any, len(t.columns))...)
		values[from[len(from)-1]] = []byte{}
		return err
	}, nil
}

// copied is a row that was read already, in the order of a sealed table's columns.
type copied struct {
	values []any
	from   []int
}

// Scan implements scanner.
func (c copied) Scan(dest ...any) error {
	for i, to := range dest {
		if err := assign(to, c.values[c.from[i]]); err != nil {
			return err
		}
	}
	return nil
}

// quoted is a list of identifiers for SQL.
func quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return strings.Join(all, ", ")
}

// Restore makes a database of the rows that fill gives to its sink. They are
// those of a schema of this version, which may be older than this program's.
// There must be no database at the path: [ErrExists]. Where anything fails there
// is none afterwards either. What was restored is opened with [Open], which
// brings the schema up to date.
func Restore(ctx context.Context, path string, version int, fill func(RowSink) error) (err error) {
	cfg := Config{Path: path, Purpose: Visit}
	if err := cfg.complete(); err != nil {
		return err
	}
	if _, err := os.Lstat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: restore: %w: %s", ErrExists, cfg.Path)
	}
	if err := prepareFile(cfg.Path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("store: restore: %w", err), remove(cfg.Path))
		}
	}()
	lock, err := takeLock(ctx, cfg.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	pool, err := sql.Open("sqlite3", dataSource(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	s, err := newSession(ctx, pool)
	if err != nil {
		return err
	}
	err = s.restore(ctx, version, fill)
	return errors.Join(err, s.close())
}

// RemoveRestored removes a database that [Restore] has made and nobody serves yet.
func RemoveRestored(path string) error { return remove(path) }

// holding are the tables of which one row makes a database worth keeping.
var holding = []string{"key", "alias", "terminal", "txn"}

// RemoveEmpty removes a database that holds no key, alias, terminal or
// transaction, to make room for [Restore]. One that is not there is no error.
// It returns [ErrExists] for one that holds any, and [ErrServed] while a daemon
// has it.
func RemoveEmpty(ctx context.Context, path string) (err error) {
	cfg := Config{Path: path, Purpose: Visit}
	if err := cfg.complete(); err != nil {
		return err
	}
	if _, err := os.Lstat(cfg.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := takeLock(ctx, cfg.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if err := checkEmpty(ctx, cfg); err != nil {
		return err
	}
	return remove(cfg.Path)
}

func checkEmpty(ctx context.Context, cfg Config) (err error) {
	pool, err := sql.Open("sqlite3", dataSource(cfg))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	for _, table := range holding {
		var rows int
		if err := pool.QueryRowContext(ctx, "SELECT count(*) FROM "+quoted([]string{table})).Scan(&rows); err != nil {
			return fmt.Errorf("store: %s: %w", cfg.Path, explained(err))
		}
		if rows > 0 {
			return fmt.Errorf("store: %w: %s has %d rows in table %s", ErrExists, cfg.Path, rows, table)
		}
	}
	return nil
}

func remove(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// restore applies the schema up to version and fills it, in one transaction.
func (s *session) restore(ctx context.Context, version int, fill func(RowSink) error) error {
	files, err := fs.Glob(schema, "schema/*.sql")
	if err != nil {
		return err
	}
	if version < 1 || version > len(files) {
		return fmt.Errorf("%w: schema version %d, this program knows %d; use the newer keyd", ErrSchema, version, len(files))
	}
	if _, err := s.conn.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return explained(err)
	}
	if err := s.begin(true); err != nil {
		return err
	}
	err = s.refill(ctx, files[:version], fill)
	return errors.Join(err, s.end(err != nil))
}

func (s *session) refill(ctx context.Context, files []string, fill func(RowSink) error) error {
	if err := s.apply(ctx, files); err != nil {
		return err
	}
	// Rows may point to rows of tables that come later.
	if _, err := s.exec("PRAGMA defer_foreign_keys = ON"); err != nil {
		return err
	}
	return fill(&loader{ctx: ctx, s: s})
}

// loader writes rows into the tables that the schema has.
type loader struct {
	ctx    context.Context
	s      *session
	insert *sql.Stmt
	table  string
}

// Table implements [RowSink]. It refuses tables and columns that the schema has
// not, and a table without all its columns.
func (l *loader) Table(name string, given []string) error {
	if slices.Contains(keptBack, name) {
		return fmt.Errorf("%w: table %q is no part of a backup", ErrCorrupt, name)
	}
	all, _, err := columns(l.s, name)
	if err != nil {
		return err
	}
	if len(all) == 0 || !slices.Equal(all, given) {
		return fmt.Errorf("%w: table %q has other columns in this schema", ErrCorrupt, name)
	}
	// The schema may have put rows of its own there.
	if _, err := l.s.conn.ExecContext(l.ctx, "DELETE FROM "+quoted([]string{name})); err != nil {
		return l.s.failed(err)
	}
	if l.insert != nil {
		if err := l.insert.Close(); err != nil {
			return err
		}
	}
	places := strings.TrimSuffix(strings.Repeat("?, ", len(all)), ", ")
	l.table = name
	l.insert, err = l.s.conn.PrepareContext(l.ctx, "INSERT INTO "+quoted([]string{name})+" ("+quoted(all)+") VALUES ("+places+")")
	if err != nil {
		return l.s.failed(err)
	}
	return nil
}

// Row implements [RowSink].
func (l *loader) Row(values []any) error {
	if l.insert == nil {
		return fmt.Errorf("%w: a row without a table", ErrCorrupt)
	}
	if _, err := l.insert.Exec(values...); err != nil {
		return fmt.Errorf("table %s: %w", l.table, l.s.failed(err))
	}
	return nil
}
