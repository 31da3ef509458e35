package audit

import (
	"strings"
	"unicode/utf8"
)

// The character classes of the record's types.
const (
	classID byte = 1 << iota // A-Z a-z 0-9 . _ : / @ + [ ] -
	classDigit
	classLower // hexadecimal, lower case
	classUpper // hexadecimal, upper case
	classB64   // standard base64 without padding
	classAction
)

var classes = [256]byte{
	'.': classID | classAction, '_': classID | classAction, ':': classID, '@': classID, '[': classID, ']': classID, '-': classID,
	'/': classID | classB64, '+': classID | classB64,
	'0': digit, '1': digit, '2': digit, '3': digit, '4': digit, '5': digit, '6': digit, '7': digit, '8': digit, '9': digit,
	'A': upper | classUpper, 'B': upper | classUpper, 'C': upper | classUpper, 'D': upper | classUpper, 'E': upper | classUpper, 'F': upper | classUpper,
	'G': upper, 'H': upper, 'I': upper, 'J': upper, 'K': upper, 'L': upper, 'M': upper, 'N': upper, 'O': upper, 'P': upper,
	'Q': upper, 'R': upper, 'S': upper, 'T': upper, 'U': upper, 'V': upper, 'W': upper, 'X': upper, 'Y': upper, 'Z': upper,
	'a': lower | classLower, 'b': lower | classLower, 'c': lower | classLower, 'd': lower | classLower, 'e': lower | classLower, 'f': lower | classLower,
	'g': lower, 'h': lower, 'i': lower, 'j': lower, 'k': lower, 'l': lower, 'm': lower, 'n': lower, 'o': lower, 'p': lower,
	'q': lower, 'r': lower, 's': lower, 't': lower, 'u': lower, 'v': lower, 'w': lower, 'x': lower, 'y': lower, 'z': lower,
}

const (
	digit = classID | classDigit | classLower | classUpper | classB64 | classAction
	upper = classID | classB64
	lower = classID | classB64 | classAction
)

// all reports whether s has lo to hi characters, all of the class.
func all(s string, class byte, lo, hi int) bool {
	if len(s) < lo || len(s) > hi {
		return false
	}
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}

func isID(s string) bool { return all(s, classID, 1, 128) }

// isPrintable reports whether s is 1 to n printable ASCII characters.
func isPrintable(s string, n int) bool {
	if len(s) == 0 || len(s) > n {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// isText reports whether s is non-empty UTF-8 without control characters
// (C0, DEL and C1).
func isText(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

// isKSN reports whether s is 20 or 24 upper-case hexadecimal digits.
func isKSN(s string) bool {
	return (len(s) == 20 || len(s) == 24) && all(s, classUpper, 20, 24)
}

// isKCV reports whether s is 4 to limit upper-case hexadecimal digits.
func isKCV(s string, limit int) bool { return all(s, classUpper, 4, limit) }

// isTruncatedPAN reports whether s is at most eight digits, asterisks, at most
// four digits, with at least five asterisks; four when eight digits come first.
func isTruncatedPAN(s string) bool {
	if len(s) < 8 || len(s) > 19 {
		return false
	}
	i := 0
	for i < len(s) && classes[s[i]]&classDigit != 0 {
		i++
	}
	j := i
	for j < len(s) && s[j] == '*' {
		j++
	}
	return i <= 8 && (j-i >= 5 || j-i == 4 && i == 8) && len(s)-j <= 4 && all(s[j:], classDigit, 0, 4)
}

// isKeyBlockHeader reports whether s has the form of the first 16 characters of
// a TR-31 or X9.143 key block: version, four digits of length, then letters and
// digits.
func isKeyBlockHeader(s string) bool {
	if len(s) != 16 || s[0] < 'A' || s[0] > 'Z' || !all(s[1:5], classDigit, 4, 4) {
		return false
	}
	for i := 5; i < 16; i++ {
		c := s[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// isTR31Header reports whether every place of a key block header holds what
// X9.143 has there: version A to D, length, usage, algorithm, mode, key version,
// exportability, number of optional blocks, and the reserved zeros. Such a
// header may be hexadecimal from end to end, D0144D0AB00E0000, and is no key.
func isTR31Header(s string) bool {
	return isKeyBlockHeader(s) && s[0] <= 'D' &&
		strings.IndexByte("BCDEIKMPSV0123456789", s[5]) >= 0 &&
		strings.IndexByte("ADEHRST", s[7]) >= 0 && strings.IndexByte("BCDEGNSTVXY", s[8]) >= 0 &&
		strings.IndexByte("ENS", s[11]) >= 0 && all(s[12:14], classDigit, 2, 2) && s[14:] == "00"
}

// isOrigDateTime reports whether s is MMDD, MMDDhhmmss, YYMMDDhhmmss or
// YYYYMMDDhhmmss with every part in range.
func isOrigDateTime(s string) bool {
	if !all(s, classDigit, 4, 14) {
		return false
	}
	switch len(s) {
	case 4:
	case 10:
	case 12:
		s = s[2:]
	case 14:
		s = s[4:]
	default:
		return false
	}
	two := func(i int) int { return int(s[i]-'0')*10 + int(s[i+1]-'0') }
	month, day := two(0), two(2)
	if month < 1 || month > 12 || day < 1 || day > daysOf[month] {
		return false
	}
	return len(s) == 4 || two(4) < 24 && two(6) < 60 && two(8) < 60
}

var daysOf = [13]int{0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// isLogName reports whether s is sec or ops-yyyy-mm.
func isLogName(s string) bool {
	if s == "sec" {
		return true
	}
	_, err := parseShard(s)
	return err == nil
}
