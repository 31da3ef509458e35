package iso8583

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// Message is a message that was received. It is a view of the bytes that came
// and is immutable, so safe for concurrent use.
type Message struct {
	dialect *Dialect
	side    Side
	kind    kind
	mti     MTI
	raw     []byte
	present bitmap // the fields that were read and are well formed
	spans   [129]span

	mac    [8]byte
	macAt  int   // where the MAC's value begins in raw
	macErr error // nil with macAt 0: absent
	ksnErr error // nil without DE 62: absent
}

// span is where a field's value stands in the received bytes, without its
// length digits; n is its length in the field's own units.
type span struct{ off, len, n uint16 }

// MTI returns the message type; it is empty when it could not be read.
func (m *Message) MTI() MTI { return m.mti }

// Side returns the side that the message was read for.
func (m *Message) Side() Side { return m.side }

// Raw returns the bytes that were received, without the frame's length. The
// caller must not change them.
func (m *Message) Raw() []byte { return m.raw }

// Has reports whether field de is in the message and well formed.
func (m *Message) Has(de int) bool { return de > 1 && m.present.has(de) }

// Text returns field de as text, without length digits and pad nibbles: digits
// where the dialect packs them, D for the separator of packed track data, and
// upper-case hex for bytes. It is empty when the field is not there.
func (m *Message) Text(de int) string { return string(m.value(de)) }

// Bytes returns what a field of bytes or of hex digits stands for: DE 52, 55, 62,
// 63, 64 and 128. It is nil for another field and when the field is not there.
func (m *Message) Bytes(de int) []byte {
	text := m.value(de)
	if text == nil || m.dialect.rows[de].class != classHex {
		return nil
	}
	b := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(b, text); err != nil {
		return nil
	}
	return b
}

func (m *Message) value(de int) []byte {
	if !m.Has(de) {
		return nil
	}
	s := m.spans[de]
	text, _ := m.dialect.rows[de].text(m.raw[s.off:s.off+s.len], int(s.n))
	return text
}

// TPDU returns the transport header of the message, 5 bytes, or nil in a dialect
// without one. No MAC covers it: it decides nothing but where an answer goes on
// the wire (U-06, A-18).
func (m *Message) TPDU() []byte { return m.head(0, m.dialect.head.TPDU) }

// ANI returns the caller's number of private lines, or nil (U-05).
func (m *Message) ANI() []byte { return m.head(m.dialect.head.TPDU, m.dialect.head.ANI) }

// Header returns the application header, or nil in a dialect without one (U-04).
func (m *Message) Header() []byte {
	h := m.dialect.head
	return m.head(h.TPDU+h.ANI, h.Header)
}

func (m *Message) head(off, n int) []byte {
	if n == 0 || off+n > len(m.raw) {
		return nil
	}
	return m.raw[off : off+n : off+n]
}

// Amount returns DE 4 in minor units, and whether the message has it.
func (m *Message) Amount() (minor int64, ok bool) {
	minor, err := strconv.ParseInt(m.Text(4), 10, 64)
	return minor, err == nil
}

// MACInput returns what the MAC covers: the received bytes from the MTI up to,
// not including, the MAC field's value (W-04, M-01 to M-04, U-52). It is nil unless
// [Message.MAC] returns a MAC. The caller must not change the bytes.
func (m *Message) MACInput() []byte {
	if _, err := m.MAC(); err != nil {
		return nil
	}
	return m.raw[m.dialect.head.size():m.macAt:m.macAt]
}

// MAC returns the 8 bytes of DE 64 or DE 128, whichever W-04 demands; of a
// [MACForm] that carries 4 bytes these and 4 zero bytes. It returns [ErrMACAbsent], [ErrMACMisplaced] or [ErrMACMalformed] when there is
// no MAC to compare: all three are D-03. Network management is the one class
// that may come without a MAC, and ErrMACAbsent alone says so.
func (m *Message) MAC() ([8]byte, error) {
	if m.macErr == nil && m.macAt == 0 {
		return m.mac, ErrMACAbsent
	}
	return m.mac, m.macErr
}

// KSN returns the key serial number, 20 or 24 upper-case hex digits; in ascii87
// DE 62. It returns [ErrKSNAbsent] or [ErrKSNMalformed] when there is none to
// use (W-18).
func (m *Message) KSN() (string, error) {
	switch {
	case m.ksnErr != nil:
		return "", m.ksnErr
	case m.dialect == nil, !m.Has(m.dialect.ksn):
		return "", ErrKSNAbsent
	}
	text := m.Text(m.dialect.ksn)
	if missing := m.dialect.ksnFill - len(text); missing > 0 {
		text = strings.Repeat("F", missing) + text
	}
	return text, nil
}

// KSNField returns the field of the KSN, 0 in a dialect without one.
func (m *Message) KSNField() int { return m.dialect.ksn }

// Original returns DE 90, and whether the message has it.
func (m *Message) Original() (OriginalData, bool) {
	o, err := ParseOriginalData(m.Text(90))
	return o, err == nil
}

// Rest returns the amount of DE 95 that stays valid after a partial reversal,
// in minor units, and whether the message has it.
func (m *Message) Rest() (minor int64, ok bool) {
	minor, err := ParseReplacement(m.Text(95))
	return minor, err == nil
}

// Answerable reports whether a message that could not be read whole can be
// answered: it is a request, and DE 11 and DE 41 could be read (W-01).
func (m *Message) Answerable() bool {
	return m.mti.IsRequest() && m.Has(11) && m.Has(41)
}
