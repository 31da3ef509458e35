package api

import (
	"strconv"
	"time"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

func appendHex(b, value []byte) []byte {
	for _, v := range value {
		b = append(b, upperHex[v>>4], upperHex[v&15])
	}
	return b
}

// appendString appends text as a JSON string. Text is UTF-8; what is not
// becomes U+FFFD.
func appendString(b []byte, text string) []byte {
	b = append(b, '"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7F:
			b = append(b, '\\', 'u', '0', '0', upperHex[r>>4], upperHex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// appendEpoch appends seconds since 1970 with at most three decimals, as a
// number: a text makes some SDKs fail (section 3.4).
func appendEpoch(b []byte, ms int64) []byte {
	b = strconv.AppendInt(b, ms/1000, 10)
	part := ms % 1000
	if part == 0 {
		return b
	}
	b = append(b, '.', byte('0'+part/100), byte('0'+part/10%10), byte('0'+part%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendTime appends a member that is left out for the zero time.
func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendEpoch(b, t.UnixMilli())
}
