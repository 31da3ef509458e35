package hsm

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"keyd.dev/keyd/keys"
)

// The errors of this package beside those of package keys, which are
// [keys.ErrUnavailable], [keys.ErrForbidden], [keys.ErrNoKey],
// [keys.ErrAmbiguous], [keys.ErrBlockMAC] and [keys.ErrLMK].
var (
	// ErrConfig: the configuration cannot be right.
	ErrConfig = errors.New("hsm: configuration refused")
	// ErrModule: the file is not a PKCS#11 module, or the module does not start.
	ErrModule = errors.New("hsm: PKCS#11 module cannot be loaded")
	// ErrToken: no token has the label, or several have it.
	ErrToken = errors.New("hsm: token not found")
	// ErrPIN: the token does not take the PIN, or will not take any. There was
	// no second attempt and must be none: tokens lock after a few.
	ErrPIN = errors.New("hsm: token PIN refused")
	// ErrExists: the token holds keys that were to be made.
	ErrExists = errors.New("hsm: the token has keys already")
	// ErrInUse: a local master key is needed still: it is the newest, or blocks are under it.
	ErrInUse = errors.New("hsm: local master key in use")
	// ErrSelfTest: the module computes wrong values, or cannot do what keyd needs.
	ErrSelfTest = errors.New("hsm: module fails the self-test")
	// ErrClosed: the token was closed.
	ErrClosed = fmt.Errorf("hsm: token closed: %w", keys.ErrUnavailable)
)

// CallError is a call that the module answered with an error. It unwraps to
// the module's code and to the error of package keys that fits it.
type CallError struct {
	Op   string        // what was asked of the module
	Code pkcs11.Error  // its answer
	Age  time.Duration // of the session
	Idle time.Duration // since the session was used last
	kind error
}

func (e *CallError) Error() string {
	return fmt.Sprintf("hsm: %s: %v (session %v old, idle %v)", e.Op, e.Code, e.Age.Round(time.Millisecond), e.Idle.Round(time.Millisecond))
}

// Unwrap returns the code and its kind.
func (e *CallError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.kind}
}

// ReturnValue is the module's answer as records name it: CKR_DEVICE_ERROR, or the
// number of one that the standard does not have.
func (e *CallError) ReturnValue() string {
	text := e.Code.Error()
	if at := strings.LastIndex(text, "CKR_"); at >= 0 {
		return text[at:]
	}
	return fmt.Sprintf("0x%X", uint(e.Code))
}

// kind returns the sentinel that a code means, or nil.
func kind(code pkcs11.Error) error {
	switch code {
	case pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_UNEXTRACTABLE,
		pkcs11.CKR_KEY_NOT_WRAPPABLE, pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ACTION_PROHIBITED:
		return keys.ErrForbidden
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_INVALID,
		pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return ErrPIN
	case pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_OPERATION_ACTIVE,
		pkcs11.CKR_CANT_LOCK, pkcs11.CKR_FUNCTION_CANCELED:
		return keys.ErrUnavailable
	}
	if lost(code) {
		return keys.ErrUnavailable
	}
	return nil
}

// lost reports whether code means that the session must not be used again.
func lost(code pkcs11.Error) bool {
	switch code {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_GENERAL_ERROR,
		pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_USER_NOT_LOGGED_IN:
		return true
	}
	return lostHandle(code)
}

// lostHandle reports whether code means that an object is gone.
func lostHandle(code pkcs11.Error) bool {
	return code == pkcs11.CKR_OBJECT_HANDLE_INVALID || code == pkcs11.CKR_KEY_HANDLE_INVALID
}

// codeOf returns the module's code in err, or CKR_OK.
func codeOf(err error) pkcs11.Error {
	var code pkcs11.Error
	errors.As(err, &code)
	return code
}

// coded reports whether err carries the module's code.
func coded(err error, code uint) bool { return err != nil && codeOf(err) == pkcs11.Error(code) }
