package custody

import (
	"encoding/json"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// PAN is a primary account number, 12 to 19 digits. It prints masked.
type PAN string

// String returns the first six and last four digits, the rest as asterisks.
func (p PAN) String() string {
	if len(p) < 13 {
		return "************"
	}
	masked := []byte(p)
	for i := 6; i < len(masked)-4; i++ {
		masked[i] = '*'
	}
	return string(masked)
}

// Format implements [fmt.Formatter], so that no verb prints the number.
func (p PAN) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// MarshalText implements [encoding.TextMarshaler].
func (p PAN) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Ref names a key: by alias, or by id when Alias is empty.
type Ref struct {
	Alias string // "alias/…"
	ID    keys.ID
}

func (r Ref) String() string {
	if r.Alias != "" {
		return r.Alias
	}
	return string(r.ID)
}

// Variant is the use and direction of a DUKPT working key, as the terminal sees it.
type Variant uint8

// The variants.
const (
	Request Variant = iota + 1
	Response
	Bidirectional
)

// DUKPT says that the named key is a BDK and which working key of it to use.
type DUKPT struct {
	KSN     []byte         // 10 bytes TDES, 12 bytes AES
	Derive  keys.Algorithm // of the working key; 0 is the BDK's own
	Variant Variant        // of a MAC or data key; PIN keys have none
}

// PINFormat is a PIN block format of ISO 9564-1.
type PINFormat uint8

// The formats; their values are those of the control nibble plus one, so that
// the zero value is none of them.
const (
	ISO0 PINFormat = 1
	ISO1 PINFormat = 2
	ISO3 PINFormat = 4
	ISO4 PINFormat = 5
)

// PINSide is one side of a translation.
type PINSide struct {
	Key   Ref
	DUKPT *DUKPT // nil: Key is the PIN key itself
	// Wrapped is the PIN key, under Key; nil for a stored one. Not with DUKPT.
	Wrapped *WrappedKey
	// Terminal is the TID whose working key the PIN key must be; empty where it
	// may be any.
	Terminal string
	Format   PINFormat
	PAN      PAN // empty for ISO1
}

// TranslatePIN asks for a PIN block under one key to be made one under another.
type TranslatePIN struct {
	In, Out PINSide
	Block   []byte // enciphered, 8 bytes (ISO0, ISO1, ISO3) or 16 (ISO4)
}

// TranslatedPIN is the enciphered outgoing block.
type TranslatedPIN struct {
	Block   []byte
	Key     KeyInfo // of the outgoing side as stored
	Custody audit.Custody
}

// MACAlgorithm is a MAC algorithm as the API names it.
type MACAlgorithm uint8

// The algorithms.
const (
	MACAlg1     MACAlgorithm = iota + 1 // ISO 9797-1 algorithm 1
	MACAlg3                             // ISO 9797-1 algorithm 3
	MACCMAC                             // NIST SP 800-38B
	MACHMAC                             // RFC 2104 with the key's own hash
	MACUnionPay                         // of UnionPay's terminals: eight characters
)

// Padding is a padding method of ISO 9797-1 for algorithms 1 and 3.
type Padding uint8

// The paddings. PaddingPolicy takes the method from the key's policy tag
// keyd:mac-padding, which is none by default.
const (
	PaddingPolicy Padding = iota
	Padding1
	Padding2
)

// GenerateMAC asks for a MAC.
type GenerateMAC struct {
	Key       Ref
	DUKPT     *DUKPT
	Algorithm MACAlgorithm
	Padding   Padding
	Message   []byte
	Length    int // bytes wanted; 0 is the algorithm's default
	// Expected is the log's name of the algorithm for a record that is written
	// before the key is known; 0 is what Algorithm says by itself.
	Expected audit.MACAlg
}

// GeneratedMAC is the MAC.
type GeneratedMAC struct {
	MAC     []byte
	Key     KeyInfo
	Custody audit.Custody
}

// VerifyMAC asks whether MAC is that of Message. Length is the number of bytes
// that MAC must have, 0 for what the key's policy admits.
type VerifyMAC struct {
	Key       Ref
	DUKPT     *DUKPT
	Algorithm MACAlgorithm
	Padding   Padding
	Message   []byte
	MAC       []byte
	Length    int
	Expected  audit.MACAlg // as in [GenerateMAC]
}

// VerifiedMAC says under which key a MAC was good.
type VerifiedMAC struct {
	Key     KeyInfo
	Custody audit.Custody
}

// KeyInfo names a stored key in an answer.
type KeyInfo struct {
	ID    keys.ID
	Check keys.KCV
}

// KeyState is the state of a key in its life.
type KeyState string

// The states of section 8.3 of the API.
const (
	CreateInProgress KeyState = "CREATE_IN_PROGRESS"
	CreateComplete   KeyState = "CREATE_COMPLETE"
	DeletePending    KeyState = "DELETE_PENDING"
	DeleteComplete   KeyState = "DELETE_COMPLETE"
)

// KeyRecord is a key as it is stored and shown.
type KeyRecord struct {
	Block         *keys.Block
	State         KeyState
	Enabled       bool
	UsageStart    time.Time // zero: never
	UsageStop     time.Time
	DeletePending time.Time
	Deleted       time.Time
	Tags          map[string]string // all but the policy tags, which are in the block
	Aliases       []string          // sorted
	Life          Life
}

// Life is what a key's life cycle knows beside its state and times. It is stored
// as JSON: members are added, with omitempty or omitzero, and never renamed.
type Life struct {
	Successor   keys.ID   `json:"successor,omitempty"`   // the key that took its place under its aliases
	Predecessor keys.ID   `json:"predecessor,omitempty"` // the key whose place it took
	Retires     time.Time `json:"retires,omitzero"`      // when a replaced key stops to verify and decipher
}

// KeyQuery selects keys for a listing.
type KeyQuery struct {
	After keys.ID  // "" from the start
	State KeyState // "" for all but DeleteComplete
	Limit int
}

// Alias is a name for a key; Key may be empty.
type Alias struct {
	Name string
	Key  keys.ID
}

// Once is an answer stored with the change it reports, so that a repeated
// request gets it again and changes nothing.
type Once struct {
	Principal  string
	Invocation string
	Operation  Operation
	Body       [32]byte // SHA-256 of the request
	Answer     json.RawMessage
	At         time.Time
}

// CreateKey asks for a new key.
type CreateKey struct {
	Attributes keys.Attributes
	CheckBy    keys.CheckMethod // 0: the algorithm's default
	Enabled    bool
	Tags       map[string]string
	Once       *Repeat
}

// Repeat makes a change idempotent: Render turns the new record into the answer
// that is stored in the same commit.
type Repeat struct {
	Invocation string
	Body       [32]byte
	Render     func(KeyRecord) ([]byte, error)
}
