package isoswitch

import (
	"context"
	"errors"
	"time"
)

// Journal is the switch's memory. It is safe for concurrent use.
//
// Its errors wrap the sentinels below where one fits, or [custody.ErrTampered]
// for a row that is not what was written by it, which hinders no other row; any
// other error means that the journal cannot be used now. With either the switch
// refuses with DE 39 = 96.
type Journal interface {
	// Terminal returns the registered terminal, or ErrNoTerminal. It is a read
	// on the path of every message and takes no part in the single writer.
	Terminal(ctx context.Context, tid string) (Terminal, error)

	// Update runs fn exactly once, in one durable transaction. When Update
	// returns nil all that fn did is on disk; when fn or the commit fails,
	// nothing happened, and Update returns that error. Update may put many
	// callers into one commit, but a failing fn undoes only its own work. fn
	// must not block (no token, no network, no other Update) and must not keep
	// tx. A context that ends before fn starts cancels; afterwards Update waits
	// for the commit, so that its result is never in doubt.
	Update(ctx context.Context, fn func(tx Tx) error) error

	// View runs fn over a consistent snapshot. The methods of tx that write
	// fail.
	View(ctx context.Context, fn func(tx Tx) error) error
}

// Tx is the journal inside one transaction. It is for one goroutine. What it
// returns belongs to the caller; what it is given it does not keep.
type Tx interface {
	// LastCounter returns the highest KSN counter accepted from the device, or
	// 0 when none was. M-21.
	LastCounter(device Device) (uint32, error)
	// AcceptedUnder returns the SHA-256 of the message that Accept was given with
	// this counter, or ErrNotFound. It remembers at least the look-back window.
	AcceptedUnder(device Device, counter uint32) (Hash, error)
	// Accept makes counter the last accepted one of the device and keeps the
	// message's hash with it. It returns ErrExists unless counter is above the
	// last one.
	Accept(device Device, counter uint32, message Hash, at time.Time) error
	// Advance is Accept for a message that the same transaction inserts as a
	// Txn: its hash is there.
	Advance(device Device, counter uint32, at time.Time) error

	// Newest returns the record with this look-up key that was received last,
	// at since or later, tombstones among them, or ErrNotFound.
	Newest(key LookupKey, since time.Time) (*Txn, error)
	// Txn returns the record of this OID, or ErrNotFound.
	Txn(oid OID) (*Txn, error)
	// Live returns the record that refers to this one and has its effect, or may
	// have it yet: one in any state but DECLINED, REVERSED, REVERSED_UNKNOWN and
	// LOCAL_VOID. There is at most one; without it, ErrNotFound.
	Live(oid OID) (*Txn, error)
	// InsertTxn adds a record. It returns ErrExists when the OID is taken, or
	// when what it refers to has a live one already.
	InsertTxn(t *Txn) error
	// UpdateTxn replaces the changeable fields of the record t.OID (those of
	// Outcome and below in Txn), or returns ErrNotFound.
	UpdateTxn(t *Txn) error
	// Unfinished returns up to limit records in RECEIVED or FORWARDED, in the
	// order of their OIDs, those after the given one.
	Unfinished(after OID, limit int) ([]*Txn, error)
	// Foreign reports whether another terminal has an original that fits q. It
	// serves an alarm and never selects an original. D-12.
	Foreign(q ForeignQuery) (bool, error)

	// Reversal returns the record of this RID, or ErrNotFound.
	Reversal(rid RID) (*Reversal, error)
	// InsertReversal adds a record. It returns ErrExists when the RID is taken,
	// or when r is full and the original has a full one already (I-1).
	InsertReversal(r *Reversal) error
	// UpdateReversal replaces the changeable fields of the record r.RID (those
	// of Answer and below in Reversal), or returns ErrNotFound.
	UpdateReversal(r *Reversal) error
	// Due returns up to limit reversals for the upstream in QUEUED or SENT, the one
	// with the earliest Next first, those whose Next is not after the given time,
	// but for those of the terminals named by except. One without a Link is for
	// that of its original.
	Due(upstream string, at time.Time, limit int, except []string) ([]*Reversal, error)
	// OpenBefore reports whether a reversal of this original that was built
	// before the given time is still QUEUED or SENT: the reversals of one
	// original go upstream one after the other.
	OpenBefore(oid OID, built time.Time) (bool, error)
	// NextDue returns the earliest Next among all QUEUED and SENT reversals for the
	// upstream, or ErrNotFound when there is none.
	NextDue(upstream string) (time.Time, error)
	// Strays counts what is owed to upstreams that have none of these names:
	// originals in RECEIVED or FORWARDED, and reversals in WAITING, QUEUED, SENT or
	// HELD. It decides only whether the switch starts.
	Strays(upstreams []string) ([]Stray, error)

	// Reserve advances the named counter by n and returns its value before: the
	// caller may use first to first+n-1. A counter starts at 0.
	Reserve(name string, n uint64) (first uint64, err error)
	// Reserved returns the value of the named counter.
	Reserved(name string) (uint64, error)
}

// Stray is what is owed to an upstream that is configured no more.
type Stray struct {
	Upstream             string
	Originals, Reversals int
}

// The errors of a [Journal] that the switch tells apart.
var (
	// ErrNoTerminal: the registry has no such TID.
	ErrNoTerminal = errors.New("isoswitch: no such terminal")
	// ErrNotFound: no record fits.
	ErrNotFound = errors.New("isoswitch: not in the journal")
	// ErrExists: a record with this identity is there already.
	ErrExists = errors.New("isoswitch: already in the journal")
)

// ForeignQuery looks for an original of a terminal other than TID, received at
// Since or later, that has this RRN, or this approval code, or this PAN with
// this amount. Empty strings fit nothing.
type ForeignQuery struct {
	TID      string
	RRN      string
	Approval string
	PANToken string
	Amount   int64
	Since    time.Time
}
