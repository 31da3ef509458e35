package pin

import (
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// Format is a PIN block format of ISO 9564-1. Its value is the control nibble
// plus one, so that the zero value is none.
type Format uint8

// The formats. Format 2 serves chip cards off line and is not here; for formats
// of before ISO 9564 see [ECI2].
const (
	Format0 Format = 1 // PAN, fixed filler; 8 bytes
	Format1 Format = 2 // no PAN, random filler; 8 bytes
	Format3 Format = 4 // PAN, random filler; 8 bytes
	Format4 Format = 5 // PAN, AES; 16 bytes
)

// ParseFormat reads "0", "1", "3" or "4". It returns [ErrFormat].
func ParseFormat(digit string) (Format, error) {
	for _, f := range []Format{Format0, Format1, Format3, Format4} {
		if f.String() == digit {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%w: %q, want 0, 1, 3 or 4", ErrFormat, digit)
}

// String returns the format's digit or legacy name, or "Format(n)" for a value
// that is none.
func (f Format) String() string {
	if f.Bytes() == 0 {
		return fmt.Sprintf("Format(%d)", uint8(f))
	}
	if f.Legacy() {
		return legacyNames[f]
	}
	return string('0' + f.control())
}

// Bytes is the length of a block of the format, clear or enciphered: 8, or 16
// for format 4, and so the block size of its cipher. It is 0 for a value that
// is no format.
func (f Format) Bytes() int {
	switch f {
	case Format0, Format1, Format3, ECI2, ECI3, VISA2, VISA3:
		return 8
	case Format4:
		return 16
	}
	return 0
}

// NeedsPAN reports whether the format binds the PIN to a PAN: all do but 1.
func (f Format) NeedsPAN() bool { return f == Format0 || f == Format3 || f == Format4 }

func (f Format) control() byte { return byte(f) - 1 }

// PANRule says what the PAN field of format 4 holds.
type PANRule uint8

const (
	// FullPAN is the whole PAN behind a nibble for its length above 12. ISO 9564-1, clause 9.3.5.3.
	FullPAN PANRule = iota
	// Rightmost12 is a zero nibble and the 12 digits left of the check digit, as
	// some services have it.
	Rightmost12
)

// Side is how one side of a translation writes PIN blocks.
type Side struct {
	Format Format
	PAN    PAN     // not looked at in format 1
	Rule   PANRule // format 4 only
	Legacy bool    // permits a legacy format
}

// Validate returns [ErrFormat] for an unknown format or rule and [ErrPAN] when
// the PAN is missing.
func (s *Side) Validate() error {
	switch {
	case s.Format.Bytes() == 0:
		return fmt.Errorf("%w: %s", ErrFormat, s.Format)
	case s.Format.Legacy() && !s.Legacy:
		return fmt.Errorf("%w: %s is permitted by no profile here", ErrFormat, s.Format)
	case s.Format.NeedsPAN() && s.PAN.n == 0:
		return fmt.Errorf("%w: format %s needs one", ErrPAN, s.Format)
	case s.Rule > Rightmost12:
		return fmt.Errorf("%w: unknown PAN rule %d", ErrFormat, uint8(s.Rule))
	}
	return nil
}

// panField returns what the format mixes the PAN in with, in the first
// Format.Bytes() bytes. For formats 0 and 3: four zero nibbles and the 12
// digits left of the check digit. For format 4: see [PANRule].
func (s *Side) panField() [16]byte {
	var nibbles [32]byte
	switch {
	case s.Format == Format4 && s.Rule == FullPAN:
		nibbles[0] = byte(s.PAN.n - minPAN)
		copy(nibbles[1:], s.PAN.digits[:s.PAN.n])
	case s.Format == Format4:
		s.PAN.rightmost12(nibbles[1:])
	case s.Format.NeedsPAN():
		s.PAN.rightmost12(nibbles[4:])
	}
	return pack(&nibbles)
}

// Field is a clear PIN block of 8 bytes, or the clear PIN field of format 4,
// in a fixed array. It never prints by itself; it does not belong into a field
// of another type. Whoever has one clears it.
type Field struct {
	value [16]byte
	n     int
}

// NewField copies a clear block of the format. It returns [ErrLength].
func NewField(f Format, clear []byte) (Field, error) {
	if len(clear) != f.Bytes() || len(clear) == 0 {
		return Field{}, fmt.Errorf("%w: %d bytes, format %s has %d", ErrLength, len(clear), f, f.Bytes())
	}
	field := Field{n: len(clear)}
	copy(field.value[:], clear)
	return field, nil
}

// Bytes returns the field itself, not a copy: [Field.Clear] clears it there too.
func (f *Field) Bytes() []byte { return f.value[:f.n] }

// Clear overwrites the field with zeros.
func (f *Field) Clear() { secret.Clear(f.value[:]) }

// String returns "[secret]".
func (f Field) String() string { return secret.Placeholder }

// GoString returns "[secret]".
func (f Field) GoString() string { return secret.Placeholder }

// Format implements [fmt.Formatter]: every verb prints "[secret]".
func (f Field) Format(s fmt.State, _ rune) { secret.Hide(s) }

// MarshalText implements [encoding.TextMarshaler] with "[secret]".
func (f Field) MarshalText() ([]byte, error) { return []byte(secret.Placeholder), nil }

func pack(nibbles *[32]byte) [16]byte {
	var out [16]byte
	for i := range out {
		out[i] = nibbles[2*i]<<4 | nibbles[2*i+1]
	}
	return out
}

func unpack(value *[16]byte) [32]byte {
	var nibbles [32]byte
	for i, b := range value {
		nibbles[2*i], nibbles[2*i+1] = b>>4, b&0xF
	}
	return nibbles
}
