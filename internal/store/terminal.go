package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
)

const mostTerminals = 1000

// readTerminal reads what the switch sees of a row of terminalTable.
func readTerminal(r scanner) (isoswitch.Terminal, error) {
	t, err := readRegistered(r)
	return viewOf(t), err
}

// Terminal implements [isoswitch.Journal].
func (db *DB) Terminal(ctx context.Context, tid string) (isoswitch.Terminal, error) {
	held, now := db.register.settled(), db.clock()
	if held == nil {
		return db.readTerminal(ctx, tid)
	}
	if t, is := db.known.terminal(held, now, tid); is {
		return t, nil
	}
	t, err := db.readTerminal(ctx, tid)
	if err == nil && db.register.settled() == held {
		db.known.keep(held, now, t)
	}
	return t, err
}

func (db *DB) readTerminal(ctx context.Context, tid string) (isoswitch.Terminal, error) {
	var t isoswitch.Terminal
	err := db.readRegistered(ctx, func(s *session, g reading) (err error) {
		t, err = one(g, s, terminalTable, tid, readTerminal)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = isoswitch.ErrNoTerminal
	}
	if err != nil {
		return isoswitch.Terminal{}, fmt.Errorf("store: terminal %q: %w", tid, err)
	}
	return t, nil
}

// Terminals returns up to limit terminals in the order of their TIDs, those
// after the given one. A limit below 1, or above 1000, is 1000.
func (db *DB) Terminals(ctx context.Context, after string, limit int) ([]isoswitch.Terminal, error) {
	if limit < 1 || limit > mostTerminals {
		limit = mostTerminals
	}
	var all []isoswitch.Terminal
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		all, err = collect(s, of(g, terminalTable, readTerminal), terminalTable.selects()+"WHERE tid > ? ORDER BY tid LIMIT ?", after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: terminals: %w", err)
	}
	return all, nil
}

// AddTerminal registers a terminal. It returns [ErrExists] when the TID is
// registered, or the device belongs to another TID, and the errors of [DB.Change].
func (db *DB) AddTerminal(ctx context.Context, t isoswitch.Terminal) error {
	err := db.Change(ctx, nil, func(ch *Change) error { return ch.AddTerminal(t) })
	if errors.Is(err, custody.ErrTerminalTaken) {
		err = fmt.Errorf("%w: %w", ErrExists, err)
	}
	if err != nil {
		return fmt.Errorf("store: add terminal %q: %w", t.TID, err)
	}
	return nil
}

// AddTerminal notes a new terminal; see [DB.AddTerminal].
func (ch *Change) AddTerminal(t isoswitch.Terminal) error {
	if err := checkTerminal(t); err != nil {
		return err
	}
	return registryChange{ch}.AddTerminal(entryOf(t))
}

// DisableTerminal takes a terminal out of service, or back into it. It returns
// [isoswitch.ErrNoTerminal] and the errors of [DB.Change].
func (db *DB) DisableTerminal(ctx context.Context, tid string, disabled bool) error {
	err := db.ChangeRegistry(ctx, func(ch custody.TerminalChange) error {
		t, err := ch.Terminal(tid)
		if err != nil {
			return err
		}
		t.Status = custody.InService
		if disabled {
			t.Status = custody.Suspended
		}
		return ch.SetTerminal(t)
	})
	if errors.Is(err, custody.ErrNoTerminal) {
		err = fmt.Errorf("%w: %w", isoswitch.ErrNoTerminal, err)
	}
	return err
}

// checkTerminal says what is wrong with an entry in words; the schema would
// refuse it without any.
func checkTerminal(t isoswitch.Terminal) error {
	deviceDigits := map[isoswitch.Scheme]int{isoswitch.TDESDUKPT: 20, isoswitch.AESDUKPT: 16}[t.Scheme]
	switch {
	case !printable(t.TID, 8):
		return errors.New("a TID (DE 41) has 8 printable characters")
	case !printable(t.MID, 15):
		return fmt.Errorf("MID %q: a MID (DE 42) has 15 printable characters", t.MID)
	case deviceDigits == 0:
		return fmt.Errorf("scheme %q: want %q or %q", t.Scheme, isoswitch.TDESDUKPT, isoswitch.AESDUKPT)
	case !strings.HasPrefix(t.BDK, "alias/") || len(t.BDK) < len("alias/x"):
		return fmt.Errorf("BDK %q: want the alias of a key, alias/…", t.BDK)
	case len(t.Device) != deviceDigits || strings.Trim(string(t.Device), "0123456789ABCDEF") != "":
		return fmt.Errorf("device %q: with %s it is %d upper-case hex digits", t.Device, t.Scheme, deviceDigits)
	case t.Scheme == isoswitch.TDESDUKPT && !counterFree(t.Device):
		return fmt.Errorf("device %q: the 21 counter bits of the KSN must be zero", t.Device)
	case t.MACBytes != 4 && t.MACBytes != 8:
		return fmt.Errorf("MAC of %d bytes: want 8 or 4", t.MACBytes)
	}
	return nil
}

func printable(s string, n int) bool {
	if len(s) != n || strings.TrimSpace(s) == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// counterFree reports whether the low 21 bits are zero: five digits, and the
// low bit of the sixth. X9.24-1, the 21-bit encryption counter.
func counterFree(device isoswitch.Device) bool {
	tail := string(device[len(device)-6:])
	return tail[1:] == "00000" && strings.Contains("02468ACE", tail[:1])
}
