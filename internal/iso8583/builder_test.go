package iso8583

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build gives a builder every field of f but the MAC.
func build(d *Dialect, mti string, s Side, f fields) *Builder {
	b := d.Build(MTI(mti), s)
	for de, v := range f.text() {
		if de != 64 && de != 128 {
			b.Set(de, v)
		}
	}
	return b
}

func TestBuild(t *testing.T) {
	d := ASCII87()
	for _, s := range []Side{SideTerminal, SideUpstream} {
		for _, mti := range allMTIs {
			t.Run(fmt.Sprintf("W-04 side %d %s", s, mti), func(t *testing.T) {
				want := string(wire(mti, sample(mti, s)))
				u, err := build(d, mti, s, sample(mti, s)).Pack()
				if err != nil {
					t.Fatal(err)
				}
				if got := string(u.MACInput()); got != want[:len(want)-16] {
					t.Errorf("MAC input differs from the bytes before the MAC")
				}
				mac := [8]byte{0x2F, 0x3D, 0xB3, 0x43, 0xF2, 0x6D, 0xFD, 0xA5}
				if got := string(u.Seal(mac)); got != want {
					t.Errorf("message differs")
				}
				if got := string(u.Seal([8]byte{1, 2, 3, 4})); got != want[:len(want)-16]+"0102030400000000" {
					t.Errorf("W-04 4-byte MAC: ends in %s", got[len(got)-16:])
				}
			})
		}
	}
}

func TestBuildSmallest(t *testing.T) {
	u, err := ASCII87().Build(NetworkRequest, SideUpstream).
		Set(7, "1121043015").Set(11, "000009").Set(41, "KEYD0001").Set(42, "KEYD00000000001").Set(70, "301").Pack()
	if err != nil {
		t.Fatal(err)
	}
	want := "0800" + "82200000" + "00C00000" + "0400000000000001" +
		"1121043015" + "000009" + "KEYD0001" + "KEYD00000000001" + "301"
	if got := string(u.MACInput()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	d := ASCII87()
	sale := sample("0200", SideTerminal)
	tests := []struct {
		name  string
		b     *Builder
		de    int
		fault Fault
	}{
		{"an unlisted MTI", d.Build("0500", SideTerminal).Set(11, "000001"), 0, FaultMTI},
		{"no MTI", d.Build("", SideTerminal), 0, FaultMTI},
		{"DE 0", d.Build("0200", SideTerminal).Set(0, "0200"), 0, FaultUnknown},
		{"DE 1", d.Build("0200", SideTerminal).Set(1, "1"), 1, FaultUnknown},
		{"DE 129", d.Build("0200", SideTerminal).Set(129, "1"), 129, FaultUnknown},
		{"DE -1", d.Build("0200", SideTerminal).Set(-1, "1"), -1, FaultUnknown},
		{"W-05 DE 60", d.Build("0200", SideTerminal).Set(60, "1"), 60, FaultUnknown},
		{"the MAC", d.Build("0200", SideTerminal).Set(64, testMAC), 64, FaultForbidden},
		{"W-08 DE 62 upstream", d.Build("0200", SideUpstream).Set(62, testKSN), 62, FaultForbidden},
		{"W-08 DE 63 upstream", d.Build("0200", SideUpstream).Set(63, testMAC+testMAC), 63, FaultForbidden},
		{"DE 52 in a reversal", d.Build("0400", SideTerminal).Set(52, testPIN), 52, FaultForbidden},
		{"DE 35 in a reversal", d.Build("0420", SideUpstream).Set(35, testTrack), 35, FaultForbidden},
		{"a lower-case KSN", d.Build("0200", SideTerminal).Set(62, strings.ToLower(testKSN)), 62, FaultContent},
		{"a short amount", d.Build("0200", SideTerminal).Set(4, "1234"), 4, FaultLength},
		{"an empty RRN", d.Build("0200", SideTerminal).Set(37, ""), 37, FaultLength},
		{"half a byte", d.Build("0200", SideTerminal).Set(55, "9F3"), 55, FaultLength},
		{"the first error stays", d.Build("0200", SideTerminal).Set(4, "1").Set(4, "000000000001").Set(3, "x"), 4, FaultLength},
		{"DE 52 beside DE 63", build(d, "0200", SideTerminal, sale).Set(63, testMAC+testMAC), 63, FaultForbidden},
		{"no DE 4", build(d, "0200", SideTerminal, sale.without(4)), 4, FaultMissing},
		{"no DE 90", build(d, "0400", SideTerminal, sample("0400", SideTerminal).without(90)), 90, FaultMissing},
		{"an endless value", d.Build("0200", SideTerminal).Set(4, strings.Repeat("0", 1<<17)), 4, FaultLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := tt.b.Pack()
			wantFault(t, err, tt.de, tt.fault)
			if len(u.MACInput()) != 0 {
				t.Error("bytes are returned beside the error")
			}
			_, err = tt.b.PackWithoutMAC()
			if err == nil {
				t.Error("PackWithoutMAC gives no error")
			}
		})
	}
	t.Run("a second Set replaces the first", func(t *testing.T) {
		u, err := build(d, "0200", SideTerminal, sale).Set(4, "000000000001").Pack()
		if err != nil {
			t.Fatal(err)
		}
		m, err := d.Parse(u.Seal([8]byte{}), SideTerminal)
		if err != nil || m.Text(4) != "000000000001" {
			t.Errorf("got %v, %v", m, err)
		}
	})
}

func TestPackWithoutMAC(t *testing.T) {
	d := ASCII87()
	answer := sample("0210", SideTerminal)
	tests := []struct {
		name    string
		b       *Builder
		refused bool
	}{
		{"W-05 0800", build(d, "0800", SideTerminal, sample("0800", SideTerminal)), false},
		{"W-05 0810", build(d, "0810", SideTerminal, sample("0810", SideTerminal)), false},
		{"W-09 a refusal", build(d, "0210", SideTerminal, answer).Set(39, "58"), false},
		{"M-06 an approval", build(d, "0210", SideTerminal, answer), true},
		{"M-06 an answer that says nothing", build(d, "0210", SideTerminal, answer.without(39)), true},
		{"M-06 a sale", build(d, "0200", SideTerminal, sample("0200", SideTerminal)), true},
		{"M-06 a reversal, whose DE 39 is a reason", build(d, "0400", SideTerminal, sample("0400", SideTerminal)), true},
		{"M-06 an upstream advice", build(d, "0420", SideUpstream, sample("0420", SideUpstream)), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := tt.b.PackWithoutMAC()
			if tt.refused {
				if !errors.Is(err, ErrMACRequired) || raw != nil {
					t.Errorf("got %v, want ErrMACRequired", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := d.Parse(raw, SideTerminal)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.MAC(); !errors.Is(err, ErrMACAbsent) {
				t.Errorf("MAC: %v", err)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	d := ASCII87()
	tests := []struct {
		name string
		mti  string
		side Side
		drop []int // of the request
		want MTI
		echo []int
	}{
		{"W-03 sale", "0200", SideTerminal, nil, "0210", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"W-03 sale without DE 32 and 37", "0200", SideTerminal, []int{32, 37}, "0210", []int{2, 3, 4, 7, 11, 12, 13, 41, 42, 49, 62}},
		{"W-03 authorization", "0100", SideTerminal, nil, "0110", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"W-03 refund", "0220", SideTerminal, nil, "0230", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"W-15 reversal", "0400", SideTerminal, nil, "0410", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"W-15 repeat", "0401", SideTerminal, nil, "0410", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"W-08 upstream advice", "0421", SideUpstream, nil, "0430", []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49}},
		{"W-05 sign-on", "0800", SideTerminal, nil, "0810", []int{7, 11, 41, 42, 62, 70}},
		{"W-05 echo upstream", "0800", SideUpstream, nil, "0810", []int{7, 11, 41, 42, 70}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := sample(tt.mti, tt.side).without(tt.drop...)
			req, err := d.Parse(wire(tt.mti, f), tt.side)
			if err != nil {
				t.Fatal(err)
			}
			b := req.Answer("51")
			want := map[int]string{39: "51", 128: "0102030405060708"}
			if tt.mti != "0800" {
				delete(want, 128)
				want[64] = "0102030405060708"
			}
			for _, de := range tt.echo {
				want[de] = f.text()[de]
			}
			if tt.mti != "0800" && !b.Has(37) {
				b.Set(37, "763514169286")
				want[37] = "763514169286"
			}
			u, err := b.Pack()
			if err != nil {
				t.Fatal(err)
			}
			ans, err := d.Parse(u.Seal([8]byte{1, 2, 3, 4, 5, 6, 7, 8}), tt.side)
			if err != nil {
				t.Fatal(err)
			}
			if ans.MTI() != tt.want {
				t.Errorf("MTI %s", ans.MTI())
			}
			if diff := cmp.Diff(want, texts(ans)); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("an answer is not answered", func(t *testing.T) {
		m, err := d.Parse(wire("0210", sample("0210", SideTerminal)), SideTerminal)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Answer("30").Pack()
		wantFault(t, err, 0, FaultMTI)
	})
	t.Run("W-09 an approval without DE 37", func(t *testing.T) {
		m, err := d.Parse(wire("0200", sample("0200", SideTerminal).without(37)), SideTerminal)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Answer("00").Pack()
		wantFault(t, err, 37, FaultMissing)
	})
	t.Run("W-18 63 to what could not be read whole", func(t *testing.T) {
		for _, mti := range []string{"0200", "0400", "0800"} {
			_, err := d.Parse(wire(mti, sample(mti, SideTerminal).with(fields{62: "02X"})), SideTerminal)
			var fe *FormatError
			if !errors.As(err, &fe) {
				t.Fatal(err)
			}
			if _, err := fe.Partial.Answer("63").PackWithoutMAC(); err != nil {
				t.Errorf("%s: %v", mti, err)
			}
		}
	})
	t.Run("a partial echo with another code", func(t *testing.T) {
		_, err := d.Parse(wire("0200", sample("0200", SideTerminal).without(4)), SideTerminal)
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Fatal(err)
		}
		_, err = fe.Partial.Answer("00").Pack()
		wantFault(t, err, 4, FaultMissing)
	})
}
