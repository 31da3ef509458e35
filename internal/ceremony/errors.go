package ceremony

import "errors"

// The reasons for which a ceremony refuses. Each is wrapped with what was being
// done; they reach the other side of the door as codes, see [codeOf].
var (
	// ErrScript: the script cannot be carried out as it stands.
	ErrScript = errors.New("ceremony: the script is not valid")
	// ErrUnknown: no ceremony of this id is under way; it may have ended, or the daemon was started again.
	ErrUnknown = errors.New("ceremony: no such ceremony")
	// ErrDenied: the caller may not do this, or has no seat in this ceremony.
	ErrDenied = errors.New("ceremony: the caller may not do this")
	// ErrSamePerson: the certificate, its identity or its subject is that of somebody who takes part already.
	ErrSamePerson = errors.New("ceremony: one person cannot take part twice")
	// ErrStage: this is not the moment for the step.
	ErrStage = errors.New("ceremony: not the moment for this step")
	// ErrCheck: a check value is not the one that was expected.
	ErrCheck = errors.New("ceremony: the check value is not the expected one")
	// ErrComponent: the component cannot be used.
	ErrComponent = errors.New("ceremony: the component was refused")
	// ErrConfirm: what was typed to confirm is not what had to be typed.
	ErrConfirm = errors.New("ceremony: not confirmed")
	// ErrEnded: the ceremony ended before this step.
	ErrEnded = errors.New("ceremony: the ceremony has ended")
	// ErrBusy: too many ceremonies are under way.
	ErrBusy = errors.New("ceremony: too many ceremonies are under way")
	// ErrSeal: a sealed message is not for this ceremony, person and number, or was changed.
	ErrSeal = errors.New("ceremony: sealed message refused")
	// ErrWork: the daemon could not do what was agreed.
	ErrWork = errors.New("ceremony: the work failed")
	// ErrRequest: the request cannot be read.
	ErrRequest = errors.New("ceremony: the request is not valid")
	// ErrExists: an output is there already; outputs never overwrite.
	ErrExists = errors.New("ceremony: the output exists already")
	// ErrTranscript: a transcript is not what the token signed, or contradicts itself or the audit log.
	ErrTranscript = errors.New("ceremony: the transcript does not verify")
	// ErrInterrupted: the person at the terminal gave up.
	ErrInterrupted = errors.New("ceremony: interrupted")
	// ErrTerminal: there is no terminal to hold a ceremony at.
	ErrTerminal = errors.New("ceremony: no terminal")
)
