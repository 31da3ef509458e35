package iso8583

import (
	"slices"

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

// row is one line of the field table.
type row struct {
	de      int
	form    string // as the table writes it
	class   class
	spec    *field.Spec // length in the field's own units, and its prefix
	unit    int         // characters of text for each unit of length
	min     int         // least length, in units; the greatest is spec.Length
	lengths []int       // the only lengths, in units; nil: any between
	in      []presence  // by kind

	packed bool // two digits a byte
	right  bool // an odd digit has its pad nibble before it
	binary bool // bytes, whose text is their hexadecimal digits

	terminalOnly bool              // not on the upstream side (W-08)
	echo         bool              // answers repeat the request's
	mac          bool              // DE 64, DE 128
	ksn          bool              // the KSN of DUKPT
	excludes     int               // a field that cannot stand beside this one
	check        func([]byte) bool // structure beyond characters; nil if none
}

// digits returns how many digits announce the length: 0, 2 or 3.
func (r *row) digits() int {
	switch r.spec.Pref {
	case prefix.ASCII.LL, prefix.BCD.LL:
		return 2
	case prefix.ASCII.LLL, prefix.BCD.LLL:
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
	if r.lengths != nil && !slices.Contains(r.lengths, len(text)/r.unit) {
		return FaultContent
	}
	if r.check != nil && !r.check(text) {
		return FaultContent
	}
	return 0
}

// classOf is the class of a letter of a form.
func classOf(letter string) class {
	switch letter {
	case "n":
		return classN
	case "an":
		return classAN
	case "ans":
		return classANS
	case "z":
		return classZ
	}
	return classHex // h and b
}

// fieldSpec is a field in moov's words: most is its greatest length, dots 0, 2
// or 3 for the digits that announce it.
func (d *Dialect) fieldSpec(dots, most int, bytes bool, name string) *field.Spec {
	s := &field.Spec{Length: most, Description: name, Enc: encoding.ASCII}
	pref := [...]prefix.Prefixer{0: prefix.ASCII.Fixed, 2: prefix.ASCII.LL, 3: prefix.ASCII.LLL}
	if d.packed {
		pref = [...]prefix.Prefixer{0: prefix.BCD.Fixed, 2: prefix.BCD.LL, 3: prefix.BCD.LLL}
	}
	s.Pref = pref[dots]
	switch {
	case bytes && d.packed:
		s.Enc = encoding.Binary
	case bytes:
		s.Enc = encoding.BytesToASCIIHex
	}
	return s
}

// shape is how to step over a field: a fixed number of characters, or a length
// of so many digits, and whether its characters are packed.
type shape struct {
	fixed  int
	digits int
	packed bool
}

// foreignShapes are the fields below DE 41 of ISO 8583:1987, for dialects that
// have not all of them. A message with one that a dialect lacks is refused; to
// refuse it by name the parser must step over the field to DE 11 and DE 41.
func foreignShapes(packed bool) map[int]shape {
	all := map[int]shape{
		5: {fixed: 12}, 6: {fixed: 12}, 7: {fixed: 10}, 8: {fixed: 8}, 9: {fixed: 8}, 10: {fixed: 8},
		15: {fixed: 4}, 16: {fixed: 4}, 17: {fixed: 4}, 18: {fixed: 4}, 19: {fixed: 3},
		20: {fixed: 3}, 21: {fixed: 3}, 23: {fixed: 3}, 24: {fixed: 3}, 26: {fixed: 2},
		27: {fixed: 1}, 33: {digits: 2}, 34: {digits: 2}, 36: {digits: 3},
	}
	for de, s := range all {
		s.packed = packed
		all[de] = s
	}
	fee := shape{fixed: 9} // C or D, and 8 digits
	if packed {
		fee.fixed = 5
	}
	for de := 28; de <= 31; de++ {
		all[de] = fee
	}
	all[40] = shape{fixed: 3}
	return all
}
