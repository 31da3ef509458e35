package audit

// scan looks in a finished value for what no record may hold: a PAN, track data
// or something of the size of a key. It returns why the value must be replaced,
// or zero. It is the second defence, behind the types.
func scan(s string) scrubWhy {
	if hasTrack(s) {
		return whyTrack
	}
	if len(s) < 13 {
		return 0
	}
	if hasPAN(s) {
		return whyPAN
	}
	if hasKey(s) {
		return whySecret
	}
	return 0
}

// hasTrack looks for a start sentinel (; or %B), digits and a separator.
func hasTrack(s string) bool {
	for i := range len(s) {
		var j int
		switch {
		case s[i] == ';':
			j = i + 1
		case s[i] == '%' && i+1 < len(s) && s[i+1]|0x20 == 'b':
			j = i + 2
		default:
			continue
		}
		k := j
		for k < len(s) && isDigit(s[k]) {
			k++
		}
		if k > j && k < len(s) && (s[k] == '=' || s[k] == '^' || s[k]|0x20 == 'd') {
			return true
		}
	}
	return false
}

// hasPAN looks for 13 to 19 digits that pass Luhn's check, also with spaces or
// dashes between them. Of a longer run each window of 16 digits that begins
// like a card number is looked at.
func hasPAN(s string) bool {
	for i := 0; i < len(s); {
		if !isDigit(s[i]) {
			i++
			continue
		}
		var digits [64]byte
		n := 0
		last := i
		for ; i < len(s); i++ {
			if isDigit(s[i]) {
				if n == len(digits) {
					copy(digits[:], digits[len(digits)-15:])
					n = 15
				}
				digits[n] = s[i]
				n++
				last = i
				if n == len(digits) && hasPANWindow(digits[:n]) {
					return true
				}
				continue
			}
			if s[i] != ' ' && s[i] != '-' || i-last > 1 {
				break
			}
		}
		switch {
		case n >= 13 && n <= 19 && luhn(digits[:n]):
			return true
		case n > 19 && hasPANWindow(digits[:n]):
			return true
		}
	}
	return false
}

func hasPANWindow(digits []byte) bool {
	for i := 0; i+16 <= len(digits); i++ {
		if digits[i] >= '2' && digits[i] <= '6' && luhn(digits[i:i+16]) {
			return true
		}
	}
	return false
}

// luhn reports whether the digits pass the check of ISO/IEC 7812-1, annex B.
func luhn(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// hasKey looks for a run of exactly 16, 32, 48 or 64 hexadecimal digits.
func hasKey(s string) bool {
	run := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && isHex(s[i]) {
			run++
			continue
		}
		if run == 16 || run == 32 || run == 48 || run == 64 {
			return true
		}
		run = 0
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
