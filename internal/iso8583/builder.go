package iso8583

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Builder writes a message of a dialect. It holds the first error, which Pack
// returns, so that calls can be chained. It is not safe for concurrent use.
//
// A Builder makes nothing that Parse refuses.
type Builder struct {
	dialect *Dialect
	side    Side
	mti     MTI
	kind    kind
	fields  bitmap
	spans   [129]span
	text    []byte // the values of the fields, in the order of Set
	head    []byte // what stands before the MTI; nil: zeros
	err     error
}

// Build begins a message of type mti on side s. An MTI that the dialect does
// not list is reported by Pack.
func (d *Dialect) Build(mti MTI, s Side) *Builder {
	b := &Builder{dialect: d, side: s, text: make([]byte, 0, 384)}
	t, ok := d.types[mti]
	if !ok {
		b.err = &FormatError{DE: 0, Fault: FaultMTI}
		return b
	}
	b.mti, b.kind = t.mti, t.kind
	return b
}

// Head gives the message what stands before its MTI, where the dialect has such a
// thing: TPDU, ANI and header, one after the other. Without it they are zeros.
func (b *Builder) Head(parts ...[]byte) *Builder {
	head := slices.Concat(parts...)
	if b.err == nil && len(head) != b.dialect.head.size() {
		b.err = &FormatError{DE: 0, Fault: FaultLength, Form: fmt.Sprintf("%d bytes before the MTI", b.dialect.head.size())}
	}
	b.head = head
	return b
}

// Answer begins the answer to m with answer code DE 39: MTI by [MTI.Response],
// TPDU exchanged where the dialect does that, ANI and header as they came, and
// every echo field of the table that m has; in ascii87 2, 3, 4, 7, 11, 12, 13,
// 32, 37, 41, 42, 49, 62 and 70. The caller sets DE 37 when m had none, which
// [Builder.Has] tells, DE 38 when it approves, and DE 55. It works on the
// Partial of a [FormatError], and echoes what could be read; only the codes that
// the dialect names, 30 and 63 in ascii87, may go without the rest.
func (m *Message) Answer(code string) *Builder {
	b := m.dialect.Build(m.mti.Response(), m.side)
	if n := m.dialect.head.size(); n > 0 && len(m.raw) >= n {
		b.head = slices.Clone(m.raw[:n])
		if m.dialect.head.Swap {
			copy(b.head[1:3], m.raw[3:5])
			copy(b.head[3:5], m.raw[1:3])
		}
	}
	for _, row := range m.dialect.table {
		if row.echo && row.presence(b.kind, b.side) != never {
			b.Copy(m, row.de)
		}
	}
	return b.Set(39, code)
}

// Set gives field de a value, text as [Message.Text] returns it. A second Set replaces the first.
// The MAC is not set but sealed: [Unsealed.Seal].
func (b *Builder) Set(de int, value string) *Builder {
	off := len(b.text)
	b.text = append(b.text, value...)
	b.take(de, off)
	return b
}

// Copy gives those of the fields des that m has the same value as in m.
func (b *Builder) Copy(m *Message, des ...int) *Builder {
	for _, de := range des {
		if !m.Has(de) {
			continue
		}
		off := len(b.text)
		b.text = append(b.text, m.value(de)...)
		b.take(de, off)
	}
	return b
}

// Has reports whether field de has been given a value.
func (b *Builder) Has(de int) bool { return de > 1 && b.fields.has(de) }

// take makes what stands in text from off on the value of field de.
func (b *Builder) take(de, off int) {
	if b.err != nil {
		return
	}
	if err := b.verify(de, b.text[off:]); err != nil {
		b.err = err
		return
	}
	b.spans[de] = span{off: uint16(off), len: uint16(len(b.text) - off)}
	b.fields.set(de)
}

func (b *Builder) verify(de int, value []byte) error {
	if de < 2 || de > 128 || b.dialect.rows[de] == nil {
		return &FormatError{DE: de, Fault: FaultUnknown}
	}
	row := b.dialect.rows[de]
	if row.mac || row.presence(b.kind, b.side) == never {
		return &FormatError{DE: de, Fault: FaultForbidden}
	}
	if len(b.text) > 4*MaxFrame {
		return &FormatError{DE: de, Fault: FaultLength}
	}
	if fault := row.verify(value); fault != 0 {
		return &FormatError{DE: de, Fault: fault, Form: row.form}
	}
	return nil
}

// Pack returns the message up to its MAC, the MAC's bit set in the bitmap. It
// returns a [FormatError] for the first value that did not fit its field, for a
// mandatory field that is missing and for fields that exclude each other.
func (b *Builder) Pack() (Unsealed, error) {
	fields := b.fields
	fields.set(fields.macPlace())
	if b.err == nil && b.dialect.columns[b.kind].spec.NoMAC {
		b.err = &FormatError{DE: fields.macPlace(), Fault: FaultForbidden}
	}
	packed, err := b.pack(fields)
	return Unsealed{packed, b.dialect, b.mti}, err
}

// PackWithoutMAC returns a whole message that has no MAC. That is for messages
// that the dialect lets go without, network management say, and for refusals
// where no key can be had (W-05, W-09); for every other message it returns
// [ErrMACRequired] (M-06).
func (b *Builder) PackWithoutMAC() ([]byte, error) {
	refusal := b.mti.IsResponse() && b.Has(39) && string(b.value(39)) != "00"
	if b.err == nil && b.dialect.columns[b.kind].spec.macNeeded() && !refusal {
		return nil, fmt.Errorf("%w: %s", ErrMACRequired, b.mti)
	}
	return b.pack(b.fields)
}

func (b *Builder) pack(fields bitmap) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if err := b.complete(); err != nil {
		return nil, err
	}
	if fields[1] != 0 {
		fields.set(1)
	}
	msg := make([]byte, 0, b.dialect.head.size()+len(b.mti)+32+len(b.text)+16) // 16: length digits
	msg = b.appendStart(msg, fields)
	for _, row := range b.dialect.table {
		value := b.value(row.de)
		if value == nil {
			continue
		}
		length, err := row.spec.Pref.EncodeLength(row.spec.Length, len(value)/row.unit)
		if err != nil {
			return nil, &FormatError{DE: row.de, Fault: FaultLength, Form: row.form}
		}
		msg = append(msg, length...)
		msg = row.append(msg, value)
	}
	return msg, nil
}

// appendStart appends all that stands before the first field.
func (b *Builder) appendStart(msg []byte, fields bitmap) []byte {
	if msg = append(msg, b.head...); b.head == nil {
		msg = append(msg, make([]byte, b.dialect.head.size())...)
	}
	halves := fields[:]
	if fields[1] == 0 {
		halves = halves[:1]
	}
	if !b.dialect.packed {
		msg = append(msg, b.mti...)
		for _, half := range halves {
			msg = fmt.Appendf(msg, "%016X", half)
		}
		return msg
	}
	msg = pack(msg, []byte(b.mti))
	for _, half := range halves {
		msg = binary.BigEndian.AppendUint64(msg, half)
	}
	return msg
}

// complete returns an error when a mandatory field is missing, or a field
// stands beside one that it excludes.
func (b *Builder) complete() error {
	if de := b.dialect.firstMissing(b.kind, b.side, b.fields, string(b.value(39))); de != 0 {
		return &FormatError{DE: de, Fault: FaultMissing, Form: b.dialect.rows[de].form}
	}
	if b.Has(90) && !b.mti.names(b.value(3), b.value(25)) {
		return &FormatError{DE: 90, Fault: FaultForbidden}
	}
	for _, row := range b.dialect.table {
		if row.excludes != 0 && b.Has(row.de) && b.Has(row.excludes) {
			return &FormatError{DE: row.de, Fault: FaultForbidden, Form: row.form}
		}
	}
	return nil
}

func (b *Builder) value(de int) []byte {
	if !b.Has(de) {
		return nil
	}
	s := b.spans[de]
	return b.text[s.off : s.off+s.len]
}

// Unsealed is a message that lacks nothing but the value of its MAC.
type Unsealed struct {
	packed  []byte
	dialect *Dialect
	mti     MTI
}

// MACInput returns what the MAC covers: the bytes from the MTI up to the MAC
// field's value (W-04, M-08). The caller must not change them.
func (u Unsealed) MACInput() []byte {
	if u.dialect == nil {
		return nil
	}
	return u.packed[u.dialect.head.size():len(u.packed):len(u.packed)]
}

// Seal returns the whole message, with mac in the dialect's form: 16 upper-case
// hex digits in ascii87, where a profile with 4-byte MACs gives 4 bytes and 4
// zero bytes. A form that carries 4 bytes takes the first 4.
func (u Unsealed) Seal(mac [8]byte) []byte {
	return u.dialect.mac.append(u.packed[:len(u.packed):len(u.packed)], mac)
}
