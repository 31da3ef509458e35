// Package unionpay is the working keys of UnionPay terminals on the wire: field
// 62 of the sign-in answer (0810), in which keyd sends a terminal its PIN key,
// its MAC key and its track data key, each under the terminal's master key with
// a check value. It holds no keys: what it packs and takes apart is enciphered.
//
//	form  bytes  PIN key          MAC key               data key
//	001   24     8 @0, CV @8      8 @12, CV @20
//	003   40     16 @0, CV @16    16 @20, CV @36
//	004   60     16 @0, CV @16    16 @20, CV @36        16 @40, CV @56
//
// A MAC key of single length fills the first half of its 16 bytes; the other
// half is zero and no cryptogram: it is never deciphered (U-46). The answer has
// no MAC; a terminal knows a wrong key by its check value alone, so that in form
// 001 a whole pair that was exchanged for the other goes unseen.
package unionpay

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"keyd.dev/keyd/keys"
)

// The errors of this package.
var (
	// ErrForm: there is no such form, or the keys do not fit it.
	ErrForm = errors.New("unionpay: form of field 62")
	// ErrContent: the bytes are not a field 62 of this form.
	ErrContent = errors.New("unionpay: content of field 62")
)

// Form is how keys stand in field 62: the network code of sign-in, field 60.3.
type Form string

// The forms.
const (
	Form001 Form = "001" // single-length keys
	Form003 Form = "003" // double-length PIN key
	Form004 Form = "004" // double-length PIN key and track data key
)

// Slot is one key in the field: under the master key, each 8-byte half for
// itself. Half says that there is no second half.
type Slot struct {
	Value [16]byte
	Half  bool
	Check [4]byte // of the clear key
}

// SlotOf is the slot of a cryptogram that keyd has made. Single-length keys are
// held as K ‖ K, and so have two equal halves.
func SlotOf(c keys.Cryptogram) Slot {
	s := Slot{Value: c.Value, Check: c.Check}
	if [8]byte(s.Value[:8]) == [8]byte(s.Value[8:]) {
		s.Half = true
		clear(s.Value[8:])
	}
	return s
}

// Set is the keys of one field. Data is nil in forms 001 and 003.
type Set struct {
	PIN, MAC Slot
	Data     *Slot
}

const checkBytes = 4

// Size returns the length of the field in bytes, 0 for a form that is none.
func (f Form) Size() int {
	switch f {
	case Form001:
		return 2 * (8 + checkBytes)
	case Form003:
		return 2 * (16 + checkBytes)
	case Form004:
		return 3 * (16 + checkBytes)
	}
	return 0
}

// Pack returns the content of field 62, without its length. It returns
// [ErrForm] for keys that the form has no place for: a double-length key in
// 001, a single-length PIN or data key elsewhere, a data key in 001 or 003; and
// for two keys that are equal (U-50).
func Pack(f Form, s Set) ([]byte, error) {
	switch {
	case f.Size() == 0:
		return nil, fmt.Errorf("%w: %q; there are 001, 003 and 004", ErrForm, string(f))
	case s.PIN.Half != (f == Form001):
		return nil, fmt.Errorf("%w: in form %s the PIN key has %d bytes", ErrForm, f, f.slotBytes())
	case f == Form001 && !s.MAC.Half:
		return nil, fmt.Errorf("%w: in form 001 the MAC key has 8 bytes", ErrForm)
	case (s.Data != nil) != (f == Form004):
		return nil, fmt.Errorf("%w: form 004 has a data key, and no other form", ErrForm)
	case s.Data != nil && s.Data.Half:
		return nil, fmt.Errorf("%w: in form 004 the data key has 16 bytes", ErrForm)
	}
	slots := []Slot{s.PIN, s.MAC}
	if s.Data != nil {
		slots = append(slots, *s.Data)
	}
	if err := distinct(slots); err != nil {
		return nil, err
	}
	field := make([]byte, 0, f.Size())
	for _, slot := range slots {
		field = append(field, slot.Value[:f.slotBytes()]...)
		field = append(field, slot.Check[:]...)
	}
	return field, nil
}

// slotBytes is the room of the PIN key, and of each key beside it.
func (f Form) slotBytes() int {
	if f == Form001 {
		return 8
	}
	return 16
}

// distinct refuses a half that stands twice: two keys would be equal, or the
// halves of one. Under ECB equal halves have equal cryptograms.
func distinct(slots []Slot) error {
	seen := make(map[[8]byte]bool)
	for _, s := range slots {
		halves := [][8]byte{[8]byte(s.Value[:8])}
		if !s.Half {
			halves = append(halves, [8]byte(s.Value[8:]))
		}
		for _, h := range halves {
			if seen[h] {
				return fmt.Errorf("%w: two keys, or the halves of one, are equal", ErrForm)
			}
			seen[h] = true
		}
	}
	return nil
}

// Parse takes a field 62 apart, without its length. It returns [ErrContent] for
// a length that is not the form's, a PIN or data key whose second half is
// missing, a first half of zeros, and two keys that are equal.
func Parse(f Form, field []byte) (Set, error) {
	if f.Size() == 0 || len(field) != f.Size() {
		return Set{}, fmt.Errorf("%w: %d bytes; form %q has %d", ErrContent, len(field), string(f), f.Size())
	}
	var slots []Slot
	for n := f.slotBytes() + checkBytes; len(field) > 0; field = field[n:] {
		var s Slot
		copy(s.Value[:], field[:f.slotBytes()])
		copy(s.Check[:], field[f.slotBytes():])
		s.Half = [8]byte(s.Value[8:]) == [8]byte{}
		if [8]byte(s.Value[:8]) == [8]byte{} {
			return Set{}, fmt.Errorf("%w: a key of zeros", ErrContent)
		}
		slots = append(slots, s)
	}
	set := Set{PIN: slots[0], MAC: slots[1]}
	if len(slots) == 3 {
		set.Data = &slots[2]
	}
	if _, err := Pack(f, set); err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrContent, err)
	}
	return set, nil
}

// Open deciphers a slot under the master key, as a terminal does, and checks it
// by its check value: for tests and the simulated terminal. The second half of a
// single-length key is not touched; it comes back as K ‖ K. The value is the
// caller's to clear. It returns [ErrContent], or the error of the master key.
func Open(master Decrypter, s Slot, check func(value []byte) ([4]byte, error)) ([]byte, error) {
	cut := s.Value[:]
	if s.Half {
		cut = s.Value[:8]
	}
	value, err := master.Decrypt(nil, cut)
	if err != nil {
		return nil, fmt.Errorf("unionpay: deciphering a working key: %w", err)
	}
	if s.Half {
		value = append(value, value...)
	}
	got, err := check(value)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(got[:], s.Check[:]) != 1 {
		clear(value)
		return nil, fmt.Errorf("%w: a check value does not match", ErrContent)
	}
	return value, nil
}

// Decrypter is what opening needs of a master key.
type Decrypter interface {
	Decrypt(iv, src []byte) ([]byte, error)
}
