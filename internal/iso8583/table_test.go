package iso8583

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fieldTable is the table of the dialect: M mandatory, O optional, - refused,
// in 0100 0200 0220, in 04xx, in 0800, in an answer, in an 0810. A T at the end
// is a field of the terminal side alone (W-08).
const fieldTable = `
  2 M M - M -
  3 M M - M -
  4 M M - M -
  7 M M M M M
 11 M M M M M
 12 M M - M -
 13 M M - M -
 14 O O - - -
 22 M M - - -
 25 M M - - -
 32 O O - O -
 35 O - - - -
 37 O O - M O
 38 - O - O -
 39 - M - M M
 41 M M M M M
 42 M M M M M
 49 M M - M -
 52 O - - - -
 55 O O - O -
 62 O O O O O T
 63 O - - - - T
 70 - - M - M
 90 - M - - -
 95 - O - - -
`

// cell returns M, O or - for a field of a message; a field outside the table is
// "?".
func cell(t *testing.T, de int, mti string, s Side) string {
	t.Helper()
	for line := range strings.Lines(fieldTable) {
		cols := strings.Fields(line)
		if len(cols) == 0 || cols[0] != fmt.Sprint(de) {
			continue
		}
		answer := mti[2] == '1' || mti[2] == '3'
		switch {
		case len(cols) == 7 && s == SideUpstream:
			return "-"
		case mti[1] == '8' && answer:
			return cols[5]
		case answer:
			return cols[4]
		case mti[1] == '8':
			return cols[3]
		case mti[1] == '4':
			return cols[2]
		}
		return cols[1]
	}
	return "?"
}

// anyValue is a well-formed value for every field of the table, as on the wire.
func anyValue(de int) string {
	for _, mti := range []string{"0200", "0400", "0800", "0210"} {
		if v, ok := sample(mti, SideTerminal)[de]; ok {
			return v
		}
	}
	if de == 63 {
		return "032" + testMAC + testMAC
	}
	return "00000000"
}

// TestFieldTable goes through every field, message type and side.
func TestFieldTable(t *testing.T) {
	d := ASCII87()
	for _, s := range []Side{SideTerminal, SideUpstream} {
		for _, mti := range allMTIs {
			for de := 2; de <= 127; de++ {
				if de == 64 {
					continue
				}
				want := cell(t, de, mti, s)
				t.Run(fmt.Sprintf("side %d %s DE %d %s", s, mti, de, want), func(t *testing.T) {
					testCell(t, d, s, mti, de, want)
				})
			}
		}
	}
}

func testCell(t *testing.T, d *Dialect, s Side, mti string, de int, want string) {
	full := sample(mti, s)
	if de == 63 {
		full = full.without(52)
	}
	with, without := full.with(fields{de: anyValue(de)}), full.without(de)
	if de > 64 && mti[1] != '8' && mti[1] != '4' {
		with = with.with(fields{64: "", 128: testMAC})
	}
	_, errWith := d.Parse(wire(mti, with), s)
	_, errWithout := d.Parse(wire(mti, without), s)
	switch want {
	case "M":
		wantFault(t, errWith, 0, 0)
		wantFault(t, errWithout, de, FaultMissing)
	case "O":
		wantFault(t, errWith, 0, 0)
		wantFault(t, errWithout, 0, 0)
	case "-":
		wantFault(t, errWith, de, FaultForbidden)
		wantFault(t, errWithout, 0, 0)
	case "?":
		wantFault(t, errWith, de, FaultUnknown)
		wantFault(t, errWithout, 0, 0)
	}
}

// wantFault demands a FormatError with these, or no error when fault is 0.
func wantFault(t *testing.T, err error, de int, fault Fault) {
	t.Helper()
	if fault == 0 {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	var fe *FormatError
	if !errors.As(err, &fe) {
		t.Errorf("got %v, want DE %d: %v", err, de, fault)
		return
	}
	if fe.DE != de || fe.Fault != fault {
		t.Errorf("got DE %d: %v, want DE %d: %v", fe.DE, fe.Fault, de, fault)
	}
}

func TestSamplesReadBack(t *testing.T) {
	d := ASCII87()
	for _, s := range []Side{SideTerminal, SideUpstream} {
		for _, mti := range allMTIs {
			t.Run(fmt.Sprintf("side %d %s", s, mti), func(t *testing.T) {
				f := sample(mti, s)
				raw := wire(mti, f)
				m, err := d.Parse(raw, s)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(f.text(), texts(m)); diff != "" {
					t.Errorf("fields (-want +got):\n%s", diff)
				}
				if m.MTI() != MTI(mti) || m.Side() != s || string(m.Raw()) != string(raw) {
					t.Errorf("MTI %s, side %d, %d bytes", m.MTI(), m.Side(), len(m.Raw()))
				}
				mac, err := m.MAC()
				if err != nil || fmt.Sprintf("%X", mac) != testMAC {
					t.Errorf("MAC %X, %v", mac, err)
				}
				if want := raw[:len(raw)-16]; string(m.MACInput()) != string(want) {
					t.Errorf("MAC input of %d bytes, want %d", len(m.MACInput()), len(want))
				}
			})
		}
	}
}

// TestFieldContent gives each field of the table what it may not hold.
func TestFieldContent(t *testing.T) {
	tests := []struct {
		name  string
		mti   string
		de    int
		value string // as on the wire
		fault Fault  // 0: accepted
		at    int    // the field blamed, if it is another
	}{
		{name: "DE 2 of one digit", mti: "0200", de: 2, value: "014"},
		{name: "DE 2 of 19 digits", mti: "0200", de: 2, value: "196225881234567890123"},
		{name: "DE 2 of 20 digits", mti: "0200", de: 2, value: "2062258812345678901234", fault: FaultLength},
		{name: "DE 2 empty", mti: "0200", de: 2, value: "00", fault: FaultLength},
		{name: "DE 2 letter", mti: "0200", de: 2, value: "16411111111111111A", fault: FaultContent},
		{name: "DE 2 space", mti: "0200", de: 2, value: "16411111111111111 ", fault: FaultContent},
		{name: "DE 2 NUL", mti: "0200", de: 2, value: "16411111111111111\x00", fault: FaultContent},
		{name: "DE 2 signed length", mti: "0200", de: 2, value: "+9411111111", fault: FaultLength},
		{name: "DE 2 spaced length", mti: "0200", de: 2, value: " 9411111111", fault: FaultLength},
		{name: "DE 2 length in letters", mti: "0200", de: 2, value: "AA" + testPAN, fault: FaultLength},
		{name: "DE 2 length beyond the end", mti: "0200", de: 2, value: "99" + testPAN, fault: FaultLength},
		{name: "DE 3 letter", mti: "0200", de: 3, value: "00000A", fault: FaultContent},
		{name: "DE 4 minus", mti: "0200", de: 4, value: "-00000001234", fault: FaultContent},
		{name: "DE 4 point", mti: "0200", de: 4, value: "000000012.34", fault: FaultContent},
		{name: "DE 7 letter", mti: "0200", de: 7, value: "112104301Z", fault: FaultContent},
		{name: "DE 11 letter", mti: "0200", de: 11, value: "00000A", fault: FaultContent},
		{name: "DE 12 colon", mti: "0200", de: 12, value: "10:30:", fault: FaultContent},
		{name: "DE 13 letter", mti: "0200", de: 13, value: "112A", fault: FaultContent},
		{name: "DE 14 letter", mti: "0200", de: 14, value: "30A2", fault: FaultContent},
		{name: "DE 22 letter", mti: "0200", de: 22, value: "05A", fault: FaultContent},
		{name: "DE 25 letter", mti: "0200", de: 25, value: "0A", fault: FaultContent},
		{name: "DE 32 of 11 digits", mti: "0200", de: 32, value: "1112345678901"},
		{name: "DE 32 of 12 digits", mti: "0200", de: 32, value: "12123456789012", fault: FaultLength},
		{name: "DE 32 empty", mti: "0200", de: 32, value: "00", fault: FaultLength},
		{name: "DE 32 letter", mti: "0200", de: 32, value: "0612345A", fault: FaultContent},
		{name: "DE 35 of 37 characters", mti: "0200", de: 35, value: "374111111111111111=30122010000012300123"},
		{name: "DE 35 with D", mti: "0200", de: 35, value: "344111111111111111D30122010000012300"},
		{name: "DE 35 of 38 characters", mti: "0200", de: 35, value: "384111111111111111=301220100000123001234", fault: FaultLength},
		{name: "DE 35 letter", mti: "0200", de: 35, value: "344111111111111111=3012201000001230X", fault: FaultContent},
		{name: "DE 35 sentinel", mti: "0200", de: 35, value: "34;111111111111111=30122010000012300", fault: FaultContent},
		{name: "DE 37 letters", mti: "0200", de: 37, value: "rrnRRN000001"},
		{name: "DE 37 space", mti: "0200", de: 37, value: "76351416928 ", fault: FaultContent},
		{name: "DE 37 hyphen", mti: "0200", de: 37, value: "7635-4169285", fault: FaultContent},
		{name: "DE 38 space", mti: "0210", de: 38, value: "A1B2C ", fault: FaultContent},
		{name: "DE 39 letters", mti: "0400", de: 39, value: "A0"},
		{name: "DE 39 space", mti: "0210", de: 39, value: "0 ", fault: FaultContent},
		{name: "DE 41 spaces and signs", mti: "0200", de: 41, value: "T-00 01 "},
		{name: "DE 41 control character", mti: "0200", de: 41, value: "T000000\n", fault: FaultContent},
		{name: "DE 41 eighth bit", mti: "0200", de: 41, value: "T000000\xE9", fault: FaultContent},
		{name: "DE 42 DEL", mti: "0200", de: 42, value: "M0000000000000\x7F", fault: FaultContent},
		{name: "DE 49 letters", mti: "0200", de: 49, value: "EUR", fault: FaultContent},
		{name: "DE 52 lower-case hex", mti: "0200", de: 52, value: "ac841609c5311e3c", fault: FaultContent},
		{name: "DE 52 not hex", mti: "0200", de: 52, value: "AC841609C5311E3G", fault: FaultContent},
		{name: "DE 52 beside DE 63", mti: "0200", de: 63, value: "032" + testMAC + testMAC, fault: FaultForbidden},
		{name: "DE 55 of one byte", mti: "0200", de: 55, value: "0019F"},
		{name: "DE 55 of 255 bytes", mti: "0200", de: 55, value: "255" + strings.Repeat("9F", 255)},
		{name: "DE 55 of 256 bytes", mti: "0200", de: 55, value: "256" + strings.Repeat("9F", 256), fault: FaultLength},
		{name: "DE 55 empty", mti: "0200", de: 55, value: "000", fault: FaultLength},
		{name: "DE 55 lower-case hex", mti: "0200", de: 55, value: "0019f", fault: FaultContent},
		{name: "DE 55 length counts digits and so misplaces DE 62", mti: "0200", de: 55, value: "0089F360200", fault: FaultLength, at: 62},
		{name: "DE 90 letter", mti: "0400", de: 90, value: "0200" + "00000A" + strings.Repeat("0", 32), fault: FaultContent},
		{name: "DE 90 of a reversal", mti: "0400", de: 90, value: "0400" + strings.Repeat("0", 38)},
		{name: "DE 90 short", mti: "0400", de: 90, value: "0200" + strings.Repeat("0", 37), fault: FaultContent, at: 95},
		{name: "DE 95 of nothing left", mti: "0400", de: 95, value: strings.Repeat("0", 42)},
		{name: "DE 95 with a debit fee", mti: "0400", de: 95, value: "000000001000" + strings.Repeat("0", 12) + "D00000000" + "C00000000", fault: FaultContent},
		{name: "DE 95 with a credit fee", mti: "0400", de: 95, value: "000000001000" + strings.Repeat("0", 12) + "C00000000" + "000000000", fault: FaultContent},
		{name: "DE 95 with a settlement amount", mti: "0400", de: 95, value: "000000001000" + "000000001000" + strings.Repeat("0", 18), fault: FaultContent},
		{name: "DE 95 signed amount", mti: "0400", de: 95, value: "C00000001000" + strings.Repeat("0", 30), fault: FaultContent},
		{name: "DE 70 letter", mti: "0800", de: 70, value: "00A", fault: FaultContent},
	}
	d := ASCII87()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := d.Parse(wire(tt.mti, sample(tt.mti, SideTerminal).with(fields{tt.de: tt.value})), SideTerminal)
			at := tt.de
			if tt.at != 0 {
				at = tt.at
			}
			wantFault(t, err, at, tt.fault)
		})
	}
}

// TestFieldContentEveryByte puts a byte of no class into each byte of each
// field.
func TestFieldContentEveryByte(t *testing.T) {
	d := ASCII87()
	for _, mti := range allMTIs {
		raw := wire(mti, sample(mti, SideTerminal))
		for i := range raw {
			bad := []byte(string(raw))
			bad[i] = 0x1F
			m, err := d.Parse(bad, SideTerminal)
			if err != nil {
				continue
			}
			_, macErr := m.MAC()
			_, ksnErr := m.KSN()
			if macErr == nil && ksnErr == nil {
				t.Errorf("%s: a control character at %d is accepted", mti, i)
			}
		}
	}
}
