package iso8583

import (
	"fmt"
	"strconv"
	"strings"
)

// OriginalData is DE 90: what names the original of a reversal (ISO 8583:1987;
// W-15). Acquirer and Forwarder are written without their leading zeros, and
// empty when they are all zeros.
type OriginalData struct {
	MTI       MTI    // of the original
	STAN      string // DE 11 of the original, 6 digits
	DateTime  string // DE 7 of the original, 10 digits, MMDDhhmmss UTC
	Acquirer  string // DE 32, at most 11 digits
	Forwarder string // DE 33, at most 11 digits
}

// ParseOriginalData reads the 42 digits of DE 90. It returns a [FormatError]
// when text is anything else.
func ParseOriginalData(text string) (OriginalData, error) {
	if len(text) != 42 || !classN.holds([]byte(text)) {
		return OriginalData{}, &FormatError{DE: 90, Fault: FaultContent, Form: "n42"}
	}
	return OriginalData{
		MTI:       MTI(text[:4]),
		STAN:      text[4:10],
		DateTime:  text[10:20],
		Acquirer:  strings.TrimLeft(text[20:31], "0"),
		Forwarder: strings.TrimLeft(text[31:42], "0"),
	}, nil
}

// Text returns the 42 digits of DE 90, acquirer and forwarder filled with zeros
// on the left. It returns a [FormatError] when a part does not fit.
func (o OriginalData) Text() (string, error) {
	text := string(o.MTI) + o.STAN + o.DateTime + zeroFill(o.Acquirer, 11) + zeroFill(o.Forwarder, 11)
	wrong := len(o.MTI) != 4 || len(o.STAN) != 6 || len(o.DateTime) != 10 || len(text) != 42
	if wrong || !classN.holds([]byte(text)) {
		return "", &FormatError{DE: 90, Fault: FaultContent, Form: "n42"}
	}
	return text, nil
}

// Matches reports whether parts 4 and 5 fit an original with these DE 32 and
// DE 33. A part of zeros fits any (W-15).
func (o OriginalData) Matches(acquirer, forwarder string) bool {
	return fits(o.Acquirer, acquirer) && fits(o.Forwarder, forwarder)
}

func fits(part, of string) bool {
	part = strings.TrimLeft(part, "0")
	return part == "" || part == strings.TrimLeft(of, "0")
}

func zeroFill(digits string, n int) string {
	return strings.Repeat("0", max(0, n-len(digits))) + digits
}

// maxAmount is the greatest amount that n12 holds, in minor units.
const maxAmount = 999_999_999_999

// AmountText returns an amount in minor units as the 12 digits of DE 4. It
// returns [ErrAmount] when the amount is negative or does not fit.
func AmountText(minor int64) (string, error) {
	if minor < 0 || minor > maxAmount {
		return "", fmt.Errorf("%w: %d", ErrAmount, minor)
	}
	return fmt.Sprintf("%012d", minor), nil
}

// unusedReplacement is the part of DE 95 after the actual amount: settlement
// amount and both fees, which this dialect does not use.
const unusedReplacement = "000000000000000000000000000000"

// ParseReplacement reads DE 95 and returns the amount of the original that
// stays valid, in minor units. It returns a [FormatError] unless text is 12
// digits and 30 zeros: a settlement amount, and a fee with its leading C or D,
// are not of the dialect.
func ParseReplacement(text string) (restMinor int64, err error) {
	if !isReplacement([]byte(text)) {
		return 0, &FormatError{DE: 95, Fault: FaultContent, Form: "n12 and 30 zeros"}
	}
	return strconv.ParseInt(text[:12], 10, 64)
}

// ReplacementText returns DE 95 for an amount that stays valid, in minor units.
// It returns [ErrAmount] when the amount is negative or does not fit.
func ReplacementText(restMinor int64) (string, error) {
	amount, err := AmountText(restMinor)
	if err != nil {
		return "", fmt.Errorf("writing DE 95: %w", err)
	}
	return amount + unusedReplacement, nil
}

func isReplacement(text []byte) bool {
	return len(text) == 42 && classN.holds(text[:12]) && string(text[12:]) == unusedReplacement
}
