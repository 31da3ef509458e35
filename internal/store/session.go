package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// session is one connection to SQLite with the statements prepared on it, for
// one goroutine at a time. It works without a caller's context: the driver
// would start a goroutine for each statement that could be cancelled.
type session struct {
	conn *sql.Conn
	lite *sqlite3.SQLiteConn
	stmt map[string]*sql.Stmt
	// lost is set when SQLite has ended the transaction of its own accord, as
	// it may when a write fails. What came after would be committed alone.
	lost error
	open bool // a transaction is open
	row  rowBuffer

	guard guard // of rows that carry a MAC
}

func newSession(ctx context.Context, db *sql.DB) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, explained(err)
	}
	s := &session{conn: conn, stmt: make(map[string]*sql.Stmt)}
	err = conn.Raw(func(driver any) error {
		lite, ok := driver.(*sqlite3.SQLiteConn)
		if !ok {
			return fmt.Errorf("store: driver connection is a %T", driver)
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
	for _, stmt := range s.stmt {
		stmt.Close()
	}
	return s.conn.Close()
}

// prepared gives the statement of a query, which must be a constant: every
// query is kept for the life of the session.
func (s *session) prepared(query string) (*sql.Stmt, error) {
	if s.lost != nil {
		return nil, s.lost
	}
	if stmt := s.stmt[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, s.failed(err)
	}
	s.stmt[query] = stmt
	return stmt, nil
}

// exec runs a statement and returns how many rows it changed.
func (s *session) exec(query string, args ...any) (int64, error) {
	stmt, err := s.prepared(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.Exec(args...)
	if err != nil {
		return 0, s.failed(err)
	}
	return result.RowsAffected()
}

// row is the answer to a query for one row.
type row struct {
	s    *session
	rows *sql.Row
	err  error
}

// query asks for one row; its Scan returns [sql.ErrNoRows] when there is none.
func (s *session) query(query string, args ...any) row {
	stmt, err := s.prepared(query)
	if err != nil {
		return row{err: err}
	}
	return row{s: s, rows: stmt.QueryRow(args...)}
}

// Scan implements scanner.
func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	if err := r.rows.Scan(dest...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return r.s.failed(err)
	}
	return nil
}

// scanner is a row to be read.
type scanner interface{ Scan(dest ...any) error }

// collect reads all rows of a query.
func collect[T any](s *session, read func(scanner) (T, error), query string, args ...any) ([]T, error) {
	stmt, err := s.prepared(query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.Query(args...)
	if err != nil {
		return nil, s.failed(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := read(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if err := rows.Err(); err != nil {
		return nil, s.failed(err)
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

// failed explains an error and finds out whether it cost the transaction.
func (s *session) failed(err error) error {
	err = explained(err)
	if s.open && s.lite.AutoCommit() {
		s.lost = fmt.Errorf("the transaction was given up: %w", err)
	}
	return err
}
