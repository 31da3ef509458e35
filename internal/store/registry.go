package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/keys"
)

var _ custody.TerminalStore = (*DB)(nil)

// printTable has the prints of master keys; see schema/0004.sql.
var printTable = &table{kind: "print", name: "terminal_print", key: "print", columns: []column{{name: "tid"}, {name: "key"}}}

// terminalMore is the JSON of the column more. Members are added, with omitempty
// or omitzero, and never renamed.
type terminalMore struct {
	Status   custody.TerminalStatus `json:"status,omitempty"` // empty: in service, or what disabled says
	Reason   string                 `json:"reason,omitempty"`
	Since    time.Time              `json:"since,omitzero"`
	Added    time.Time              `json:"added,omitzero"`
	Most     int64                  `json:"most,omitempty"`
	Profile  string                 `json:"profile,omitempty"`
	Master   keys.ID                `json:"tmk,omitempty"`
	Keys     custody.TerminalKeys   `json:"keys,omitzero"`
	Previous custody.TerminalKeys   `json:"previous,omitzero"`
	Retires  time.Time              `json:"retires,omitzero"`
}

// readRegistered reads a row of terminalTable.
func readRegistered(r scanner) (custody.Terminal, error) {
	var t custody.Terminal
	var device sql.NullString
	var disabled bool
	var text string
	if err := r.Scan(&t.TID, &t.MID, &t.Scheme, &t.BDK, &device, &t.MACBytes, &disabled, &text); err != nil {
		return t, err
	}
	var more terminalMore
	if err := json.Unmarshal([]byte(text), &more); err != nil {
		return t, fmt.Errorf("%w: terminal %q: %w", ErrCorrupt, t.TID, err)
	}
	t.Device = device.String
	t.Status, t.Reason, t.Since, t.Added, t.Most = more.Status, more.Reason, more.Since, more.Added, more.Most
	t.Profile, t.Master, t.Keys, t.Previous, t.Retires = more.Profile, more.Master, more.Keys, more.Previous, more.Retires
	switch {
	case t.Status == "" && disabled:
		t.Status = custody.Suspended
	case t.Status == "":
		t.Status = custody.InService
	case disabled != (t.Status != custody.InService):
		return t, fmt.Errorf("%w: terminal %q is %s, and disabled is %t", ErrCorrupt, t.TID, t.Status, disabled)
	}
	return t, nil
}

// registeredValues are the values of terminalTable's columns.
func registeredValues(t custody.Terminal) ([]any, error) {
	more := terminalMore{
		Reason: t.Reason, Since: t.Since, Added: t.Added, Most: t.Most,
		Profile: t.Profile, Master: t.Master, Keys: t.Keys, Previous: t.Previous, Retires: t.Retires,
	}
	if t.Status != custody.InService {
		more.Status = t.Status
	}
	text, err := json.Marshal(more)
	if err != nil {
		return nil, fmt.Errorf("store: terminal %q: %w", t.TID, err)
	}
	var device any
	if t.Device != "" {
		device = t.Device
	}
	return []any{t.MID, string(t.Scheme), t.BDK, device, t.MACBytes, t.Status != custody.InService, string(text)}, nil
}

// viewOf is what the switch sees of a terminal.
func viewOf(t custody.Terminal) isoswitch.Terminal {
	return isoswitch.Terminal{
		TID: t.TID, MID: t.MID, Scheme: isoswitch.Scheme(t.Scheme), BDK: t.BDK, Device: isoswitch.Device(t.Device),
		MACBytes: t.MACBytes, Disabled: t.Status != custody.InService, Most: t.Most,
		PINKey: t.Keys.PIN, MACKey: t.Keys.MAC,
	}
}

// entryOf is the entry of a terminal of which no more is known.
func entryOf(t isoswitch.Terminal) custody.Terminal {
	entry := custody.Terminal{
		TID: t.TID, MID: t.MID, Scheme: custody.Scheme(t.Scheme), BDK: t.BDK, Device: string(t.Device),
		MACBytes: t.MACBytes, Status: custody.InService, Most: t.Most,
	}
	if t.Disabled {
		entry.Status = custody.Suspended
	}
	return entry
}

// Registered implements [custody.TerminalStore].
func (db *DB) Registered(ctx context.Context, tid string) (custody.Terminal, error) {
	var t custody.Terminal
	err := db.readRegistered(ctx, func(s *session, g reading) (err error) {
		t, err = one(g, s, terminalTable, tid, readRegistered)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoTerminal
	}
	if err != nil {
		return custody.Terminal{}, fmt.Errorf("store: terminal %q: %w", tid, err)
	}
	return t, nil
}

// RegisteredOf implements [custody.TerminalStore]. Terminals that the register
// does not know are not looked for in the database.
func (db *DB) RegisteredOf(ctx context.Context, tids []string) (map[string]custody.Terminal, error) {
	known := make(map[string]custody.Terminal)
	err := db.viewRegistered(ctx, func(s *session, g reading) error {
		clear(known)
		for _, tid := range tids {
			if g.r != nil && g.r.rightlyGone(terminalTable.id(tid)) {
				continue
			}
			t, err := one(g, s, terminalTable, tid, readRegistered)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if err == nil {
				known[tid] = t
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: terminals: %w", err)
	}
	return known, nil
}

// Registry implements [custody.TerminalStore]. A limit below 1, or above 1000,
// is 1000.
func (db *DB) Registry(ctx context.Context, after string, limit int) ([]custody.Terminal, error) {
	if limit < 1 || limit > mostTerminals {
		limit = mostTerminals
	}
	var all []custody.Terminal
	err := db.viewRegistered(ctx, func(s *session, g reading) (err error) {
		all, err = collect(s, of(g, terminalTable, readRegistered), terminalTable.selects()+"WHERE tid > ? ORDER BY tid LIMIT ?", after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: terminals: %w", err)
	}
	return all, nil
}

// ChangeRegistry implements [custody.TerminalStore].
func (db *DB) ChangeRegistry(ctx context.Context, fn func(custody.TerminalChange) error) error {
	var own error // of fn, as it is: the transaction joins others to it
	err := db.Change(ctx, nil, func(ch *Change) error {
		own = fn(registryChange{ch})
		return own
	})
	if err != nil {
		return fmt.Errorf("store: change the registry: %w", cmp.Or(own, err))
	}
	return nil
}

// registryChange is a [Change] as custody makes one of terminals.
type registryChange struct{ *Change }

// Terminal returns a terminal as it was before the change.
func (ch registryChange) Terminal(tid string) (custody.Terminal, error) {
	t, err := find(ch.Change, terminalTable, tid, readRegistered)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: %s", custody.ErrNoTerminal, tid)
	}
	return t, err
}

// AddTerminal notes a new terminal.
func (ch registryChange) AddTerminal(t custody.Terminal) error {
	if ch.has(terminalTable, t.TID) {
		return fmt.Errorf("%w: the TID %s is registered", custody.ErrTerminalTaken, t.TID)
	}
	return ch.put(t, ch.insert)
}

// SetTerminal notes what is registered of a terminal from now on.
func (ch registryChange) SetTerminal(t custody.Terminal) error {
	if !ch.has(terminalTable, t.TID) {
		return fmt.Errorf("%w: %s", custody.ErrNoTerminal, t.TID)
	}
	return ch.put(t, ch.update)
}

func (ch registryChange) put(t custody.Terminal, write func(*table, string, []any, func(error) error) error) error {
	if err := checkRegistered(t); err != nil {
		return err
	}
	values, err := registeredValues(t)
	if err != nil {
		return err
	}
	return write(terminalTable, t.TID, values, func(err error) error {
		if taken(err) {
			return &custody.TakenError{TID: t.TID, Err: fmt.Errorf("%w: the device %s belongs to another terminal: %w", ErrExists, t.Device, err)}
		}
		return err
	})
}

// AddPrint implements [custody.TerminalChange].
func (ch registryChange) AddPrint(print [16]byte, tid string, key keys.ID) (string, error) {
	name := hex.EncodeToString(print[:])
	if !ch.has(printTable, name) {
		return "", ch.insert(printTable, name, []any{tid, string(key)}, nil)
	}
	owner, err := ch.PrintOwner(print)
	if err != nil && !errors.Is(err, custody.ErrNoTerminal) { // which is one that this very change has noted
		return "", err
	}
	return owner, fmt.Errorf("%w: the value of this key", custody.ErrTerminalTaken)
}

// PrintOwner implements [custody.TerminalChange].
func (ch registryChange) PrintOwner(print [16]byte) (string, error) {
	owner, err := find(ch.Change, printTable, hex.EncodeToString(print[:]), func(r scanner) (owner string, err error) {
		var print, key string
		err = r.Scan(&print, &owner, &key)
		return owner, err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = custody.ErrNoTerminal
	}
	return owner, err
}

// checkRegistered says what is wrong with an entry in words; the schema would
// refuse it without any.
func checkRegistered(t custody.Terminal) error {
	if t.Scheme != custody.SchemeMaster {
		return checkTerminal(viewOf(t))
	}
	switch {
	case !printable(t.TID, 8):
		return errors.New("a TID (DE 41) has 8 printable characters")
	case !printable(t.MID, 15):
		return fmt.Errorf("MID %q: a MID (DE 42) has 15 printable characters", t.MID)
	case t.BDK != "" || t.Device != "":
		return fmt.Errorf("scheme %s: a terminal with a master key has neither BDK nor device", t.Scheme)
	case t.MACBytes != 4 && t.MACBytes != 8:
		return fmt.Errorf("MAC of %d bytes: want 8 or 4", t.MACBytes)
	case len(t.Master) != 32 || strings.Trim(string(t.Master), "0123456789abcdefghijklmnopqrstuvwxyz") != "":
		return errors.New("a terminal of scheme tmk has a master key")
	}
	return nil
}
