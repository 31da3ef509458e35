package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A chip's data are EMV data objects, tag, length and value one after the other
// (EMV book 3, annex B), in messages as hexadecimal digits. Those of a simulated
// chip have the right form; its cryptogram is one that no issuer would accept.

// tlv is a data object.
type tlv struct {
	tag   string // hexadecimal
	value []byte
}

// chipData is DE 55 of a transaction. counter is the card's transaction counter.
func chipData(amount int64, currency string, counter int) string {
	digits := func(form string, n int64) []byte {
		b, _ := hex.DecodeString(fmt.Sprintf(form, n)) // decimal digits, an even number of them
		return b
	}
	sum := sha256.Sum256(digits("%08d", int64(counter)))
	return joinTLV([]tlv{
		{"9F26", sum[:8]}, {"9F27", []byte{0x80}}, {"9F10", append([]byte{0x07, 0x01, 0x01, 0x03}, sum[8:12]...)},
		{"9F37", sum[12:16]}, {"9F36", binary.BigEndian.AppendUint16(nil, uint16(counter))},
		{"95", make([]byte, 5)}, {"9C", []byte{0}}, {"9F02", digits("%012d", amount)}, {"5F2A", mustHex("0" + currency)},
		{"82", []byte{0x7C, 0}}, {"9F1A", mustHex("0" + currency)}, {"9F03", make([]byte, 6)}, {"9F33", []byte{0xE0, 0xE1, 0xC8}},
		{"9F1E", []byte("KEYDSIM1")},
	})
}

// reversedChip is what of DE 55 a reversal repeats (U-64).
func reversedChip(field string) string {
	list, err := splitTLV(field)
	if err != nil {
		return ""
	}
	keep := []string{"95", "9F1E", "9F10", "9F36", "DF31"}
	return joinTLV(slices.DeleteFunc(list, func(o tlv) bool { return !slices.Contains(keep, o.tag) }))
}

func joinTLV(list []tlv) string {
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s%02X%X", o.tag, len(o.value), o.value)
	}
	return b.String()
}

// splitTLV reads data objects with tags of one or two bytes and lengths of one,
// which is what a terminal puts into DE 55.
func splitTLV(field string) ([]tlv, error) {
	raw, err := hex.DecodeString(field)
	if err != nil {
		return nil, fmt.Errorf("%w: DE 55 is not hexadecimal", ErrState)
	}
	var list []tlv
	for len(raw) > 0 {
		tag := 1
		if raw[0]&0x1F == 0x1F {
			tag = 2
		}
		if len(raw) < tag+1 || raw[tag] > 0x7F || len(raw) < tag+1+int(raw[tag]) {
			return nil, fmt.Errorf("%w: DE 55 ends within a data object", ErrState)
		}
		end := tag + 1 + int(raw[tag])
		list = append(list, tlv{strings.ToUpper(hex.EncodeToString(raw[:tag])), raw[tag+1 : end]})
		raw = raw[end:]
	}
	return list, nil
}

// mustHex is for the digits of a currency, which the configuration has checked.
func mustHex(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		return []byte{0, 0}
	}
	return b
}
