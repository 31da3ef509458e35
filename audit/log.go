package audit

import (
	"context"
	"crypto"
	"fmt"
)

// Log is the open log of a node. It is safe for concurrent use.
type Log struct {
	o Options
}

// Open opens the log in dir, or makes a new one in an empty or absent dir, and
// holds it alone until Close. The signer's public key is Ed25519 or ECDSA
// P-256; it signs nothing but checkpoints.
//
// The log is recovered and checked before Open returns, and the start is
// recorded; it refuses a log whose check failed. Errors: [ErrLocked],
// [ErrConfig], [ErrCorrupt], [ErrSignature].
func Open(dir string, signer crypto.Signer, o Options) (*Log, error) {
	return nil, fmt.Errorf("opening %s: %w", dir, ErrUnavailable)
}

// Reserve takes room for n records of one log before the work they describe
// begins, so that a full or failed log refuses before the HSM acts. The ticket
// must be given back by [Ticket.Release]. It never waits. Errors:
// [ErrQueueFull], [ErrDiskCritical], [ErrUnsigned], [ErrUnavailable],
// [ErrClosed].
func (l *Log) Reserve(ctx context.Context, id LogID, n int) (*Ticket, error) {
	return nil, ErrUnavailable
}

// Ticket is room for some records of one log. It is for one goroutine at a time.
type Ticket struct{}

// Append writes records and returns their places when all of them are durable.
// They come one after another in the log and share one flush.
// Upon an error nothing that the records describe may be answered as done; the
// records may nevertheless be found after a restart. Errors: [ErrRecord],
// [ErrDiskCritical], [ErrUnavailable], [ErrClosed].
func (t *Ticket) Append(r ...Record) ([]Pos, error) { return nil, ErrUnavailable }

// Release gives back what is left of the ticket. It may be called at any time,
// more than once, also after Append.
func (t *Ticket) Release() {}

// Ready returns nil, or why the node must refuse operations.
func (l *Log) Ready() error { return ErrUnavailable }

// Close stops the log in order: it refuses new reservations, waits for the
// tickets that are out, records the stop, publishes final checkpoints and lets
// the directory go. When ctx ends first, what is durable stays durable and the
// next Open recovers.
func (l *Log) Close(ctx context.Context) error { return nil }

// SetCfg sets the SHA-256 of the active configuration for later records.
func (l *Log) SetCfg(cfg Hash) {}

// Statement returns the bytes that custodian and witness sign in a ceremony:
// the record without seq and without the signatures. It gives the record its
// id and time, so that the record appended later has the same bytes. The
// error is [ErrRecord].
func (l *Log) Statement(r *Record) ([]byte, error) { return nil, ErrUnavailable }

// Vkey returns the note verifier key of a public key, Ed25519 or ECDSA P-256,
// for an origin. The error is [ErrConfig].
func Vkey(origin string, pub crypto.PublicKey) (string, error) { return "", ErrConfig }
