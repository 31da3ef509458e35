package store

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/isoswitch"
)

func TestOpenRefuses(t *testing.T) {
	sqlite := func(t *testing.T, path, statements string) {
		t.Helper()
		pool, err := sql.Open("sqlite3", path)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if _, err := pool.Exec(statements); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		chmod(t, path, mode)
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error
	}{
		{"directory that all can write", func(t *testing.T, path string) { chmod(t, filepath.Dir(path), 0o777) }, ErrUnsafe},
		{"directory that the group can write", func(t *testing.T, path string) { chmod(t, filepath.Dir(path), 0o770) }, ErrUnsafe},
		{"no directory", func(t *testing.T, path string) { os.Remove(filepath.Dir(path)) }, os.ErrNotExist},
		{"file that others can read", func(t *testing.T, path string) { write(t, path, "", 0o644) }, ErrUnsafe},
		{"symbolic link", func(t *testing.T, path string) {
			write(t, path+".real", "", 0o600)
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, ErrUnsafe},
		{"directory in place of the file", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, ErrUnsafe},
		{"database of another program", func(t *testing.T, path string) {
			sqlite(t, path, "CREATE TABLE other (a)")
		}, ErrSchema},
		{"database with another application id", func(t *testing.T, path string) {
			sqlite(t, path, "PRAGMA application_id = 7; CREATE TABLE other (a)")
		}, ErrSchema},
		{"newer schema", func(t *testing.T, path string) {
			shut(t, openAt(t, path, Serve))
			sqlite(t, path, "PRAGMA user_version = 99")
		}, ErrSchema},
		{"no database at all", func(t *testing.T, path string) {
			write(t, path, strings.Repeat("not a database ", 100), 0o600)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "db")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "keyd.db")
			tt.prepare(t, path)
			for _, purpose := range []Purpose{Serve, Visit} {
				db, err := Open(t.Context(), Config{Path: path, Purpose: purpose, Anchor: anchors{path}, Sealer: testSealer})
				if err == nil {
					shut(t, db)
					t.Fatal("opened")
				}
				if tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	for name, cfg := range map[string]Config{
		"no path":            {Purpose: Serve},
		"no purpose":         {Path: path},
		"unknown purpose":    {Path: path, Purpose: 3},
		"no anchor":          {Path: path, Purpose: Serve, Sealer: testSealer},
		"negative readers":   {Path: path, Purpose: Serve, Anchor: anchors{path}, Sealer: testSealer, Readers: -1},
		"too many readers":   {Path: path, Purpose: Serve, Anchor: anchors{path}, Sealer: testSealer, Readers: 65},
		"no sealer":          {Path: path, Purpose: Serve, Anchor: anchors{path}},
		"negative look-back": {Path: path, Purpose: Serve, Anchor: anchors{path}, Sealer: testSealer, LookBack: -time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if db, err := Open(t.Context(), cfg); err == nil {
				shut(t, db)
				t.Fatal("opened")
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a file was made")
			}
		})
	}
}

func TestFilesAreClosedToOthers(t *testing.T) {
	db := open(t)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(db.path + "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 4 { // the file, its log, the log's index, the lock
		t.Errorf("files %q", files)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(file), info.Mode())
		}
	}
}

func TestPathWithOddCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?mode=memory&c#d%20e;ü.db")
	db := openAt(t, path, Serve)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	shut(t, db)
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Fatalf("%v, %v", info, err)
	}
	if _, err := openAt(t, path, Visit).Key(t.Context(), keyID(1)); err != nil {
		t.Error(err)
	}
}

func TestOneProcessServes(t *testing.T) {
	db := open(t)
	_, err := openServed(t.Context(), db.path)
	if !errors.Is(err, ErrServed) {
		t.Fatalf("got %v, want ErrServed", err)
	}
	if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not name %s", err, want)
	}
	shut(t, db)
	openAt(t, db.path, Serve)
}

func TestVisitWhileServed(t *testing.T) {
	db := open(t)
	visitor := openAt(t, db.path, Visit)
	terminal := isoswitch.Terminal{TID: "T0000001", MID: "M00000000000001", Scheme: isoswitch.AESDUKPT,
		BDK: "alias/dev/bdk-aes", Device: "1234567890123456", MACBytes: 8}
	if err := visitor.AddTerminal(t.Context(), terminal); !errors.Is(err, ErrVisitor) {
		t.Fatalf("got %v, want ErrVisitor", err)
	}
	if err := db.AddTerminal(t.Context(), terminal); err != nil {
		t.Fatal(err)
	}
	if got, err := visitor.Terminal(t.Context(), "T0000001"); err != nil || got != terminal {
		t.Errorf("got %v, %v", got, err)
	}
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := visitor.Key(t.Context(), keyID(1)); err != nil {
		t.Error(err)
	}
}

// A visitor that comes first makes the schema, and is not in the way after that.
func TestVisitBeforeServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	visitor := openAt(t, path, Visit)
	if err := openAt(t, path, Serve).AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := visitor.Key(t.Context(), keyID(1)); err != nil {
		t.Error(err)
	}
}

// Whoever would have to make the schema must not do it behind a daemon's back.
func TestVisitDoesNotMigrateWhileServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyd.db")
	lock, err := takeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	db, err := Open(t.Context(), Config{Path: path, Purpose: Visit})
	if err == nil {
		shut(t, db)
	}
	if !errors.Is(err, ErrServed) {
		t.Errorf("got %v, want ErrServed", err)
	}
}

func TestClosed(t *testing.T) {
	db := open(t)
	shut(t, db)
	shut(t, db)
	if err := db.AddKey(t.Context(), aKey(1), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("AddKey: %v", err)
	}
	if _, err := db.Key(t.Context(), keyID(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("Key: %v", err)
	}
	if err := db.Ready(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready: %v", err)
	}
}

func TestCheck(t *testing.T) {
	db := open(t)
	if err := db.AddKey(t.Context(), aKey(1), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	shut(t, db)
	pool, err := sql.Open("sqlite3", db.path) // foreign keys are off
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec("INSERT INTO alias VALUES ('alias/lost', ?)", string(keyID(7))); err != nil {
		t.Fatal(err)
	}
	pool.Close()
	if err := openAdopted(t, db.path).Check(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a row that points nowhere: %v, want ErrCorrupt", err)
	}
}
