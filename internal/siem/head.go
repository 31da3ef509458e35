package siem

import (
	"fmt"
	"strconv"
)

// Head is what a message says of a record before the record.
type Head struct {
	Log        string // sec or ops-yyyy-mm
	Seq        uint64
	ID         string
	Time       string // as in the record, which is a time of RFC 5424 too
	Node       string
	Boot       string
	Action     string
	Outcome    string // "" in an intent
	AlarmLevel string // "" without an alarm
}

// ParseHead reads the head of a record in its stored form, RFC 8785: no white
// space, and no escapes in what it looks for. It does not judge the rest. The
// error is [ErrFormat].
func ParseHead(record []byte) (Head, error) {
	var h Head
	placed := false
	s := scanner{b: record}
	s.object(func(name []byte) {
		switch string(name) {
		case "log":
			h.Log = s.word()
		case "seq":
			h.Seq, placed = s.number(), true
		case "id":
			h.ID = s.word()
		case "ts":
			h.Time = s.word()
		case "node":
			h.Node = s.word()
		case "boot":
			h.Boot = s.word()
		case "action":
			h.Action = s.word()
		case "outcome":
			h.Outcome = s.word()
		case "alarm":
			s.object(func(name []byte) {
				if string(name) == "level" {
					h.AlarmLevel = s.word()
					return
				}
				s.skip()
			})
		default:
			s.skip()
		}
	})
	if s.bad || s.i != len(record) {
		return Head{}, fmt.Errorf("%w: byte %d of a record is not in its canonical form", ErrFormat, s.i)
	}
	if !placed {
		return Head{}, fmt.Errorf("%w: a record without seq", ErrFormat)
	}
	for _, part := range [...]struct {
		name, value string
		most        int
	}{{"log", h.Log, 32}, {"id", h.ID, 64}, {"ts", h.Time, 32}, {"node", h.Node, 255}, {"boot", h.Boot, 128}, {"action", h.Action, 32}} {
		if part.value == "" || len(part.value) > part.most {
			return Head{}, fmt.Errorf("%w: a record whose member %s is missing or longer than %d", ErrFormat, part.name, part.most)
		}
	}
	return h, nil
}

// plain reports whether s can stand in a header and in structured data as it is:
// printable ASCII without what would have to be escaped.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' || c == ']' {
			return false
		}
	}
	return s != ""
}

// scanner walks over JSON without white space. After something else it is bad
// and stands still.
type scanner struct {
	b   []byte
	i   int
	bad bool
}

// object calls member for each member, which takes its value.
func (s *scanner) object(member func(name []byte)) {
	if !s.take('{') || s.peek() == '}' && s.take('}') {
		return
	}
	for !s.bad {
		name := s.text()
		if !s.take(':') {
			return
		}
		member(name)
		if s.bad || s.peek() == '}' {
			s.take('}')
			return
		}
		s.take(',')
	}
}

// word is a string that can stand in a header.
func (s *scanner) word() string {
	w := string(s.text())
	if !plain(w) {
		s.bad = true
	}
	return w
}

// number is an integer that is not negative, below 2^53.
func (s *scanner) number() uint64 {
	start := s.i
	for !s.bad && s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	n, err := strconv.ParseUint(string(s.b[start:s.i]), 10, 53)
	if err != nil {
		s.bad = true
	}
	return n
}

// text is a string with its escapes.
func (s *scanner) text() []byte {
	if !s.take('"') {
		return nil
	}
	start := s.i
	for s.i < len(s.b) && s.b[s.i] != '"' {
		if s.b[s.i] == '\\' {
			s.i++
		}
		s.i++
	}
	if s.i >= len(s.b) {
		s.bad, s.i = true, len(s.b)
		return nil
	}
	s.i++
	return s.b[start : s.i-1]
}

// skip passes over one value.
func (s *scanner) skip() {
	depth := 0
	for !s.bad && s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			s.text()
		case '{', '[':
			depth++
			s.i++
			continue
		case '}', ']':
			depth--
			s.i++
		case ',', ':':
			s.i++
			continue
		default:
			s.scalar()
		}
		if depth < 1 {
			s.bad = s.bad || depth < 0
			return
		}
	}
	s.bad = true
}

// scalar passes over a number, true, false or null.
func (s *scanner) scalar() {
	start := s.i
	for s.i < len(s.b) && (s.b[s.i] >= '0' && s.b[s.i] <= '9' || s.b[s.i] >= 'a' && s.b[s.i] <= 'z' || s.b[s.i] == '-') {
		s.i++
	}
	s.bad = s.bad || s.i == start
}

func (s *scanner) peek() byte {
	if s.bad || s.i >= len(s.b) {
		return 0
	}
	return s.b[s.i]
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		s.bad = true
		return false
	}
	s.i++
	return true
}
