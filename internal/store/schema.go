package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// The schema is the sum of the files schema/0001.sql, 0002.sql and so on. A file
// that was released is never changed: another is added.
//
//go:embed schema/*.sql
var schema embed.FS

// applicationID marks the file as keyd's: "keyd" in ASCII.
const applicationID = 0x6b657964

// prepareWriter brings the schema up to date and checks that the connection
// writes as durably as this package promises.
func (s *session) prepareWriter(ctx context.Context, path string, locked bool) error {
	// The log is copied into the database by [writer.checkpoint] alone. The cache
	// holds 16 MB of pages: the indices of a day.
	for _, pragma := range []string{"PRAGMA wal_autocheckpoint = 0", "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -16000"} {
		if _, err := s.conn.ExecContext(ctx, pragma); err != nil {
			return explained(err)
		}
	}
	if err := s.migrate(ctx, path, locked); err != nil {
		return err
	}
	for _, setting := range []struct{ pragma, want string }{
		{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"},
	} {
		var got string
		if err := s.conn.QueryRowContext(ctx, "PRAGMA "+setting.pragma).Scan(&got); err != nil {
			return explained(err)
		}
		if got != setting.want {
			return fmt.Errorf("store: PRAGMA %s is %q, need %q; is the file on a local file system?", setting.pragma, got, setting.want)
		}
	}
	return nil
}

// migrate applies the schema files that the database lacks. Whoever does so
// holds the lock: no other program may be at work on the older schema.
func (s *session) migrate(ctx context.Context, path string, locked bool) error {
	files, err := fs.Glob(schema, "schema/*.sql")
	if err != nil {
		return err
	}
	if version, err := s.version(ctx, len(files)); err != nil || version == len(files) {
		return err
	}
	if !locked {
		lock, err := takeLock(ctx, path)
		if err != nil {
			return fmt.Errorf("the schema is older than this program; stop keyd first: %w", err)
		}
		defer lock.release()
	}
	if _, err := s.conn.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return explained(err)
	}
	if err := s.begin(true); err != nil {
		return err
	}
	err = s.apply(ctx, files)
	return errors.Join(err, s.end(err != nil))
}

func (s *session) apply(ctx context.Context, files []string) error {
	version, err := s.version(ctx, len(files))
	if err != nil {
		return err
	}
	for _, file := range files[version:] {
		text, err := schema.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := s.conn.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("%s: %w", file, explained(err))
		}
	}
	mark := fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(files))
	if _, err := s.conn.ExecContext(ctx, mark); err != nil {
		return explained(err)
	}
	return nil
}

// version returns the version of the database's schema, 0 for an empty file.
func (s *session) version(ctx context.Context, newest int) (int, error) {
	var application, version, tables int
	const query = "SELECT (SELECT application_id FROM pragma_application_id), " +
		"(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)"
	if err := s.conn.QueryRowContext(ctx, query).Scan(&application, &version, &tables); err != nil {
		return 0, explained(err)
	}
	switch {
	case application == 0 && version == 0 && tables == 0:
		return 0, nil
	case application != applicationID:
		return 0, fmt.Errorf("%w: application id %#x", ErrSchema, application)
	case version > newest:
		return 0, fmt.Errorf("%w: schema version %d, this program knows %d; use the newer keyd", ErrSchema, version, newest)
	case version < 1:
		return 0, fmt.Errorf("%w: schema version %d", ErrSchema, version)
	}
	return version, nil
}
