package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

// rowsOf collects what a backup gives.
type rowsOf struct {
	tables map[string][]string // columns
	rows   []string
	replay []func(RowSink) error
}

func (r *rowsOf) Table(name string, columns []string) error {
	if r.tables == nil {
		r.tables = make(map[string][]string)
	}
	r.tables[name] = columns
	r.rows = append(r.rows, "-- "+name)
	r.replay = append(r.replay, func(s RowSink) error { return s.Table(name, columns) })
	return nil
}

func (r *rowsOf) Row(values []any) error {
	r.rows = append(r.rows, fmt.Sprintf("%#v", values))
	own := slices.Clone(values)
	r.replay = append(r.replay, func(s RowSink) error { return s.Row(own) })
	return nil
}

// filled is a database with a row in every table that a backup holds and that
// the functions of this package can fill, and in some that it leaves out.
func filled(t *testing.T) (*DB, *rowsOf) {
	t.Helper()
	db := open(t)
	for n := range 3 {
		if err := db.AddKey(t.Context(), aKey(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.AddTerminal(t.Context(), aTerminal(1)); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx isoswitch.Tx) error {
		if _, err := tx.Reserve("stan", 7); err != nil {
			return err
		}
		if err := tx.InsertTxn(aTxn(1)); err != nil {
			return err
		}
		return tx.Accept("FFFF9876543210E00000", 5, hash(1), day())
	})
	kept := new(rowsOf)
	if err := db.Backup(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	return db, kept
}

// TestBackupHoldsEveryTable: a new table is in the backup unless this package
// says that it is kept back.
func TestBackupHoldsEveryTable(t *testing.T) {
	db, kept := filled(t)
	var names []string
	if err := db.read(t.Context(), func(s *session) (err error) { names, err = tables(s); return err }); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, in := kept.tables[name]; in == slices.Contains(keptBack, name) {
			t.Errorf("table %s: in the backup %v, kept back %v", name, in, !in)
		}
	}
	for _, name := range []string{"key", "alias", "terminal", "ksn", "counter", "client_role", "key_use"} {
		if kept.tables[name] == nil {
			t.Errorf("table %s is not in the backup", name)
		}
	}
	for _, name := range keptBack {
		if !slices.Contains(names, name) {
			t.Errorf("%s is kept back and is no table", name)
		}
	}
}

func TestRestore(t *testing.T) {
	_, kept := filled(t)
	replay := func(sink RowSink) error {
		for _, step := range kept.replay {
			if err := step(sink); err != nil {
				return err
			}
		}
		return nil
	}
	path := filepath.Join(t.TempDir(), "keyd.db")
	if err := Restore(t.Context(), path, SchemaVersion(), replay); err != nil {
		t.Fatal(err)
	}
	db := openAdopted(t, path)
	again := new(rowsOf)
	if err := db.Backup(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept.rows, again.rows); diff != "" {
		t.Errorf("what was restored (-want +got):\n%s", diff)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}

	t.Run("never over a database", func(t *testing.T) {
		if err := Restore(t.Context(), path, SchemaVersion(), replay); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
	})
	for name, c := range map[string]struct {
		version int
		fill    func(RowSink) error
	}{
		"a schema of the future":    {SchemaVersion() + 1, replay},
		"no schema":                 {0, replay},
		"a table that is not there": {SchemaVersion(), func(s RowSink) error { return s.Table("sqlite_master", []string{"name"}) }},
		"columns that are not there": {SchemaVersion(), func(s RowSink) error {
			return s.Table("alias", []string{"name", "owner"})
		}},
		"a table that is kept back": {SchemaVersion(), func(s RowSink) error { return s.Table("answer", nil) }},
		"a row without a table":     {SchemaVersion(), func(s RowSink) error { return s.Row([]any{int64(1)}) }},
		"an alias without its key": {SchemaVersion(), func(s RowSink) error {
			if err := s.Table("alias", []string{"name", "key"}); err != nil {
				return err
			}
			return s.Row([]any{"alias/a", strings.Repeat("0", 32)})
		}},
		"a failing source": {SchemaVersion(), func(RowSink) error { return errors.New("cut off") }},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keyd.db")
			if err := Restore(t.Context(), path, c.version, c.fill); err == nil {
				t.Error("restored")
			}
			left, err := filepath.Glob(path + "*")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q %v", left, err)
			}
		})
	}
}

// TestRemoveEmpty: what makes room for a restore is never a database with
// anything in it, nor one that somebody serves.
func TestRemoveEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	if err := RemoveEmpty(t.Context(), path); err != nil {
		t.Errorf("none: %v", err)
	}
	db, err := openServed(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveEmpty(t.Context(), path); !errors.Is(err, ErrServed) {
		t.Errorf("served: got %v, want ErrServed", err)
	}
	shut(t, db)
	if err := RemoveEmpty(t.Context(), path); err != nil {
		t.Errorf("empty: %v", err)
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
	full := filepath.Join(t.TempDir(), "keyd.db")
	if db, err = openServed(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	shut(t, db)
	if err := RemoveEmpty(t.Context(), full); !errors.Is(err, ErrExists) {
		t.Errorf("with a key: got %v, want ErrExists", err)
	}
	if _, err := os.Stat(full); err != nil {
		t.Error(err)
	}
}
