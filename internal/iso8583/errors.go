package iso8583

import (
	"errors"
	"fmt"
)

// The errors of this package, besides [FormatError].
var (
	// ErrMACAbsent: neither DE 64 nor DE 128 is in the message (D-03).
	ErrMACAbsent = errors.New("iso8583: no MAC")
	// ErrMACMisplaced: the MAC is not in the field that the other fields
	// demand, or in both (D-03, W-04, M-05).
	ErrMACMisplaced = errors.New("iso8583: MAC in the wrong field")
	// ErrMACMalformed: the MAC is not of the dialect's form, in ascii87 16
	// upper-case hex digits (D-03, M-07).
	ErrMACMalformed = errors.New("iso8583: malformed MAC")
	// ErrMACRequired: this message may not be sent without a MAC (M-06).
	ErrMACRequired = errors.New("iso8583: message must carry a MAC")

	// ErrKSNAbsent: there is no DE 62 (W-18).
	ErrKSNAbsent = errors.New("iso8583: no KSN")
	// ErrKSNMalformed: DE 62 is not 20 or 24 upper-case hex digits (W-18).
	ErrKSNMalformed = errors.New("iso8583: malformed KSN")

	// ErrSpec: a description that no dialect can be made of; see [SpecError].
	ErrSpec = errors.New("iso8583: no dialect can be made of the description")

	// ErrAmount: an amount is outside 0 to 999999999999 minor units.
	ErrAmount = errors.New("iso8583: amount does not fit 12 digits")

	// ErrFrameEmpty: a frame of length 0 was announced or is to be sent;
	// the connection is to be closed (W-18).
	ErrFrameEmpty = errors.New("iso8583: empty frame")
	// ErrFrameTooLong: a frame of more than [MaxFrame] bytes was announced
	// or is to be sent; the connection is to be closed (W-01).
	ErrFrameTooLong = errors.New("iso8583: frame too long")
)

// Fault says what is wrong with a message.
type Fault uint8

// The faults.
const (
	FaultMTI       Fault = iota + 1 // no MTI, or none that the dialect lists
	FaultBitmap                     // not 16 or 32 upper-case hex digits
	FaultUnknown                    // a field that the dialect does not have
	FaultForbidden                  // a field that this message may not have
	FaultMissing                    // a mandatory field is not there
	FaultLength                     // too short, too long, cut off, or no length
	FaultContent                    // characters or structure
	FaultTrailing                   // bytes after the last field
	FaultInternal                   // the parser failed; a defect of keyd
)

func (f Fault) String() string {
	switch f {
	case FaultMTI:
		return "unknown message type"
	case FaultBitmap:
		return "malformed bitmap"
	case FaultUnknown:
		return "unknown field"
	case FaultForbidden:
		return "field not allowed in this message"
	case FaultMissing:
		return "mandatory field missing"
	case FaultLength:
		return "wrong length"
	case FaultContent:
		return "wrong characters or structure"
	case FaultTrailing:
		return "bytes after the last field"
	case FaultInternal:
		return "parser failed"
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// FormatError is a message that is not of the dialect (D-01). Its text has the
// number of the field and never its content.
type FormatError struct {
	// DE is the first bad field in the order of the message: 0 the MTI, 1
	// the bitmap. With FaultTrailing it is the last field. DE 62 means that
	// the KSN is so malformed that what follows cannot be read, which W-18
	// answers with 63 to a DUKPT terminal; every other DE is 30.
	DE    int
	Fault Fault
	// Form is what the dialect wants, "n12" for example; empty where it does
	// not apply.
	Form string
	// Partial holds the fields that could be read; see
	// [Message.Answerable]. It is nil when the error is from a [Builder].
	Partial *Message
}

func (e *FormatError) Error() string {
	s := fmt.Sprintf("iso8583: DE %d: %s", e.DE, e.Fault)
	if e.Form != "" {
		s += ", want " + e.Form
	}
	return s
}
