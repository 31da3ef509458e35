package iso8583

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFrameOfMessage(t *testing.T) {
	d := ASCII87()
	sale := sample("0200", SideTerminal)
	good := string(wire("0200", sale))
	bitmapAt := func(bits string) string { return "0200" + bits + good[20:] }
	tests := []struct {
		name  string
		raw   string
		de    int
		fault Fault
	}{
		{"D-01 empty", "", 0, FaultMTI},
		{"D-01 cut in the MTI", "020", 0, FaultMTI},
		{"W-06 0500", "0500" + good[4:], 0, FaultMTI},
		{"W-06 0201", "0201" + good[4:], 0, FaultMTI},
		{"W-06 0402", "0402" + good[4:], 0, FaultMTI},
		{"W-06 1200 of ISO 93", "1200" + good[4:], 0, FaultMTI},
		{"W-06 MTI in BCD", "\x02\x00" + good[4:], 0, FaultMTI},
		{"W-02 no bitmap", "0200", 1, FaultBitmap},
		{"W-02 cut in the bitmap", good[:19], 1, FaultBitmap},
		{"W-02 lower-case bitmap", bitmapAt(strings.ToLower(good[4:20])), 1, FaultBitmap},
		{"W-02 bitmap not hex", bitmapAt("G" + good[5:20]), 1, FaultBitmap},
		{"W-02 binary bitmap", "0200\x72\x38\x04\x80\x08\xC0\x80\x01", 1, FaultBitmap},
		{"W-02 cut in the second bitmap", "0200F238048008C08000" + "000000000000000", 1, FaultBitmap},
		{"W-02 lower-case second bitmap", "0200F238048008C08000" + "000000000000000a", 1, FaultBitmap},
		{"D-01 no field", "02000000000000000000", 2, FaultMissing},
		{"A-09 NUL after the MAC", good + "\x00", 64, FaultTrailing},
		{"A-09 a second MAC", good + testMAC, 64, FaultTrailing},
		{"A-09 NUL before the MAC", good[:len(good)-16] + "\x00" + good[len(good)-16:], 64, FaultTrailing},
		{"D-01 trailing bytes without a MAC", string(wire("0200", sale.without(64))) + "1", 62, FaultTrailing},
		{"D-01 cut in DE 49", good[:strings.Index(good, "978AC84")+2], 49, FaultLength},
		{"D-01 two messages in a frame", good + good, 64, FaultTrailing},
		{"W-01 longer than a frame", good + strings.Repeat("0", MaxFrame), 0, FaultLength},
		{"W-05 DE 65, a third bitmap", string(wire("0200", sale.with(fields{64: "", 65: "0", 128: testMAC}))), 65, FaultUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := d.Parse([]byte(tt.raw), SideTerminal)
			wantFault(t, err, tt.de, tt.fault)
			if m != nil {
				t.Error("a message is returned beside the error")
			}
		})
	}
}

func TestMACPlace(t *testing.T) {
	d := ASCII87()
	sale, rev, echo := sample("0200", SideTerminal), sample("0400", SideTerminal), sample("0800", SideTerminal)
	without64 := string(wire("0200", sale.without(64)))
	secondary := func(raw string, hi byte) string { // sets bit 1 and adds an empty second bitmap
		return raw[:4] + string(hi) + raw[5:20] + "0000000000000000" + raw[20:]
	}
	whole := string(wire("0200", sale))
	if whole[4] != '7' {
		t.Fatalf("sample begins with %c", whole[4])
	}
	tests := []struct {
		name string
		raw  string
		want error
	}{
		{"W-04 DE 64", whole, nil},
		{"W-04 DE 128", string(wire("0400", rev)), nil},
		{"W-04 0800 DE 128", string(wire("0800", echo)), nil},
		{"D-03 absent from 0200", without64, ErrMACAbsent},
		{"D-03 absent from 0400", string(wire("0400", rev.without(128))), ErrMACAbsent},
		{"W-05 absent from 0800", string(wire("0800", echo.without(128))), ErrMACAbsent},
		{"D-03 bit 64 set, no value", string(wire("0200", sale.with(fields{64: " "})))[:len(whole)-16], ErrMACMalformed},
		{"D-03 8 digits", whole[:len(whole)-8], ErrMACMalformed},
		{"D-03 15 digits", whole[:len(whole)-1], ErrMACMalformed},
		{"D-03 8 raw bytes", whole[:len(whole)-16] + "\x2F\x3D\xB3\x43\xF2\x6D\xFD\xA5", ErrMACMalformed},
		{"M-07 lower case", whole[:len(whole)-16] + strings.ToLower(testMAC), ErrMACMalformed},
		{"M-07 spaces", whole[:len(whole)-16] + strings.Repeat(" ", 16), ErrMACMalformed},
		{"M-05 DE 64 beside DE 90", string(wire("0400", rev.with(fields{64: testMAC, 128: ""}))), ErrMACMisplaced},
		{"M-05 DE 64 beside DE 70", string(wire("0800", echo.with(fields{64: testMAC, 128: ""}))), ErrMACMisplaced},
		{"M-05 both", string(wire("0400", rev.with(fields{64: testMAC}))), ErrMACMisplaced},
		{"M-05 both in a 0200", string(wire("0200", sale.with(fields{128: testMAC}))), ErrMACMisplaced},
		{"W-04 DE 128 with no field above 64", string(wire("0200", sale.with(fields{64: "", 128: testMAC}))), ErrMACMisplaced},
		{"M-05 DE 64 under an empty second bitmap", secondary(whole, 'F'), ErrMACMisplaced},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := d.Parse([]byte(tt.raw), SideTerminal)
			if err != nil {
				t.Fatal(err)
			}
			mac, err := m.MAC()
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("MAC: %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if mac != [8]byte{} || m.MACInput() != nil {
					t.Error("a MAC or its input is returned beside the error")
				}
				return
			}
			if want := tt.raw[:len(tt.raw)-16]; string(m.MACInput()) != want {
				t.Errorf("MAC input of %d bytes, want %d", len(m.MACInput()), len(want))
			}
		})
	}
	t.Run("M-01 the MAC input is the received slice", func(t *testing.T) {
		raw := []byte(whole)
		m, err := d.Parse(raw, SideTerminal)
		if err != nil {
			t.Fatal(err)
		}
		in := m.MACInput()
		if &in[0] != &raw[0] || cap(in) != len(in) {
			t.Error("the MAC input is a copy, or can grow over the MAC")
		}
	})
	t.Run("a message that was not parsed", func(t *testing.T) {
		var m Message
		if _, err := m.MAC(); !errors.Is(err, ErrMACAbsent) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKSN(t *testing.T) {
	d := ASCII87()
	tests := []struct {
		name  string
		value string // DE 62 on the wire, "" for none
		want  error
		fault Fault // of DE 62: the message could not be read whole
	}{
		{"W-07 TDES", "020" + testKSN, nil, 0},
		{"W-07 AES", "024123456789012345600000001", nil, 0},
		{"W-18 absent", "", ErrKSNAbsent, 0},
		{"W-18 19 digits", "019" + testKSN[1:], ErrKSNMalformed, 0},
		{"W-18 22 digits", "02200" + testKSN, ErrKSNMalformed, 0},
		{"W-18 26 digits", "026000000" + testKSN, ErrKSNMalformed, 0},
		{"W-18 empty", "000", ErrKSNMalformed, 0},
		{"W-18 lower case", "020" + strings.ToLower(testKSN), ErrKSNMalformed, 0},
		{"W-18 not hex", "020Z" + testKSN[1:], ErrKSNMalformed, 0},
		{"W-18 length not digits", "02X" + testKSN, ErrKSNMalformed, FaultLength},
		{"W-18 length beyond the end", "999" + testKSN, ErrKSNMalformed, FaultLength},
		{"W-18 no length", testKSN, ErrKSNMalformed, FaultLength},
		{"W-18 length too small for what stands there", "018" + testKSN, ErrKSNMalformed, FaultContent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := d.Parse(wire("0200", sample("0200", SideTerminal).with(fields{62: tt.value})), SideTerminal)
			wantFault(t, err, 62, tt.fault)
			var fe *FormatError
			if errors.As(err, &fe) {
				m = fe.Partial
			}
			ksn, err := m.KSN()
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("KSN: %v, want %v", err, tt.want)
			}
			if want := tt.value; tt.want == nil && ksn != want[3:] || tt.want != nil && ksn != "" {
				t.Errorf("KSN %q", ksn)
			}
			if m.Has(62) != (tt.want == nil) {
				t.Errorf("Has(62) = %t", m.Has(62))
			}
		})
	}
	t.Run("W-18 a bad field before the KSN is 30", func(t *testing.T) {
		f := sample("0200", SideTerminal).with(fields{4: "00000000123X", 62: "02X"})
		_, err := d.Parse(wire("0200", f), SideTerminal)
		wantFault(t, err, 4, FaultContent)
	})
	t.Run("W-18 a missing field beside a malformed KSN is 30", func(t *testing.T) {
		f := sample("0400", SideTerminal).with(fields{90: "", 62: "019" + testKSN[1:]})
		_, err := d.Parse(wire("0400", f), SideTerminal)
		wantFault(t, err, 90, FaultMissing)
	})
	t.Run("W-18 a missing field before an unreadable KSN is 30", func(t *testing.T) {
		f := sample("0200", SideTerminal).with(fields{22: "", 62: "02X"})
		_, err := d.Parse(wire("0200", f), SideTerminal)
		wantFault(t, err, 22, FaultMissing)
	})
}

// TestPartial is W-01: what a refusal needs is read although the message is
// bad.
func TestPartial(t *testing.T) {
	d := ASCII87()
	sale := sample("0200", SideTerminal)
	full := sale.text()
	tests := []struct {
		name       string
		mti        string
		change     fields
		answerable bool
		lacks      []int // of the echo fields
	}{
		{"a bad amount", "0200", fields{4: "00000000123X"}, true, []int{4}},
		{"a PAN that is too long", "0200", fields{2: "2062258812345678901234"}, true, []int{2}},
		{"no processing code", "0200", fields{3: ""}, true, []int{3}},
		{"a field of ISO 8583 below DE 11", "0200", fields{5: "000000001234"}, true, nil},
		{"a fixed field of ISO 8583 below DE 41", "0200", fields{23: "001"}, true, nil},
		{"an LL field of ISO 8583 below DE 41", "0200", fields{33: "06123456"}, true, nil},
		{"an LLL field of ISO 8583 below DE 41", "0200", fields{36: "0051=2=3"}, true, nil},
		{"a field of ISO 8583 behind DE 41", "0200", fields{60: "003123"}, true, []int{62}},
		{"a field that a 0200 may not have", "0200", fields{39: "00"}, true, nil},
		{"a bad STAN", "0200", fields{11: "00000X"}, false, []int{11}},
		{"no TID", "0200", fields{41: ""}, false, []int{41}},
		{"the end of DE 2 cannot be found", "0200", fields{2: "XX" + testPAN}, false, []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
		{"an answer", "0210", fields{35: "34" + testTrack}, false, nil},
		{"an unlisted MTI", "0500", nil, false, []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62}},
	}
	for _, tt := range tests {
		t.Run("W-01 "+tt.name, func(t *testing.T) {
			_, err := d.Parse(wire(tt.mti, sale.with(tt.change)), SideTerminal)
			var fe *FormatError
			if !errors.As(err, &fe) || fe.Partial == nil {
				t.Fatalf("got %v, want a FormatError with what could be read", err)
			}
			if got := fe.Partial.Answerable(); got != tt.answerable {
				t.Errorf("Answerable() = %t", got)
			}
			want, got := map[int]string{}, map[int]string{}
			for _, de := range []int{2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 62} {
				want[de], got[de] = full[de], fe.Partial.Text(de)
			}
			for _, de := range tt.lacks {
				want[de] = ""
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("echo fields (-want +got):\n%s", diff)
			}
			if !tt.answerable {
				return
			}
			if _, err := fe.Partial.Answer("30").PackWithoutMAC(); err != nil {
				t.Errorf("refusal: %v", err)
			}
		})
	}
}

// TestPanicBarrier gives the dialect a field check that fails.
func TestPanicBarrier(t *testing.T) {
	d := ASCII87()
	d.rows[49].check = func([]byte) bool { panic("check of DE 49") }
	m, err := d.Parse(wire("0200", sample("0200", SideTerminal)), SideTerminal)
	wantFault(t, err, 49, FaultInternal)
	var fe *FormatError
	if m != nil || !errors.As(err, &fe) || !fe.Partial.Answerable() {
		t.Errorf("message %v, error %v: want what was read before the failure", m, err)
	}
	if strings.Contains(err.Error(), "check of") {
		t.Errorf("the panic's text is in %q", err)
	}
}

func TestUnknownSide(t *testing.T) {
	if _, err := ASCII87().Parse(wire("0200", sample("0200", SideTerminal)), 0); err == nil {
		t.Error("a terminal's field is accepted on no side")
	}
}

func TestMessageAccess(t *testing.T) {
	d := ASCII87()
	m, err := d.Parse(wire("0400", sample("0400", SideTerminal)), SideTerminal)
	if err != nil {
		t.Fatal(err)
	}
	if minor, ok := m.Amount(); minor != 1234 || !ok {
		t.Errorf("amount %d, %t", minor, ok)
	}
	if rest, ok := m.Rest(); rest != 1000 || !ok {
		t.Errorf("rest %d, %t", rest, ok)
	}
	want := OriginalData{MTI: "0200", STAN: "000001", DateTime: "1121043015", Acquirer: "123456"}
	if o, ok := m.Original(); !ok || o != want {
		t.Errorf("original %v, %t", o, ok)
	}
	if got := m.Bytes(55); string(got) != "\x9F\x36\x02\x00" {
		t.Errorf("DE 55 of %d bytes", len(got))
	}
	for _, de := range []int{-1, 0, 1, 4, 52, 65, 127, 129, 1 << 20} {
		if m.Bytes(de) != nil {
			t.Errorf("Bytes(%d) is not nil", de)
		}
	}
	for _, de := range []int{-1, 0, 1, 52, 65, 127, 129, 1 << 20} {
		if m.Has(de) || m.Text(de) != "" {
			t.Errorf("DE %d is there", de)
		}
	}
	sale, err := d.Parse(wire("0800", sample("0800", SideTerminal)), SideTerminal)
	if err != nil {
		t.Fatal(err)
	}
	_, amount := sale.Amount()
	_, rest := sale.Rest()
	_, original := sale.Original()
	if amount || rest || original {
		t.Error("an 0800 has an amount, a rest or an original")
	}
}

func TestMTI(t *testing.T) {
	tests := []struct {
		mti                       MTI
		class                     byte
		request, advice, response bool
		answer                    MTI
	}{
		{"0100", '1', true, false, false, "0110"},
		{"0200", '2', true, false, false, "0210"},
		{"0220", '2', true, true, false, "0230"},
		{"0400", '4', true, false, false, "0410"},
		{"0401", '4', true, false, false, "0410"},
		{"0420", '4', true, true, false, "0430"},
		{"0421", '4', true, true, false, "0430"},
		{"0800", '8', true, false, false, "0810"},
		{"0110", '1', false, false, true, ""},
		{"0210", '2', false, false, true, ""},
		{"0230", '2', false, false, true, ""},
		{"0410", '4', false, false, true, ""},
		{"0430", '4', false, false, true, ""},
		{"0810", '8', false, false, true, ""},
		{"", 0, false, false, false, ""},
		{"02", 0, false, false, false, ""},
		{"02A0", 0, false, false, false, ""},
		{"02000", 0, false, false, false, ""},
	}
	for _, tt := range tests {
		t.Run("W-06 "+string(tt.mti), func(t *testing.T) {
			if got := tt.mti.Class(); got != tt.class {
				t.Errorf("class %c", got)
			}
			got := []bool{tt.mti.IsRequest(), tt.mti.IsAdvice(), tt.mti.IsResponse()}
			want := []bool{tt.request, tt.advice, tt.response}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("request, advice, response (-want +got):\n%s", diff)
			}
			if got := tt.mti.Response(); got != tt.answer {
				t.Errorf("answer %q", got)
			}
		})
	}
}
