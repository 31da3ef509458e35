package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

// ksnBit is a kind of use in the column kinds.
func ksnBit(k custody.KSNKind) int64 { return 1 << (k - custody.KSNPIN) }

// CheckKSN implements [custody.KSNStore].
func (db *DB) CheckKSN(ctx context.Context, use custody.KSNUse) error {
	return db.View(ctx, func(of isoswitch.Tx) error {
		_, _, err := judgeKSN(of.(*tx), use)
		return err
	})
}

// SpendKSN implements [custody.KSNStore].
func (db *DB) SpendKSN(ctx context.Context, use custody.KSNUse) error {
	return db.Update(ctx, func(of isoswitch.Tx) error {
		t := of.(*tx)
		m, repeat, err := judgeKSN(t, use)
		if err != nil || repeat {
			return err
		}
		if err := m.write(t, use); err != nil {
			return fmt.Errorf("store: key serial number: %w", err)
		}
		return noteRequest(t, use)
	})
}

// ksnMark is the mark of a device once a use is counted.
type ksnMark struct {
	kinds int64
	fresh bool // there was none
}

// markName is the device of a use, for what is remembered of it.
func markName(use custody.KSNUse) string { return string(use.BDK) + "/" + use.Device }

func (m ksnMark) write(t *tx, use custody.KSNUse) error {
	row := []any{string(use.BDK), use.Device, int64(use.Counter), m.kinds, nanos(use.At)}
	t.rose(markTable, markName(use), int64(use.Counter))
	if m.fresh {
		return t.s.insertSealed(markTable, row)
	}
	if err := t.s.guard.seal(markTable, row); err != nil {
		return err
	}
	_, err := t.s.exec("UPDATE ksn_mark SET counter = ?, kinds = ?, at = ?, row_mac = ? WHERE bdk = ? AND device = ?",
		row[2], row[3], row[4], t.s.guard.mac[:], row[0], row[1])
	return err
}

// judgeKSN returns the mark once this use is counted, or that the use is a
// repeat, or [custody.ErrKSN].
func judgeKSN(t *tx, use custody.KSNUse) (m ksnMark, repeat bool, err error) {
	var highest, seen int64
	err = t.guarded(markTable, "WHERE bdk = ? AND device = ?", string(use.BDK), use.Device).Scan(nil, nil, &highest, &seen, nil)
	none := errors.Is(err, isoswitch.ErrNotFound)
	if err == nil || none {
		err = t.notBelow(markTable, markName(use), highest)
	}
	bit, counter := ksnBit(use.Kind), int64(use.Counter)
	switch {
	case err != nil:
		return m, false, fmt.Errorf("store: key serial number: %w", err)
	case none, counter > highest:
		return ksnMark{bit, none}, false, nil
	case counter == highest && seen&bit == 0:
		return ksnMark{seen | bit, false}, false, nil
	}
	if repeat, err = repeated(t, use); err == nil && !repeat {
		err = custody.ErrKSN
	}
	return m, repeat, err
}

// repeated reports whether the use was accepted before, for the same request
// and not too long ago.
func repeated(t *tx, use custody.KSNUse) (bool, error) {
	if use.Request == [32]byte{} {
		return false, nil
	}
	var request [32]byte
	err := t.guarded(requestTable, "WHERE bdk = ? AND device = ? AND counter = ? AND kind = ? AND at > ?",
		string(use.BDK), use.Device, int64(use.Counter), ksnBit(use.Kind), nanos(use.At.Add(-custody.KSNMemory))).
		Scan(nil, nil, nil, nil, digest{&request}, nil)
	if errors.Is(err, isoswitch.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: key serial number: %w", err)
	}
	return subtle.ConstantTimeCompare(request[:], use.Request[:]) == 1, nil
}

// noteRequest keeps by which request the use was, and lets those of the device
// go that no repeat is known by any more.
func noteRequest(t *tx, use custody.KSNUse) error {
	row := []any{string(use.BDK), use.Device, int64(use.Counter), ksnBit(use.Kind), use.Request[:], nanos(use.At)}
	_, err := t.s.exec("DELETE FROM ksn_request WHERE bdk = ? AND device = ? AND at <= ?",
		row[0], row[1], nanos(use.At.Add(-custody.KSNMemory)))
	if err == nil && use.Request != [32]byte{} {
		_, err = t.s.exec("DELETE FROM ksn_request WHERE bdk = ? AND device = ? AND counter = ? AND kind = ?", row[:4]...)
		if err == nil {
			err = t.s.insertSealed(requestTable, row)
		}
	}
	if err != nil {
		return fmt.Errorf("store: request of a key serial number: %w", err)
	}
	return nil
}
