package store

import (
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/custody"
)

// The errors of this package. Where the database cannot be used at all, the
// error wraps [custody.ErrUnavailable].
var (
	// ErrUnsafe: the file or its directory can be changed or read by others.
	ErrUnsafe = errors.New("store: others can get at the database")
	// ErrServed: another process serves from this database.
	ErrServed = errors.New("store: another process serves from this database")
	// ErrSchema: the database is not keyd's, or of a newer keyd.
	ErrSchema = errors.New("store: not a database of this program")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: closed")
	// ErrExists: a key or terminal of this name, or a terminal with this device, exists.
	ErrExists = errors.New("store: exists already")
	// ErrRule: a rule of the schema forbids the change.
	ErrRule = errors.New("store: forbidden by a rule of the database")
	// ErrCorrupt: a row is not what was stored.
	ErrCorrupt = errors.New("store: a stored row is damaged")
	// ErrRegister: the database is not the one that the token knows: it was rolled
	// back, or changed by something else than keyd; or the token knows none.
	ErrRegister = errors.New("store: the database is not the one that the token knows")
	// ErrVisitor: who only visits cannot change keys, aliases or terminals, because
	// that changes what the token knows of the database.
	ErrVisitor = errors.New("store: a visitor cannot change registered rows")
	// ErrExporting: the journal is being exported, which one does at a time.
	ErrExporting = errors.New("store: another export of the journal is under way")
)

// explained turns an error of SQLite into one of this package's.
func explained(err error) error {
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		return err
	}
	if lite.Code == sqlite3.ErrConstraint {
		return fmt.Errorf("%w: %w", ErrRule, err)
	}
	return fmt.Errorf("%w: %w", custody.ErrUnavailable, err)
}

// constraint reports whether err is the violation of a constraint of this kind.
func constraint(err error, kinds ...sqlite3.ErrNoExtended) bool {
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		return false
	}
	for _, kind := range kinds {
		if lite.ExtendedCode == kind {
			return true
		}
	}
	return false
}

// taken reports whether err says that a key of a table or index is in use.
func taken(err error) bool {
	return constraint(err, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintUnique)
}

// fatal reports whether after err the file can no longer be trusted to hold
// what was written: after a failed sync the kernel may drop the pages and
// report success the next time.
func fatal(err error) bool {
	var lite sqlite3.Error
	if !errors.As(err, &lite) {
		return false
	}
	switch lite.Code {
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return true
	}
	switch lite.ExtendedCode {
	case sqlite3.ErrIoErrFsync, sqlite3.ErrIoErrDirFsync:
		return true
	}
	return false
}
