package isoswitch

import "time"

// Event is a decision, for metrics. It holds no card data.
type Event struct {
	Name string        // "sale", "reversal", "signin", "forward", "late", "response", "frame", "link", "automatic", "lockout_flood", "foreign_link", "quarantine", "clock", "breaker"
	Code string        // DE 39 that was answered or received, so what a peer chose; or a state, or a [Cause]; may be empty
	Rule string        // row of the decision table; may be empty
	Took time.Duration // from the arrival of the request to its answer; 0 where there is none
	// Outcome is what became of a terminal's reversal; empty elsewhere.
	Outcome Outcome
}

// Outcome is what became of a terminal's reversal.
type Outcome string

// The outcomes.
const (
	Honoured  Outcome = "honoured"  // it undoes an original, or joins what does
	Repeated  Outcome = "repeated"  // it came before: the same answer, no second effect
	Unmatched Outcome = "unmatched" // no original, which will be refused should it come
	Kept      Outcome = "held"      // for two persons to decide on
	Refused   Outcome = "refused"
)

// outcome tells apart what is answered to a reversal.
func outcome(e effect, code string) Outcome {
	switch {
	case e == repeatAnswer || e == waitForAnswer:
		return Repeated
	case e == addTombstone:
		return Unmatched
	case e == holdReversal:
		return Kept
	case e.accepts() && code == codeApproved:
		return Honoured
	case code == codeApproved: // D-22: reversed already under another RID
		return Repeated
	}
	return Refused
}

// automatic tells of a reversal that keyd starts itself, once it is in the queue.
func (s *Switch) automatic(c Cause) { s.observe(Event{Name: "automatic", Code: string(c)}) }
