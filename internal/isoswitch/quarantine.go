package isoswitch

import (
	"fmt"
	"slices"
	"sync"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// A terminal that reverses too often is suspect: an alert, then what the
// configuration says. Its reversals go on; only what would be new is kept back. It
// ends with the hour, or when an operator unlocks the terminal.

// Quarantine is what a suspect terminal may do.
type Quarantine struct {
	After  int              // reversals of one terminal in an hour that make it suspect; 0: none do
	Action QuarantineAction // alert
}

// QuarantineAction is what becomes of the sales of a suspect terminal.
type QuarantineAction string

// The actions.
const (
	QuarantineAlert  QuarantineAction = "alert"   // they go on
	QuarantineSignIn QuarantineAction = "sign_in" // refused until it signs on, or has signed in and uses its new keys
	QuarantineBlock  QuarantineAction = "block"   // 58
)

func (q Quarantine) withDefaults() (Quarantine, error) {
	q.Action = orDefault(q.Action, QuarantineAlert)
	if q.After < 0 {
		return q, fmt.Errorf("%w: a number of reversals is negative", ErrConfig)
	}
	if q.Action != QuarantineAlert && q.Action != QuarantineSignIn && q.Action != QuarantineBlock {
		return q, fmt.Errorf("%w: %q is not %s, %s or %s", ErrConfig, q.Action, QuarantineAlert, QuarantineSignIn, QuarantineBlock)
	}
	return q, nil
}

// Check returns [ErrConfig] for what cannot be.
func (q Quarantine) Check() error {
	_, err := q.withDefaults()
	return err
}

func (q Quarantine) tally(tid string) []tally { return []tally{{tid, q.After}} }

// suspect counts an accepted reversal, and raises the alert where its terminal is
// suspect from now on, or still.
func (s *Switch) suspect(r *request, d *decision) {
	q := r.rules.Limits.Quarantine
	if q.After == 0 || !d.accepted {
		return
	}
	before := s.suspects.over(q.tally(r.terminal.TID))
	s.suspects.add(q.tally(r.terminal.TID))
	if !s.suspects.over(q.tally(r.terminal.TID)) {
		return
	}
	if !before {
		s.renewed.drop(r.terminal.TID) // keys of before a quarantine end none
	}
	if d.verdict.alert == 0 {
		d.verdict.alert = audit.AlertFraud
	}
	s.log.Warn("a terminal reverses too often", "corr", r.corr, "tid", r.terminal.TID, "action", q.Action)
	s.observe(Event{Name: "quarantine", Code: string(q.Action)})
}

// quarantined refuses a new transaction of a suspect terminal; a void undoes one
// and is none.
func (s *Switch) quarantined(r *request, kind kind) *verdict {
	q := r.rules.Limits.Quarantine
	if q.After == 0 || q.Action == QuarantineAlert || kind == voidKind || !s.suspects.over(q.tally(r.terminal.TID)) {
		return nil
	}
	v := &verdict{code: codeTerminal, reason: audit.ReasonVelocity, alert: audit.AlertFraud}
	if q.Action == QuarantineSignIn {
		v.code = r.speech.Codes.MACError // upon which it signs in (U-49)
	}
	return v
}

// cleared ends the quarantine of a terminal that has proved its keys anew, where
// that is what was wanted of it.
func (s *Switch) cleared(r *request) {
	q := r.rules.Limits.Quarantine
	if q.Action != QuarantineSignIn {
		return
	}
	if q.After > 0 && s.suspects.over(q.tally(r.terminal.TID)) {
		s.log.Info("the quarantine of a terminal ends", "corr", r.corr, "tid", r.terminal.TID)
	}
	s.suspects.drop(r.terminal.TID)
}

// renewal are the working keys that terminals with a master key were given since their
// quarantine began. That sign-in has no MAC, and anybody can send it: what proves
// the terminal is the first message under one of them. It is safe for concurrent use.
type renewal struct {
	mu  sync.Mutex
	ids map[string][]keys.ID // by TID; of registered terminals that were suspect
}

// given notes a terminal's new working keys.
func (n *renewal) given(tid string, all []custody.TerminalKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ids == nil {
		n.ids = map[string][]keys.ID{}
	}
	n.ids[tid] = nil
	for _, k := range all {
		n.ids[tid] = append(n.ids[tid], k.ID)
	}
}

// proved reports, once, that a message came under a key that was noted.
func (n *renewal) proved(tid string, under keys.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.ids[tid], under) {
		return false
	}
	delete(n.ids, tid)
	return true
}

// drop forgets a terminal's.
func (n *renewal) drop(tid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ids, tid)
}

// signedIn notes the new keys of a terminal that is suspect.
func (s *Switch) signedIn(r *request, all []custody.TerminalKey) {
	q := r.rules.Limits.Quarantine
	if q.Action == QuarantineSignIn && q.After > 0 && s.suspects.over(q.tally(r.terminal.TID)) {
		s.renewed.given(r.terminal.TID, all)
	}
}

// drop forgets a count.
func (r *rates) drop(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.count, key)
}
