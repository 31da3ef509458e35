package custody

import (
	"context"
	"errors"
	"time"

	"keyd.dev/keyd/keys"
)

// Scheme is how a terminal's keys are managed. Database, API and config hold
// these names.
type Scheme string

// The schemes.
const (
	SchemeTDESDUKPT Scheme = "tdes-dukpt" // ANSI X9.24-1
	SchemeAESDUKPT  Scheme = "aes-dukpt"  // ANSI X9.24-3
	SchemeMaster    Scheme = "tmk"        // a terminal master key, and working keys under it
)

// TerminalStatus says whether a terminal is served.
type TerminalStatus string

// The statuses.
const (
	InService TerminalStatus = "in service"
	Suspended TerminalStatus = "suspended" // until it is resumed
	Retired   TerminalStatus = "retired"   // for good
)

// Terminal is an entry of the registry.
type Terminal struct {
	TID      string // DE 41, 8 characters
	MID      string // DE 42, 15 characters
	Scheme   Scheme
	BDK      string // of DUKPT: alias of the base derivation key
	Device   string // of DUKPT: the part of the KSN that is bound to the terminal, upper-case hex
	MACBytes int    // of DUKPT: 8, or 4

	Status TerminalStatus
	Reason string    // of the status, in an operator's words; may be empty
	Since  time.Time // of the status; zero where it never changed
	Added  time.Time // zero for terminals of before this was kept
	Most   int64     // largest amount of a sale, minor units; 0 is no limit

	Profile  string       // of SchemeMaster
	Master   keys.ID      // of SchemeMaster
	Keys     TerminalKeys // zero until there are any
	Previous TerminalKeys // the ones before, until they retire
	Retires  time.Time    // of Previous
}

// TerminalKeys are the working keys of a terminal, which are made and replaced
// together. They are as JSON in the database.
type TerminalKeys struct {
	Version uint32    `json:"version,omitempty"` // 0: there are none
	PIN     keys.ID   `json:"pin,omitempty"`
	MAC     keys.ID   `json:"mac,omitempty"`
	Data    keys.ID   `json:"data,omitempty"` // of track data; empty where the terminal has none
	Made    time.Time `json:"made,omitzero"`
}

// Accepted returns the sets of working keys under which a message of the
// terminal may come at this time, the present one first.
func (t Terminal) Accepted(at time.Time) []TerminalKeys {
	var sets []TerminalKeys
	if t.Keys.Version > 0 {
		sets = append(sets, t.Keys)
	}
	if t.Previous.Version > 0 && at.Before(t.Retires) {
		sets = append(sets, t.Previous)
	}
	return sets
}

// The errors of a [TerminalStore] that custody tells apart.
var (
	// ErrNoTerminal: the registry has no such TID.
	ErrNoTerminal = errors.New("custody: no such terminal")
	// ErrTerminalTaken: another terminal has the TID, the device, or a key of this value.
	ErrTerminalTaken = errors.New("custody: in use by a terminal")
)

// TerminalStore is the registry of terminals. It is safe for concurrent use;
// what it has accepted is durable when it returns.
type TerminalStore interface {
	// Registered returns the terminal, or ErrNoTerminal.
	Registered(ctx context.Context, tid string) (Terminal, error)
	// RegisteredOf returns those of the terminals that are registered.
	RegisteredOf(ctx context.Context, tids []string) (map[string]Terminal, error)
	// Registry returns up to limit terminals in the order of their TIDs, those
	// after the given one.
	Registry(ctx context.Context, after string, limit int) ([]Terminal, error)
	// ChangeRegistry runs fn, which notes changes of terminals and keys, and
	// makes them in one commit. Changes are made one after the other; fn must
	// not block.
	ChangeRegistry(ctx context.Context, fn func(TerminalChange) error) error
}

// TerminalChange notes changes of terminals and their keys that are made
// together. What it shows is what there was before the change.
type TerminalChange interface {
	// Terminal returns the terminal, or ErrNoTerminal.
	Terminal(tid string) (Terminal, error)
	// AddTerminal adds a terminal: ErrTerminalTaken where its TID or device is.
	AddTerminal(t Terminal) error
	// SetTerminal replaces what is registered of a terminal.
	SetTerminal(t Terminal) error
	// Key returns a key, or ErrNoKey.
	Key(id keys.ID) (KeyRecord, error)
	// AddKey adds a new key.
	AddKey(k KeyRecord) error
	// SetKey replaces a key's record, or returns ErrNoKey.
	SetKey(k KeyRecord) error
	// AddPrint notes that a terminal's master key has this print. It returns the
	// TID of the terminal whose key has it already, and ErrTerminalTaken.
	AddPrint(print [16]byte, tid string, key keys.ID) (string, error)
	// PrintOwner returns the terminal whose master key has the print, or ErrNoTerminal.
	PrintOwner(print [16]byte) (string, error)
}
