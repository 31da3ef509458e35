package tr31

import (
	"fmt"
	"strconv"
	"strings"

	"keyd.dev/keyd/keys"
)

// Version is the first character of a block: how its key is bound.
type Version byte

// The versions.
const (
	VersionA Version = 'A' // TDES, variants; deprecated
	VersionB Version = 'B' // TDES, derivation
	VersionC Version = 'C' // TDES, variants
	VersionD Version = 'D' // AES, derivation
)

// blockSize is the block size of the version's cipher, 0 for no version.
func (v Version) blockSize() int {
	switch v {
	case VersionA, VersionB, VersionC:
		return 8
	case VersionD:
		return 16
	}
	return 0
}

// macBytes is the length of the MAC.
func (v Version) macBytes() int {
	switch v {
	case VersionA, VersionC:
		return 4
	case VersionB:
		return 8
	}
	return 16
}

// Header is what a block says about its key. X9.143, section 5.
type Header struct {
	Version       Version
	Usage         keys.Usage         // two characters
	Algorithm     byte               // 'T', 'A', 'H', or one that keyd has no keys of
	Mode          keys.Mode          //
	KeyVersion    string             // two characters; "00" for none
	Exportability keys.Exportability //
	Optional      []Optional         // in order, the padding block left out
}

// Optional is an optional block: an identifier of two characters, and
// printable ASCII. X9.143, section 6.
type Optional struct {
	ID   string
	Data string
}

const (
	fixedLength   = 16
	maxLength     = 9999
	padding       = "PB" // fills the optional blocks up to whole blocks of the cipher
	maxOptional   = 99
	shortOptional = 255 // the longest that two digits tell
)

// Find returns the data of the optional block id, and whether there is one.
func (h *Header) Find(id string) (string, bool) {
	for _, o := range h.Optional {
		if o.ID == id {
			return o.Data, true
		}
	}
	return "", false
}

// parseHeader reads the header at the start of text, all of which is printable
// ASCII, and returns its length with all optional blocks.
func parseHeader(text string) (Header, int, error) {
	if len(text) < fixedLength {
		return Header{}, 0, fmt.Errorf("%w: %d characters, a header has %d", ErrShape, len(text), fixedLength)
	}
	h := Header{
		Version:       Version(text[0]),
		Usage:         keys.Usage(text[5:7]),
		Algorithm:     text[7],
		Mode:          keys.Mode(text[8]),
		KeyVersion:    text[9:11],
		Exportability: keys.Exportability(text[11]),
	}
	if h.Version.blockSize() == 0 {
		return Header{}, 0, fmt.Errorf("%w: version %q, want A, B, C or D", ErrVersion, text[:1])
	}
	if err := h.check(); err != nil {
		return Header{}, 0, fmt.Errorf("%w: %w", ErrShape, err)
	}
	count, ok := decimal(text[12:14])
	if !ok || text[14:16] != "00" {
		return Header{}, 0, fmt.Errorf("%w: number of optional blocks %q, reserved %q", ErrShape, text[12:14], text[14:16])
	}
	at := fixedLength
	seen := make(map[string]bool)
	for i := range count {
		o, n, err := parseOptional(text[at:])
		switch {
		case err != nil:
			return Header{}, 0, fmt.Errorf("%w: optional block %d: %w", ErrShape, i+1, err)
		case seen[o.ID]:
			return Header{}, 0, fmt.Errorf("%w: optional block %s twice", ErrShape, o.ID)
		case o.ID == padding && i != count-1:
			return Header{}, 0, fmt.Errorf("%w: optional block %s is not the last", ErrShape, o.ID)
		}
		seen[o.ID] = true
		at += n
		if o.ID != padding {
			h.Optional = append(h.Optional, o)
		}
	}
	if at%h.Version.blockSize() != 0 {
		return Header{}, 0, fmt.Errorf("%w: header of %d characters is not whole blocks of %d", ErrShape, at, h.Version.blockSize())
	}
	return h, at, nil
}

// check looks at the characters of the fixed part.
func (h *Header) check() error {
	switch {
	case len(h.Usage) != 2 || !alphanumeric(string(h.Usage)):
		return fmt.Errorf("%w: key usage %q", ErrHeader, string(h.Usage))
	case !alphanumeric(string(rune(h.Algorithm))) || !alphanumeric(string(rune(h.Mode))):
		return fmt.Errorf("%w: algorithm %q, mode of use %q", ErrHeader, h.Algorithm, byte(h.Mode))
	case len(h.KeyVersion) != 2 || !alphanumeric(strings.ToUpper(h.KeyVersion)):
		return fmt.Errorf("%w: key version %q", ErrHeader, h.KeyVersion)
	case h.Exportability != keys.Exportable && h.Exportability != keys.NonExportable && h.Exportability != keys.Sensitive:
		return fmt.Errorf("%w: exportability %q", ErrHeader, byte(h.Exportability))
	}
	return nil
}

// parseOptional reads the optional block at the start of text and returns its
// whole length. The length is two hexadecimal digits; "00" announces a longer
// one: two digits that count the digits of the length, then these.
func parseOptional(text string) (Optional, int, error) {
	const head = 4
	if len(text) < head || !alphanumeric(text[:2]) {
		return Optional{}, 0, fmt.Errorf("no identifier and length")
	}
	length, ok := hexadecimal(text[2:4])
	begin := head
	if ok && length == 0 {
		digits := 0
		if len(text) >= head+2 {
			digits, ok = hexadecimal(text[4:6])
		}
		begin = head + 2 + digits
		if !ok || digits == 0 || digits > 4 || len(text) < begin {
			return Optional{}, 0, fmt.Errorf("%s: malformed extended length", text[:2])
		}
		length, ok = hexadecimal(text[head+2 : begin])
	}
	if !ok || length < begin || length > len(text) {
		return Optional{}, 0, fmt.Errorf("%s: malformed length, or longer than the block", text[:2])
	}
	return Optional{ID: text[:2], Data: text[begin:length]}, length, nil
}

// marshal writes the header of a block whose other parts take rest characters.
func (h *Header) marshal(rest int) (string, error) {
	if err := h.check(); err != nil {
		return "", err
	}
	var optional strings.Builder
	seen := make(map[string]bool)
	count := len(h.Optional)
	for _, o := range h.Optional {
		switch {
		case len(o.ID) != 2 || !alphanumeric(o.ID) || o.ID == padding || seen[o.ID]:
			return "", fmt.Errorf("%w: optional block identifier %q", ErrHeader, o.ID)
		case !printable(o.Data):
			return "", fmt.Errorf("%w: optional block %s is not printable ASCII", ErrHeader, o.ID)
		}
		seen[o.ID] = true
		optional.WriteString(marshalOptional(o))
	}
	size := h.Version.blockSize()
	if over := optional.Len() % size; over != 0 {
		fill := size - over
		if fill < 4 { // a padding block has 4 characters at least
			fill += size
		}
		optional.WriteString(marshalOptional(Optional{padding, strings.Repeat("0", fill-4)}))
		count++
	}
	length := fixedLength + optional.Len() + rest
	if length > maxLength || count > maxOptional {
		return "", fmt.Errorf("%w: %d characters with %d optional blocks, at most %d and %d", ErrHeader, length, count, maxLength, maxOptional)
	}
	return fmt.Sprintf("%c%04d%s%c%c%s%c%02d00%s", h.Version, length, h.Usage, h.Algorithm, h.Mode, h.KeyVersion, h.Exportability, count, optional.String()), nil
}

func marshalOptional(o Optional) string {
	if n := 4 + len(o.Data); n <= shortOptional {
		return fmt.Sprintf("%s%02X%s", o.ID, n, o.Data)
	}
	return fmt.Sprintf("%s0004%04X%s", o.ID, 10+len(o.Data), o.Data)
}

func alphanumeric(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func decimal(s string) (int, bool) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func hexadecimal(s string) (int, bool) {
	if strings.Trim(s, "0123456789ABCDEF") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 16)
	return int(n), err == nil
}
