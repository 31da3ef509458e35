package sim

import "errors"

// The errors of a terminal.
var (
	// ErrAnswer is returned for an answer whose MAC is absent or wrong.
	ErrAnswer = errors.New("sim: the answer has no valid MAC")
	// ErrMismatch is returned for an answer that cannot be read, or that answers
	// another message (U-58).
	ErrMismatch = errors.New("sim: this is no answer to the message")
	// ErrCard is returned when the card refused, or was gone, after the host had
	// approved (U-58).
	ErrCard = errors.New("sim: the card refused after the approval")
	// ErrWorkingKeys is returned for working keys that do not fit their check
	// values, or that come in another layout than was asked for (U-43, U-47).
	ErrWorkingKeys = errors.New("sim: the working keys cannot be used")
	// ErrSignIn is returned when a terminal needs working keys and got none.
	ErrSignIn = errors.New("sim: the terminal could not sign in")
	// ErrState is returned for a terminal's folder that cannot be used.
	ErrState = errors.New("sim: the terminal's folder")
	// ErrOrder is returned for an order that the terminal cannot carry out.
	ErrOrder = errors.New("sim: the terminal cannot do that")
	// ErrUnreachable is returned when the switch cannot be connected to. Nothing
	// has left the terminal.
	ErrUnreachable = errors.New("sim: the switch cannot be reached")
	// ErrPower is returned when a terminal lost its power where a fault wanted it.
	ErrPower = errors.New("sim: the terminal lost its power")
	// ErrDrill is returned for a script that cannot be run.
	ErrDrill = errors.New("sim: the script")

	// errSilent is what became of a message that no answer came to.
	errSilent = errors.New("no answer")
)
