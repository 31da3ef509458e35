package ceremony

import (
	"context"
	"crypto/x509"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// House is what a ceremony needs of the daemon around it: who comes, what is
// written down, and what is done in the end. [InDaemon] has it over custody;
// the ceremony that makes a new node's local master key has one of its own,
// since there is no custody yet.
type House interface {
	// Identify returns the client of a verified certificate, or custody.ErrDenied.
	Identify(cert *x509.Certificate) (custody.Client, error)
	// Permit refuses, and records, what no role of the caller has.
	Permit(ctx context.Context, caller custody.Caller, corr string, op custody.Operation) error
	// Note makes a record of one phase durable.
	Note(ctx context.Context, caller custody.Caller, corr string, r audit.Record) error
	// Step makes the intent durable, works, and makes the outcome durable.
	Step(ctx context.Context, caller custody.Caller, corr string, r audit.Record, work func(*audit.Record) error) error
	// Random fills p from the token's generator.
	Random(p []byte) error
	// Attest signs a message with the token under a domain, and returns the vkey too.
	Attest(domain string, message []byte) (sig []byte, vkey string, err error)
	// About says what the daemon is.
	About() About
	Works
}

// About is what a transcript says of the daemon.
type About struct {
	Version string
	Node    string
	Config  string // SHA-256 of the configuration, lower-case hex
	Token   string // serial
}

// Quorum is who does the work: the custodians of a ceremony, and the
// administrator that opened it.
type Quorum struct {
	Opener     custody.Caller
	Custodians []custody.Caller
	Approvals  []audit.Approval // one a custodian
	Corr       string
}

// Made is what the work made or touched.
type Made struct {
	KeyID   keys.ID           `json:"key_id,omitempty"`
	Check   string            `json:"check_value,omitempty"`
	LMK     uint32            `json:"lmk_generation,omitempty"`
	Devices map[string]string `json:"-"` // KSN: key block
	Checks  map[string]string `json:"-"` // KSN: check value
	Note    string            `json:"note,omitempty"`
}

// NewKey is a key to be stored.
type NewKey struct {
	Attributes keys.Attributes
	CheckBy    keys.CheckMethod
	Policy     map[string]string
	Alias      string
	Origin     keys.Origin
}

// Works is what ceremonies do, by kind. Each leaves its own records.
type Works interface {
	// Ready says before anybody is asked for anything why the work could not be
	// done: an alias that exists, a key that may not leave.
	Ready(ctx context.Context, opener custody.Caller, s *Script) error
	Import(ctx context.Context, by Quorum, k NewKey, value secret.Bytes) (Made, error)
	// Export returns the clear value of an exportable key.
	Export(ctx context.Context, by Quorum, alias string) (secret.Bytes, keys.Attributes, keys.CheckMethod, Made, error)
	// Initial returns the initial keys of devices under a key-encryption key.
	Initial(ctx context.Context, by Quorum, bdk, kek string, devices []Device) (Made, error)
	// CheckLMK is the check value that a local master key would have here.
	CheckLMK(ctx context.Context, lmk secret.Bytes) (keys.KCV, error)
	SetLMK(ctx context.Context, by Quorum, lmk secret.Bytes) (Made, error)
	Destroy(ctx context.Context, by Quorum, alias string) (Made, error)
	SetRoles(ctx context.Context, by Quorum, client string, roles []string) (Made, error)
}

// Device is one line of an injection list.
type Device struct {
	TID string
	KSN string // upper-case hexadecimal, counter zero
}
