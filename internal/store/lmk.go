package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// generationBytes is where a block names its generation, as the index key_lmk
// has it: bytes 6 to 9, counted from 1.
const generationBytes = "substr(block, 6, 4)"

func generationKey(generation uint32) []byte { return binary.BigEndian.AppendUint32(nil, generation) }

// LMKs returns the generations of the local master key that were noted, in
// their order.
func (db *DB) LMKs(ctx context.Context) ([]custody.LMKNote, error) {
	var all []custody.LMKNote
	err := db.view(ctx, func(s *session) (err error) {
		read := func(r scanner) (n custody.LMKNote, err error) {
			err = r.Scan(&n.Generation, instant{&n.Since}, instant{&n.Retired})
			return n, err
		}
		all, err = collect(s, read, "SELECT generation, since, retired FROM lmk ORDER BY generation")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: local master keys: %w", err)
	}
	return all, nil
}

// NoteLMK notes a generation; one that was noted before stays as it is.
func (db *DB) NoteLMK(ctx context.Context, generation uint32, since time.Time) error {
	known := false
	err := db.view(ctx, func(s *session) error {
		return s.query("SELECT EXISTS (SELECT 1 FROM lmk WHERE generation = ?)", generation).Scan(&known)
	})
	if err == nil && !known {
		err = db.update(ctx, func(s *session) error {
			_, err := s.exec("INSERT INTO lmk (generation, since, retired) VALUES (?, ?, 0) ON CONFLICT DO NOTHING", generation, nanos(since))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("store: note local master key %d: %w", generation, err)
	}
	return nil
}

// RetireLMK notes that a generation is retired. In the same commit it makes
// sure that no block is under it, and from then on none is taken in. A second
// time is no error. It returns [custody.ErrConflict] while a block is left.
func (db *DB) RetireLMK(ctx context.Context, generation uint32, at time.Time) error {
	err := db.update(ctx, func(s *session) error {
		var blocks int
		if err := s.query("SELECT count(*) FROM key WHERE "+generationBytes+" = ?", generationKey(generation)).Scan(&blocks); err != nil {
			return err
		}
		if blocks > 0 {
			return fmt.Errorf("%w: %d keys are under it", custody.ErrConflict, blocks)
		}
		_, err := s.exec(`INSERT INTO lmk (generation, since, retired) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET retired = excluded.retired WHERE retired = 0`, generation, nanos(at), nanos(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("store: retire local master key %d: %w", generation, err)
	}
	return nil
}

// CountByLMK returns how many key blocks are under each generation.
func (db *DB) CountByLMK(ctx context.Context) (map[uint32]int, error) {
	counts := make(map[uint32]int)
	err := db.view(ctx, func(s *session) error {
		read := func(r scanner) (none struct{}, err error) {
			var generation []byte
			var n int
			if err := r.Scan(&generation, &n); err != nil || len(generation) != 4 {
				return none, errors.Join(ErrCorrupt, err)
			}
			counts[binary.BigEndian.Uint32(generation)] = n
			return none, nil
		}
		_, err := collect(s, read, "SELECT "+generationBytes+", count(*) FROM key GROUP BY 1")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: count keys by local master key: %w", err)
	}
	return counts, nil
}

// BlocksUnder returns up to limit blocks under a generation, those of keys after
// the id, in the order of their ids. They are compared with nothing: whoever
// uses one has its MAC checked.
func (db *DB) BlocksUnder(ctx context.Context, generation uint32, after keys.ID, limit int) ([]*keys.Block, error) {
	var blocks []*keys.Block
	err := db.view(ctx, func(s *session) (err error) {
		read := func(r scanner) (*keys.Block, error) {
			var raw []byte
			if err := r.Scan(&raw); err != nil {
				return nil, err
			}
			return keys.ParseBlock(raw)
		}
		blocks, err = collect(s, read, "SELECT block FROM key WHERE "+generationBytes+" = ? AND id > ? ORDER BY id LIMIT ?",
			generationKey(generation), string(after), limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: keys under local master key %d: %w", generation, err)
	}
	return blocks, nil
}

// ReplaceBlocks puts each new block in the place of the old one, in one commit,
// and returns which. A key that has gone, or whose block is not the old one any
// more, is left as it is; nothing else of a key is changed. Errors are those of
// [DB.Change].
func (db *DB) ReplaceBlocks(ctx context.Context, all []custody.BlockChange) ([]custody.BlockChange, error) {
	var done []custody.BlockChange
	err := db.Change(ctx, nil, func(ch *Change) error {
		for _, change := range all {
			k, err := find(ch, keyTable, string(change.Old.ID), readKey)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			same, err := sameStored(k.Block, change.Old)
			if err != nil {
				return err
			}
			if !same {
				continue
			}
			k.Block = change.New
			if err := ch.SetKey(k); err != nil {
				return err
			}
			done = append(done, change)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: replace key blocks: %w", err)
	}
	return done, nil
}

// sameStored reports whether two blocks are the same in every byte.
func sameStored(a, b *keys.Block) (bool, error) {
	one, err := a.MarshalBinary()
	if err != nil {
		return false, err
	}
	other, err := b.MarshalBinary()
	return bytes.Equal(one, other), err
}
