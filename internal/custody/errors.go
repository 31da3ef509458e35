package custody

import (
	"errors"
	"fmt"

	"keyd.dev/keyd/keys"
)

// The reasons for which custody refuses. Each is wrapped with what was being
// done; package api maps them to HTTP, isoswitch to DE 39.
var (
	// ErrDenied: the caller may not do this, or not with this key.
	ErrDenied = errors.New("custody: the caller may not do this")
	// ErrNoKey: no key or alias of this name.
	ErrNoKey = errors.New("custody: no such key")
	// ErrNoAlias: no alias of this name.
	ErrNoAlias = errors.New("custody: no such alias")
	// ErrAliasExists: the alias points to another key.
	ErrAliasExists = errors.New("custody: the alias exists")
	// ErrKeyState: the key exists and is not in use.
	ErrKeyState = errors.New("custody: the key is not in use")
	// ErrConflict: what is there does not admit the change.
	ErrConflict = errors.New("custody: the present state does not admit the change")
	// ErrApproval: a second person must approve first; see [Pending].
	ErrApproval = errors.New("custody: approval required")
	// ErrNoApproval: no request for approval of this reference.
	ErrNoApproval = errors.New("custody: no such request for approval")
	// ErrSamePerson: the second person is the first.
	ErrSamePerson = errors.New("custody: the second person is the first")
	// ErrNoReading: no reading of the audit log of this id is open.
	ErrNoReading = errors.New("custody: no such reading of the audit log")
	// ErrNoClient: no client of this name.
	ErrNoClient = errors.New("custody: no such client")
	// ErrKeyUse: the key is not for this operation.
	ErrKeyUse = errors.New("custody: the key is not for this operation")
	// ErrRequest: the request cannot be right, whatever the key.
	ErrRequest = errors.New("custody: the request is not valid")
	// ErrPINBlock: the PIN block was not accepted. One error for everything
	// that a decryption revealed.
	ErrPINBlock = errors.New("custody: the PIN block was not accepted")
	// ErrKeyBlock: the key block or cryptogram was not accepted. One error for
	// everything that authenticating or deciphering it revealed.
	ErrKeyBlock = errors.New("custody: the key block was not accepted")
	// errCheckValue: it has another check value than it should; for the log alone.
	errCheckValue = errors.New("custody: another check value")
	// ErrNoWrappingKey: an ErrNoKey of the wrapping key, where a request names two.
	ErrNoWrappingKey = errors.New("custody: no such wrapping key")
	// ErrMAC: the MAC does not match.
	ErrMAC = errors.New("custody: the MAC does not match")
	// ErrKSN: the key serial number was used before, and the BDK's policy
	// guards them.
	ErrKSN = errors.New("custody: key serial number already used")
	// ErrCustody: the key's policy demands that no clear secret leaves the
	// token, and this module cannot do the operation so.
	ErrCustody = errors.New("custody: not possible without a clear secret in the process")
	// ErrTooMany: too many PIN blocks were refused under this key.
	ErrTooMany = errors.New("custody: too many refused PIN blocks")
	// ErrQuota: the configured number of keys or aliases is reached; see [Quotas].
	ErrQuota = errors.New("custody: a quota is used up")
	// ErrTampered: the stored key is not what the token made of it.
	ErrTampered = errors.New("custody: the stored key was changed")
	// ErrNotDestroyed: a key that was destroyed is still there.
	ErrNotDestroyed = errors.New("custody: the key is still there after it was destroyed")
	// ErrUnavailable: the token, the store or the log cannot be used.
	ErrUnavailable = errors.New("custody: the service is not available")
	// ErrRepeated: the invocation id was used before; its answer can be recalled.
	ErrRepeated = errors.New("custody: the invocation was carried out before")
	// ErrNoAnswer: no stored answer for this invocation.
	ErrNoAnswer = errors.New("custody: no stored answer")
)

// tokenError maps what the token boundary says to custody's reasons: a key that
// may not do a thing is the caller's affair, all else means that the token
// cannot be used.
func tokenError(doing string, err error) error {
	switch {
	case errors.Is(err, keys.ErrCustody):
		return fmt.Errorf("%w: %s: %w", ErrCustody, doing, err)
	case errors.Is(err, keys.ErrForbidden):
		return fmt.Errorf("%w: %s: %w", ErrKeyUse, doing, err)
	case errors.Is(err, keys.ErrNotDestroyed):
		return fmt.Errorf("%w: %s: %w", ErrNotDestroyed, doing, err)
	case errors.Is(err, keys.ErrBlockMAC), errors.Is(err, keys.ErrLMK), errors.Is(err, keys.ErrBlock):
		return fmt.Errorf("%w: %s: %w", ErrTampered, doing, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}
