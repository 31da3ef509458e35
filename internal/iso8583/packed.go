package iso8583

// size returns how many bytes a value of n units has on the wire.
func (r *row) size(n int) int {
	switch {
	case r.packed:
		return (n + 1) / 2
	case r.binary:
		return n
	}
	return n * r.unit
}

// read returns the text of a value on the wire of n units, and its fault: a pad
// nibble is 0 and nothing else (U-09).
func (r *row) read(value []byte, n int) ([]byte, Fault) {
	text, ok := r.text(value, n)
	if fault := r.verify(text); fault != 0 {
		return nil, fault
	}
	if !ok {
		return nil, FaultContent
	}
	return text, 0
}

// text returns the text of a value on the wire: a slice of it where the wire has
// text. It is false for a pad nibble that is not 0.
func (r *row) text(value []byte, n int) ([]byte, bool) {
	if !r.packed && !r.binary {
		return value, true
	}
	text := appendHex(make([]byte, 0, 2*len(value)), value)
	if r.binary || n%2 == 0 {
		return text, true
	}
	if r.right {
		return text[1:], text[0] == '0'
	}
	return text[:n], text[n] == '0'
}

// append appends a value that was verified as it stands on the wire.
func (r *row) append(dst, text []byte) []byte {
	switch {
	case r.packed && r.right && len(text)%2 == 1:
		return pack(append(dst, text[0]-'0'), text[1:])
	case r.packed, r.binary:
		return pack(dst, text)
	}
	return append(dst, text...)
}

// pack appends digits, two a byte, the last nibble 0 where one is left over. A
// separator of track data is D.
func pack(dst, digits []byte) []byte {
	for i := 0; i < len(digits); i += 2 {
		b := nibble(digits[i]) << 4
		if i+1 < len(digits) {
			b |= nibble(digits[i+1])
		}
		dst = append(dst, b)
	}
	return dst
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case c == '=':
		return 0xD
	}
	return c - 'A' + 10
}

// unpackDigits reads n digits of a packed number that has a zero before them
// where n is odd: the length of a field. It is false for what is no number.
func unpackDigits(packed []byte) (n int, ok bool) {
	for _, b := range packed {
		if b>>4 > 9 || b&0xF > 9 {
			return 0, false
		}
		n = 100*n + int(b>>4)*10 + int(b&0xF)
	}
	return n, true
}
