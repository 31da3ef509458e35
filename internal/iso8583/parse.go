package iso8583

import "encoding/binary"

// Parse reads raw, one frame without its length, as a message of side s; what
// stands before the MTI is kept and decides nothing. The message is a view of raw, which the caller must not change afterwards.
//
// It returns a [FormatError] for the first bad field; every byte of a message
// that it accepts is accounted for. An absent, misplaced or malformed MAC, and
// an absent or malformed KSN whose end can be found, are not faults of format:
// [Message.MAC] and [Message.KSN] report them. (W-02, W-04, W-05, M-11.)
func (d *Dialect) Parse(raw []byte, s Side) (_ *Message, err error) {
	r := &reader{Message: &Message{dialect: d, side: s, raw: raw}}
	defer func() {
		if recover() != nil {
			err = &FormatError{DE: r.at, Fault: FaultInternal, Partial: r.Message}
		}
	}()
	if r.read(); r.fault != nil {
		r.fault.Partial = r.Message
		return nil, r.fault
	}
	return r.Message, nil
}

// reader reads a message and remembers the first bad field. It reads on behind
// a bad field whose end it can find, so that DE 11 and DE 41 can be had.
type reader struct {
	*Message
	fields bitmap // what the bitmap announces
	pos    int    // behind the last byte that was read
	at     int    // the field being read
	fault  *FormatError
}

// note remembers the first fault. A malformed KSN is blamed for what cannot be
// read behind it, for its length may have misled the reader.
func (r *reader) note(de int, f Fault, form string) {
	if r.fault != nil {
		return
	}
	misled := f == FaultLength || f == FaultContent || f == FaultTrailing
	if ksn := r.dialect.ksn; r.ksnErr != nil && de >= ksn && misled {
		de, f, form = ksn, FaultContent, r.dialect.rows[ksn].form
	}
	r.fault = &FormatError{DE: de, Fault: f, Form: form}
}

func (r *reader) read() {
	if !r.readHead() {
		return
	}
	for de := 2; de <= 128; de++ {
		if !r.fields.has(de) {
			continue
		}
		r.at = de
		if !r.readField(de) {
			r.noteMissing()
			return
		}
	}
	if r.pos != len(r.raw) {
		r.note(r.at, FaultTrailing, "")
	}
	r.noteMissing()
}

// readHead reads MTI and bitmap.
func (r *reader) readHead() bool {
	if len(r.raw) > MaxFrame {
		r.note(0, FaultLength, "at most 4096 bytes")
		return false
	}
	r.pos = r.dialect.head.size()
	mti, ok := r.readMTI()
	if !ok {
		r.note(0, FaultMTI, "n4")
		return false
	}
	t, ok := r.dialect.types[mti]
	if !ok {
		r.note(0, FaultMTI, "")
		return false
	}
	r.mti, r.kind = t.mti, t.kind
	r.at = 1
	if !r.readBitmap(0) || r.fields.has(1) && !(r.dialect.wide && r.readBitmap(1)) {
		r.note(1, FaultBitmap, r.dialect.bitmapForm())
		return false
	}
	return true
}

func (r *reader) readMTI() (MTI, bool) {
	off := r.pos
	if !r.dialect.packed {
		return MTI(r.raw[min(off, len(r.raw)):min(off+4, len(r.raw))]), r.skip(4)
	}
	if !r.skip(2) {
		return "", false
	}
	return MTI(appendHex(nil, r.raw[off:r.pos])), true
}

func (r *reader) readBitmap(half int) (ok bool) {
	off := r.pos
	if r.dialect.packed {
		if ok = r.skip(8); ok {
			r.fields[half] = binary.BigEndian.Uint64(r.raw[off:])
		}
		return ok
	}
	if !r.skip(16) {
		return false
	}
	r.fields[half], ok = parseHex64(r.raw[off:r.pos])
	return ok
}

// readField reads field de and reports whether its end was found.
func (r *reader) readField(de int) bool {
	row := r.dialect.rows[de]
	switch {
	case row == nil:
		r.note(de, FaultUnknown, "")
		return r.skipForeign(de)
	case row.presence(r.kind, r.side) == never:
		r.note(de, FaultForbidden, "")
	case row.mac:
		return r.readMAC(row)
	case de == 90 && !r.mti.names(r.value(3), r.value(25)):
		r.note(de, FaultForbidden, "")
	case row.excludes != 0 && r.fields.has(row.excludes):
		r.note(de, FaultForbidden, row.form)
	}
	n := row.spec.Length
	if digits := row.digits(); digits > 0 {
		var ok bool
		if n, ok = r.readLength(digits); !ok {
			return r.lost(row)
		}
	}
	off := r.pos
	if !r.skip(row.size(n)) {
		return r.lost(row)
	}
	switch _, fault := row.read(r.raw[off:r.pos], n); {
	case fault == 0:
		r.spans[de] = span{uint16(off), uint16(r.pos - off), uint16(n)}
		r.present.set(de)
	case row.ksn:
		r.ksnErr = ErrKSNMalformed
	default:
		r.note(de, fault, row.form)
	}
	return true
}

// lost notes that the end of a field cannot be found.
func (r *reader) lost(row *row) bool {
	r.note(row.de, FaultLength, row.form)
	if row.ksn {
		r.ksnErr = ErrKSNMalformed
	}
	return false
}

// readMAC reads DE 64 or DE 128. The last field of a message may be cut short:
// that is a malformed MAC and not a fault of format (D-03, M-07), while bytes
// behind a whole one are trailing bytes.
func (r *reader) readMAC(row *row) bool {
	off, n := r.pos, r.dialect.mac.size()
	if last := row.de == 128 || r.fields[1] == 0; last {
		n = min(n, len(r.raw)-off)
	}
	if !r.skip(n) {
		return r.lost(row)
	}
	mac, ok := r.dialect.mac.read(r.raw[off:r.pos])
	if ok {
		r.spans[row.de] = span{uint16(off), uint16(n), uint16(n)}
		r.present.set(row.de)
	}
	switch {
	case row.de != r.fields.macPlace(), r.fields.has(64) && r.fields.has(128):
		r.macErr = ErrMACMisplaced
	case !r.present.has(row.de):
		r.macErr = ErrMACMalformed
	default:
		r.macAt, r.mac = off, mac
	}
	return true
}

// readLength reads the digits of a length and reports whether they are digits.
func (r *reader) readLength(digits int) (n int, ok bool) {
	off := r.pos
	if r.dialect.packed {
		if !r.skip((digits + 1) / 2) {
			return 0, false
		}
		n, ok = unpackDigits(r.raw[off:r.pos])
		return n, ok && n <= 999 // three digits have a zero before them
	}
	if !r.skip(digits) {
		return 0, false
	}
	for _, b := range r.raw[off:r.pos] {
		if !classN.has(b) {
			return 0, false
		}
		n = 10*n + int(b-'0')
	}
	return n, true
}

func (r *reader) skipForeign(de int) bool {
	shape, ok := r.dialect.foreign[de]
	if !ok {
		return false
	}
	n := shape.fixed
	if shape.digits > 0 {
		if n, ok = r.readLength(shape.digits); !ok {
			return false
		}
	}
	if shape.packed {
		n = (n + 1) / 2
	}
	return r.skip(n)
}

// skip steps over n bytes and reports whether they were there.
func (r *reader) skip(n int) bool {
	if n > len(r.raw)-r.pos {
		return false
	}
	r.pos += n
	return true
}

// noteMissing replaces the fault by a mandatory field that is missing before
// it.
func (r *reader) noteMissing() {
	de := r.dialect.firstMissing(r.kind, r.side, r.fields, r.Text(39))
	if de == 0 || r.fault != nil && r.fault.DE < de {
		return
	}
	r.fault = &FormatError{DE: de, Fault: FaultMissing, Form: r.dialect.rows[de].form}
}

// parseHex64 reads 16 upper-case hex digits.
func parseHex64(text []byte) (v uint64, ok bool) {
	for _, b := range text {
		switch {
		case '0' <= b && b <= '9':
			v = v<<4 | uint64(b-'0')
		case 'A' <= b && b <= 'F':
			v = v<<4 | uint64(b-'A'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
