package sim

import "keyd.dev/keyd/internal/iso8583"

// Speaker is the language, the numbers and the keys of a terminal. What it builds
// is sealed, and uses up the numbers of the state; it must not be sent before the
// state is durable.
type Speaker interface {
	// begin makes the numbers of the state its own; a new state is filled.
	begin(s *State, fresh bool) error
	// request builds a transaction. It returns [ErrOrder] for one that the terminal
	// does not have.
	request(s *State, o Order) (*Sent, error)
	// owes reports whether an order without a known result is to be reversed.
	owes(o Order) bool
	// repeats reports whether an order without an answer is sent again (U-20).
	repeats(o Order) bool
	// again builds a message of before once more.
	again(m *Memory) (*Sent, error)
	// reversal builds the next try.
	reversal(s *State, p *Pending) (*Sent, error)
	// undoes builds a reversal that somebody asked for.
	undoes(of *Memory, mti iso8583.MTI, rest int64) (*Sent, error)
	// call builds a message of network management.
	call(s *State, k Kind) (*Sent, error)
	// judge reads an answer. The error wraps [ErrAnswer] or [ErrMismatch] when it
	// must not be believed.
	judge(sent *Sent, raw []byte) (Judged, error)
	// reason is DE 39 of a reversal after this error; a nil error is a terminal that
	// does not know.
	reason(err error) string
	// approves and settles report what a believed code means, for a transaction and
	// for a reversal; renew, that the terminal must sign in before it goes on.
	approves(code string) bool
	settles(code string) bool
	renew(s *State, code string)
	// ready reports whether the terminal can seal a message; where it cannot, it
	// signs in.
	ready(s *State) bool
	// installs takes what the answer to a sign-in brings.
	installs(s *State, m *iso8583.Message) error
	// closes ends the batch.
	closes(s *State)
	// numbers writes down what was used up by a message that was built otherwise.
	numbers(s *State)
}
