package sim

import "keyd.dev/keyd/internal/iso8583"

// MACState is what a terminal found of an answer's MAC.
type MACState string

// The states.
const (
	MACNone      MACState = ""          // there was no answer, or none that can be read
	MACValid     MACState = "valid"     //
	MACWrong     MACState = "NOT VALID" //
	MACAbsent    MACState = "absent"    // the answer has none
	MACUnchecked MACState = "unchecked" // the terminal has no key for it, or the answer is another message's
)

// Judged is an answer as a terminal read it.
type Judged struct {
	Message *iso8583.Message // nil: it could not be read
	MAC     MACState
}
