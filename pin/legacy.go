package pin

import (
	"crypto/subtle"
	"fmt"
)

// The legacy formats, of before ISO 9564: incoming only, and only where
// [Side.Legacy] says so. None binds the PIN to a PAN; all are 8 bytes under
// TDES. IBM CCA, "PIN block formats".
const (
	ECI2  Format = 0x82 // 4 digits, then 12 nibbles of anything
	ECI3  Format = 0x83 // length 4 to 6, 6 digits filled with zeros, 9 nibbles of anything
	VISA2 Format = 0x92 // length 4 to 6, 6 digits filled with zeros, 9 decimal digits of anything
	VISA3 Format = 0x93 // 4 to 12 digits, a nibble F, one nibble repeated to the end
)

var legacyNames = map[Format]string{ECI2: "eci2", ECI3: "eci3", VISA2: "visa2", VISA3: "visa3"}

// ParseLegacy reads "eci2", "eci3", "visa2" or "visa3". It returns [ErrFormat].
func ParseLegacy(name string) (Format, error) {
	for f, known := range legacyNames {
		if known == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%w: %q, want eci2, eci3, visa2 or visa3", ErrFormat, name)
}

// Legacy reports whether f is a format of before ISO 9564.
func (f Format) Legacy() bool { return legacyNames[f] != "" }

// decodeLegacy is decodeField for the legacy formats: neither a branch nor an
// index that depends on the nibbles.
func decodeLegacy(f Format, nibbles *[32]byte) (PIN, int) {
	block := (*[atRandom]byte)(nibbles[:atRandom])
	switch f {
	case ECI2:
		return legacyDigits(block, 0, minPIN, digitsOnly(block[:minPIN]))
	case ECI3:
		return lengthFirst(block, 1)
	case VISA2:
		return lengthFirst(block, digitsOnly(block[7:]))
	}
	return visa3(block)
}

// lengthFirst is the common part of ECI-3 and VISA-2: a length, and six places
// of which those behind the PIN are zero.
func lengthFirst(block *[atRandom]byte, ok int) (PIN, int) {
	const most = 6
	n := int(block[0])
	ok &= subtle.ConstantTimeLessOrEq(minPIN, n) & subtle.ConstantTimeLessOrEq(n, most)
	for i, v := range block[1 : 1+most] {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, n)
		ok &= subtle.ConstantTimeSelect(isPIN, subtle.ConstantTimeLessOrEq(int(v), 9), subtle.ConstantTimeByteEq(v, 0))
	}
	return legacyDigits(block, 1, n, ok)
}

// visa3 finds the first nibble F; what stands before is the PIN, what stands
// behind is one nibble, repeated.
func visa3(block *[atRandom]byte) (PIN, int) {
	n, found := 0, 0
	for _, v := range block {
		found |= subtle.ConstantTimeByteEq(v, 0xF)
		n += 1 - found
	}
	ok := found & subtle.ConstantTimeLessOrEq(minPIN, n) & subtle.ConstantTimeLessOrEq(n, maxPIN)
	for i, v := range block {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, n)
		isPad := subtle.ConstantTimeLessOrEq(n+2, i)
		samePad := subtle.ConstantTimeByteEq(v, block[atRandom-1])
		ok &= subtle.ConstantTimeSelect(isPIN, subtle.ConstantTimeLessOrEq(int(v), 9), 1)
		ok &= subtle.ConstantTimeSelect(isPad, samePad, 1)
	}
	return legacyDigits(block, 0, n, ok)
}

func digitsOnly(nibbles []byte) int {
	ok := 1
	for _, v := range nibbles {
		ok &= subtle.ConstantTimeLessOrEq(int(v), 9)
	}
	return ok
}

// legacyDigits takes n digits from the place at, or a substitute of four zeros.
func legacyDigits(block *[atRandom]byte, at, n, ok int) (PIN, int) {
	p := PIN{n: subtle.ConstantTimeSelect(ok, n, minPIN)}
	for i := range p.digits {
		isPIN := subtle.ConstantTimeLessOrEq(i+1, n) & ok
		p.digits[i] = block[at+i] & byte(-isPIN)
	}
	return p, ok
}
