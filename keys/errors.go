package keys

import "errors"

// The errors of this package and of the boundary behind a [Key]. Each is
// wrapped with what was being done; [ErrBlock] stands with [Block].
var (
	// ErrUnavailable: the boundary behind the key cannot be reached. The same call may succeed later.
	ErrUnavailable = errors.New("keys: key not reachable")
	// ErrForbidden: the key may not do this.
	ErrForbidden = errors.New("keys: key may not do this")
	// ErrCustody: the key's policy lets no clear secret out of the token, and this cannot be done so.
	ErrCustody = errors.New("keys: not possible without a clear secret outside the token")
	// ErrNoKey: the token holds no object of this name.
	ErrNoKey = errors.New("keys: no such key")
	// ErrAmbiguous: the token holds more than one object of this name.
	ErrAmbiguous = errors.New("keys: more than one key of this name")
	// ErrNotDestroyed: the token still holds an object of a key that was destroyed.
	ErrNotDestroyed = errors.New("keys: the key is still there after it was destroyed")
	// ErrBlockMAC: the block is not the one that the token made; some part of it was changed.
	ErrBlockMAC = errors.New("keys: key block MAC does not match")
	// ErrLMK: the block is under another generation of the local master key.
	ErrLMK = errors.New("keys: key block under another local master key")
	// ErrAttributes: usage, algorithm and mode do not go together, or one is unknown.
	ErrAttributes = errors.New("keys: attributes not permitted")
	// ErrMaterial: the value is no key of this algorithm, or a weak one.
	ErrMaterial = errors.New("keys: key material refused")
	// ErrComponent: a component cannot be read, or components do not combine.
	ErrComponent = errors.New("keys: component refused")
	// ErrCheckValue: the text is not a check value, or the method is not one of the algorithm.
	ErrCheckValue = errors.New("keys: check value refused")
)
