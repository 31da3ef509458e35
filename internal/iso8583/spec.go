package iso8583

import "fmt"

// Spec is a dialect as data: what [New] makes a [Dialect] of. A profile file
// holds one (internal/profile).
type Spec struct {
	Name string
	Wire Wire
	// Head is what stands before the MTI. No MAC covers it (M-02).
	Head Head
	// MAC is the form of DE 64, and of DE 128 in a dialect with fields above 64.
	MAC MACForm
	// KSN is the field of the key serial number as hexadecimal digits; 0 where
	// the dialect has none. KSNFill is the number of digits that a shorter one is
	// filled to with F on the left; 0 where it always comes whole.
	KSN, KSNFill int
	// Incomplete are the codes of DE 39 whose answers may lack all but DE 11, 39
	// and 41: they answer what could not be read whole (W-01, W-18).
	Incomplete []string
	Messages   []MessageSpec
	Fields     []FieldSpec
}

// Wire is how values stand in a message.
type Wire string

// The wire forms.
const (
	// WireASCII: digits and hexadecimal as characters, the bitmap as 16 or 32
	// hexadecimal digits. W-02.
	WireASCII Wire = "ascii"
	// WireBCD: the MTI, numbers and tracks packed two digits a byte, on the left,
	// the pad nibble 0; the bitmap and binary fields as they are. U-01, U-08 to
	// U-10.
	WireBCD Wire = "bcd"
)

// Head is the sizes of what stands before the MTI, in bytes. U-01 to U-06.
type Head struct {
	TPDU   int  // 0 or 5
	ANI    int  // 0 to 64: the caller's number on some private lines
	Header int  // 0 to 64
	Swap   bool // an answer has destination and source of the TPDU exchanged (U-03)
}

// size is the length of the head in bytes.
func (h Head) size() int { return h.TPDU + h.ANI + h.Header }

// MessageSpec is a group of message types with the same fields, and their
// answers'.
type MessageSpec struct {
	Name  string
	Types []MTI // requests, advices and repeats
	// Must and May are the fields of the requests, AnswerMust and AnswerMay those
	// of their answers. A field in none of them is refused. The MAC is in neither.
	Must, May, AnswerMust, AnswerMay []int
	// OneOf are fields of which a request must have at least one.
	OneOf []int
	// NoMAC: these messages have no MAC, so that one is refused. Never for the
	// classes 1, 2 and 4 (M-06).
	NoMAC bool
	// MayMAC: they may go without. Never for the classes 1, 2 and 4.
	MayMAC bool
}

// macNeeded reports whether the messages always have a MAC.
func (m MessageSpec) macNeeded() bool { return !m.NoMAC && !m.MayMAC }

// FieldSpec is one field.
type FieldSpec struct {
	DE   int
	Name string
	// Form is n digits, a letter for its characters and its length: n6, an12,
	// b8 (bytes), or with two dots LLVAR, n..19, with three LLLVAR, b...255. The
	// letters are n digits; an letters and digits; ans printable ASCII; z track
	// data; h hexadecimal digits as characters; b bytes. Lengths of b count
	// bytes, those of all others characters.
	Form string
	Want string // what a complaint says is wanted; Form where it is empty
	Min  int    // least length of a variable field; 1 where it is 0
	// Lengths are the only lengths; any between Min and the greatest when empty.
	Lengths []int
	// Right: an odd number of digits of fixed length has its pad nibble on the
	// left. WireBCD only.
	Right    bool
	Echo     bool      // answers repeat the request's
	Terminal bool      // only between terminal and keyd (W-08)
	Excludes int       // a field that cannot stand beside this one
	Shape    ShapeName // a structure beyond characters
}

// ShapeName names a structure that a field's content must have.
type ShapeName string

// ShapeReplacement is DE 95 with an actual amount alone: 12 digits and 30 zeros.
const ShapeReplacement ShapeName = "replacement_amount"

// MACNeeded reports whether messages of a class always have a MAC: authorization,
// financial and reversal. M-06, U-87.
func MACNeeded(class byte) bool { return class == '1' || class == '2' || class == '4' }

// SpecError is a description of a dialect that is refused. At is the key in the
// words of a profile file.
type SpecError struct{ At, Why string }

func (e *SpecError) Error() string { return fmt.Sprintf("iso8583: %s: %s", e.At, e.Why) }

// Is makes every SpecError [ErrSpec].
func (e *SpecError) Is(target error) bool { return target == ErrSpec }
