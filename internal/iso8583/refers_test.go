package iso8583

import (
	"fmt"
	"strings"
	"testing"
)

// TestReference: DE 90 stands in a 0100, 0200 or 0220 where another transaction is
// undone or completed, and nowhere else (W-05, U-17 to U-19).
func TestReference(t *testing.T) {
	original := "0200" + strings.Repeat("0", 38)
	for _, c := range []struct {
		name, mti, processing, condition string
		fault                            Fault
	}{
		{"W-05 sale", "0200", "000000", "00", FaultForbidden},
		{"W-05 authorization", "0100", "000000", "00", FaultForbidden},
		{"W-05 balance", "0200", "310000", "00", FaultForbidden},
		{"W-05 pre-authorization", "0100", "030000", "06", FaultForbidden},
		{"U-17 void of a sale", "0200", "200000", "00", 0},
		{"U-18 void of a pre-authorization", "0100", "200000", "06", 0},
		{"U-19 completion", "0200", "000000", "06", 0},
		{"U-19 void of a completion", "0200", "200000", "06", 0},
		{"refund of a sale", "0220", "200000", "00", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ASCII87()
			for _, s := range []Side{SideTerminal, SideUpstream} {
				f := sample(c.mti, s).with(fields{3: c.processing, 25: c.condition, 64: "", 90: original, 128: testMAC})
				_, err := d.Parse(wire(c.mti, f), s)
				wantFault(t, err, map[bool]int{true: 90}[c.fault != 0], c.fault)

				b := d.Build(MTI(c.mti), s)
				for _, de := range []int{2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49} {
					value := f[de]
					if de == 2 {
						value = "4111111111111111"
					}
					b.Set(de, value)
				}
				_, err = b.Set(90, original).Pack()
				if (err != nil) != (c.fault != 0) {
					t.Errorf("built: %v", err)
				}
			}
		})
	}
}

func FuzzMayName(f *testing.F) {
	f.Add("200000", "00")
	f.Add("0", "")
	f.Fuzz(func(t *testing.T, processing, condition string) {
		if mayName([]byte(processing), []byte(condition)) && !strings.HasPrefix(processing, "20") &&
			fmt.Sprint(processing[:2], condition) != "0006" {
			t.Errorf("%q %q may name another", processing, condition)
		}
	})
}
