package dukpt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"
)

const (
	tdesCounterBits = 21
	tdesCounterMask = 1<<tdesCounterBits - 1
	tdesMostOnes    = 10
	aesMostOnes     = 16
)

// TDESKSN is the key serial number of X9.24-1: 59 bits of identity (the BDK
// and the device), then 21 bits of counter. It is not secret. How the identity
// is divided is between the acquirer and its terminals.
type TDESKSN [10]byte

// ParseTDESKSN reads 20 hexadecimal digits of either case; a serial number
// filled with F on the left to that length is read like any other. It does not
// ask whether the counter is valid. It returns [ErrKSN].
func ParseTDESKSN(text string) (TDESKSN, error) {
	var k TDESKSN
	err := parseHex(k[:], text)
	return k, err
}

// ParseShortTDESKSN reads the 16-digit form of old message dialects, whose
// leading FFFF is left out. It returns [ErrKSN].
func ParseShortTDESKSN(text string) (TDESKSN, error) {
	k := TDESKSN{0xFF, 0xFF}
	err := parseHex(k[2:], text)
	return k, err
}

// ParseAESKSN reads 24 hexadecimal digits of either case. It does not ask
// whether the counter is valid. It returns [ErrKSN].
func ParseAESKSN(text string) (AESKSN, error) {
	var k AESKSN
	err := parseHex(k[:], text)
	return k, err
}

// TDESKSNFromBytes takes the binary form, exactly 10 bytes. It returns [ErrKSN].
func TDESKSNFromBytes(b []byte) (TDESKSN, error) {
	var k TDESKSN
	if len(b) != len(k) {
		return k, fmt.Errorf("%w: %d bytes, want %d", ErrKSN, len(b), len(k))
	}
	return TDESKSN(b), nil
}

// AESKSNFromBytes takes the binary form, exactly 12 bytes. It returns [ErrKSN].
func AESKSNFromBytes(b []byte) (AESKSN, error) {
	var k AESKSN
	if len(b) != len(k) {
		return k, fmt.Errorf("%w: %d bytes, want %d", ErrKSN, len(b), len(k))
	}
	return AESKSN(b), nil
}

// String returns 20 upper-case hexadecimal digits.
func (k TDESKSN) String() string { return strings.ToUpper(hex.EncodeToString(k[:])) }

// Counter returns the low 21 bits.
func (k TDESKSN) Counter() uint32 {
	return binary.BigEndian.Uint32(k[6:]) & tdesCounterMask
}

// Device returns the serial number with the counter cleared: what is the same
// in all transactions of one device under one BDK.
func (k TDESKSN) Device() TDESKSN { return k.withCounter(0) }

// Valid returns [ErrCounter] when the counter is zero or has more than ten one
// bits. X9.24-1:2009, annex A.3.
func (k TDESKSN) Valid() error {
	return validCounter(k.Counter(), tdesMostOnes)
}

// Next returns the serial number of the device's next transaction: the next
// counter with at most ten one bits. The initial serial number, counter zero,
// has a next one too. It returns [ErrExhausted] after the last and
// [ErrCounter] from a counter that no device reaches. X9.24-1:2009, annex A.3.
func (k TDESKSN) Next() (TDESKSN, error) {
	next, err := nextCounter(k.Counter(), tdesMostOnes, tdesCounterMask)
	if err != nil {
		return TDESKSN{}, err
	}
	return k.withCounter(next), nil
}

func (k TDESKSN) withCounter(counter uint32) TDESKSN {
	tail := binary.BigEndian.Uint32(k[6:])&^tdesCounterMask | counter
	binary.BigEndian.PutUint32(k[6:], tail)
	return k
}

// AESKSN is the key serial number of X9.24-3: 4 bytes BDK id, 4 bytes
// derivation id (the device), 4 bytes counter. It is not secret.
type AESKSN [12]byte

// String returns 24 upper-case hexadecimal digits.
func (k AESKSN) String() string { return strings.ToUpper(hex.EncodeToString(k[:])) }

// Counter returns the last four bytes.
func (k AESKSN) Counter() uint32 { return binary.BigEndian.Uint32(k[8:]) }

// InitialKeyID returns the first eight bytes: BDK id and derivation id.
func (k AESKSN) InitialKeyID() [8]byte { return [8]byte(k[:8]) }

// Device returns the serial number with the counter cleared: what is the same
// in all transactions of one device under one BDK.
func (k AESKSN) Device() AESKSN { return k.withCounter(0) }

// Valid returns [ErrCounter] when the counter is zero or has more than sixteen
// one bits. X9.24-3:2017, section 6.3.
func (k AESKSN) Valid() error { return validCounter(k.Counter(), aesMostOnes) }

// Next returns the serial number of the device's next transaction: the next
// counter with at most sixteen one bits. The initial serial number, counter
// zero, has a next one too. It returns [ErrExhausted] after the last and
// [ErrCounter] from a counter that no device reaches. X9.24-3:2017, section 6.3.
func (k AESKSN) Next() (AESKSN, error) {
	next, err := nextCounter(k.Counter(), aesMostOnes, 1<<32-1)
	if err != nil {
		return AESKSN{}, err
	}
	return k.withCounter(next), nil
}

func (k AESKSN) withCounter(counter uint32) AESKSN {
	binary.BigEndian.PutUint32(k[8:], counter)
	return k
}

func validCounter(counter uint32, most int) error {
	if counter == 0 {
		return fmt.Errorf("%w: zero is the initial serial number and has no transaction key", ErrCounter)
	}
	if n := bits.OnesCount32(counter); n > most {
		return fmt.Errorf("%w: %d one bits, at most %d", ErrCounter, n, most)
	}
	return nil
}

// nextCounter counts on. A number one above the limit of one bits is followed
// by the one whose lowest one bit has been carried.
func nextCounter(counter uint32, most int, mask uint64) (uint32, error) {
	if counter != 0 {
		if err := validCounter(counter, most); err != nil {
			return 0, err
		}
	}
	next := uint64(counter) + 1
	for bits.OnesCount64(next) > most {
		next += next & -next
	}
	if next > mask {
		return 0, ErrExhausted
	}
	return uint32(next), nil
}

func parseHex(dst []byte, text string) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("%w: %d characters, want %d hexadecimal digits", ErrKSN, len(text), 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(text)); err != nil {
		return fmt.Errorf("%w: want %d hexadecimal digits", ErrKSN, 2*len(dst))
	}
	return nil
}
