package iso8583

import (
	"github.com/moov-io/iso8583/encoding"
	"github.com/moov-io/iso8583/field"
	"github.com/moov-io/iso8583/prefix"
)

// class is the characters that a field may have.
type class uint8

const (
	classN   class = iota + 1 // digits
	classAN                   // letters and digits
	classANS                  // printable ASCII
	classZ                    // digits, = and D: track 2
	classHex                  // upper-case hex digits
)

// holds reports whether every byte of text is of the class.
func (c class) holds(text []byte) bool {
	for _, b := range text {
		if !c.has(b) {
			return false
		}
	}
	return true
}

func (c class) has(b byte) bool {
	digit := '0' <= b && b <= '9'
	switch c {
	case classN:
		return digit
	case classAN:
		return digit || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
	case classANS:
		return ' ' <= b && b <= '~'
	case classZ:
		return digit || b == '=' || b == 'D'
	case classHex:
		return digit || 'A' <= b && b <= 'F'
	}
	return false
}

// presence is whether a message has a field.
type presence uint8

const (
	never presence = iota
	may
	must
)

// kind is a column of the dialect's field table.
type kind uint8

const (
	kindFinancial     kind = iota // 0100, 0200, 0220
	kindReversal                  // 0400, 0401, 0420, 0421
	kindNetwork                   // 0800
	kindAnswer                    // 0110, 0210, 0230, 0410, 0430
	kindNetworkAnswer             // 0810
	kinds
)

// row is one line of the field table.
type row struct {
	de    int
	form  string // as the table writes it
	class class
	spec  *field.Spec // length in the field's own units, and its prefix
	unit  int         // characters of text for each unit of length
	min   int         // least length, in units; the greatest is spec.Length
	in    [kinds]presence

	terminalOnly bool              // not on the upstream side (W-08)
	echo         bool              // answers repeat the request's
	mac          bool              // DE 64, DE 128
	ksn          bool              // DE 62
	excludes     int               // a field that cannot stand beside this one
	check        func([]byte) bool // structure beyond characters; nil if none
}

// digits returns how many characters announce the length: 0, 2 or 3.
func (r *row) digits() int {
	switch r.spec.Pref {
	case prefix.ASCII.LL:
		return 2
	case prefix.ASCII.LLL:
		return 3
	}
	return 0
}

// presence returns whether a message of kind k on side s has the field.
func (r *row) presence(k kind, s Side) presence {
	if r.terminalOnly && s != SideTerminal {
		return never
	}
	return r.in[k]
}

// verify returns the fault of text as a value of the field, or 0.
func (r *row) verify(text []byte) Fault {
	if len(text) < r.min*r.unit || len(text) > r.spec.Length*r.unit || len(text)%r.unit != 0 {
		return FaultLength
	}
	if !r.class.holds(text) {
		return FaultContent
	}
	if r.check != nil && !r.check(text) {
		return FaultContent
	}
	return 0
}

func fixed(n int, name string) *field.Spec {
	return &field.Spec{Length: n, Description: name, Enc: encoding.ASCII, Pref: prefix.ASCII.Fixed}
}

func ll(most int, name string) *field.Spec {
	return &field.Spec{Length: most, Description: name, Enc: encoding.ASCII, Pref: prefix.ASCII.LL}
}

func lll(most int, name string) *field.Spec {
	return &field.Spec{Length: most, Description: name, Enc: encoding.ASCII, Pref: prefix.ASCII.LLL}
}

// lllBytes is a field whose LLL counts bytes and whose text is their hex.
func lllBytes(most int, name string) *field.Spec {
	return &field.Spec{Length: most, Description: name, Enc: encoding.BytesToASCIIHex, Pref: prefix.ASCII.LLL}
}

// shape is how to step over a field: a fixed number of characters, or a length
// of so many digits.
type shape struct {
	fixed  int
	digits int
}

// foreignShapes are the fields below DE 41 that ISO 8583:1987 has and ascii87
// has not. A message with one is refused; to refuse it by name the parser must
// step over the field to DE 11 and DE 41.
func foreignShapes() map[int]shape {
	return map[int]shape{
		5: {fixed: 12}, 6: {fixed: 12}, 8: {fixed: 8}, 9: {fixed: 8}, 10: {fixed: 8},
		15: {fixed: 4}, 16: {fixed: 4}, 17: {fixed: 4}, 18: {fixed: 4}, 19: {fixed: 3},
		20: {fixed: 3}, 21: {fixed: 3}, 23: {fixed: 3}, 24: {fixed: 3}, 26: {fixed: 2},
		27: {fixed: 1}, 28: {fixed: 9}, 29: {fixed: 9}, 30: {fixed: 9}, 31: {fixed: 9},
		33: {digits: 2}, 34: {digits: 2}, 36: {digits: 3}, 40: {fixed: 3},
	}
}
