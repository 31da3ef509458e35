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
// of once, which may be nil. It returns [custody.ErrRepeated],
// [custody.ErrAliasExists], or [ErrExists] when the id is taken.
func (db *DB) AddKey(ctx context.Context, k custody.KeyRecord, once *custody.Once) error {
	if k.Block == nil {
		return errors.New("store: a key without a block")
	}
	block, err := k.Block.MarshalBinary()
	if err != nil {
		return fmt.Errorf("store: add key: %w", err)
	}
	tags, err := json.Marshal(k.Tags)
	if err != nil {
		return fmt.Errorf("store: add key: %w", err)
	}
	if k.Tags == nil {
		tags = []byte("{}")
	}
	err = db.update(ctx, func(s *session) error {
		if err := db.addAnswer(s, once); err != nil {
			return err
		}
		if err := insertKey(s, k, block, string(tags)); err != nil {
			return err
		}
		for _, name := range k.Aliases {
			if err := insertAlias(s, custody.Alias{Name: name, Key: k.Block.ID}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: add key %s: %w", k.Block.ID, err)
	}
	return nil
}

func insertKey(s *session, k custody.KeyRecord, block []byte, tags string) error {
	_, err := s.exec(`INSERT INTO key (id, block, state, enabled, usage_start, usage_stop, delete_pending, deleted, tags)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(k.Block.ID), block, string(k.State), k.Enabled, nanos(k.UsageStart), nanos(k.UsageStop),
		nanos(k.DeletePending), nanos(k.Deleted), tags)
	if taken(err) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

const keyColumns = "SELECT id, block, state, enabled, usage_start, usage_stop, delete_pending, deleted, tags FROM key "

// readKey reads a row of keyColumns. The block must be the one of this id: a
// block put under another id would otherwise be used in its place.
func readKey(r scanner) (custody.KeyRecord, error) {
	var k custody.KeyRecord
	var id, tags string
	var block []byte
	err := r.Scan(&id, &block, &k.State, &k.Enabled, instant{&k.UsageStart}, instant{&k.UsageStop},
		instant{&k.DeletePending}, instant{&k.Deleted}, &tags)
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
	if len(k.Tags) == 0 {
		k.Tags = nil
	}
	return k, nil
}

// Key returns the key with its aliases, or [custody.ErrNoKey].
func (db *DB) Key(ctx context.Context, id keys.ID) (custody.KeyRecord, error) {
	var k custody.KeyRecord
	err := db.view(ctx, func(s *session) (err error) {
		if k, err = readKey(s.query(keyColumns+"WHERE id = ?", string(id))); err != nil {
			return err
		}
		name := func(r scanner) (name string, err error) { err = r.Scan(&name); return name, err }
		k.Aliases, err = collect(s, name, "SELECT name FROM alias WHERE key = ? ORDER BY name", string(id))
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

// Keys returns up to q.Limit keys in the order of their ids, those after
// q.After. A limit below 1, or above 1000, is 1000.
func (db *DB) Keys(ctx context.Context, q custody.KeyQuery) ([]custody.KeyRecord, error) {
	if q.Limit < 1 || q.Limit > mostKeys {
		q.Limit = mostKeys
	}
	var all []custody.KeyRecord
	err := db.view(ctx, func(s *session) (err error) {
		if q.State == "" {
			all, err = collect(s, readKey, keyColumns+"WHERE id > ? AND state <> 'DELETE_COMPLETE' ORDER BY id LIMIT ?",
				string(q.After), q.Limit)
		} else {
			all, err = collect(s, readKey, keyColumns+"WHERE id > ? AND state = ? ORDER BY id LIMIT ?",
				string(q.After), string(q.State), q.Limit)
		}
		if err != nil || len(all) == 0 {
			return err
		}
		return addAliases(s, all)
	})
	if err != nil {
		return nil, fmt.Errorf("store: keys: %w", err)
	}
	return all, nil
}

// addAliases fills in the aliases of keys that are sorted by id.
func addAliases(s *session, all []custody.KeyRecord) error {
	place := make(map[keys.ID]int, len(all))
	for i, k := range all {
		place[k.Block.ID] = i
	}
	aliases, err := collect(s, readAlias, "SELECT name, key FROM alias WHERE key BETWEEN ? AND ? ORDER BY name",
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
