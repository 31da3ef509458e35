package store

import (
	"context"
	"fmt"
)

// CountKeys returns how many keys there are, those of terminals with them and
// those that are deleted not.
func (db *DB) CountKeys(ctx context.Context) (int, error) {
	return db.count(ctx, "SELECT count(*) FROM key WHERE state <> 'DELETE_COMPLETE'")
}

// CountAliases returns how many aliases there are.
func (db *DB) CountAliases(ctx context.Context) (int, error) {
	return db.count(ctx, "SELECT count(*) FROM alias")
}

func (db *DB) count(ctx context.Context, query string) (n int, err error) {
	err = db.view(ctx, func(s *session) error { return s.query(query).Scan(&n) })
	if err != nil {
		return 0, fmt.Errorf("store: count: %w", err)
	}
	return n, nil
}
