package isoswitch

import "slices"

// transitions are the ways of an original from state to state, section 2.2 of the
// reversals; UNKNOWN is left in the commit that enters it. The journal refuses
// every other.
func transitions() map[State][]State {
	return map[State][]State{
		Received:        {Forwarded, Approved, Declined, ReversalPending, LocalVoid},
		Forwarded:       {Approved, Declined, ReversalPending, LocalVoid},
		Approved:        {ReversalPending, ReversalHeld, Voided, Completed},
		Voided:          {Approved}, // D-29
		Completed:       {Approved},
		ReversalPending: {Reversed, ReversedUnknown, ReversalFailed},
		ReversalHeld:    {ReversalPending, Approved},
		ReversalFailed:  {ReversalPending},
	}
}

// MayBecome reports whether an original goes from one state to the other, or
// stays as it is.
func MayBecome(from, to State) bool {
	return from == to || slices.Contains(transitions()[from], to)
}

// States returns all states of an original.
func States() []State {
	return []State{
		Received, Forwarded, Approved, Declined, Unknown, ReversalPending, Reversed, ReversedUnknown,
		ReversalFailed, ReversalHeld, LocalVoid, Voided, Completed, Tombstone,
	}
}
