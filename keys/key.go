package keys

// Key is a key that can be used and never seen. Implementations are safe for
// concurrent use. Data is whole blocks; nothing is padded. Every method returns
// a fresh slice and leaves its arguments alone. Errors are those of the
// boundary behind the key: [ErrUnavailable] when it cannot be reached,
// [ErrForbidden] when the key may not do this.
type Key interface {
	// BlockSize is 8 (TDES) or 16 (AES) bytes.
	BlockSize() int
	// Encrypt enciphers whole blocks: CBC when iv is one block, ECB when iv is nil.
	Encrypt(iv, src []byte) ([]byte, error)
	// Decrypt is the inverse of Encrypt.
	Decrypt(iv, src []byte) ([]byte, error)
	// CMAC returns the whole CMAC of msg (NIST SP 800-38B), one block long.
	CMAC(msg []byte) ([]byte, error)
	// Derive makes a key whose value is ECB(key, data), cut to the length that
	// as names; the value stays where the key is. The caller must Close it.
	Derive(data []byte, as Spec) (Derived, error)
}

// Derived is a key made by [Key.Derive]. Close destroys it; it must not be used afterwards.
type Derived interface {
	Key
	Close() error
}

// HMACKey is a [Key] that can also compute an HMAC with the hash of its
// algorithm; asserted where it is used.
type HMACKey interface {
	// HMAC returns the whole HMAC of msg (RFC 2104).
	HMAC(msg []byte) ([]byte, error)
}

// Twin is a [Key] that can encipher one text under itself and under its
// companion in one go; asserted where it is used. Errors are those of
// [Key.Encrypt], and [ErrForbidden] for a key that is not its companion.
type Twin interface {
	EncryptBoth(companion Key, src []byte) (own, other []byte, err error)
}

// Spec says what kind of key a derivation makes and what it may do.
type Spec struct {
	Algorithm Algorithm
	Can       Ability
}

// Ability is a set of the things that a key object may do.
type Ability uint8

// The abilities of a key object. A set is their bitwise or.
const (
	CanEncrypt Ability = 1 << iota
	CanDecrypt
	CanMAC // CMAC and HMAC
	CanDerive
	CanUnwrap // an enciphered PIN block, into an object that nobody can read
	CanWrap   // such an object, into a PIN block under this key
)

// Loaded is a key block at work: its key, and the companion object that some
// usages need (nil elsewhere):
//
//   - B0 with TDES: the companion is BDK ⊕ C0C0C0C000000000C0C0C0C000000000;
//   - M3: the companion is K1‖K1, which is single DES under TDES mechanisms.
//
// Release gives the handles back; neither key may be used afterwards.
type Loaded struct {
	Key       Key
	Companion Key
	release   func()
}

// NewLoaded joins a key, its companion (or nil) and the function that gives them back.
func NewLoaded(key, companion Key, release func()) *Loaded {
	return &Loaded{Key: key, Companion: companion, release: release}
}

// EncryptBoth enciphers whole blocks in ECB, under the key and under its
// companion. It returns the errors of [Key.Encrypt].
func (l *Loaded) EncryptBoth(src []byte) (own, other []byte, err error) {
	if twin, ok := l.Key.(Twin); ok {
		return twin.EncryptBoth(l.Companion, src)
	}
	if own, err = l.Key.Encrypt(nil, src); err != nil {
		return nil, nil, err
	}
	if other, err = l.Companion.Encrypt(nil, src); err != nil {
		return nil, nil, err
	}
	return own, other, nil
}

// Release gives the handles back. It may be called once.
func (l *Loaded) Release() {
	if l.release != nil {
		l.release()
	}
}
