package iso8583

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// New makes a dialect of its description. It returns all that is wrong with it,
// joined, each a [SpecError]: what no message could follow, and what leaves class
// 1, 2 or 4 without a MAC (M-06, A-07).
func New(s Spec) (*Dialect, error) {
	d := &specReader{Dialect: &Dialect{
		name: s.Name, spec: s, packed: s.Wire == WireBCD, head: s.Head, mac: s.MAC,
		types: map[MTI]messageType{}, incomplete: s.Incomplete, ksn: s.KSN, ksnFill: s.KSNFill,
		foreign: foreignShapes(s.Wire == WireBCD),
	}}
	d.form(s)
	for _, m := range s.Messages {
		d.message(m)
	}
	for _, f := range s.Fields {
		d.field(f)
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
	for k := range d.columns {
		d.lists(kind(k))
	}
	d.relations(s)
	if len(d.found) > 0 {
		return nil, errors.Join(d.found...)
	}
	return d.Dialect, nil
}

// specReader makes a dialect and collects what is wrong with its description.
type specReader struct {
	*Dialect
	found []error
}

// want notes a fault at a key, in the words of a profile file, unless ok.
func (d *specReader) want(ok bool, at, format string, args ...any) bool {
	if !ok {
		d.found = append(d.found, &SpecError{At: at, Why: fmt.Sprintf(format, args...)})
	}
	return ok
}

func (d *specReader) form(s Spec) {
	h := s.Head
	d.want(s.Name != "", "name", "is empty")
	d.want(s.Wire == WireASCII || s.Wire == WireBCD, "wire", "%q is neither %q nor %q", s.Wire, WireASCII, WireBCD)
	d.want(h.TPDU == 0 || h.TPDU == 5, "tpdu_len", "a TPDU has 5 bytes, not %d", h.TPDU)
	d.want(!h.Swap || h.TPDU == 5, "tpdu_swap", "there is no TPDU to swap")
	d.want(0 <= h.ANI && h.ANI <= 64, "ani_len", "%d is not 0 to 64", h.ANI)
	d.want(0 <= h.Header && h.Header <= 64, "header_len", "%d is not 0 to 64", h.Header)
	d.want(s.MAC.size() > 0, "mac.format", "%q is not one of %q", s.MAC, MACForms())
	d.want(len(s.Messages) > 0, "message", "there is none")
	d.want(s.KSNFill == 0 || s.KSNFill == 20 || s.KSNFill == 24, "ksn.fill", "a KSN has 20 or 24 digits, not %d", s.KSNFill)
}

var mtiForm = regexp.MustCompile(`^[012][0-9]{3}$`)

// message enters the types of a group and of their answers.
func (d *specReader) message(m MessageSpec) {
	request, answer := kind(len(d.columns)), kind(len(d.columns)+1)
	d.columns = append(d.columns, column{spec: m, oneOf: m.OneOf}, column{spec: m, answer: true})
	at := "message." + m.Name
	d.want(len(m.Types) > 0, at+".types", "there is none")
	for _, mti := range m.Types {
		if !d.want(mtiForm.MatchString(string(mti)) && mti.IsRequest(), at+".types", "%q is no message type of a request", mti) {
			continue
		}
		d.want(d.types[mti].mti == "", at+".types", "%s stands twice", mti)
		d.want(m.macNeeded() || !MACNeeded(mti.Class()), at+".mac", "%s could come without a MAC; the classes 1, 2 and 4 always have one", mti)
		back, ok := d.types[mti.Response()]
		d.want(!ok || back.kind == answer, at+".types", "the answer to %s stands in another message", mti)
		d.types[mti] = messageType{mti, request}
		d.types[mti.Response()] = messageType{mti.Response(), answer}
	}
}

var fieldForm = regexp.MustCompile(`^(n|ans|an|z|h|b)(\.{2,3})?([1-9][0-9]{0,2})$`)

// field enters a field.
func (d *specReader) field(f FieldSpec) {
	at := fmt.Sprintf("field.%d", f.DE)
	parts := fieldForm.FindStringSubmatch(f.Form)
	ok := d.want(f.DE >= 2 && f.DE <= 127 && f.DE != 64 && f.DE != 65, at+".de", "a field has a number from 2 to 127, and is neither 64 nor 65")
	ok = ok && d.want(d.rows[f.DE] == nil, at+".de", "stands twice")
	if !d.want(parts != nil, at+".form", "%q is no form; n6, an..25 or b...255 are", f.Form) || !ok {
		return
	}
	most, _ := strconv.Atoi(parts[3]) // three digits at most
	letter, dots := parts[1], len(parts[2])
	r := &row{
		de: f.DE, form: f.Want, class: classOf(letter), unit: 1, min: f.Min, lengths: f.Lengths,
		packed: d.packed && (letter == "n" || letter == "z"), binary: d.packed && letter == "b", right: f.Right,
		in: make([]presence, len(d.columns)), terminalOnly: f.Terminal, echo: f.Echo, excludes: f.Excludes,
		spec: d.fieldSpec(dots, most, letter == "b", f.Name),
	}
	if letter == "b" {
		r.unit = 2
	}
	if r.form == "" {
		r.form = f.Form
	}
	if dots == 0 {
		r.min = most
	}
	r.min = max(r.min, 1)
	if f.Shape == ShapeReplacement {
		r.check = isReplacement
	}
	d.want(dots > 0 || f.Min == 0 && len(f.Lengths) == 0, at+".min", "a field of form %s has one length", f.Form)
	d.want(dots != 2 || most <= 99, at+".form", "%q needs three dots: two digits count to 99", f.Form)
	d.want(0 <= f.Min && f.Min <= most, at+".min", "%d is not 1 to %d", f.Min, most)
	d.want(!f.Right || dots == 0 && r.packed, at+".align", "only packed numbers of one length are aligned")
	for _, n := range f.Lengths {
		d.want(r.min <= n && n <= most, at+".lengths", "%d is not %d to %d", n, r.min, most)
	}
	d.want(f.Shape == "" || r.check != nil, at+".shape", "%q is not %q", f.Shape, ShapeReplacement)
	d.rows[f.DE] = r
	d.wide = d.wide || f.DE > 64
}

// addMAC enters DE 64 or DE 128.
func (d *specReader) addMAC(de int) {
	r := &row{
		de: de, form: d.mac.form(), class: classHex, unit: 1, min: d.mac.size(), mac: true,
		in: make([]presence, len(d.columns)), spec: d.fieldSpec(0, d.mac.size(), false, "MAC"),
	}
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

// lists enters which fields the messages of a column have.
func (d *specReader) lists(k kind) {
	c := d.columns[k]
	at, mustHave, mayHave := "message."+c.spec.Name, c.spec.Must, c.spec.May
	names := [2]string{".must", ".may"}
	if c.answer {
		mustHave, mayHave, names = c.spec.AnswerMust, c.spec.AnswerMay, [2]string{".answer_must", ".answer_may"}
	}
	enter := func(des []int, p presence, list string) {
		for _, de := range des {
			r := d.described(de)
			if d.want(r != nil && !r.mac, at+list, "field %d is not described", de) {
				d.want(r.in[k] == never, at+list, "field %d stands twice", de)
				r.in[k] = p
			}
		}
	}
	enter(mustHave, must, names[0])
	enter(mayHave, may, names[1])
	needs := []int{11, 41} // by which an answer finds its way
	if c.answer {
		needs = append(needs, 39)
	}
	for _, de := range needs {
		r := d.described(de)
		d.want(r != nil && r.in[k] == must, at+names[0], "lacks field %d", de)
	}
	for _, de := range c.oneOf {
		r := d.described(de)
		d.want(r != nil && r.in[k] == may, at+".one_of", "field %d is not one that it may have", de)
	}
}

// relations checks what fields say of each other.
func (d *specReader) relations(s Spec) {
	if s.KSN != 0 {
		r := d.described(s.KSN)
		if d.want(r != nil && !r.mac && r.class == classHex, "ksn.field", "field %d is not described, or its form is neither h nor b", s.KSN) {
			r.ksn = true
		}
	}
	d.want(s.KSNFill == 0 || s.KSN != 0, "ksn.fill", "there is no KSN to fill")
	for _, f := range s.Fields {
		at := fmt.Sprintf("field.%d", f.DE)
		d.want(f.Excludes == 0 || d.described(f.Excludes) != nil, at+".excludes", "field %d is not described", f.Excludes)
	}
}

func (d *Dialect) described(de int) *row {
	if de < 2 || de > 128 {
		return nil
	}
	return d.rows[de]
}
