package logindex

import (
	"bytes"
	"fmt"
	"time"
)

// Kind says of which member a value is.
type Kind uint8

// The kinds. The files hold their numbers: add at the end.
const (
	Action    Kind = iota + 1 // action
	Actor                     // actor.id
	Outcome                   // outcome
	Reason                    // reason
	Corr                      // corr
	ID                        // id
	Ref                       // ref
	Key                       // keys[].id
	KSN                       // ksn
	Terminal                  // iso.term
	Merchant                  // iso.merch
	STAN                      // iso.stan
	Original                  // iso.orig.stan
	RRN                       // iso.rrn
	Card                      // pan_tok, pan_tok_prev
	Ceremony                  // cer.id
	Custodian                 // cer.custodian, cer.witness
	Object                    // each part of change.object, between strokes
	Approver                  // approvals[].id
	Leaf                      // the record's leaf hash, 32 bytes
)

// Term is a value that a record may have.
type Term struct {
	Kind  Kind
	Value string
}

// place is where in a record a value stands: the object that holds it.
type place uint8

const (
	atTop place = iota
	atActor
	atKeys
	atISO
	atOrig
	atCeremony
	atChange
	atApprovals
	elsewhere
)

// inside is the place below a member.
func (p place) inside(name []byte) place {
	switch p {
	case atTop:
		switch string(name) {
		case "actor":
			return atActor
		case "keys":
			return atKeys
		case "iso":
			return atISO
		case "cer":
			return atCeremony
		case "change":
			return atChange
		case "approvals":
			return atApprovals
		}
	case atISO:
		if string(name) == "orig" {
			return atOrig
		}
	}
	return elsewhere
}

// kind is what a string in a member is, or 0.
func (p place) kind(name []byte) Kind {
	switch p {
	case atTop:
		switch string(name) {
		case "action":
			return Action
		case "outcome":
			return Outcome
		case "reason":
			return Reason
		case "corr":
			return Corr
		case "id":
			return ID
		case "ref":
			return Ref
		case "ksn":
			return KSN
		case "pan_tok", "pan_tok_prev":
			return Card
		}
	case atISO:
		switch string(name) {
		case "term":
			return Terminal
		case "merch":
			return Merchant
		case "stan":
			return STAN
		case "rrn":
			return RRN
		}
	case atCeremony:
		switch string(name) {
		case "id":
			return Ceremony
		case "custodian", "witness":
			return Custodian
		}
	case atOrig:
		if string(name) == "stan" {
			return Original
		}
	case atChange:
		if string(name) == "object" {
			return Object
		}
	case atActor:
		return ifID(name, Actor)
	case atKeys:
		return ifID(name, Key)
	case atApprovals:
		return ifID(name, Approver)
	}
	return 0
}

func ifID(name []byte, k Kind) Kind {
	if string(name) == "id" {
		return k
	}
	return 0
}

// reading walks through one record in its stored form, which has no white space.
type reading struct {
	b     []byte
	visit func(k Kind, value []byte)
	ts    []byte
}

// mostDepth bounds the nesting; records have four levels.
const mostDepth = 8

// read shows the terms of a record to visit, the leaf hash apart, and returns
// its time in microseconds since 1970. Values are as they stand between the
// quotes. The error is [ErrFormat].
func read(record []byte, visit func(k Kind, value []byte)) (int64, error) {
	r := reading{b: record, visit: visit}
	end, ok := r.object(0, atTop, 0)
	if !ok || end != len(record) {
		return 0, fmt.Errorf("%w: a record is not in its stored form", ErrFormat)
	}
	at, ok := micros(r.ts)
	if !ok {
		return 0, fmt.Errorf("%w: a record has no time", ErrFormat)
	}
	return at, nil
}

// object reads an object that begins at i and returns where it ends.
func (r *reading) object(i int, p place, depth int) (int, bool) {
	if depth > mostDepth || i >= len(r.b) || r.b[i] != '{' {
		return i, false
	}
	if i++; i < len(r.b) && r.b[i] == '}' {
		return i + 1, true
	}
	for {
		name, after, ok := r.text(i)
		if !ok || after >= len(r.b) || r.b[after] != ':' {
			return i, false
		}
		if i, ok = r.value(after+1, p, name, depth); !ok || i >= len(r.b) {
			return i, false
		}
		if i++; r.b[i-1] != ',' {
			return i, r.b[i-1] == '}'
		}
	}
}

// value reads the value of a member.
func (r *reading) value(i int, p place, name []byte, depth int) (int, bool) {
	if i >= len(r.b) {
		return i, false
	}
	switch r.b[i] {
	case '"':
		v, after, ok := r.text(i)
		if ok {
			r.found(p, name, v)
		}
		return after, ok
	case '{':
		return r.object(i, p.inside(name), depth+1)
	case '[':
		return r.array(i, p.inside(name), depth+1)
	}
	start := i
	for i < len(r.b) && r.b[i] != ',' && r.b[i] != '}' && r.b[i] != ']' {
		i++
	}
	return i, i > start
}

// array reads an array, of which only objects matter.
func (r *reading) array(i int, p place, depth int) (int, bool) {
	if i++; i < len(r.b) && r.b[i] == ']' {
		return i + 1, true
	}
	for {
		var ok bool
		if i < len(r.b) && r.b[i] == '{' {
			i, ok = r.object(i, p, depth+1)
		} else if depth <= mostDepth {
			i, ok = r.value(i, elsewhere, nil, depth+1)
		}
		if !ok || i >= len(r.b) {
			return i, false
		}
		if i++; r.b[i-1] != ',' {
			return i, r.b[i-1] == ']'
		}
	}
}

// text reads a string that begins at i with its quote.
func (r *reading) text(i int) (value []byte, after int, ok bool) {
	if i >= len(r.b) || r.b[i] != '"' {
		return nil, i, false
	}
	start := i + 1
	for i = start; i < len(r.b); i++ {
		switch r.b[i] {
		case '"':
			return r.b[start:i], i + 1, true
		case '\\':
			i++
		}
	}
	return nil, i, false
}

// found tells of a string in a member.
func (r *reading) found(p place, name, value []byte) {
	if p == atTop && string(name) == "ts" {
		r.ts = value
		return
	}
	k := p.kind(name)
	switch {
	case k == 0 || len(value) == 0:
	case k == Object:
		for part := range bytes.SplitSeq(value, []byte("/")) {
			r.visit(Object, part)
		}
	default:
		r.visit(k, value)
	}
}

// micros reads a time as records have it.
func micros(ts []byte) (int64, bool) {
	const form = "0000-00-00T00:00:00.000000Z"
	if len(ts) != len(form) {
		return 0, false
	}
	for i := range form {
		if form[i] == '0' && (ts[i] < '0' || ts[i] > '9') || form[i] != '0' && ts[i] != form[i] {
			return 0, false
		}
	}
	num := func(from, to int) (n int) {
		for _, c := range ts[from:to] {
			n = n*10 + int(c-'0')
		}
		return n
	}
	return time.Date(num(0, 4), time.Month(num(5, 7)), num(8, 10), num(11, 13), num(14, 16), num(17, 19), num(20, 26)*1000, time.UTC).UnixMicro(), true
}

// fingerprint is the short form of a term: 32 bits, of which two terms may have the
// same. Then a record is read in vain, no more.
func fingerprint(k Kind, value []byte) uint32 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := (offset ^ uint64(k)) * prime
	for _, c := range value {
		h = (h ^ uint64(c)) * prime
	}
	// FNV is weak in its high bits for short values; mix them.
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}
