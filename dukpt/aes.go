package dukpt

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"

	"keyd.dev/keyd/internal/secret"
)

// Step is one derivation of X9.24-3: what to encipher, and what becomes of it.
type Step struct {
	// Type is the algorithm and length of the key that the step makes.
	Type KeyType
	data [32]byte
}

// Data returns the derivation data, 16 bytes or, for a key longer than a
// block, 32. The new key is the ECB encryption of it under the deriving key,
// cut to the length of Type. X9.24-3:2017, section 6.3.2 and 6.3.3.
func (s *Step) Data() []byte {
	if s.Type.Bytes() > 16 {
		return s.data[:]
	}
	return s.data[:16]
}

// newStep fills in the derivation data; tail is the initial key id, or
// derivation id and counter.
func newStep(t KeyType, usage uint16, tail [8]byte) Step {
	s := Step{Type: t}
	for i := range 2 {
		block := s.data[16*i:]
		block[0] = 1           // version
		block[1] = byte(i + 1) // key block counter
		binary.BigEndian.PutUint16(block[2:], usage)
		binary.BigEndian.PutUint16(block[4:], keyTypes[t].algorithm)
		binary.BigEndian.PutUint16(block[6:], uint16(8*t.Bytes()))
		copy(block[8:], tail[:])
	}
	return s
}

// InitialKeyStep derives the initial key of the device id under the BDK, whose
// type bdk the initial key shares; it must be one of the AES types.
// X9.24-3:2017, section 6.3.2.
func InitialKeyStep(id [8]byte, bdk KeyType) Step {
	return newStep(bdk, usageInitialKey, id)
}

// Steps yields, in order, the derivations that lead from the initial key, of
// type bdk, to the transaction key of ksn: one for each one bit of the counter,
// from the highest down, each under the key that the one before made. A
// counter that is not valid yields all the same, the update key's among them;
// ask [AESKSN.Valid] first. X9.24-3:2017, section 6.3.3.
func Steps(ksn AESKSN, bdk KeyType) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		register := uint32(0)
		for rest := ksn.Counter(); rest != 0; {
			bit := uint32(1) << (bits.Len32(rest) - 1)
			rest &^= bit
			register |= bit
			if !yield(registerStep(ksn, bdk, register)) {
				return
			}
		}
	}
}

func registerStep(ksn AESKSN, bdk KeyType, register uint32) Step {
	at := ksn.withCounter(register)
	return newStep(bdk, usageDerivation, [8]byte(at[4:]))
}

// WorkingKeyStep derives the working key of type t for a use, under the
// transaction key of ksn, whose type is that of the BDK. It returns [ErrUse]
// for an unknown use or type and [ErrStrength] when t is stronger than bdk.
// X9.24-3:2017, sections 6.1.3 and 6.3.3.
func WorkingKeyStep(ksn AESKSN, bdk KeyType, use Use, t KeyType) (Step, error) {
	switch {
	case !use.known() || !t.known() || !bdk.Derives():
		return Step{}, fmt.Errorf("%w: %s of type %s under %s", ErrUse, use, t, bdk)
	case t.StrongerThan(bdk):
		return Step{}, fmt.Errorf("%w: %s under %s", ErrStrength, t, bdk)
	}
	return newStep(t, useRows[use].code, [8]byte(ksn[4:])), nil
}

// updateCounter is the counter value, never a transaction's, from which the
// key is derived that brings a device a new initial key.
const updateCounter = 1<<32 - 1

// UpdateKSN returns the serial number of the DUKPT update key of a device: its
// counter is FFFFFFFF, its working key that of [KeyEncryption]. It is not
// [AESKSN.Valid]; [Steps] gives its 32 derivations, [AESUpdateKey] the key.
func UpdateKSN(id [8]byte) AESKSN {
	var k AESKSN
	copy(k[:], id[:])
	return k.withCounter(updateCounter)
}

// Derive carries out one step in the process: it sets dst to the key that step
// makes of key. dst may be key. Both are the caller's to clear. It returns
// [ErrUse] when key is of a type that derives nothing.
func Derive(dst, key *Key, step *Step) error {
	if !key.kind.Derives() {
		return fmt.Errorf("%w: a %s key derives nothing", ErrUse, key.kind)
	}
	c, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyLength, err)
	}
	out := make([]byte, 32)
	defer secret.Clear(out)
	for i := 0; i < len(step.Data()); i += aes.BlockSize {
		c.Encrypt(out[i:], step.Data()[i:])
	}
	dst.Clear()
	dst.kind = step.Type
	copy(dst.Bytes(), out)
	return nil
}

// AESInitialKey derives the initial key of the device id from a clear BDK. It
// returns [ErrUse] when bdk is no AES key.
func AESInitialKey(bdk *Key, id [8]byte) (Key, error) {
	var ik Key
	step := InitialKeyStep(id, bdk.kind)
	err := Derive(&ik, bdk, &step)
	return ik, err
}

// AESWalk derives the transaction key of ksn from the clear initial key of its
// device. It returns [ErrCounter], or [ErrUse] when ik is no AES key.
func AESWalk(ik *Key, ksn AESKSN) (Key, error) {
	return AESWalkFrom(ik, 0, ksn)
}

// AESWalkFrom is the rest of [AESWalk] from an intermediate key: the one that
// Steps has reached with register, whose one bits are the highest of ksn's
// counter; register 0 is the initial key. So a walk can begin in a token and
// end in the process. key stays as it is. It returns [ErrCounter] also when
// register is not on the way to the counter.
func AESWalkFrom(key *Key, register uint32, ksn AESKSN) (Key, error) {
	if err := ksn.Valid(); err != nil {
		return Key{}, fmt.Errorf("deriving the transaction key: %w", err)
	}
	rest := ksn.Counter() &^ register
	if register&^ksn.Counter() != 0 || register != 0 && rest >= register&-register {
		return Key{}, fmt.Errorf("deriving the transaction key: %w: register %08X is not on its way", ErrCounter, register)
	}
	return walkFrom(key, register, ksn)
}

func walkFrom(key *Key, register uint32, ksn AESKSN) (Key, error) {
	at := *key
	var err error
	secret.Do(func() { err = at.walk(register, ksn) })
	if err != nil {
		at.Clear()
		return Key{}, err
	}
	return at, nil
}

func (k *Key) walk(register uint32, ksn AESKSN) error {
	for rest := ksn.Counter() &^ register; rest != 0; {
		bit := uint32(1) << (bits.Len32(rest) - 1)
		rest &^= bit
		register |= bit
		step := registerStep(ksn, k.kind, register)
		if err := Derive(k, k, &step); err != nil {
			return err
		}
	}
	return nil
}

// AESWorkingKey derives the working key of type t for a use from the clear
// transaction key of ksn. It returns the errors of [WorkingKeyStep].
func AESWorkingKey(transaction *Key, ksn AESKSN, use Use, t KeyType) (Key, error) {
	step, err := WorkingKeyStep(ksn, transaction.kind, use, t)
	if err != nil {
		return Key{}, err
	}
	var key Key
	err = Derive(&key, transaction, &step)
	return key, err
}

// AESUpdateKey derives, from the clear initial key of the device id, the key
// of type t under which the device takes a new initial key. No transaction has
// this key. It returns the errors of [WorkingKeyStep].
func AESUpdateKey(ik *Key, id [8]byte, t KeyType) (Key, error) {
	ksn := UpdateKSN(id)
	transaction, err := walkFrom(ik, 0, ksn)
	if err != nil {
		return Key{}, err
	}
	defer transaction.Clear()
	return AESWorkingKey(&transaction, ksn, KeyEncryption, t)
}
