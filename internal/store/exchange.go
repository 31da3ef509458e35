package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// AddImportToken stores an import token and, in the same commit, the answer of
// once. It returns [custody.ErrRepeated], or [ErrExists].
func (db *DB) AddImportToken(ctx context.Context, t custody.ImportToken, once *custody.Once) error {
	err := db.update(ctx, func(s *session) error {
		if err := db.addAnswer(s, once); err != nil {
			return err
		}
		_, err := s.exec("INSERT INTO exchange_token (token, algorithm, certificate, made, expires, principal) VALUES (?, ?, ?, ?, ?, ?)",
			t.Token, t.Algorithm, t.Certificate, nanos(t.Made), nanos(t.Expires), t.Principal)
		if taken(err) {
			return fmt.Errorf("%w: %w", ErrExists, err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("store: add import token: %w", err)
	}
	return nil
}

// ImportTokens returns the tokens whose key pair is not destroyed, newest first.
func (db *DB) ImportTokens(ctx context.Context) ([]custody.ImportToken, error) {
	var all []custody.ImportToken
	read := func(r scanner) (t custody.ImportToken, err error) {
		err = r.Scan(&t.Token, &t.Algorithm, &t.Certificate, instant{&t.Made}, instant{&t.Expires}, &t.Principal)
		return t, err
	}
	err := db.view(ctx, func(s *session) (err error) {
		all, err = collect(s, read, `SELECT token, algorithm, certificate, made, expires, principal
			FROM exchange_token WHERE destroyed = 0 ORDER BY made DESC, token`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: import tokens: %w", err)
	}
	return all, nil
}

// EndImportToken notes that a token's key pair is destroyed.
func (db *DB) EndImportToken(ctx context.Context, token string, at time.Time) error {
	err := db.update(ctx, func(s *session) error {
		_, err := s.exec("UPDATE exchange_token SET destroyed = ? WHERE token = ? AND destroyed = 0", nanos(at), token)
		return err
	})
	if err != nil {
		return fmt.Errorf("store: end import token: %w", err)
	}
	return nil
}

// IssuerChain returns the certificates of an issuing key, DER one behind the
// other, its own first; none is no error.
func (db *DB) IssuerChain(ctx context.Context, key [32]byte) ([]byte, error) {
	var chain []byte
	err := db.read(ctx, func(s *session) error {
		return s.query("SELECT chain FROM issuer WHERE key = ?", key[:]).Scan(&chain)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("store: issuer: %w", err)
	}
	return chain, nil
}

// SetIssuerChain stores them, in place of those before.
func (db *DB) SetIssuerChain(ctx context.Context, key [32]byte, chain []byte) error {
	err := db.update(ctx, func(s *session) error {
		_, err := s.exec("INSERT INTO issuer (key, chain) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET chain = excluded.chain", key[:], chain)
		return err
	})
	if err != nil {
		return fmt.Errorf("store: set issuer: %w", err)
	}
	return nil
}

// AddPublicKey stores a public key from outside and, in the same commit, the
// answer of once. It returns [custody.ErrRepeated], or [ErrExists].
func (db *DB) AddPublicKey(ctx context.Context, k custody.PublicKey, once *custody.Once) error {
	tags := []byte("{}")
	if len(k.Tags) > 0 {
		var err error
		if tags, err = json.Marshal(k.Tags); err != nil {
			return fmt.Errorf("store: add public key: %w", err)
		}
	}
	err := db.update(ctx, func(s *session) error {
		if err := db.addAnswer(s, once); err != nil {
			return err
		}
		_, err := s.exec(`INSERT INTO public_key (id, algorithm, certificate, authority, kcv, enabled, made, tags, seal)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, string(k.ID), k.Algorithm, k.Certificate, string(k.Authority), k.Check[:],
			k.Enabled, nanos(k.Made), string(tags), k.Seal[:])
		if taken(err) {
			return fmt.Errorf("%w: %w", ErrExists, err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("store: add public key %s: %w", k.ID, err)
	}
	return nil
}

// PublicKey returns a public key from outside, or [custody.ErrNoKey].
func (db *DB) PublicKey(ctx context.Context, id keys.ID) (custody.PublicKey, error) {
	k := custody.PublicKey{ID: id}
	var kcv []byte
	var authority, tags string
	err := db.read(ctx, func(s *session) error {
		return s.query("SELECT algorithm, certificate, authority, kcv, enabled, made, tags, seal FROM public_key WHERE id = ?", string(id)).
			Scan(&k.Algorithm, &k.Certificate, &authority, &kcv, &k.Enabled, instant{&k.Made}, &tags, digest{&k.Seal})
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoKey
	}
	if err == nil {
		err = json.Unmarshal([]byte(tags), &k.Tags)
	}
	if err != nil {
		return custody.PublicKey{}, fmt.Errorf("store: public key %s: %w", id, err)
	}
	if len(k.Tags) == 0 {
		k.Tags = nil
	}
	k.Authority = keys.ID(authority)
	copy(k.Check[:], kcv)
	return k, nil
}
