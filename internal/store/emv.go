package store

import (
	"fmt"
	"slices"
)

// neverStored are the EMV objects that hold track data, the PAN or PIN data:
// track 1 and 2 equivalent data, the application PAN, the discretionary data of
// both tracks, contactless track 2 data, transaction PIN data. EMV 4.3 book 3,
// annex A.
func neverStored() []uint32 {
	return []uint32{0x56, 0x57, 0x5A, 0x9F1F, 0x9F20, 0x9F6B, 0x99}
}

// checkEMV refuses DE 55 with an object that must not be stored. The switch
// leaves those out; this is for the day when it does not. What is no TLV is let
// through up to there: it is the issuer's to judge.
func checkEMV(p []byte) error {
	for len(p) > 0 {
		if p[0] == 0x00 || p[0] == 0xFF { // filler between objects
			p = p[1:]
			continue
		}
		tag, value, rest, ok := takeObject(p)
		if !ok {
			return nil
		}
		if slices.Contains(neverStored(), tag) {
			return fmt.Errorf("%w: DE 55 holds object %X, which must not be stored", ErrRule, tag)
		}
		if constructed := p[0]&0x20 != 0; constructed {
			if err := checkEMV(value); err != nil {
				return err
			}
		}
		p = rest
	}
	return nil
}

// takeObject takes one BER-TLV object off the front: a tag of up to four bytes,
// a length of up to three.
func takeObject(p []byte) (tag uint32, value, rest []byte, ok bool) {
	n := 1
	if p[0]&0x1F == 0x1F {
		for n < len(p) && n < 4 && p[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if n >= len(p) {
		return 0, nil, nil, false
	}
	for _, b := range p[:n] {
		tag = tag<<8 | uint32(b)
	}
	length, p := int(p[n]), p[n+1:]
	if length > 0x80 {
		more := length & 0x7F
		if more > 2 || more > len(p) {
			return 0, nil, nil, false
		}
		length = 0
		for _, b := range p[:more] {
			length = length<<8 | int(b)
		}
		p = p[more:]
	} else if length == 0x80 {
		return 0, nil, nil, false
	}
	if length > len(p) {
		return 0, nil, nil, false
	}
	return tag, p[:length], p[length:], true
}
