package api

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// fieldError says what is wrong with a member, by the member's path and a text
// that holds nothing of its value.
type fieldError struct {
	path    string
	message string
	refused bool // keyd knows the member or value and does not serve it
}

// form reads the members of a request and collects what is wrong with them, so
// that an answer can name all of it. A member of an absent object is absent and
// is not complained of twice: absence is the index -1.
type form struct {
	doc   document
	wrong []fieldError
}

// read parses a body into the form.
func (f *form) read(body []byte) error {
	f.wrong = f.wrong[:0]
	return f.doc.parse(body)
}

const required, optional = true, false

func (f *form) fail(path, message string) {
	f.wrong = append(f.wrong, fieldError{path: path, message: message})
}

// failAt complains of a value that is there.
func (f *form) failAt(at int32, message string) { f.fail(f.path(at), message) }

// refuse complains of something that keyd does not serve.
func (f *form) refuse(at int32) {
	f.wrong = append(f.wrong, fieldError{path: f.path(at), message: "is not served by keyd", refused: true})
}

// path is the name of a value from the root. It holds names that were looked
// for, and positions in lists; never a name that only the request has.
func (f *form) path(at int32) string {
	n := f.doc.nodes[at]
	if n.parent < 0 {
		return ""
	}
	if parent := f.doc.nodes[n.parent]; parent.kind == kindArray {
		position := 0
		for i := n.parent + 1; i < at; i = f.doc.nodes[i].next {
			position++
		}
		return f.path(n.parent) + "[" + strconv.Itoa(position) + "]"
	}
	return f.pathOf(n.parent, string(f.doc.bytes(n.name)))
}

// pathOf is the path of a member of an object, which may be absent.
func (f *form) pathOf(object int32, name string) string {
	if above := f.path(object); above != "" {
		return above + "." + name
	}
	return name
}

// find returns the member, or -1.
func (f *form) find(object int32, name string, need bool) int32 {
	if object < 0 {
		return -1
	}
	at := f.doc.member(object, name)
	if at < 0 && need {
		f.fail(f.pathOf(object, name), "is required")
	}
	return at
}

// typed returns the member when it is of the kind, or -1.
func (f *form) typed(object int32, name string, need bool, want kind, message string) int32 {
	at := f.find(object, name, need)
	if at >= 0 && f.doc.nodes[at].kind != want {
		f.failAt(at, message)
		return -1
	}
	return at
}

func (f *form) object(object int32, name string, need bool) int32 {
	return f.typed(object, name, need, kindObject, "must be an object")
}

func (f *form) list(object int32, name string, need bool) int32 {
	return f.typed(object, name, need, kindArray, "must be a list")
}

func (f *form) string(object int32, name string, need bool) (at int32, text []byte) {
	at = f.typed(object, name, need, kindString, "must be a string")
	if at < 0 {
		return -1, nil
	}
	return at, f.doc.bytes(f.doc.nodes[at].text)
}

func (f *form) bool(object int32, name string, need bool) (value, present bool) {
	at := f.find(object, name, need)
	if at < 0 {
		return false, false
	}
	switch f.doc.nodes[at].kind {
	case kindTrue:
		return true, true
	case kindFalse:
		return false, true
	}
	f.failAt(at, "must be true or false")
	return false, false
}

// int reads a whole number from least to most; 0 where it is absent.
func (f *form) int(object int32, name string, least, most int) int {
	at := f.typed(object, name, optional, kindNumber, "must be a number")
	if at < 0 {
		return 0
	}
	n, ok := whole(f.doc.bytes(f.doc.nodes[at].text))
	if !ok || n < least || n > most {
		f.failAt(at, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return 0
	}
	return n
}

func whole(text []byte) (int, bool) {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > math.MaxInt32 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// hex reads hexadecimal text of either case whose number of characters is one
// of lengths. The bytes stand where the text stood.
func (f *form) hex(object int32, name string, need bool, message string, lengths ...int) (at int32, value []byte) {
	at, text := f.string(object, name, need)
	if at < 0 {
		return -1, nil
	}
	for _, n := range lengths {
		if len(text) == n {
			return f.unhex(at, text, message)
		}
	}
	f.failAt(at, message)
	return -1, nil
}

// hexRange is hex for an even number of characters from least to most.
func (f *form) hexRange(object int32, name string, need bool, least, most int) (at int32, value []byte) {
	at, text := f.string(object, name, need)
	if at < 0 {
		return -1, nil
	}
	if len(text) < least || len(text) > most || len(text)%2 != 0 {
		f.failAt(at, fmt.Sprintf("must be an even number of hexadecimal characters, %d to %d", least, most))
		return -1, nil
	}
	return f.unhex(at, text, "must be hexadecimal characters")
}

func (f *form) unhex(at int32, text []byte, message string) (int32, []byte) {
	n := len(text) / 2
	var bad byte
	for i := range n {
		high, low := nibble(text[2*i]), nibble(text[2*i+1])
		bad |= high | low
		text[i] = high<<4 | low
	}
	if bad > 15 {
		f.failAt(at, message)
		return -1, nil
	}
	return at, text[:n:n]
}

// digits reads least to most decimal digits.
func (f *form) digits(object int32, name string, least, most int) string {
	at, text := f.string(object, name, required)
	if at < 0 {
		return ""
	}
	ok := len(text) >= least && len(text) <= most
	for _, c := range text {
		ok = ok && c >= '0' && c <= '9'
	}
	if !ok {
		f.failAt(at, fmt.Sprintf("must be %d to %d digits", least, most))
		return ""
	}
	return string(text)
}

// union returns which of the known members the union has, and the member. The
// refused ones are those of the API that keyd does not serve. Anything but
// exactly one known member is wrong; __type is no member (section 3.4).
func (f *form) union(at int32, known, refused []string) (which int, member int32) {
	if at < 0 {
		return -1, -1
	}
	which, member = -1, -1
	count := 0
	for i := at + 1; i < f.doc.nodes[at].next; i = f.doc.nodes[i].next {
		name := f.doc.bytes(f.doc.nodes[i].name)
		if f.doc.nodes[i].kind == kindNull || string(name) == "__type" {
			continue
		}
		count++
		if n := index(known, name); n >= 0 {
			which, member = n, i
		} else if index(refused, name) >= 0 {
			f.refuse(i)
			return -1, -1
		}
	}
	if count != 1 || which < 0 {
		f.failAt(at, "must have exactly one of the members "+strings.Join(known, ", "))
		return -1, -1
	}
	return which, member
}

// unserved complains of members that keyd knows and does not serve.
func (f *form) unserved(object int32, members ...string) {
	for _, name := range members {
		if at := f.find(object, name, optional); at >= 0 {
			f.refuse(at)
		}
	}
}

func index(words []string, text []byte) int {
	for i, word := range words {
		if word == string(text) {
			return i
		}
	}
	return -1
}
