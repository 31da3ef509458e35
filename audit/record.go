package audit

import (
	"time"
)

// Record is one event. A member with its zero value is absent; members of a
// group that the action does not have are left out and listed in the record's
// scrub list. The log itself adds version, log, seq, time, boot, node, build,
// configuration hash and class.
//
// Pointers to integers stand where zero is a value of its own.
type Record struct {
	Action  Action
	Phase   Phase   // the zero value is an outcome
	ID      UUID    // given by the log when zero
	Ref     UUID    // the intent that this outcome closes
	Outcome Outcome // needed in an outcome, absent in an intent
	Reason  Reason  // needed when Outcome is not ok
	RC      string  // PKCS#11 return value when not CKR_OK
	Corr    string  // request id given by keyd or by the peer
	Trace   Trace   // W3C trace id
	Actor   Actor
	Src     Source

	// Group K: the keys of the operation.
	Keys     []Key
	KSN      string // 20 or 24 upper-case hexadecimal digits
	Mech     string // PKCS#11 mechanism
	HSM      HSM
	Custody  Custody
	Duration time.Duration
	Replay   bool // a stored answer was repeated, without new effect

	PIN    PIN     // group P
	PAN    PAN     // groups P and I; see [Log.PAN]
	ISO    ISO     // group I
	MAC    MAC     // group M
	MsgTok MsgTok  // groups I and M; see [Log.MsgTok]
	Cer    *Cer    // group C
	Change *Change // group A
	// Approvals belong to group A: who consented, other than the actor.
	Approvals []Approval
	Query     *Query     // group Q
	Trees     []Tree     // group T
	Vkeys     []string   // group V
	WAL       *WALPos    // group W
	Sink      *Sink      // group S
	Count     *Count     // group N
	Alarm     Alarm      // group L
	Disk      *Disk      // group D
	Step      *ClockStep // group X
	Import    *Import    // group H

	at *moment
}

// Trace is a W3C trace id.
type Trace [16]byte

// Hash is a SHA-256 digest.
type Hash [32]byte

// Actor is who acts.
type Actor struct {
	ID    string // authenticated name, or "keyd" for itself
	Kind  ActorKind
	Authn Authn    // in sec only
	Cert  Hash     // SHA-256 of the client certificate; in sec only
	Roles []string // in sec only; written sorted
}

// System returns keyd itself as the actor.
func System() Actor {
	return Actor{ID: systemActor, Kind: ActorSystem, Authn: AuthnNone}
}

const systemActor = "keyd"

// Source is where a request came from.
type Source struct {
	Addr string // ip:port, [ip6]:port or unix:<uid>
	Conn string // connection id
}

// Key is a key in its part of the operation.
type Key struct {
	Role    KeyRole
	ID      string // the key's name, from the store
	Version int
	KCV     string // upper-case: at most 6 digits for DES, at most 10 for AES
	Usage   string // two-character key block usage; in sec only
	Algo    Algo   // in sec only
	Header  string // first 16 characters of the key block header
}

// HSM is the token that did the work.
type HSM struct {
	Serial   string
	Firmware string
	Slot     *int64
}

// PIN holds the PIN block formats of a translation.
type PIN struct {
	FormatIn, FormatOut PINFormat
}

// ISO holds data elements of an ISO 8583 message.
type ISO struct {
	MTI      string // 4 digits
	STAN     string // DE 11, 6 to 12 digits
	RRN      string // DE 37, at most 12 characters
	Proc     string // DE 3, 6 digits
	Amount   *int64 // DE 4, minor units
	Currency string // DE 49, 3 digits
	Acquirer string // DE 32, at most 11 digits
	Terminal Name   // DE 41
	Merchant Name   // DE 42
	Orig     Orig
	DE39     string // response code answered or received
	Rule     string // row of the decision table, for example D-04
	Alert    ISOAlert
}

// Orig is the original as a reversal names it.
type Orig struct {
	MTI      string // 4 digits
	STAN     string // 6 to 12 digits
	DateTime string // MMDD, MMDDhhmmss, YYMMDDhhmmss or YYYYMMDDhhmmss
}

// MAC says what was expected of a MAC and what was found.
type MAC struct {
	Alg     MACAlg
	Len     int // on the wire, bytes
	Verdict MACVerdict
}

// Cer is a step of a key ceremony.
type Cer struct {
	ID           string
	Step         Step
	StepNo       int // from 0
	M, N         int // persons needed; persons named
	Purpose      string
	Custodian    string
	Witness      string
	Component    int // from 1; 0 means none
	ComponentID  string
	ComponentKCV string
	Device       string
	BagOut       string
	BagIn        string
	Sig          []byte // custodian's signature over [Log.Statement]
	WitnessSig   []byte // witness's signature over the same
}

// Change is what an administrative action changed.
type Change struct {
	Kind          ChangeKind
	Object        string
	Before, After Hash // SHA-256 of the object's canonical form
}

// Approval is one person's consent.
type Approval struct {
	ID  string
	At  time.Time
	Ref UUID // id of the admin.approve record
}

// Query is a reading of the log.
type Query struct {
	Cmd         QueryCmd
	Filter      string
	Log         string // sec or ops-yyyy-mm
	First, Last *int64
	Rows        int64
}

// Tree names a log's size and root.
type Tree struct {
	Log    string // sec or ops-yyyy-mm
	Origin string
	Size   int64
	Root   *Hash  // nil when not known yet
	First  *int64 // first index of a pruned or archived range
}

// WALPos is a place in the write-ahead log.
type WALPos struct {
	Segment, Offset, Dropped int64
}

// Sink is the state of an exporter.
type Sink struct {
	Name       string
	Lag        time.Duration
	LagRecords int64
}

// Count is an exact count of one peer's refusals in a time span.
type Count struct {
	N        int64
	Peer     string
	From, To time.Time
	By       []CountBy
}

// CountBy is the part of a [Count] that one reason has.
type CountBy struct {
	Reason Reason
	N      int64
}

// Alarm is an alarm's code and level.
type Alarm struct {
	Code  string // lower case, words joined by underscores
	Level AlarmLevel
}

// Disk is the space that is left.
type Disk struct {
	FreeMB, FreePercent int64
}

// ClockStep is a change of the wall clock against the monotonic clock.
type ClockStep struct {
	Wall time.Duration
}

// Import names a range of the HSM's own log.
type Import struct {
	Source      string
	Hash        Hash // SHA-256 of the raw records in order
	First, Last *int64
	N           *int64
}
