package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// AddAlias stores a new alias and, in the same commit, the answer of once. An
// alias that points to this key already stays as it is. It returns
// [custody.ErrAliasExists] when it points elsewhere, [custody.ErrNoKey] when
// there is no such key, and [custody.ErrRepeated].
func (db *DB) AddAlias(ctx context.Context, a custody.Alias, once *custody.Once) error {
	err := db.update(ctx, func(s *session) error {
		if err := db.addAnswer(s, once); err != nil {
			return err
		}
		return insertAlias(s, a)
	})
	if err != nil {
		return fmt.Errorf("store: add alias %s: %w", a.Name, err)
	}
	return nil
}

func insertAlias(s *session, a custody.Alias) error {
	var key any
	if a.Key != "" {
		key = string(a.Key)
	}
	_, err := s.exec("INSERT INTO alias (name, key) VALUES (?, ?)", a.Name, key)
	switch {
	case constraint(err, sqlite3.ErrConstraintForeignKey):
		return fmt.Errorf("%w: %s", custody.ErrNoKey, a.Key)
	case !taken(err):
		return err
	}
	there, err := readAlias(s.query("SELECT name, key FROM alias WHERE name = ?", a.Name))
	if err == nil && there.Key != a.Key {
		err = custody.ErrAliasExists
	}
	return err
}

// Alias returns the alias, or [custody.ErrNoAlias].
func (db *DB) Alias(ctx context.Context, name string) (custody.Alias, error) {
	var a custody.Alias
	err := db.read(ctx, func(s *session) (err error) {
		a, err = readAlias(s.query("SELECT name, key FROM alias WHERE name = ?", name))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoAlias
	}
	if err != nil {
		return custody.Alias{}, fmt.Errorf("store: alias %q: %w", name, err)
	}
	return a, nil
}

func readAlias(r scanner) (custody.Alias, error) {
	var a custody.Alias
	var key sql.NullString
	err := r.Scan(&a.Name, &key)
	a.Key = keys.ID(key.String)
	return a, err
}
