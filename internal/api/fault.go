package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

// plane is one of the two service models behind the one listener.
type plane uint8

const (
	dataPlane plane = iota
	controlPlane
)

// errorName is an exception of the API. The rows of section 6.1 are in
// [errorName.status].
type errorName string

const (
	validation     errorName = "ValidationException"
	verification   errorName = "VerificationFailedException"
	accessDenied   errorName = "AccessDeniedException"
	notFound       errorName = "ResourceNotFoundException"
	conflict       errorName = "ConflictException"
	throttling     errorName = "ThrottlingException"
	quotaExceeded  errorName = "ServiceQuotaExceededException"
	internalServer errorName = "InternalServerException"
	unavailable    errorName = "ServiceUnavailableException"
	unknownOp      errorName = "UnknownOperationException"
)

func (n errorName) status(p plane) int {
	switch {
	case n == internalServer:
		return http.StatusInternalServerError
	case n == unavailable:
		return http.StatusServiceUnavailable
	case p == controlPlane:
		return http.StatusBadRequest
	case n == accessDenied:
		return http.StatusForbidden
	case n == notFound, n == unknownOp:
		return http.StatusNotFound
	case n == throttling:
		return http.StatusTooManyRequests
	}
	return http.StatusBadRequest
}

// fault is the answer to a request that got no result.
type fault struct {
	name     errorName
	message  string
	fields   []fieldError // of a validation
	resource string       // of a resource that was not found
	reason   string       // of a verification that failed
	status   int          // in place of the name's own
	hangUp   bool         // the connection must not be used again
	cause    error        // for the log of the daemon alone
}

func (f *fault) Error() string { return string(f.name) + ": " + f.message }

func (f *fault) Unwrap() error { return f.cause }

func refusal(name errorName, message string) *fault { return &fault{name: name, message: message} }

// errUnrecorded marks a failure to make the records of an operation durable:
// whatever its result, it is withheld.
var errUnrecorded = errors.New("api: not recorded")

// fault turns what is wrong with a request's form into the answer.
func (f *form) fault(p plane) *fault {
	out := &fault{name: validation, fields: f.wrong}
	texts := make([]string, len(f.wrong))
	counted := p == dataPlane
	for i, w := range f.wrong {
		texts[i] = w.path + " " + w.message
		counted = counted && !w.refused
	}
	switch {
	case !counted:
		out.message = strings.Join(texts, "; ")
	case len(f.wrong) == 1:
		out.message = "1 field is invalid"
	default:
		out.message = fmt.Sprintf("%d fields are invalid", len(f.wrong))
	}
	if p == controlPlane {
		out.fields = nil // the model of that plane has none
	}
	return out
}

// faultOf is the one place that turns an error into an answer. What it does not
// know is a defect and says so to nobody but the daemon's log.
func (c *call) faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	var m malformed
	if errors.As(err, &m) {
		return refusal(validation, m.Error())
	}
	f = c.custodyFault(err)
	f.cause = err
	return f
}

func (c *call) custodyFault(err error) *fault {
	switch {
	case errors.Is(err, audit.ErrQueueFull), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return refusal(unavailable, "no capacity is available")
	case errors.Is(err, errUnrecorded), fromLog(err):
		return refusal(internalServer, "internal error")
	case errors.Is(err, custody.ErrMAC):
		return &fault{name: verification, message: "the MAC does not match", reason: "INVALID_MAC"}
	case errors.Is(err, custody.ErrPINBlock):
		return refusal(validation, "the PIN block was not accepted")
	case errors.Is(err, custody.ErrKeyBlock):
		return refusal(validation, "the key block was not accepted")
	case errors.Is(err, custody.ErrKSN):
		return refusal(validation, "key serial number already used")
	case errors.Is(err, custody.ErrTooMany):
		return refusal(throttling, "request rate exceeded")
	case errors.Is(err, custody.ErrQuota):
		return refusal(quotaExceeded, custodySays(err, "the configured number is in use"))
	case errors.Is(err, custody.ErrDenied):
		return c.denied()
	case errors.Is(err, custody.ErrSamePerson):
		return refusal(accessDenied, custodySays(err, "the second person is the first"))
	case errors.Is(err, custody.ErrNoApproval):
		return &fault{name: notFound, message: "no such request for approval", resource: c.asked}
	case errors.Is(err, custody.ErrNoClient):
		return &fault{name: notFound, message: "no such client", resource: c.asked}
	case errors.Is(err, custody.ErrNoReversal):
		return &fault{name: notFound, message: "no such reversal", resource: c.asked}
	case errors.Is(err, custody.ErrReversalState):
		return refusal(conflict, custodySays(err, "the state of the reversal does not admit this"))
	case errors.Is(err, custody.ErrNoTerminal):
		return &fault{name: notFound, message: "no such terminal", resource: c.asked}
	case errors.Is(err, custody.ErrNoKey), errors.Is(err, custody.ErrNoAlias):
		return &fault{name: notFound, message: "no such key or alias", resource: c.missing(err)}
	case errors.Is(err, custody.ErrAliasExists):
		return refusal(conflict, c.taken+" already exists")
	case errors.Is(err, custody.ErrKeyState):
		return c.unsuitable(err, "the key is not in use", "key state")
	case errors.Is(err, custody.ErrConflict):
		return refusal(conflict, custodySays(err, "the present state does not admit the change"))
	case errors.Is(err, custody.ErrApproval):
		return refusal(accessDenied, "approval required: "+custody.PendingRef(err))
	case errors.Is(err, custody.ErrKeyUse):
		return c.unsuitable(err, "the key cannot be used for this operation", "usage, algorithm or mode of use")
	case errors.Is(err, custody.ErrCustody):
		return c.unsuitable(err, "the key's policy keyd:custody does not allow this operation here", "custody")
	case errors.Is(err, custody.ErrRequest):
		return c.unacceptable(err)
	case errors.Is(err, custody.ErrUnavailable):
		return refusal(unavailable, "no token is available")
	}
	return refusal(internalServer, "internal error")
}

// fromLog reports whether the audit log is the part that is away: an answer
// that cannot be recorded is withheld (section 5, step 9).
func fromLog(err error) bool {
	for _, is := range []error{audit.ErrUnavailable, audit.ErrDiskCritical, audit.ErrUnsigned, audit.ErrClosed, audit.ErrRecord} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// denied is the refusal of a principal. It says nothing of the key.
func (c *call) denied() *fault {
	if c.plane == dataPlane {
		return refusal(accessDenied, "caller may not use this key for this operation")
	}
	if c.op == nil {
		return refusal(accessDenied, "caller may not perform this operation")
	}
	return refusal(accessDenied, "caller may not perform "+c.op.name)
}

// missing is the name of the key or alias that was not found, as it was given.
func (c *call) missing(error) string { return c.asked }

// unsuitable is the refusal of a key that exists. The reason is custody's own.
func (c *call) unsuitable(err error, message, otherwise string) *fault {
	if c.plane == controlPlane { // whose errors have no list of fields
		return refusal(validation, message+": "+custodySays(err, otherwise))
	}
	f := refusal(validation, message)
	if c.keyMember != "" {
		f.fields = []fieldError{{path: c.keyMember, message: custodySays(err, otherwise)}}
	}
	return f
}

// unacceptable is the refusal of a request that has a good form and cannot be
// right.
func (c *call) unacceptable(err error) *fault {
	return refusal(validation, custodySays(err, "the request is not valid"))
}

// custodySays returns the words that custody put behind one of its sentinels.
// They are constants; where custody passed on the words of what is below it,
// they are kept back, for those may hold more.
func custodySays(err error, otherwise string) string {
	for err != nil {
		below := errors.Unwrap(err)
		switch below {
		case custody.ErrKeyUse, custody.ErrKeyState, custody.ErrRequest, custody.ErrCustody, custody.ErrConflict, custody.ErrSamePerson, custody.ErrQuota, custody.ErrReversalState:
			if words, ok := strings.CutPrefix(err.Error(), below.Error()+": "); ok {
				return words
			}
		}
		err = below
	}
	return otherwise
}

// appendFault appends the body of an error (section 6.1): the name for those
// that read no headers, and the text under the names that clients look for.
func appendFault(b []byte, f *fault, p plane) []byte {
	b = append(b, `{"__type":"`...)
	b = append(b, f.name...)
	b = append(b, '"')
	if f.reason != "" {
		b = append(b, `,"Reason":"`...)
		b = append(b, f.reason...)
		b = append(b, '"')
	}
	if f.resource != "" {
		b = append(b, `,"ResourceId":`...)
		b = appendString(b, f.resource)
	}
	b = append(b, `,"Message":`...)
	b = appendString(b, f.message)
	if f.name == validation && p == dataPlane {
		b = append(b, `,"message":`...)
		b = appendString(b, f.message)
	}
	for i, field := range f.fields {
		if i == 0 {
			b = append(b, `,"fieldList":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(b, `{"path":`...)
		b = appendString(b, field.path)
		b = append(b, `,"message":`...)
		b = appendString(b, field.message)
		b = append(b, '}')
	}
	if len(f.fields) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}
