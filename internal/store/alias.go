package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// AddAlias stores a new alias and, in the same commit, the answer of once. An
// alias that points to this key already stays as it is. It returns
// [custody.ErrAliasExists] when it points elsewhere, [custody.ErrNoKey] when
// there is no such key, and the errors of [DB.Change].
func (db *DB) AddAlias(ctx context.Context, a custody.Alias, once *custody.Once) error {
	err := db.Change(ctx, once, func(ch *Change) error { return ch.AddAlias(a) })
	if err != nil {
		return fmt.Errorf("store: add alias %s: %w", a.Name, err)
	}
	return nil
}

// AddAlias notes a new alias; see [DB.AddAlias].
func (ch *Change) AddAlias(a custody.Alias) error {
	if !ch.has(aliasTable, a.Name) {
		return ch.SetAlias(a)
	}
	there, err := ch.Alias(a.Name)
	if err == nil && there.Key != a.Key {
		err = custody.ErrAliasExists
	}
	return err
}

// SetAlias makes an alias, or lets it point to another key, or to none. It
// returns [custody.ErrNoKey] where there is no such key.
func (ch *Change) SetAlias(a custody.Alias) error {
	var key any
	if a.Key != "" {
		key = string(a.Key)
		if !ch.has(keyTable, string(a.Key)) {
			return fmt.Errorf("%w: %s", custody.ErrNoKey, a.Key)
		}
	}
	if ch.has(aliasTable, a.Name) {
		return ch.update(aliasTable, a.Name, []any{key}, nil)
	}
	return ch.insert(aliasTable, a.Name, []any{key}, nil)
}

// DropAlias takes an alias away, or returns [custody.ErrNoAlias].
func (ch *Change) DropAlias(name string) error {
	if !ch.has(aliasTable, name) {
		return fmt.Errorf("%w: %s", custody.ErrNoAlias, name)
	}
	ch.delete(aliasTable, name)
	return nil
}

// Alias returns an alias as it was before the change, or [custody.ErrNoAlias].
func (ch *Change) Alias(name string) (custody.Alias, error) {
	a, err := find(ch, aliasTable, name, readAlias)
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoAlias
	}
	return a, err
}

// Alias returns the alias, or [custody.ErrNoAlias].
func (db *DB) Alias(ctx context.Context, name string) (custody.Alias, error) {
	var a custody.Alias
	err := db.readRegistered(ctx, func(s *session, g reading) (err error) {
		a, err = one(g, s, aliasTable, name, readAlias)
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
