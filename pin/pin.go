package pin

import (
	"crypto/subtle"
	"fmt"

	"keyd.dev/keyd/internal/secret"
)

// The lengths that ISO 9564-1 admits.
const (
	minPIN = 4
	maxPIN = 12
	minPAN = 12
	maxPAN = 19
)

// PIN is 4 to 12 decimal digits in a fixed array, which can stay on the stack.
// It never prints by itself; it does not belong into a field of another type.
// Whoever has one clears it.
type PIN struct {
	digits [maxPIN]byte // 0 to 9, not ASCII
	n      int
}

// ParsePIN reads ASCII digits, which are the caller's to clear. It returns
// [ErrPIN], which tells the length at most. ISO 9564-1, clause 8.1.
func ParsePIN(ascii []byte) (PIN, error) {
	var p PIN
	if len(ascii) < minPIN || len(ascii) > maxPIN {
		return p, fmt.Errorf("%w: %d characters, want %d to %d digits", ErrPIN, len(ascii), minPIN, maxPIN)
	}
	decimal := 1
	for i, c := range ascii {
		p.digits[i] = c - '0'
		decimal &= subtle.ConstantTimeLessOrEq(int(c-'0'), 9)
	}
	if decimal != 1 {
		p.Clear()
		return PIN{}, fmt.Errorf("%w: a character is not a decimal digit", ErrPIN)
	}
	p.n = len(ascii)
	return p, nil
}

// Len is the number of digits.
func (p *PIN) Len() int { return p.n }

// AppendDigits appends the ASCII digits to dst, for the few who must compare
// or print a PIN on a PIN mailer.
func (p *PIN) AppendDigits(dst []byte) []byte {
	for _, d := range p.digits[:p.n] {
		dst = append(dst, '0'+d)
	}
	return dst
}

// Equal reports in constant time whether both are the same PIN.
func (p *PIN) Equal(q *PIN) bool {
	return subtle.ConstantTimeCompare(p.digits[:], q.digits[:])&subtle.ConstantTimeEq(int32(p.n), int32(q.n)) == 1
}

// Clear overwrites the digits.
func (p *PIN) Clear() {
	secret.Clear(p.digits[:])
	p.n = 0
}

// String returns "[secret]".
func (p PIN) String() string { return secret.Placeholder }

// GoString returns "[secret]".
func (p PIN) GoString() string { return secret.Placeholder }

// Format implements [fmt.Formatter]: every verb prints "[secret]".
func (p PIN) Format(f fmt.State, _ rune) { secret.Hide(f) }

// MarshalText implements [encoding.TextMarshaler] with "[secret]".
func (p PIN) MarshalText() ([]byte, error) { return []byte(secret.Placeholder), nil }

// PAN is a primary account number of 12 to 19 digits. It prints masked but for
// the last four. The zero value is no PAN.
type PAN struct {
	digits [maxPAN]byte // 0 to 9, not ASCII
	n      int
}

// ParsePAN reads decimal digits, the check digit among them, which is not
// verified. It returns [ErrPAN]. ISO/IEC 7812-1.
func ParsePAN(digits string) (PAN, error) {
	var p PAN
	if len(digits) < minPAN || len(digits) > maxPAN {
		return p, fmt.Errorf("%w: %d characters, want %d to %d digits", ErrPAN, len(digits), minPAN, maxPAN)
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return PAN{}, fmt.Errorf("%w: character %d is not a decimal digit", ErrPAN, i+1)
		}
		p.digits[i] = digits[i] - '0'
	}
	p.n = len(digits)
	return p, nil
}

// String returns the PAN with all but its last four digits as asterisks.
func (p PAN) String() string {
	masked := make([]byte, p.n)
	for i := range masked {
		masked[i] = '*'
		if i >= p.n-4 {
			masked[i] = '0' + p.digits[i]
		}
	}
	return string(masked)
}

// GoString returns the masked form of [PAN.String].
func (p PAN) GoString() string { return p.String() }

// Format implements [fmt.Formatter]: every verb prints the masked form.
func (p PAN) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// MarshalText implements [encoding.TextMarshaler] with the masked form.
func (p PAN) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// rightmost12 sets dst to the 12 digits left of the check digit, with zeros on
// the left where there are fewer. ISO 9564-1, clause 9.3.2.
func (p *PAN) rightmost12(dst []byte) {
	body := p.digits[:p.n-1]
	for i := range dst[:12] {
		dst[i] = 0
		if j := len(body) - 12 + i; j >= 0 {
			dst[i] = body[j]
		}
	}
}
