package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// mostKeys bounds one page of a listing.
const mostKeys = 1000

// AddKey stores a new key with its aliases and, in the same commit, the answer
// of once, which may be nil. It returns [custody.ErrAliasExists], [ErrExists] when
// the id is taken, and the errors of [DB.Change].
func (db *DB) AddKey(ctx context.Context, k custody.KeyRecord, once *custody.Once) error {
	err := db.Change(ctx, once, func(ch *Change) error { return ch.AddKey(k) })
	if err != nil && k.Block != nil {
		err = fmt.Errorf("store: add key %s: %w", k.Block.ID, err)
	}
	return err
}

// ChangeKeys implements [custody.Store].
func (db *DB) ChangeKeys(ctx context.Context, once *custody.Once, fn func(custody.KeyChange) error) error {
	err := db.Change(ctx, once, func(ch *Change) error { return fn(ch) })
	if err != nil {
		return fmt.Errorf("store: change keys: %w", err)
	}
	return nil
}

// AddKey notes a new key and its aliases; see [DB.AddKey].
func (ch *Change) AddKey(k custody.KeyRecord) error {
	values, err := keyValues(k)
	if err != nil {
		return err
	}
	id := string(k.Block.ID)
	if ch.has(keyTable, id) {
		return fmt.Errorf("%w: key %s", ErrExists, id)
	}
	if err := ch.insert(keyTable, id, values, keyTaken); err != nil {
		return err
	}
	for _, name := range k.Aliases {
		if err := ch.AddAlias(custody.Alias{Name: name, Key: k.Block.ID}); err != nil {
			return err
		}
	}
	return nil
}

// SetKey replaces a key's record; its aliases stay as they are. It returns
// [custody.ErrNoKey].
func (ch *Change) SetKey(k custody.KeyRecord) error {
	values, err := keyValues(k)
	if err != nil {
		return err
	}
	id := string(k.Block.ID)
	if !ch.has(keyTable, id) {
		return fmt.Errorf("%w: %s", custody.ErrNoKey, id)
	}
	return ch.update(keyTable, id, values, nil)
}

// Key returns a key as it was before the change, with its aliases, or
// [custody.ErrNoKey].
func (ch *Change) Key(id keys.ID) (custody.KeyRecord, error) {
	k, err := keyWithAliases(ch.s, ch.g, id)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: %s", custody.ErrNoKey, id)
	}
	return k, err
}

// keyTaken explains why a key could not be written.
func keyTaken(err error) error {
	if taken(err) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// keyValues are the values of keyTable's columns.
func keyValues(k custody.KeyRecord) ([]any, error) {
	if k.Block == nil {
		return nil, errors.New("store: a key without a block")
	}
	block, err := k.Block.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("store: key %s: %w", k.Block.ID, err)
	}
	tags := []byte("{}")
	if len(k.Tags) > 0 {
		if tags, err = json.Marshal(k.Tags); err != nil {
			return nil, fmt.Errorf("store: tags of key %s: %w", k.Block.ID, err)
		}
	}
	life, err := json.Marshal(k.Life)
	if err != nil {
		return nil, fmt.Errorf("store: life of key %s: %w", k.Block.ID, err)
	}
	return []any{
		block, string(k.State), k.Enabled, nanos(k.UsageStart), nanos(k.UsageStop),
		nanos(k.DeletePending), nanos(k.Deleted), string(tags), string(life),
	}, nil
}

// readKey reads a row of keyTable. The block must be the one of this id: a
// block put under another id would otherwise be used in its place.
func readKey(r scanner) (custody.KeyRecord, error) {
	var k custody.KeyRecord
	var id, tags, life string
	var block []byte
	err := r.Scan(&id, &block, &k.State, &k.Enabled, instant{&k.UsageStart}, instant{&k.UsageStop},
		instant{&k.DeletePending}, instant{&k.Deleted}, &tags, &life)
	if err != nil {
		return k, err
	}
	if k.Block, err = keys.ParseBlock(block); err != nil {
		return k, fmt.Errorf("%w: key %s: %w", ErrCorrupt, id, err)
	}
	if string(k.Block.ID) != id {
		return k, fmt.Errorf("%w: key %s holds the block of %s", ErrCorrupt, id, k.Block.ID)
	}
	if err := json.Unmarshal([]byte(tags), &k.Tags); err != nil {
		return k, fmt.Errorf("%w: tags of key %s: %w", ErrCorrupt, id, err)
	}
	if err := json.Unmarshal([]byte(life), &k.Life); err != nil {
		return k, fmt.Errorf("%w: life of key %s: %w", ErrCorrupt, id, err)
	}
	if len(k.Tags) == 0 {
		k.Tags = nil
	}
	return k, nil
}

// Key returns the key with its aliases, or [custody.ErrNoKey].
func (db *DB) Key(ctx context.Context, id keys.ID) (custody.KeyRecord, error) {
	var k custody.KeyRecord
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		k, err = keyWithAliases(s, g, id)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoKey
	}
	if err != nil {
		return custody.KeyRecord{}, fmt.Errorf("store: key %s: %w", id, err)
	}
	return k, nil
}

func keyWithAliases(s *session, g reading, id keys.ID) (custody.KeyRecord, error) {
	k, err := one(g, s, keyTable, string(id), readKey)
	if err != nil {
		return k, err
	}
	aliases, err := collect(s, of(g, aliasTable, readAlias), aliasTable.selects()+"WHERE key = ? ORDER BY name", string(id))
	for _, a := range aliases {
		k.Aliases = append(k.Aliases, a.Name)
	}
	return k, err
}

// Keys returns up to q.Limit keys in the order of their ids, those after
// q.After. A limit below 1, or above 1000, is 1000.
func (db *DB) Keys(ctx context.Context, q custody.KeyQuery) ([]custody.KeyRecord, error) {
	if q.Limit < 1 || q.Limit > mostKeys {
		q.Limit = mostKeys
	}
	var all []custody.KeyRecord
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		read := of(g, keyTable, readKey)
		if q.State == "" {
			all, err = collect(s, read, keyTable.selects()+"WHERE id > ? AND state <> 'DELETE_COMPLETE' ORDER BY id LIMIT ?",
				string(q.After), q.Limit)
		} else {
			all, err = collect(s, read, keyTable.selects()+"WHERE id > ? AND state = ? ORDER BY id LIMIT ?",
				string(q.After), string(q.State), q.Limit)
		}
		if err != nil || len(all) == 0 {
			return err
		}
		return addAliases(s, g, all)
	})
	if err != nil {
		return nil, fmt.Errorf("store: keys: %w", err)
	}
	return all, nil
}

// addAliases fills in the aliases of keys that are sorted by id.
func addAliases(s *session, g reading, all []custody.KeyRecord) error {
	place := make(map[keys.ID]int, len(all))
	for i, k := range all {
		place[k.Block.ID] = i
	}
	aliases, err := collect(s, of(g, aliasTable, readAlias), aliasTable.selects()+"WHERE key BETWEEN ? AND ? ORDER BY name",
		string(all[0].Block.ID), string(all[len(all)-1].Block.ID))
	if err != nil {
		return err
	}
	for _, a := range aliases {
		if i, ok := place[a.Key]; ok {
			all[i].Aliases = append(all[i].Aliases, a.Name)
		}
	}
	return nil
}
