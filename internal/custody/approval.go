package custody

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// Pending is an [ErrApproval] with the reference that a second person approves.
type Pending struct {
	Ref string
}

func (p *Pending) Error() string { return fmt.Sprintf("%v: %s", ErrApproval, p.Ref) }

// Is makes every Pending an [ErrApproval].
func (p *Pending) Is(target error) bool { return target == ErrApproval }

// PendingRef returns the reference of a [Pending] in err's chain, or "".
func PendingRef(err error) string {
	var p *Pending
	if errors.As(err, &p) {
		return p.Ref
	}
	return ""
}

// ApprovalState is how far a request for approval has come.
type ApprovalState string

// The states. A request begins by waiting; those that are rejected, spent or
// expired are closed for good.
const (
	ApprovalWaiting  ApprovalState = "WAITING"
	ApprovalApproved ApprovalState = "APPROVED"
	ApprovalRejected ApprovalState = "REJECTED"
	ApprovalSpent    ApprovalState = "SPENT"
	ApprovalExpired  ApprovalState = "EXPIRED"
)

// Person is who asked or decided, as the certificate and the table of clients
// have it.
type Person struct {
	Name    string `json:"name"`
	URI     string `json:"uri"`
	Subject string `json:"subject,omitempty"` // of the certificate
	Cert    string `json:"cert,omitempty"`    // SHA-256 of the certificate, lower-case hex
	Addr    string `json:"addr,omitempty"`    // ip:port
}

func personOf(caller Caller) Person {
	return Person{Name: caller.Name, URI: caller.URI, Subject: caller.Subject, Cert: caller.Cert, Addr: caller.Addr}
}

// same reports whether two principals are one person: one client, one identity,
// or two certificates of one subject. Certificates without a subject tell nobody
// apart.
func (p Person) same(q Person) bool {
	return p.Name == q.Name || p.URI == q.URI || p.Subject == q.Subject
}

// Approval is a request that needs a second person, and what became of it.
type Approval struct {
	Ref       string // 10 characters of Crockford's base32
	Operation Operation
	Object    string   // what it is about, in words or by name
	Request   [32]byte // SHA-256 of the request's body
	Asker     Person
	Asked     time.Time
	Deadline  time.Time // for the decision
	State     ApprovalState
	Second    Person // who decided; zero while it waits
	Decided   time.Time
	Until     time.Time  // the approval is good before then
	Record    audit.UUID // of the decision in the audit log
}

// at is the state as it is at a time: what was not decided or spent in time has
// expired. A decision of the future is none: the clock was set back.
func (a Approval) at(now time.Time) ApprovalState {
	switch {
	case a.State == ApprovalWaiting && (!now.Before(a.Deadline) || now.Add(mostSkew).Before(a.Asked)),
		a.State == ApprovalApproved && (!now.Before(a.Until) || now.Add(mostSkew).Before(a.Decided)):
		return ApprovalExpired
	}
	return a.State
}

// mostSkew is how far a clock may be set back without harm to an approval.
const mostSkew = time.Minute

// ApprovalQuery selects requests for a listing, the newest first.
type ApprovalQuery struct {
	Open  bool // only those that wait or are approved
	Limit int
}

// ApprovalStore keeps the requests that need a second person. What it has
// accepted is durable when it returns. It returns [ErrTampered] for a row that it did
// not write as it stands.
type ApprovalStore interface {
	// AddApproval files a request; [ErrConflict] when its reference is in use,
	// or the same is open already.
	AddApproval(ctx context.Context, a Approval) error
	// Approval returns a request, or [ErrNoApproval].
	Approval(ctx context.Context, ref string) (Approval, error)
	// OpenApproval returns the principal's request for just this that waits or
	// is approved, or [ErrNoApproval].
	OpenApproval(ctx context.Context, principal string, op Operation, object string, request [32]byte) (Approval, error)
	// Approvals lists requests.
	Approvals(ctx context.Context, q ApprovalQuery) ([]Approval, error)
	// ChangeApproval writes what became of a request, when its state is still
	// was; else [ErrConflict].
	ChangeApproval(ctx context.Context, was ApprovalState, a Approval) error
}

// mostWaiting bounds the open requests of one principal.
const mostWaiting = 100

// dual is the second person's part of custody. Its lock makes of finding a
// request and changing it one step; the store is this process's alone.
type dual struct {
	policy DualControl
	store  ApprovalStore
	hmac   func([]byte) ([]byte, error)
	mu     sync.Mutex
}

func newDual(cfg Config) (*dual, error) {
	if err := cfg.DualControl.complete(); err != nil {
		return nil, err
	}
	key, err := cfg.Token.System("token")
	if err != nil {
		return nil, tokenError("finding the key for seals", err)
	}
	seal, ok := key.(keys.HMACKey)
	if !ok {
		return nil, fmt.Errorf("%w: the key for seals cannot compute an HMAC", ErrUnavailable)
	}
	return &dual{policy: cfg.DualControl, store: cfg.Store, hmac: seal.HMAC}, nil
}

// seal is the token's HMAC over the JSON of row, under a label of its own for
// each kind of row.
func (d *dual) seal(label string, row any) (sum [32]byte, err error) {
	text, err := json.Marshal(row)
	if err != nil {
		return sum, fmt.Errorf("custody: sealing: %w", err)
	}
	raw, err := d.hmac(audit.TokenInput(label, text))
	if err != nil {
		return sum, tokenError("sealing", err)
	}
	if copy(sum[:], raw) != len(sum) {
		return sum, fmt.Errorf("%w: a seal of %d bytes", ErrUnavailable, len(raw))
	}
	return sum, nil
}

// change writes a new state of a request.
func (d *dual) change(ctx context.Context, was, a Approval) error {
	if err := d.store.ChangeApproval(ctx, was.State, a); err != nil {
		return storeError("changing a request for approval", err)
	}
	return nil
}

// ParseApprovalRef reads a reference as people write it: in either case, with
// dashes or spaces, O for 0 and I or L for 1.
func ParseApprovalRef(text string) (ref string, ok bool) {
	ref = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	if len(ref) != refLength {
		return "", false
	}
	for _, c := range ref {
		if !strings.ContainsRune(refAlphabet, c) {
			return "", false
		}
	}
	return ref, true
}
