package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

var (
	_ custody.Store     = (*DB)(nil)
	_ isoswitch.Journal = (*DB)(nil)
)

// Purpose says what a process wants of a database.
type Purpose uint8

// The purposes.
const (
	// Serve is the daemon's: one process at a time.
	Serve Purpose = iota + 1
	// Visit is a command's: it reads, and writes briefly what is not registered,
	// also while another process serves. What it reads is not compared with the
	// register.
	Visit
)

// Config says which database to open and how.
type Config struct {
	Path     string // of the file; its directory must exist and be closed to others
	Purpose  Purpose
	Readers  int              // connections that read; 0 is 4
	LookBack time.Duration    // how long accepted messages are remembered at least; 0 is 7 days
	Clock    func() time.Time // nil is time.Now; for the expiry of stored answers

	Anchor Anchor // needed to serve
	// Adopt takes the database as it is, whatever the anchor knows: after an
	// upgrade or a restore, by an administrator's decision. Otherwise a database
	// that the anchor does not know is refused with [ErrRegister].
	Adopt bool
	// Sealer gives what makes the MACs of the rows of the database with this id,
	// always the same; needed to serve.
	Sealer func(database [16]byte) (Sealer, error)
	// Suspicion is told of each row that is not what keyd wrote, once, and of an
	// anchor that cannot be moved on. It must not use the store. Nil drops it;
	// errors remain.
	Suspicion func(Suspicion)
	// Committed is told of each commit: how long it took, its sync included, and
	// of how many changes. It must not block and is called from one goroutine.
	// Nil is told nothing.
	Committed func(took time.Duration, changes int)
}

const (
	defaultReaders  = 4
	defaultLookBack = 7 * 24 * time.Hour
	// A commit elsewhere is waited for so long. A visitor has the patience to
	// find a gap between the commits of a busy daemon, for which it must poll.
	serverPatience  = 5 * time.Second
	visitorPatience = 30 * time.Second
)

// DB is an open database. It is safe for concurrent use. It implements
// [custody.Store] and [isoswitch.Journal].
type DB struct {
	path     string
	pool     *sql.DB
	writer   *writer
	readers  chan *session
	made     int       // readers
	lock     *lock     // nil for a visitor
	register *register // nil for a visitor
	known    known     // terminals
	waters   waters
	sealing  Sealing // of the rows that had no MAC when it was opened
	served   bool    // it was opened whole, to serve

	exporting sync.Mutex // held by the one export of the journal

	ending   sync.RWMutex // held for reading while the journal is written
	ended    atomic.Bool  // it is written no more
	lookBack time.Duration
	clock    func() time.Time
	closed   chan struct{}
	closing  sync.Once
	closeErr error
}

// Open opens the database of cfg, and makes it when there is none. The errors
// are [ErrUnsafe], [ErrServed], [ErrSchema], [ErrRegister], and those of the file
// system and the anchor.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := prepareFile(cfg.Path); err != nil {
		return nil, err
	}
	db := &DB{path: cfg.Path, lookBack: cfg.LookBack, clock: cfg.Clock, closed: make(chan struct{})}
	if err := db.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (cfg *Config) complete() error {
	if cfg.Path == "" {
		return errors.New("store: no path for the database")
	}
	if cfg.Purpose != Serve && cfg.Purpose != Visit {
		return errors.New("store: purpose must be Serve or Visit")
	}
	if cfg.Readers < 0 || cfg.Readers > 64 {
		return fmt.Errorf("store: %d readers, want 1 to 64", cfg.Readers)
	}
	if cfg.Readers == 0 {
		cfg.Readers = defaultReaders
	}
	if cfg.LookBack < 0 {
		return fmt.Errorf("store: look-back of %v", cfg.LookBack)
	}
	if cfg.LookBack == 0 {
		cfg.LookBack = defaultLookBack
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Suspicion == nil {
		cfg.Suspicion = func(Suspicion) {}
	}
	if cfg.Committed == nil {
		cfg.Committed = func(time.Duration, int) {}
	}
	if cfg.Purpose == Serve && cfg.Anchor == nil {
		return errors.New("store: to serve needs an anchor")
	}
	if cfg.Purpose == Serve && cfg.Sealer == nil {
		return errors.New("store: to serve needs a sealer")
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	cfg.Path = path
	return nil
}

func (db *DB) open(ctx context.Context, cfg Config) error {
	var err error
	if cfg.Purpose == Serve {
		if db.lock, err = takeLock(ctx, cfg.Path); err != nil {
			return err
		}
	}
	if db.pool, err = sql.Open("sqlite3", dataSource(cfg)); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	first, err := newSession(ctx, db.pool)
	if err != nil {
		return fmt.Errorf("store: open %s: %w", cfg.Path, err)
	}
	if err := first.prepareWriter(ctx, cfg.Path, db.lock != nil); err != nil {
		return errors.Join(fmt.Errorf("store: open %s: %w", cfg.Path, err), first.close())
	}
	copier, err := newCopier(ctx, db.pool)
	if err != nil {
		return errors.Join(fmt.Errorf("store: open %s: %w", cfg.Path, err), first.close())
	}
	db.writer = newWriter(first, copier, cfg.Committed)
	db.readers = make(chan *session, cfg.Readers)
	for range cfg.Readers {
		reader, err := newSession(ctx, db.pool)
		if err != nil {
			return fmt.Errorf("store: open %s: %w", cfg.Path, err)
		}
		db.readers <- reader
		db.made++
		if _, err := reader.exec("PRAGMA query_only = ON"); err != nil {
			return fmt.Errorf("store: open %s: %w", cfg.Path, err)
		}
	}
	if cfg.Purpose == Serve {
		if err := db.openRegister(ctx, cfg); err != nil {
			return err
		}
		if err := db.sealOld(ctx); err != nil {
			return err
		}
		db.served = true
	}
	return nil
}

// dataSource is the driver's name for the file. What it sets, every connection has.
func dataSource(cfg Config) string {
	patience := serverPatience
	if cfg.Purpose == Visit {
		patience = visitorPatience
	}
	u := url.URL{Scheme: "file", Path: cfg.Path, RawQuery: url.Values{
		"mode":           {"rw"},
		"_busy_timeout":  {fmt.Sprint(patience.Milliseconds())},
		"_mutex":         {"no"}, // a connection is one session's, for one goroutine at a time
		"_foreign_keys":  {"on"},
		"_synchronous":   {"FULL"},
		"_secure_delete": {"on"},
		// Without it REPLACE would pass by the triggers on DELETE.
		"_recursive_triggers": {"on"},
	}.Encode()}
	return u.String()
}

// Close waits for what is under way, refuses what comes, and closes the file.
func (db *DB) Close() error {
	db.closing.Do(func() {
		db.ended.Store(true)
		db.ebb()
		db.closeErr = db.close()
	})
	return db.closeErr
}

func (db *DB) close() error {
	close(db.closed)
	if db.register != nil {
		db.register.sweepers.Wait()
	}
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	for range db.made {
		errs = append(errs, (<-db.readers).close())
	}
	if db.pool != nil {
		errs = append(errs, db.pool.Close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.release())
	}
	return errors.Join(errs...)
}

// Ready returns nil when the store can write, as far as it knows. After a
// failed commit it finds out by writing.
func (db *DB) Ready(ctx context.Context) error {
	select {
	case <-db.closed:
		return ErrClosed
	default:
		return db.writer.ready(ctx)
	}
}

// Check reads the whole database and reports damage as [ErrCorrupt].
func (db *DB) Check(ctx context.Context) error {
	return db.view(ctx, func(s *session) error {
		text := func(r scanner) (string, error) {
			var line string
			err := r.Scan(&line)
			return line, err
		}
		lines, err := collect(s, text, "SELECT integrity_check FROM pragma_integrity_check LIMIT 10")
		if err != nil {
			return err
		}
		if len(lines) != 1 || lines[0] != "ok" {
			return fmt.Errorf("%w: %q", ErrCorrupt, lines)
		}
		lines, err = collect(s, text, `SELECT DISTINCT "table" FROM pragma_foreign_key_check`)
		if err == nil && len(lines) > 0 {
			err = fmt.Errorf("%w: rows that point nowhere in %q", ErrCorrupt, lines)
		}
		return err
	})
}

// update runs fn on the writer; see [writer.update].
func (db *DB) update(ctx context.Context, fn func(*session) error) error {
	return db.writer.update(ctx, fn)
}

// view runs fn over a snapshot, on a connection that cannot write.
func (db *DB) view(ctx context.Context, fn func(*session) error) error {
	return db.read(ctx, func(s *session) (err error) {
		if err := s.begin(false); err != nil {
			return fmt.Errorf("store: begin: %w", err)
		}
		defer func() { err = errors.Join(err, s.end(true)) }()
		return fn(s)
	})
}

// read runs fn on a connection that cannot write. Each query of fn has a
// snapshot of its own.
func (db *DB) read(ctx context.Context, fn func(*session) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-db.closed:
		return ErrClosed
	default:
	}
	select {
	case s := <-db.readers:
		defer func() { db.readers <- s }()
		return fn(s)
	case <-db.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
