package sim

import (
	"crypto/subtle"
	"fmt"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/mac"
)

// workingKeys are those of a sign-in, in the clear as in a terminal's secure
// memory.
type workingKeys struct {
	pik []byte // 8 or 16 bytes
	mak []byte // 8 or 16
	tdk []byte // 16; nil without one
}

// openKeys deciphers DE 62 of an 0810 under the master key, each 8 bytes by
// itself, and compares the check values. U-42 to U-47. It returns [ErrWorkingKeys].
func openKeys(tmk, field []byte) (*workingKeys, error) {
	master, err := secret.NewTDES(tmk)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWorkingKeys, err)
	}
	var k workingKeys
	slots := []struct {
		name string
		key  *[]byte
		size int
	}{{"PIK", &k.pik, 16}, {"MAK", &k.mak, 16}, {"TDK", &k.tdk, 16}}
	switch len(field) {
	case 24:
		slots = slots[:2]
		slots[0].size, slots[1].size = 8, 8
	case 40:
		slots = slots[:2]
	case 60:
	default:
		return nil, fmt.Errorf("%w: DE 62 of %d bytes", ErrWorkingKeys, len(field))
	}
	for _, s := range slots {
		wrapped, check := field[:s.size], field[s.size:s.size+4]
		field = field[s.size+4:]
		if s.name == "MAK" && len(wrapped) == 16 && zero(wrapped[8:]) {
			wrapped = wrapped[:8] // never decipher the empty half (U-46)
		}
		clear, err := master.Decrypt(nil, wrapped)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrWorkingKeys, s.name, err)
		}
		if !fits(clear, check) {
			return nil, fmt.Errorf("%w: the check value of the %s does not fit", ErrWorkingKeys, s.name)
		}
		*s.key = clear
	}
	return &k, nil
}

func zero(b []byte) bool { return subtle.ConstantTimeCompare(b, make([]byte, len(b))) == 1 }

// fits compares the first four bytes of eight zeros enciphered under a key (U-44).
func fits(key, check []byte) bool {
	c, err := secret.NewTDES(key)
	if err != nil {
		return false
	}
	sum, err := c.Encrypt(nil, make([]byte, 8))
	return err == nil && subtle.ConstantTimeCompare(sum[:4], check) == 1
}

func (k *workingKeys) pin() (secret.Cipher, error) { return secret.NewTDES(k.pik) }

// mac makes the MAC of a terminal. U-53.
func (k *workingKeys) mac(algorithm string, input []byte) (sum [8]byte, err error) {
	var full []byte
	switch algorithm {
	case "x9_19":
		var left, all mac.Cipher
		if left, all, err = mac.NewAlgorithm3(k.mak); err == nil {
			full, err = mac.Algorithm3(left, all, input, mac.Padding1)
		}
	default:
		var c secret.Cipher
		if c, err = secret.NewTDES(k.mak); err != nil {
			break
		}
		if algorithm == "cup_ecb" {
			full, err = mac.UnionPayWhole(c, input)
		} else {
			full, err = mac.Algorithm1(c, input, mac.Padding1)
		}
	}
	if err != nil {
		return sum, fmt.Errorf("sim: MAC by %s: %w", algorithm, err)
	}
	copy(sum[:], full)
	return sum, nil
}
