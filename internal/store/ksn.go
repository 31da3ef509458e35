package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
)

// ksnBit is a kind of use in the column kinds.
func ksnBit(k custody.KSNKind) int64 { return 1 << (k - custody.KSNPIN) }

// CheckKSN implements [custody.KSNStore].
func (db *DB) CheckKSN(ctx context.Context, use custody.KSNUse) error {
	return db.read(ctx, func(s *session) error {
		_, _, err := judgeKSN(s, use)
		return err
	})
}

// SpendKSN implements [custody.KSNStore].
func (db *DB) SpendKSN(ctx context.Context, use custody.KSNUse) error {
	return db.update(ctx, func(s *session) error {
		kinds, repeat, err := judgeKSN(s, use)
		if err != nil || repeat {
			return err
		}
		_, err = s.exec(`INSERT INTO ksn_mark (bdk, device, counter, kinds, at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (bdk, device) DO UPDATE SET counter = excluded.counter, kinds = excluded.kinds, at = excluded.at`,
			string(use.BDK), use.Device, use.Counter, kinds, nanos(use.At))
		if err != nil {
			return fmt.Errorf("store: key serial number: %w", err)
		}
		return noteRequest(s, use)
	})
}

// judgeKSN returns the kinds of use with the counter once this one is counted,
// or that the use is a repeat, or [custody.ErrKSN].
func judgeKSN(s *session, use custody.KSNUse) (kinds int64, repeat bool, err error) {
	var highest, seen int64
	err = s.query("SELECT counter, kinds FROM ksn_mark WHERE bdk = ? AND device = ?", string(use.BDK), use.Device).Scan(&highest, &seen)
	bit, counter := ksnBit(use.Kind), int64(use.Counter)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return bit, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("store: key serial number: %w", err)
	case counter > highest:
		return bit, false, nil
	case counter == highest && seen&bit == 0:
		return seen | bit, false, nil
	}
	if repeat, err = repeated(s, use); err == nil && !repeat {
		err = custody.ErrKSN
	}
	return 0, repeat, err
}

// repeated reports whether the use was accepted before, for the same request
// and not too long ago.
func repeated(s *session, use custody.KSNUse) (bool, error) {
	if use.Request == [32]byte{} {
		return false, nil
	}
	var request [32]byte
	err := s.query("SELECT request FROM ksn_request WHERE bdk = ? AND device = ? AND counter = ? AND kind = ? AND at > ?",
		string(use.BDK), use.Device, use.Counter, ksnBit(use.Kind), nanos(use.At.Add(-custody.KSNMemory))).Scan(digest{&request})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: key serial number: %w", err)
	}
	return subtle.ConstantTimeCompare(request[:], use.Request[:]) == 1, nil
}

// noteRequest keeps by which request the use was, and lets those of the device
// go that no repeat is known by any more.
func noteRequest(s *session, use custody.KSNUse) error {
	_, err := s.exec("DELETE FROM ksn_request WHERE bdk = ? AND device = ? AND at <= ?",
		string(use.BDK), use.Device, nanos(use.At.Add(-custody.KSNMemory)))
	if err == nil && use.Request != [32]byte{} {
		_, err = s.exec("INSERT OR REPLACE INTO ksn_request (bdk, device, counter, kind, request, at) VALUES (?, ?, ?, ?, ?, ?)",
			string(use.BDK), use.Device, use.Counter, ksnBit(use.Kind), use.Request[:], nanos(use.At))
	}
	if err != nil {
		return fmt.Errorf("store: request of a key serial number: %w", err)
	}
	return nil
}
