package audit

import (
	"encoding/base64"
	"fmt"
	"strconv"
)

// Tokener makes keyed tokens of data that must not be stored. Implementations
// are safe for concurrent use. Token returns "k<version>:" and 22 base64url
// characters, as [FormatToken] does, or an error, upon which the operation is
// refused.
type Tokener interface {
	Token(label string, data []byte) (string, error)
}

// The labels of the tokens in records.
const (
	labelPAN      = "pan"
	labelMessage  = "msg"
	labelTerminal = "term"
	labelMerchant = "merch"
)

// TokenInput returns what a [Tokener] computes HMAC-SHA-256 of: the label, a
// zero byte and the data.
func TokenInput(label string, data []byte) []byte {
	b := make([]byte, 0, len(label)+1+len(data))
	b = append(b, label...)
	b = append(b, 0)
	return append(b, data...)
}

// FormatToken returns the token of a key's version and the HMAC-SHA-256 of
// [TokenInput], of which it keeps 16 bytes. The error is [ErrToken].
func FormatToken(version int, hmac []byte) (string, error) {
	if version < 1 || len(hmac) < 16 {
		return "", fmt.Errorf("%w: version %d with %d bytes of HMAC; need a version from 1 and 16 bytes", ErrToken, version, len(hmac))
	}
	return "k" + strconv.Itoa(version) + ":" + base64.RawURLEncoding.EncodeToString(hmac[:16]), nil
}

// HMACTokener is a [Tokener] over a function that computes HMAC-SHA-256 with a
// key of its own; the function must be safe for concurrent use.
type HMACTokener struct {
	Version int
	HMAC    func(msg []byte) ([]byte, error)
}

// Token implements [Tokener].
func (t HMACTokener) Token(label string, data []byte) (string, error) {
	in := TokenInput(label, data)
	defer clear(in)
	sum, err := t.HMAC(in)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	return FormatToken(t.Version, sum)
}

// PAN is what the log keeps of a PAN: some digits and keyed tokens. [Log.PAN]
// makes it.
type PAN struct {
	truncated, tok, prev string
}

// String returns the truncated PAN.
func (p PAN) String() string { return p.truncated }

// Token returns the keyed token, by which equal PANs are found.
func (p PAN) Token() string { return p.tok }

// Previous returns the token under the key before, during its overlap; else "".
func (p PAN) Previous() string { return p.prev }

// MsgTok is the keyed token of a message's bytes. [Log.MsgTok] makes it.
type MsgTok struct{ tok string }

// String returns the token.
func (t MsgTok) String() string { return t.tok }

// Name is an identifier of a terminal or merchant: as it is when it stands in
// the registers, else as a keyed token.
type Name struct {
	value      string
	registered bool
}

// Registered returns an identifier that stands in the registers and is
// recorded as it is.
func Registered(s string) Name { return Name{value: s, registered: true} }

// String returns the identifier or its token.
func (n Name) String() string { return n.value }

// PAN returns what may be recorded of a PAN, which is digits in ASCII. It keeps
// neither the argument nor a copy of it. When the tokener fails the error is
// [ErrToken], the operation must be refused, and the value, without token, is
// for the record of that refusal.
func (l *Log) PAN(digits []byte) (PAN, error) {
	p := PAN{truncated: truncatePAN(digits, l.o.PANFirst8)}
	if p.truncated == "" {
		return PAN{}, fmt.Errorf("%w: a PAN has 8 to 19 digits", ErrFormat)
	}
	var err error
	if p.tok, err = token(l.o.Tokener, labelPAN, digits); err != nil {
		return PAN{truncated: p.truncated}, err
	}
	if l.o.PreviousTokener == nil {
		return p, nil
	}
	if p.prev, err = token(l.o.PreviousTokener, labelPAN, digits); err != nil {
		return PAN{truncated: p.truncated}, err
	}
	return p, nil
}

// MsgTok returns the token of a message's exact wire bytes. The error is [ErrToken].
func (l *Log) MsgTok(wire []byte) (MsgTok, error) {
	tok, err := token(l.o.Tokener, labelMessage, wire)
	return MsgTok{tok}, err
}

// UnregisteredTerminal returns the token of a terminal identifier (DE 41) that
// is not in the registers. The error is [ErrToken].
func (l *Log) UnregisteredTerminal(id []byte) (Name, error) {
	tok, err := token(l.o.Tokener, labelTerminal, id)
	return Name{value: tok}, err
}

// UnregisteredMerchant returns the token of a merchant identifier (DE 42) that
// is not in the registers. The error is [ErrToken].
func (l *Log) UnregisteredMerchant(id []byte) (Name, error) {
	tok, err := token(l.o.Tokener, labelMerchant, id)
	return Name{value: tok}, err
}

func token(t Tokener, label string, data []byte) (string, error) {
	if t == nil {
		return "", fmt.Errorf("%w: none is configured", ErrToken)
	}
	tok, err := t.Token(label, data)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	if !isToken(tok) {
		return "", fmt.Errorf("%w: it returned something that is not a token", ErrToken)
	}
	return tok, nil
}

// truncatePAN keeps the first 6 and the last 4 digits; at least 5 stay hidden,
// for which shorter PANs lose leading digits first. With first8, PANs of at
// least 16 digits keep 8 and 4. It returns "" for what is not a PAN.
func truncatePAN(digits []byte, first8 bool) string {
	n := len(digits)
	if n < 8 || n > 19 {
		return ""
	}
	first := max(0, min(6, n-4-5))
	last := min(4, n-5-first)
	if first8 && n >= 16 {
		first, last = 8, 4
	}
	out := make([]byte, n)
	for i, c := range digits {
		if c < '0' || c > '9' {
			return ""
		}
		if i < first || i >= n-last {
			out[i] = c
		} else {
			out[i] = '*'
		}
	}
	return string(out)
}

// isToken reports whether s is "k<version>:" and 22 base64url characters.
func isToken(s string) bool {
	if len(s) < 25 || len(s) > 34 || s[0] != 'k' || s[1] == '0' {
		return false
	}
	colon := len(s) - 23
	if s[colon] != ':' {
		return false
	}
	for i := 1; i < colon; i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	for i := colon + 1; i < len(s); i++ {
		if !isBase64URL(s[i]) {
			return false
		}
	}
	return true
}

func isBase64URL(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}
