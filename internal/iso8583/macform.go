package iso8583

import "encoding/hex"

// MACForm is what stands in DE 64 or DE 128. Mac-and-DUKPT section 2, U-54.
type MACForm string

// The forms.
const (
	MACHex16     MACForm = "ascii_hex_16" // 8 bytes as 16 upper-case hexadecimal characters
	MACHex8      MACForm = "ascii_hex_8"  // the first 4 bytes as 8 such characters
	MACRaw8      MACForm = "raw_8"        // 8 bytes
	MACRaw4Zero4 MACForm = "raw_4_zero_4" // the first 4 bytes and 4 zero bytes
	MACRaw4      MACForm = "raw_4"        // the first 4 bytes
)

// MACForms lists the forms.
func MACForms() []MACForm {
	return []MACForm{MACHex16, MACHex8, MACRaw8, MACRaw4Zero4, MACRaw4}
}

// size is the length of the field in bytes; 0 for a form that is none.
func (f MACForm) size() int {
	switch f {
	case MACHex16:
		return 16
	case MACHex8, MACRaw8, MACRaw4Zero4:
		return 8
	case MACRaw4:
		return 4
	}
	return 0
}

// Bytes returns how many bytes of a MAC the form carries, 8 or 4.
func (f MACForm) Bytes() int {
	if f == MACHex16 || f == MACRaw8 {
		return 8
	}
	return 4
}

func (f MACForm) raw() bool { return f == MACRaw8 || f == MACRaw4Zero4 || f == MACRaw4 }

// form is what a complaint says is wanted.
func (f MACForm) form() string {
	switch f {
	case MACHex16:
		return "16 hex digits"
	case MACHex8:
		return "8 hex digits"
	case MACRaw4Zero4:
		return "4 bytes and 4 zero bytes"
	case MACRaw4:
		return "4 bytes"
	}
	return "8 bytes"
}

// read returns the MAC in a field, filled with zeros where it carries 4 bytes,
// and whether the field has the form. U-55: no lower-case hexadecimal.
func (f MACForm) read(field []byte) (mac [8]byte, ok bool) {
	if len(field) != f.size() {
		return mac, false
	}
	if f.raw() {
		copy(mac[:], field)
		return mac, f != MACRaw4Zero4 || [4]byte(mac[4:]) == [4]byte{}
	}
	if !classHex.holds(field) {
		return mac, false
	}
	_, err := hex.Decode(mac[:], field)
	return mac, err == nil
}

// append appends the field of a MAC.
func (f MACForm) append(dst []byte, mac [8]byte) []byte {
	switch f {
	case MACHex16:
		return appendHex(dst, mac[:])
	case MACHex8:
		return appendHex(dst, mac[:4])
	case MACRaw4:
		return append(dst, mac[:4]...)
	case MACRaw4Zero4:
		return append(append(dst, mac[:4]...), 0, 0, 0, 0)
	}
	return append(dst, mac[:]...)
}

const hexDigits = "0123456789ABCDEF"

// appendHex appends the upper-case hexadecimal digits of b.
func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&0xF])
	}
	return dst
}
