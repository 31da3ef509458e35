package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// hmacSealer makes row MACs as custody does, under a key for tests.
type hmacSealer struct{ key [32]byte }

func (s hmacSealer) Seal(row []byte) [16]byte {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(row)
	return [16]byte(h.Sum(nil)[:16])
}

// testSealer derives the key of a database from its id alone.
func testSealer(database [16]byte) (Sealer, error) {
	return hmacSealer{sha256.Sum256(append([]byte("for tests"), database[:]...))}, nil
}

// anchors keeps roots as files: for the tests of what the store does with an
// anchor, some of which end processes. The tests in TestOverToken use a token.
type anchors struct{ dir string }

// openServed opens a database with its anchors, which are founded before the
// first time.
func openServed(ctx context.Context, path string) (*DB, error) {
	cfg, err := config(path, Serve)
	if err != nil {
		return nil, err
	}
	return Open(ctx, cfg)
}

// config is how tests open a database.
func config(path string, purpose Purpose) (Config, error) {
	a := anchors{filepath.Join(filepath.Dir(path), "anchors of "+filepath.Base(path))}
	_, err := os.Stat(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(os.Mkdir(a.dir, 0o700), Found(context.Background(), a))
	}
	return Config{Path: path, Purpose: purpose, Clock: day, Anchor: a, Sealer: testSealer}, err
}

func (a anchors) Roots(context.Context) ([][32]byte, error) {
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, err
	}
	var roots [][32]byte
	for _, file := range files {
		root, err := hex.DecodeString(file.Name())
		if err != nil {
			return nil, err
		}
		roots = append(roots, [32]byte(root))
	}
	return roots, nil
}

func (a anchors) file(root [32]byte) string {
	return filepath.Join(a.dir, hex.EncodeToString(root[:]))
}

func (a anchors) Add(_ context.Context, root [32]byte) error {
	return os.WriteFile(a.file(root), nil, 0o600)
}

func (a anchors) Remove(_ context.Context, root [32]byte) error {
	if err := os.Remove(a.file(root)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
