package isoswitch

import "time"

// Event is a decision, for metrics. It holds no card data.
type Event struct {
	Name string        // "sale", "reversal", "signin", "forward", "late", "response", "frame", "link"
	Code string        // DE 39 that was answered or received, or a state; may be empty
	Rule string        // row of the decision table; may be empty
	Took time.Duration // from the arrival of the request to its answer; 0 where there is none
}

// Status is the state of the switch at a moment.
type Status struct {
	LinkUp      bool // the upstream link is connected
	SignedOn    bool // and upstream has answered the sign-on with a good MAC
	Connections int  // of terminals
	InFlight    int  // sales that wait for upstream
}
