package store_test

import (
	"path/filepath"
	"testing"

	"keyd.dev/keyd/internal/store"
)

func open(t testing.TB) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "keyd.db"), Purpose: store.Serve})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
