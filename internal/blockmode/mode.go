package blockmode

import "fmt"

// Mode is a mode of operation of NIST SP 800-38A.
type Mode uint8

// The modes. The number of a cipher feedback mode is that of the bits in a
// segment; CFB is the one whose segments are whole blocks.
const (
	ECB Mode = iota + 1
	CBC
	CFB
	CFB1
	CFB8
	CFB64
	CFB128
	OFB
)

// MostCFB1 bounds what CFB1 enciphers at a time, in bytes: each bit of it is a
// call of the cipher. Deciphering is one call, and not bounded.
const MostCFB1 = 256

var modeNames = [...]string{ECB: "ECB", CBC: "CBC", CFB: "CFB", CFB1: "CFB1", CFB8: "CFB8", CFB64: "CFB64", CFB128: "CFB128", OFB: "OFB"}

// Modes lists every mode, in the order of the constants.
func Modes() []Mode { return []Mode{ECB, CBC, CFB, CFB1, CFB8, CFB64, CFB128, OFB} }

// String returns the API's word for the mode.
func (m Mode) String() string {
	if !m.known() {
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
	return modeNames[m]
}

// Parse is the inverse of [Mode.String]. It returns [ErrMode].
func Parse(word []byte) (Mode, error) {
	for _, m := range Modes() {
		if modeNames[m] == string(word) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("%w: the word names none", ErrMode)
}

func (m Mode) known() bool { return m >= ECB && m <= OFB }

// Forward reports whether the mode deciphers with the cipher's encryption, as
// the feedback modes do: a key that may only decipher has no such mode.
func (m Mode) Forward() bool { return m >= CFB && m <= OFB }

// segment returns the bits of a segment of the mode on blocks of so many bytes.
func (m Mode) segment(block int) (int, error) {
	bits := 8 * block
	switch m {
	case CFB1:
		bits = 1
	case CFB8:
		bits = 8
	case CFB64:
		bits = 64
	case CFB128:
		bits = 128
	}
	if !m.known() || bits > 8*block {
		return 0, fmt.Errorf("%w: %s on blocks of %d bytes", ErrMode, m, block)
	}
	return bits, nil
}

// check refuses what the mode cannot work on, and returns the bits of a
// segment and the initial vector, which is zero where there is none.
func (m Mode) check(block int, iv, data []byte) (bits int, vector []byte, err error) {
	if bits, err = m.segment(block); err != nil {
		return 0, nil, err
	}
	switch {
	case len(data) == 0 || 8*len(data)%bits != 0:
		return 0, nil, fmt.Errorf("%w: %d bytes, want whole segments of %d bits", ErrData, len(data), bits)
	case m == ECB && iv != nil:
		return 0, nil, fmt.Errorf("%w: ECB has none", ErrVector)
	case m == ECB:
		return bits, nil, nil
	case iv == nil:
		return bits, make([]byte, block), nil
	case len(iv) != block:
		return 0, nil, fmt.Errorf("%w: %d bytes, want %d", ErrVector, len(iv), block)
	}
	return bits, iv, nil
}
