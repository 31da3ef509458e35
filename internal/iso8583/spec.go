package iso8583

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

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

// New makes a dialect of its description. It returns [ErrSpec], saying what is
// wrong where, for one that no message could follow, and for one that leaves
// class 1, 2 or 4 without a MAC (M-06, A-07).
func New(s Spec) (*Dialect, error) {
	d := &Dialect{
		name: s.Name, spec: s, packed: s.Wire == WireBCD, head: s.Head, mac: s.MAC,
		types: map[MTI]messageType{}, incomplete: s.Incomplete, ksn: s.KSN, ksnFill: s.KSNFill,
		foreign: foreignShapes(s.Wire == WireBCD),
	}
	if err := d.checkForm(s); err != nil {
		return nil, err
	}
	for _, m := range s.Messages {
		if err := d.addMessage(m); err != nil {
			return nil, err
		}
	}
	for _, f := range s.Fields {
		if err := d.addField(f); err != nil {
			return nil, err
		}
	}
	d.addMAC(64)
	if d.wide {
		d.addMAC(128)
	}
	for _, r := range d.rows {
		if r != nil {
			d.table = append(d.table, r)
		}
	}
	return d, d.checkFields(s)
}

func (d *Dialect) checkForm(s Spec) error {
	switch {
	case s.Name == "":
		return specError("name", "is empty")
	case s.Wire != WireASCII && s.Wire != WireBCD:
		return specError("wire", "%q is neither %q nor %q", s.Wire, WireASCII, WireBCD)
	case s.Head.TPDU != 0 && s.Head.TPDU != 5:
		return specError("tpdu_len", "a TPDU has 5 bytes, not %d", s.Head.TPDU)
	case s.Head.Swap && s.Head.TPDU == 0:
		return specError("tpdu_swap", "there is no TPDU to swap")
	case s.Head.ANI < 0 || s.Head.ANI > 64:
		return specError("ani_len", "%d is not 0 to 64", s.Head.ANI)
	case s.Head.Header < 0 || s.Head.Header > 64:
		return specError("header_len", "%d is not 0 to 64", s.Head.Header)
	case s.MAC.size() == 0:
		return specError("mac.form", "%q is not one of %v", s.MAC, MACForms())
	case len(s.Messages) == 0:
		return specError("message", "there is none")
	case s.KSNFill != 0 && s.KSN == 0:
		return specError("ksn.fill", "there is no KSN to fill")
	case s.KSNFill != 0 && s.KSNFill != 20 && s.KSNFill != 24:
		return specError("ksn.fill", "a KSN has 20 or 24 digits, not %d", s.KSNFill)
	}
	return nil
}

var mtiForm = regexp.MustCompile(`^[012][0-9]{3}$`)

// addMessage enters the types of a group and of their answers.
func (d *Dialect) addMessage(m MessageSpec) error {
	request, answer := kind(len(d.columns)), kind(len(d.columns)+1)
	d.columns = append(d.columns, column{spec: m, oneOf: m.OneOf}, column{spec: m, answer: true})
	at := "message." + m.Name
	if len(m.Types) == 0 {
		return specError(at+".types", "there is none")
	}
	for _, mti := range m.Types {
		switch {
		case !mtiForm.MatchString(string(mti)) || !mti.IsRequest():
			return specError(at+".types", "%q is no message type of a request", mti)
		case d.types[mti].mti != "":
			return specError(at+".types", "%s stands in two messages", mti)
		case (m.NoMAC || m.MayMAC) && MACNeeded(mti.Class()):
			return specError(at+".mac", "%s would go without a MAC; classes 1, 2 and 4 always have one", mti)
		}
		back, ok := d.types[mti.Response()]
		if ok && back.kind != answer {
			return specError(at+".types", "the answer to %s stands in two messages", mti)
		}
		d.types[mti] = messageType{mti, request}
		d.types[mti.Response()] = messageType{mti.Response(), answer}
	}
	return nil
}

// MACNeeded reports whether messages of a class always have a MAC: authorization,
// financial and reversal. M-06, U-87.
func MACNeeded(class byte) bool { return class == '1' || class == '2' || class == '4' }

var fieldForm = regexp.MustCompile(`^(n|ans|an|z|h|b)(\.{2,3})?([1-9][0-9]{0,2})$`)

// addField enters a field.
func (d *Dialect) addField(f FieldSpec) error {
	at := fmt.Sprintf("field %d", f.DE)
	parts := fieldForm.FindStringSubmatch(f.Form)
	switch {
	case f.DE < 2 || f.DE > 127 || f.DE == 64 || f.DE == 65:
		return specError(at, "a field has a number from 2 to 127, and is neither 64 nor 65")
	case d.rows[f.DE] != nil:
		return specError(at, "stands twice")
	case parts == nil:
		return specError(at+".form", "%q is no form, n6, an..25 or b...255 say", f.Form)
	}
	most, _ := strconv.Atoi(parts[3])
	r := &row{
		de: f.DE, form: f.Want, class: classOf(parts[1]), unit: 1, min: f.Min, lengths: f.Lengths,
		packed: d.packed && (parts[1] == "n" || parts[1] == "z"), binary: d.packed && parts[1] == "b", right: f.Right,
		in: make([]presence, len(d.columns)), terminalOnly: f.Terminal, echo: f.Echo, excludes: f.Excludes,
	}
	if r.form == "" {
		r.form = f.Form
	}
	if parts[1] == "b" {
		r.unit = 2
	}
	dots := len(parts[2])
	r.spec = d.fieldSpec(dots, most, parts[1] == "b", f.Name)
	switch {
	case dots == 0 && f.Min != 0:
		return specError(at+".min", "the field has one length")
	case dots == 2 && most > 99:
		return specError(at+".form", "%q needs three dots for more than 99", f.Form)
	case r.min < 0 || r.min > most:
		return specError(at+".min", "%d is not 1 to %d", f.Min, most)
	case f.Right && (dots != 0 || !r.packed):
		return specError(at+".align", "only packed numbers of one length are aligned")
	}
	for _, n := range f.Lengths {
		if dots == 0 || n < 1 || n > most {
			return specError(at+".lengths", "%d does not fit %s", n, f.Form)
		}
	}
	switch {
	case dots == 0:
		r.min = most
	case r.min == 0:
		r.min = 1
	}
	switch f.Shape {
	case "":
	case ShapeReplacement:
		r.check = isReplacement
	default:
		return specError(at+".shape", "%q is not %q", f.Shape, ShapeReplacement)
	}
	d.rows[f.DE] = r
	d.wide = d.wide || f.DE > 64
	return nil
}

// addMAC enters DE 64 or DE 128.
func (d *Dialect) addMAC(de int) {
	r := &row{de: de, form: d.mac.form(), class: classHex, unit: 1, min: d.mac.size(), mac: true, in: make([]presence, len(d.columns))}
	r.spec = d.fieldSpec(0, d.mac.size(), false, "MAC")
	if d.mac.raw() {
		r.unit, r.binary = 2, true
	}
	for k := range d.columns {
		if !d.columns[k].spec.NoMAC {
			r.in[k] = may
		}
	}
	d.rows[de] = r
}

// checkFields enters which messages have which fields, and refuses lists that
// name one that there is not.
func (d *Dialect) checkFields(s Spec) error {
	for k, c := range d.columns {
		m, must_, may_, at := c.spec, c.spec.Must, c.spec.May, "message."+c.spec.Name
		if c.answer {
			must_, may_ = m.AnswerMust, m.AnswerMay
		}
		for _, list := range []struct {
			des []int
			p   presence
		}{{must_, must}, {may_, may}} {
			for _, de := range list.des {
				if de < 2 || de > 128 || d.rows[de] == nil || d.rows[de].mac {
					return specError(at, "names field %d, which is not described", de)
				}
				if d.rows[de].in[k] != never {
					return specError(at, "names field %d twice", de)
				}
				d.rows[de].in[k] = list.p
			}
		}
		for _, de := range []int{11, 41} {
			if d.rows[de] == nil || d.rows[de].in[k] != must {
				return specError(at, "must have field %d, by which an answer finds its way", de)
			}
		}
		for _, de := range c.oneOf {
			if d.rows[de] == nil || d.rows[de].in[k] != may {
				return specError(at+".one_of", "field %d is not one that it may have", de)
			}
		}
		if c.answer && (d.rows[39] == nil || d.rows[39].in[k] != must) {
			return specError(at, "an answer must have field 39")
		}
	}
	if s.KSN != 0 && (s.KSN > 128 || d.rows[s.KSN] == nil || d.rows[s.KSN].class != classHex || d.rows[s.KSN].mac) {
		return specError("ksn.field", "field %d is not described, or not of form h or b", s.KSN)
	}
	if s.KSN != 0 {
		d.rows[s.KSN].ksn = true
	}
	for _, f := range s.Fields {
		if f.Excludes != 0 && (f.Excludes < 2 || f.Excludes > 127 || d.rows[f.Excludes] == nil) {
			return specError(fmt.Sprintf("field %d.excludes", f.DE), "field %d is not described", f.Excludes)
		}
		if !slices.ContainsFunc(d.rows[f.DE].in, func(p presence) bool { return p != never }) {
			return specError(fmt.Sprintf("field %d", f.DE), "no message has it")
		}
	}
	return nil
}

// SpecError is a description of a dialect that is refused. At is the key in the
// words of a profile file.
type SpecError struct{ At, Why string }

func (e *SpecError) Error() string { return fmt.Sprintf("iso8583: %s: %s", e.At, e.Why) }

// Is makes every SpecError [ErrSpec].
func (e *SpecError) Is(target error) bool { return target == ErrSpec }

func specError(at, format string, args ...any) error {
	return &SpecError{At: at, Why: fmt.Sprintf(format, args...)}
}
