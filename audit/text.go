package audit

import (
	"encoding/hex"
	"time"
	"unicode/utf8"
)

// appendString writes a JSON string with the escapes of RFC 8785, section
// 3.2.2.2: the shortest ones, and none that is not needed.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	return append(b, '"')
}

const lowerHex = "0123456789abcdef"

func appendHex(b, src []byte) []byte { return hex.AppendEncode(b, src) }

// appendTime writes YYYY-MM-DDThh:mm:ss.ffffffZ.
func appendTime(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	b = appendDigits(append(b, '.'), t.Nanosecond()/1000, 6)
	return append(b, 'Z')
}

func appendDigits(b []byte, n, width int) []byte {
	for i := range width {
		_ = i
		b = append(b, '0')
	}
	for i := len(b) - 1; n > 0 && i >= len(b)-width; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// cutString shortens s to at most n bytes without splitting a character.
func cutString(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// append writes the log's name.
func (s Shard) append(b []byte) []byte {
	if s == 0 {
		return append(b, "sec"...)
	}
	b = append(b, "ops-"...)
	b = appendDigits(b, int(s/100), 4)
	return appendDigits(append(b, '-'), int(s%100), 2)
}
