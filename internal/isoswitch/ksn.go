package isoswitch

import (
	"encoding/hex"
	"math/bits"
	"strings"
)

// serial is a KSN taken apart.
type serial struct {
	text    string // as received, upper-case hex
	bytes   []byte // 10 or 12
	device  Device
	counter uint32
}

// parseKSN takes DE 62 apart. It reports false for a KSN that is not one of the
// scheme: wrong length, counter 0, or more one bits in the counter than the
// scheme ever counts to (M-25).
func parseKSN(scheme Scheme, text string) (serial, bool) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return serial{}, false
	}
	s := serial{text: text, bytes: b}
	most := 0
	switch {
	case scheme == TDESDUKPT && len(b) == 10:
		most = 10
		s.counter = uint32(b[7]&0x1F)<<16 | uint32(b[8])<<8 | uint32(b[9])
		var device [10]byte
		copy(device[:], b)
		device[7], device[8], device[9] = b[7]&0xE0, 0, 0
		s.device = Device(strings.ToUpper(hex.EncodeToString(device[:])))
	case scheme == AESDUKPT && len(b) == 12:
		most = 16
		s.counter = uint32(b[8])<<24 | uint32(b[9])<<16 | uint32(b[10])<<8 | uint32(b[11])
		s.device = Device(text[:16])
	default:
		return serial{}, false
	}
	if n := bits.OnesCount32(s.counter); n == 0 || n > most {
		return serial{}, false
	}
	return s, true
}

// freshness is what a KSN counter says of a message.
type freshness uint8

const (
	fresh    freshness = iota // above the last accepted one
	repeated                  // the same bytes were accepted under it
	replayed                  // used before, by other bytes
	tooFar                    // further ahead than a terminal gets
)

// judgeCounter decides on a counter: last is the highest accepted one, 0 for
// none, and same whether exactly these bytes were accepted under counter. M-22, M-24.
func judgeCounter(last, counter, step uint32, same bool) freshness {
	switch {
	case counter > last && counter-last <= step:
		return fresh
	case counter > last:
		return tooFar
	case same:
		return repeated
	}
	return replayed
}
