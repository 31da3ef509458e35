package api

import (
	"crypto/rand"
	"encoding/hex"
)

// requestIDs makes the identifiers of requests out of random bytes that it takes
// in stock: the generator costs as much for 16 bytes as for many. They are names,
// not secrets.
type requestIDs struct {
	random [512]byte
	left   int
}

// next makes a UUID of version 4 (RFC 9562) that cannot be taken for a card
// number: the audit log would keep it out of its records.
func (r *requestIDs) next() string {
	for {
		if id := r.uuid(); !looksLikePAN(id) {
			return id
		}
	}
}

func (r *requestIDs) uuid() string {
	var raw [16]byte
	if r.left < len(raw) {
		_, _ = rand.Read(r.random[:]) // never fails; it ends the process instead
		r.left = len(r.random)
	}
	r.left -= copy(raw[:], r.random[r.left-len(raw):r.left])
	raw[6] = raw[6]&0x0F | 0x40
	raw[8] = raw[8]&0x3F | 0x80
	var text [36]byte
	hex.Encode(text[0:8], raw[0:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:36], raw[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// leastDigits is the number of digits from which on the audit log looks for a PAN,
// across dashes.
const leastDigits = 13

func looksLikePAN(id string) bool {
	run := 0
	for i := range len(id) {
		switch c := id[i]; {
		case c >= '0' && c <= '9':
			run++
		case c != '-':
			run = 0
		}
		if run >= leastDigits {
			return true
		}
	}
	return false
}
