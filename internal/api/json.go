package api

import (
	"cmp"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is the kind of a JSON value.
type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

const (
	mostDepth  = 32   // containers within containers
	mostValues = 4096 // in one body; the largest request of the API has about 700
	fewMembers = 16   // up to which names are compared one by one
)

// malformed says why bytes are not an acceptable body. It repeats none of them.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	notJSON      malformed = "the body is not valid JSON"
	notUTF8      malformed = "the body is not UTF-8"
	notObject    malformed = "the body must be a JSON object"
	nameTwice    malformed = "a member name occurs twice in one object"
	tooDeep      malformed = "the body is nested too deeply"
	tooManyParts malformed = "the body has too many values"
)

// span is a part of the document's text.
type span struct{ from, to uint32 }

// node is a value. The nodes of a document stand in the order of the text, so
// that a container is followed by what is in it.
type node struct {
	kind   kind
	parent int32
	next   int32 // index behind this value and all that is in it
	name   span  // where the parent is an object
	text   span  // of a string, unescaped, or of a number
}

// document is a parsed body. It points into the text, which it may change.
type document struct {
	text  []byte
	nodes []node
	at    int
	most  int // values; 0 is mostValues
}

// parse reads one JSON object (RFC 8259). An empty text is an empty object.
// Escapes are resolved in place, so text is no longer what was sent. The errors
// are those of type malformed.
func (d *document) parse(text []byte) error {
	d.text, d.nodes, d.at = text, d.nodes[:0], 0
	if len(text) == 0 {
		d.nodes = append(d.nodes, node{kind: kindObject, parent: -1, next: 1})
		return nil
	}
	if !utf8.Valid(text) {
		return notUTF8
	}
	d.space()
	if err := d.value(-1, span{}, 0); err != nil {
		return err
	}
	d.space()
	if d.at != len(text) {
		return notJSON
	}
	if d.nodes[0].kind != kindObject {
		return notObject
	}
	return nil
}

func (d *document) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end, which no token begins with.
func (d *document) peek() byte {
	if d.at < len(d.text) {
		return d.text[d.at]
	}
	return 0
}

func (d *document) value(parent int32, name span, depth int) error {
	if len(d.nodes) == cmp.Or(d.most, mostValues) {
		return tooManyParts
	}
	self := int32(len(d.nodes))
	d.nodes = append(d.nodes, node{parent: parent, name: name})
	var (
		k    kind
		text span
		err  error
	)
	switch c := d.peek(); {
	case c == '"':
		k = kindString
		text, err = d.string()
	case c == '{':
		k = kindObject
		err = d.object(self, depth+1)
	case c == '[':
		k = kindArray
		err = d.array(self, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		k = kindNumber
		text, err = d.number()
	case c == 't':
		k, err = kindTrue, d.word("true")
	case c == 'f':
		k, err = kindFalse, d.word("false")
	case c == 'n':
		k, err = kindNull, d.word("null")
	default:
		err = notJSON
	}
	n := &d.nodes[self]
	n.kind, n.text, n.next = k, text, int32(len(d.nodes))
	return err
}

func (d *document) word(word string) error {
	if len(d.text)-d.at < len(word) || string(d.text[d.at:d.at+len(word)]) != word {
		return notJSON
	}
	d.at += len(word)
	return nil
}

func (d *document) array(self int32, depth int) error {
	if depth > mostDepth {
		return tooDeep
	}
	d.at++
	d.space()
	if d.peek() == ']' {
		d.at++
		return nil
	}
	for {
		d.space()
		if err := d.value(self, span{}, depth); err != nil {
			return err
		}
		if more, err := d.comma(']'); !more || err != nil {
			return err
		}
	}
}

func (d *document) object(self int32, depth int) error {
	if depth > mostDepth {
		return tooDeep
	}
	d.at++
	d.space()
	if d.peek() == '}' {
		d.at++
		return nil
	}
	seen := names{doc: d, object: self}
	for {
		d.space()
		if d.peek() != '"' {
			return notJSON
		}
		name, err := d.string()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return nameTwice
		}
		d.space()
		if d.peek() != ':' {
			return notJSON
		}
		d.at++
		d.space()
		if err := d.value(self, name, depth); err != nil {
			return err
		}
		if more, err := d.comma('}'); !more || err != nil {
			return err
		}
	}
}

// comma takes a comma, or the end of the container.
func (d *document) comma(end byte) (more bool, err error) {
	d.space()
	switch d.peek() {
	case ',':
		d.at++
		return true, nil
	case end:
		d.at++
		return false, nil
	}
	return false, notJSON
}

// names finds names that occur twice in an object that is being read.
type names struct {
	doc    *document
	object int32
	count  int
	many   map[string]struct{} // once there are more than a few
}

func (s *names) add(name span) bool {
	s.count++
	text := s.doc.bytes(name)
	if s.many == nil {
		for i := s.object + 1; int(i) < len(s.doc.nodes); i = s.doc.nodes[i].next {
			if string(s.doc.bytes(s.doc.nodes[i].name)) == string(text) {
				return false
			}
		}
		if s.count <= fewMembers {
			return true
		}
		s.many = make(map[string]struct{})
		for i := s.object + 1; int(i) < len(s.doc.nodes); i = s.doc.nodes[i].next {
			s.many[string(s.doc.bytes(s.doc.nodes[i].name))] = struct{}{}
		}
	}
	if _, twice := s.many[string(text)]; twice {
		return false
	}
	s.many[string(text)] = struct{}{}
	return true
}

func (d *document) number() (span, error) {
	from := d.at
	if d.peek() == '-' {
		d.at++
	}
	if d.peek() == '0' {
		d.at++
	} else if !d.digits() {
		return span{}, notJSON
	}
	if d.peek() == '.' {
		d.at++
		if !d.digits() {
			return span{}, notJSON
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if !d.digits() {
			return span{}, notJSON
		}
	}
	return span{uint32(from), uint32(d.at)}, nil
}

func (d *document) digits() bool {
	from := d.at
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.at++
	}
	return d.at > from
}

// string reads a string at its opening quote and returns its unescaped text.
func (d *document) string() (span, error) {
	d.at++
	from := d.at
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			s := span{uint32(from), uint32(d.at)}
			d.at++
			return s, nil
		case c == '\\':
			return d.escaped(from)
		case c < ' ':
			return span{}, notJSON
		}
		d.at++
	}
	return span{}, notJSON
}

// escaped goes on with a string at its first backslash. What an escape stands
// for is never longer than the escape, so it is written over it.
func (d *document) escaped(from int) (span, error) {
	out := d.at
	for d.at < len(d.text) {
		c := d.text[d.at]
		switch {
		case c == '"':
			d.at++
			return span{uint32(from), uint32(out)}, nil
		case c < ' ':
			return span{}, notJSON
		case c != '\\':
			d.text[out] = c
			out++
			d.at++
		default:
			r, ok := d.escape()
			if !ok {
				return span{}, notJSON
			}
			out += utf8.EncodeRune(d.text[out:], r)
		}
	}
	return span{}, notJSON
}

// escape reads one escape. A surrogate without its other half is refused: UTF-8
// has no form for it.
func (d *document) escape() (rune, bool) {
	if len(d.text)-d.at < 2 {
		return 0, false
	}
	c := d.text[d.at+1]
	if c == 'u' {
		return d.unicode()
	}
	d.at += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

func (d *document) unicode() (rune, bool) {
	r, ok := d.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	low, ok := d.hex4()
	if !ok {
		return 0, false
	}
	r = utf16.DecodeRune(r, low)
	return r, r != utf8.RuneError
}

// hex4 reads a backslash, a u and four hexadecimal digits.
func (d *document) hex4() (rune, bool) {
	if len(d.text)-d.at < 6 || d.text[d.at] != '\\' || d.text[d.at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range d.text[d.at+2 : d.at+6] {
		n := nibble(c)
		if n > 15 {
			return 0, false
		}
		r = r<<4 | rune(n)
	}
	d.at += 6
	return r, true
}

// nibble is the value of a hexadecimal digit in either case, or more than 15.
func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xFF
}

func (d *document) bytes(s span) []byte { return d.text[s.from:s.to] }

// member returns the named member of an object, or -1 where it is absent or null.
func (d *document) member(object int32, name string) int32 {
	for i := object + 1; i < d.nodes[object].next; i = d.nodes[i].next {
		if string(d.bytes(d.nodes[i].name)) == name {
			if d.nodes[i].kind == kindNull {
				return -1
			}
			return i
		}
	}
	return -1
}
