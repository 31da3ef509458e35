package dukpt

import (
	"crypto/des"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// BDKMask is what the companion of a BDK differs by: [Companion] = BDK ⊕
// BDKMask. The right half of an initial key is made under the companion.
// X9.24-1:2009, annex A.6.
func BDKMask() [16]byte {
	return [16]byte{0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0, 0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0}
}

// Companion returns bdk ⊕ [BDKMask]. Both are the caller's to clear.
func Companion(bdk *[16]byte) [16]byte {
	mask := BDKMask()
	subtle.XORBytes(mask[:], mask[:], bdk[:])
	return mask
}

// InitialKeyData returns the block from which the initial key of the device is
// made: the first eight bytes of the serial number, the counter's bits clear.
// Enciphered under the BDK it is the left half of the initial key, under the
// companion the right half. X9.24-1:2009, annex A.6.
func InitialKeyData(ksn TDESKSN) [8]byte {
	device := ksn.Device()
	return [8]byte(device[:8])
}

// Walk derives the transaction key of ksn from the initial key ik of its
// device: one step of the non-reversible key generation process for each one
// bit of the counter, from the highest down. ik stays as it is; it and the
// result are the caller's to clear. It returns [ErrCounter]. X9.24-1:2009,
// annex A.2.
func Walk(ik *[16]byte, ksn TDESKSN) ([16]byte, error) {
	if err := ksn.Valid(); err != nil {
		return [16]byte{}, fmt.Errorf("deriving the transaction key: %w", err)
	}
	return walked(ik, 0, ksn)
}

// Resume derives the transaction key of ksn as [Walk] does, but from the key of
// an earlier stop: at is the transaction key of the same device whose counter is
// counter, the highest one bits of ksn's counter and no others, as a terminal
// keeps it for what it sends next. It returns [ErrCounter]. X9.24-1:2009, annex
// A.2.
func Resume(at *[16]byte, counter uint32, ksn TDESKSN) ([16]byte, error) {
	if err := ksn.Valid(); err != nil {
		return [16]byte{}, fmt.Errorf("deriving the transaction key: %w", err)
	}
	// The bits that are left must lie below those that were walked.
	if left := ksn.Counter() ^ counter; left&counter != 0 || counter != 0 && left > counter&-counter {
		return [16]byte{}, fmt.Errorf("deriving the transaction key: %w: %#x does not lie on the way to %#x", ErrCounter, counter, ksn.Counter())
	}
	return walked(at, counter, ksn)
}

func walked(from *[16]byte, counter uint32, ksn TDESKSN) ([16]byte, error) {
	w := walker{key: *from}
	defer w.clear()
	var err error
	secret.Do(func() { err = w.walk(counter, ksn) })
	if err != nil {
		return [16]byte{}, fmt.Errorf("deriving the transaction key: %w", err)
	}
	return w.key, nil
}

// walker holds the registers of one walk, which Go's DES wants on the heap, in
// one allocation.
type walker struct {
	key, masked [16]byte
	left, right [8]byte
}

func (w *walker) walk(done uint32, ksn TDESKSN) error {
	counter := uint64(ksn.Counter() &^ done)
	register := binary.BigEndian.Uint64(ksn[2:])&^tdesCounterMask | uint64(done)
	for bit := uint64(1) << (tdesCounterBits - 1); bit != 0; bit >>= 1 {
		if counter&bit == 0 {
			continue
		}
		register |= bit
		if err := w.step(register); err != nil {
			return err
		}
	}
	return nil
}

// step replaces the key by the non-reversible key generation of it and the
// crypto register.
func (w *walker) step(register uint64) error {
	w.masked = Companion(&w.key)
	if err := generate(&w.right, &w.key, register); err != nil {
		return err
	}
	if err := generate(&w.left, &w.masked, register); err != nil {
		return err
	}
	copy(w.key[:8], w.left[:])
	copy(w.key[8:], w.right[:])
	return nil
}

func (w *walker) clear() {
	secret.Clear(w.key[:], w.masked[:], w.left[:], w.right[:])
}

// generate sets dst = DES(left half of key, register ⊕ right half) ⊕ right half.
func generate(dst *[8]byte, key *[16]byte, register uint64) error {
	single, err := des.NewCipher(key[:8])
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(dst[:], register)
	subtle.XORBytes(dst[:], dst[:], key[8:])
	single.Encrypt(dst[:], dst[:])
	subtle.XORBytes(dst[:], dst[:], key[8:])
	return nil
}

// WorkingKey returns the working key for a use: the transaction key with one
// byte of each half inverted and, for data keys, each half then enciphered
// under the whole. [MACBoth] is the one MAC key of edition 2004, which serves
// both directions; the direction check then rests on the message type alone.
// Both keys are the caller's to clear. It returns [ErrUse] for uses that
// X9.24-1 has no key for. X9.24-1:2009, annex A.4.1.
func WorkingKey(transaction *[16]byte, use Use) ([16]byte, error) {
	if !use.known() || useRows[use].variant < 0 {
		return [16]byte{}, fmt.Errorf("%w: %s under TDES", ErrUse, use)
	}
	row := useRows[use]
	key := *transaction
	key[row.variant] ^= 0xFF
	key[8+row.variant] ^= 0xFF
	if !row.oneWay {
		return key, nil
	}
	defer secret.Clear(key[:])
	c, err := secret.NewTDES(key[:])
	if err != nil {
		return [16]byte{}, err
	}
	out, err := c.Encrypt(nil, key[:])
	if err != nil {
		return [16]byte{}, err
	}
	defer secret.Clear(out)
	return [16]byte(out), nil
}
