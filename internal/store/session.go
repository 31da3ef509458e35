package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// session is one connection to SQLite with the statements prepared on it, for
// one goroutine at a time. It works without a caller's context: the driver
// would start a goroutine for each statement that could be cancelled. It speaks
// to the driver itself: what database/sql does around each statement took as long
// as most of them.
type session struct {
	conn *sql.Conn
	lite *sqlite3.SQLiteConn
	stmt map[string]*sqlite3.SQLiteStmt
	args []driver.NamedValue // of the statement that is run now
	// lost is set when SQLite has ended the transaction of its own accord, as
	// it may when a write fails. What came after would be committed alone.
	lost error
	open bool // a transaction is open
	row  rowBuffer

	guard  guard // of rows that carry a MAC
	memory memory
}

func newSession(ctx context.Context, db *sql.DB) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, explained(err)
	}
	s := &session{conn: conn, stmt: make(map[string]*sqlite3.SQLiteStmt)}
	err = conn.Raw(func(c any) error {
		lite, ok := c.(*sqlite3.SQLiteConn)
		if !ok {
			return fmt.Errorf("store: driver connection is a %T", c)
		}
		s.lite = lite
		return nil
	})
	if err == nil {
		// What a query sorts stays out of temporary files: rows hold cards, and the
		// daemon's sandbox has no folder for them.
		_, err = conn.ExecContext(ctx, "PRAGMA temp_store = MEMORY")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() error {
	var errs []error
	for _, stmt := range s.stmt {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, s.conn.Close())...)
}

// prepared gives the statement of a query, which must be a constant: every
// query is kept for the life of the session.
func (s *session) prepared(query string) (*sqlite3.SQLiteStmt, error) {
	if s.lost != nil {
		return nil, s.lost
	}
	if stmt := s.stmt[query]; stmt != nil {
		return stmt, nil
	}
	made, err := s.lite.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, s.failed(err)
	}
	stmt, ok := made.(*sqlite3.SQLiteStmt)
	if !ok {
		return nil, fmt.Errorf("store: the driver's statement is a %T", made)
	}
	s.stmt[query] = stmt
	return stmt, nil
}

// bound brings arguments into the driver's form. What it returns is valid until
// the next statement.
func (s *session) bound(stmt *sqlite3.SQLiteStmt, args []any) ([]driver.NamedValue, error) {
	if n := stmt.NumInput(); n != len(args) {
		return nil, fmt.Errorf("store: %d arguments for a statement that takes %d", len(args), n)
	}
	s.args = s.args[:0]
	for i, v := range args {
		switch plain := v.(type) {
		case nil, int64, string, []byte:
		case int:
			v = int64(plain)
		default:
			var err error
			if v, err = driver.DefaultParameterConverter.ConvertValue(v); err != nil {
				return nil, fmt.Errorf("store: argument %d: %w", i+1, err)
			}
		}
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return s.args, nil
}

// exec runs a statement and returns how many rows it changed.
func (s *session) exec(query string, args ...any) (int64, error) {
	stmt, err := s.prepared(query)
	if err != nil {
		return 0, err
	}
	values, err := s.bound(stmt, args)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(context.Background(), values)
	if err != nil {
		return 0, s.failed(err)
	}
	return result.RowsAffected()
}

// run runs a statement of which nobody asks how many rows it changed: its
// arguments then go to SQLite in one call instead of one each.
func (s *session) run(query string, args ...any) error {
	rows, err := s.ask(query, args)
	if err != nil {
		return err
	}
	return s.failed(rows.Close())
}

// ask begins a query. The driver takes its first step at once.
func (s *session) ask(query string, args []any) (driver.Rows, error) {
	stmt, err := s.prepared(query)
	if err != nil {
		return nil, err
	}
	values, err := s.bound(stmt, args)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(context.Background(), values)
	if err != nil {
		return nil, s.failed(err)
	}
	return rows, nil
}

// row is a query for one row, which is asked by Scan.
type row struct {
	s     *session
	query string
	args  []any
	err   error
}

// query asks for one row; its Scan returns [sql.ErrNoRows] when there is none.
func (s *session) query(query string, args ...any) row {
	return row{s: s, query: query, args: args}
}

// Scan implements scanner.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	found := false
	err := r.s.each(r.query, r.args, func(r scanner) (more bool, err error) {
		found = true
		return false, r.Scan(dest...)
	})
	if err == nil && !found {
		err = sql.ErrNoRows
	}
	return err
}

// scanner is a row to be read.
type scanner interface{ Scan(dest ...any) error }

// cells are the values of a row.
type cells []driver.Value

// Scan implements scanner.
func (c cells) Scan(dest ...any) error {
	if len(dest) != len(c) {
		return fmt.Errorf("store: %d places for a row of %d values", len(dest), len(c))
	}
	for i, v := range c {
		if err := assign(dest[i], v); err != nil {
			return err
		}
	}
	return nil
}

// each calls read with each row of a query until it wants no more.
func (s *session) each(query string, args []any, read func(scanner) (more bool, err error)) (err error) {
	rows, err := s.ask(query, args)
	if err != nil {
		return err
	}
	defer func() {
		if closing := rows.Close(); err == nil {
			err = s.failed(closing)
		}
	}()
	row := make(cells, len(rows.Columns()))
	for more := true; more; {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return s.failed(err)
		}
		if more, err = read(row); err != nil {
			return err
		}
	}
	return nil
}

// collect reads all rows of a query.
func collect[T any](s *session, read func(scanner) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := s.each(query, args, func(r scanner) (more bool, err error) {
		one, err := read(r)
		if err == nil {
			all = append(all, one)
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// begin opens a transaction; one that writes takes the write lock at once.
func (s *session) begin(write bool) error {
	s.lost = nil
	if !s.lite.AutoCommit() {
		// An earlier rollback failed.
		if _, err := s.exec("ROLLBACK"); err != nil {
			return err
		}
	}
	statement := "BEGIN"
	if write {
		statement = "BEGIN IMMEDIATE"
	}
	if _, err := s.exec(statement); err != nil {
		return err
	}
	s.open = true
	return nil
}

// end commits the transaction, or undoes it when undo is set or the commit fails.
func (s *session) end(undo bool) error {
	err := s.lost
	if err == nil && !undo {
		if _, err = s.exec("COMMIT"); err == nil {
			s.open = false
			return nil
		}
	}
	s.open, s.lost = false, nil
	if s.lite.AutoCommit() {
		return err
	}
	if _, undoErr := s.exec("ROLLBACK"); undoErr != nil {
		return errors.Join(err, undoErr)
	}
	return err
}

// failed explains an error, if there is one, and finds out whether it cost the
// transaction.
func (s *session) failed(err error) error {
	if err == nil {
		return nil
	}
	err = explained(err)
	if s.open && s.lite.AutoCommit() {
		s.lost = fmt.Errorf("the transaction was given up: %w", err)
	}
	return err
}
