package isoswitch

import (
	"time"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// Hash is a SHA-256.
type Hash [32]byte

// LookupKey finds an original: a SHA-256 over the dialect, acquirer, MID, TID,
// date, STAN and MTI class, each with its length. Reversals section 4.2.
type LookupKey [32]byte

// OID names an original for ever: a SHA-256 over its look-up key and the UTC
// date on which it was received.
type OID [32]byte

// RID names a reversal, and makes it idempotent: there is one for the whole of
// an original, and one for each partial reversal. Reversals section 4.4.
type RID [32]byte

// Device is the part of a KSN that is bound to a terminal, all but the counter:
// the 20 hex digits of a TDES KSN with the 21 counter bits zero, or the first
// 16 of the 24 hex digits of an AES KSN. Upper case.
type Device string

// Scheme is how a terminal's keys are managed.
type Scheme string

// The schemes. Database and config hold these names.
const (
	TDESDUKPT Scheme = "tdes-dukpt" // ANSI X9.24-1
	AESDUKPT  Scheme = "aes-dukpt"  // ANSI X9.24-3
	MasterKey Scheme = "tmk"        // a terminal master key, and working keys under it
)

// Terminal is an entry of the registry.
type Terminal struct {
	TID      string // DE 41, 8 characters
	MID      string // DE 42, 15 characters
	Scheme   Scheme
	BDK      string // alias of the base derivation key
	Device   Device // the KSNs of this terminal have this device part
	MACBytes int    // 8, or 4: the leftmost bytes and four zero bytes
	Disabled bool
	Most     int64 // largest amount of a sale, minor units; 0 is no limit
	// Of scheme tmk: the present working keys, empty before the first sign-in.
	PINKey, MACKey keys.ID
}

// State is the state of an original. Reversals section 2.1; the database holds
// these names.
type State string

// The states.
const (
	// Received: journalled, not yet handed to the link. The journal holds
	// FORWARDED from the start, so that a crash cannot make a sale that left
	// look like one that did not; RECEIVED is what the running process knows.
	Received        State = "RECEIVED"
	Forwarded       State = "FORWARDED"
	Approved        State = "APPROVED"
	Declined        State = "DECLINED"
	Unknown         State = "UNKNOWN"
	ReversalPending State = "REVERSAL_PENDING"
	Reversed        State = "REVERSED"
	ReversedUnknown State = "REVERSED_UNKNOWN"
	ReversalFailed  State = "REV_FAILED"
	ReversalHeld    State = "REV_HELD"
	LocalVoid       State = "LOCAL_VOID"
	Voided          State = "VOIDED"
	Completed       State = "COMPLETED"
	Tombstone       State = "TOMBSTONE"
)

// Txn is an original as the journal keeps it: all that a reversal of it needs,
// and nothing of a PIN, a track or a verification value.
type Txn struct {
	OID      OID
	Key      LookupKey
	Link     string    // name of the upstream, decided when it came; empty: none has a route for it
	Profile  string    // that its terminal spoke; empty of those of before, which had one
	Received time.Time // UTC
	MTI      string    // "0100", "0200", "0220"; of a tombstone the MTI in DE 90

	Card       custody.Card // DE 2 and DE 14, sealed; Card.Token for comparison
	Processing string       // DE 3
	Amount     int64        // DE 4, minor units
	Sent       string       // DE 7 as received
	STAN       string       // DE 11
	Time       string       // DE 12
	Date       string       // DE 13
	Entry      string       // DE 22
	Condition  string       // DE 25
	Acquirer   string       // DE 32, may be empty
	TID        string       // DE 41; also the owner of the key that verified the MAC
	MID        string       // DE 42
	Currency   string       // DE 49
	EMV        []byte       // DE 55, those tags that a reversal carries: in ascii87 none
	KSN        string       // of the message, hex
	MACKey     keys.ID      // the key that verified the MAC
	Content    Hash         // what a repeat must have in common, W-16
	Raw        Hash         // the whole message as received

	UpSTAN string // DE 11 of the message that keyd sent upstream; empty when none
	UpSent string // its DE 7

	UpAcquirer string // its DE 32 where that is not the terminal's, else empty

	// Outcome and below change; all above is written once.
	State      State
	RRN        string // DE 37: given by the terminal or made by keyd
	Approval   string // DE 38, also of a late answer
	Answer     string // DE 39 answered to the terminal, or that would have been
	Late       string // DE 39 of an answer that came too late and, after a space, its DE 38; else empty
	IssuerDE55 []byte // DE 55 of the answer, for a repeat of it

	ReverseOnCompletion bool  // a reversal came while it was in flight, D-18
	BatchClosed         bool  // set by an operator, D-25
	Refunded            bool  // D-23
	ReversedAmount      int64 // sum of the partial reversals, minor units
	RefersTo            OID   // the sale behind a void or completion, else zero

	Finished time.Time // when the outcome was journalled; zero before
}

// ReversalState is the state of a reversal. Reversals section 2.3; the database
// holds these names.
type ReversalState string

// The states.
const (
	Waiting   ReversalState = "WAITING"   // for its original, which is in flight (D-18)
	Queued    ReversalState = "QUEUED"    // to be sent
	Sent      ReversalState = "SENT"      // at least once, not confirmed
	Confirmed ReversalState = "CONFIRMED" // upstream answered 00 or 25
	Closed    ReversalState = "CLOSED"    // nothing to send: tombstone, local void, declined original
	Failed    ReversalState = "FAILED"    // upstream declined, or all tries used: for an operator
	Held      ReversalState = "HELD"      // by a rule (D-35, A-08)
	Parked    ReversalState = "PARKED"    // cannot be built, out of the queue
)

// Cause is why a reversal exists.
type Cause string

// The causes.
const (
	ByTerminal    Cause = "terminal"    // 0400 or 0420 with a valid MAC
	ByTimeout     Cause = "timeout"     // no valid answer in time
	ByBadAnswer   Cause = "bad_answer"  // wrong MAC or wrong echo
	ByLinkLoss    Cause = "link_lost"   // the link broke after the sale left
	ByRestart     Cause = "restart"     // found in flight at start
	ByUndelivered Cause = "undelivered" // the approval could not be given to the terminal
)

// Reversal is a reversal as the journal keeps it, and the entry of the
// store-and-forward queue at once.
type Reversal struct {
	RID   RID
	OID   OID
	Link  string // the upstream of its original; empty in one of before, when there was one upstream
	Cause Cause
	Full  bool
	Rest  int64  // of a partial: what stays valid of the original, minor units
	MTI   string // as received; empty when keyd started it itself
	STAN  string // as received; empty when keyd started it itself
	TID   string // owner of the key that verified the MAC, or of the original
	KSN   string // of the message, hex; may be empty
	Raw   Hash   // the whole message as received; zero when keyd started it itself
	Built time.Time

	UpSTAN string // DE 11 of every try, W-08; empty when nothing is to be sent
	UpSent string // DE 7 of every try

	// Answer and below change; all above is written once.
	Answer   string // DE 39 for the terminal; empty until one was decided
	RRN      string // DE 37 of that answer
	Approval string // DE 38 of that answer
	Content  Hash   // section 4.5; zero until a terminal asked

	State     ReversalState
	Reason    string    // DE 39 of the 0420
	Tries     int       // messages given to the link, or about to be
	Declines  int       // answers other than 00 and 25 whose MAC verified
	Errors    int       // tries that could not be built
	Next      time.Time // when to try next
	FirstSent time.Time // zero until then, as the two below
	LastSent  time.Time
	Answered  time.Time // by upstream, with a MAC that verified
	UpAnswer  string    // DE 39 of that answer
	Closed    time.Time

	Granted  int       // tries that do not count any more: an operator gave it new ones
	Renewed  time.Time // when that was; zero where it never was
	Case     string    // with which an operator closed it for good
	Resolved time.Time // when that was
}
