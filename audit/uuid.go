package audit

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// UUID is a version 7 UUID (RFC 9562, section 5.7).
type UUID [16]byte

// newUUID makes a UUID of the given time and 74 random bits.
func newUUID(t time.Time) UUID {
	var u UUID
	_, _ = rand.Read(u[6:]) // never fails; it ends the process instead
	ms := uint64(t.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u
}

// IsZero reports whether u is the zero UUID, which stands for none.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the 36-character form.
func (u UUID) String() string { return string(u.append(make([]byte, 0, 36))) }

func (u UUID) append(b []byte) []byte {
	b = hex.AppendEncode(b, u[:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[8:10])
	b = append(b, '-')
	return hex.AppendEncode(b, u[10:])
}

// ParseUUID reads the 36-character form in lower case. The error is [ErrFormat].
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if !isUUID7(s) {
		return u, fmt.Errorf("%w: UUID must be of version 7, in 36 lower-case characters", ErrFormat)
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	_, err := hex.Decode(u[:], []byte(digits))
	return u, err
}

// isUUID7 reports whether s has the form of a lower-case version 7 UUID.
func isUUID7(s string) bool {
	if len(s) != 36 || s[14] != '7' || s[19] != '8' && s[19] != '9' && s[19] != 'a' && s[19] != 'b' {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !isLowerHex(s[i]) {
				return false
			}
		}
	}
	return true
}

func isLowerHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
