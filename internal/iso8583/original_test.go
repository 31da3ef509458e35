package iso8583

import (
	"errors"
	"strings"
	"testing"
)

func TestOriginalData(t *testing.T) {
	tests := []struct {
		name string
		text string
		want OriginalData
	}{
		{"no acquirer", "0200" + "503883" + "1121033015" + strings.Repeat("0", 22), OriginalData{"0200", "503883", "1121033015", "", ""}},
		{"acquirer and forwarder", "0100" + "000001" + "1231235959" + "00000123456" + "12345678901", OriginalData{"0100", "000001", "1231235959", "123456", "12345678901"}},
		{"D-28 of a reversal", "0420" + "000001" + "1231235959" + strings.Repeat("0", 22), OriginalData{"0420", "000001", "1231235959", "", ""}},
	}
	for _, tt := range tests {
		t.Run("W-15 "+tt.name, func(t *testing.T) {
			got, err := ParseOriginalData(tt.text)
			if err != nil || got != tt.want {
				t.Fatalf("got %v, %v", got, err)
			}
			back, err := got.Text()
			if err != nil || back != tt.text {
				t.Errorf("got %s, %v", back, err)
			}
		})
	}
}

func TestOriginalDataRefuses(t *testing.T) {
	for _, text := range []string{
		"", strings.Repeat("0", 41), strings.Repeat("0", 43), "02O0" + strings.Repeat("0", 38), strings.Repeat("0", 41) + " ",
	} {
		_, err := ParseOriginalData(text)
		wantFault(t, err, 90, FaultContent)
	}
	good := OriginalData{"0200", "503883", "1121033015", "123456", ""}
	tests := []struct {
		name string
		edit func(*OriginalData)
	}{
		{"no MTI", func(o *OriginalData) { o.MTI = "" }},
		{"short STAN", func(o *OriginalData) { o.STAN = "1" }},
		{"long STAN and short time", func(o *OriginalData) { o.STAN, o.DateTime = "0000001", "121033015" }},
		{"letter", func(o *OriginalData) { o.DateTime = "112103301Z" }},
		{"acquirer of 12 digits", func(o *OriginalData) { o.Acquirer = "123456789012" }},
		{"acquirer with a space", func(o *OriginalData) { o.Acquirer = "123 456" }},
		{"forwarder of 12 digits", func(o *OriginalData) { o.Forwarder = "123456789012" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			tt.edit(&o)
			text, err := o.Text()
			wantFault(t, err, 90, FaultContent)
			if text != "" {
				t.Error("text is returned beside the error")
			}
		})
	}
}

func TestOriginalDataMatches(t *testing.T) {
	tests := []struct {
		name                string
		original            OriginalData
		acquirer, forwarder string
		want                bool
	}{
		{"zeros match none", OriginalData{}, "", "", true},
		{"zeros match any", OriginalData{}, "123456", "654321", true},
		{"zeros written out", OriginalData{Acquirer: "00000000000"}, "123456", "", true},
		{"equal", OriginalData{Acquirer: "123456"}, "123456", "", true},
		{"equal but for leading zeros", OriginalData{Acquirer: "123456"}, "00123456", "", true},
		{"another acquirer", OriginalData{Acquirer: "123456"}, "123457", "", false},
		{"no acquirer", OriginalData{Acquirer: "123456"}, "", "", false},
		{"another forwarder", OriginalData{Acquirer: "123456", Forwarder: "1"}, "123456", "", false},
	}
	for _, tt := range tests {
		t.Run("W-15 "+tt.name, func(t *testing.T) {
			if got := tt.original.Matches(tt.acquirer, tt.forwarder); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestReplacement(t *testing.T) {
	zeros := strings.Repeat("0", 30)
	for _, tt := range []struct {
		text string
		rest int64
	}{
		{"000000000000" + zeros, 0},
		{"000000001000" + zeros, 1000},
		{"999999999999" + zeros, 999_999_999_999},
	} {
		got, err := ParseReplacement(tt.text)
		if err != nil || got != tt.rest {
			t.Errorf("ParseReplacement: %d, %v, want %d", got, err, tt.rest)
		}
		back, err := ReplacementText(tt.rest)
		if err != nil || back != tt.text {
			t.Errorf("ReplacementText(%d) = %s, %v", tt.rest, back, err)
		}
	}
	for _, text := range []string{
		"", "000000001000", "000000001000" + zeros[1:], "000000001000" + zeros + "0", "C00000001000" + zeros,
		"000000001000" + zeros[:12] + "C00000000C00000000", "000000001000" + "000000000001" + zeros[:18],
		"00000000 100" + zeros, "+00000001000" + zeros,
	} {
		_, err := ParseReplacement(text)
		wantFault(t, err, 95, FaultContent)
	}
	for _, minor := range []int64{-1, 1_000_000_000_000, -1 << 63} {
		if text, err := ReplacementText(minor); !errors.Is(err, ErrAmount) || text != "" {
			t.Errorf("ReplacementText(%d) = %q, %v", minor, text, err)
		}
		if text, err := AmountText(minor); !errors.Is(err, ErrAmount) || text != "" {
			t.Errorf("AmountText(%d) = %q, %v", minor, text, err)
		}
	}
	if text, err := AmountText(5_000_000); text != "000005000000" || err != nil {
		t.Errorf("AmountText: %q, %v", text, err)
	}
}

func FuzzOriginalData(f *testing.F) {
	f.Add("020050388311210330150000012345600000000000")
	f.Add("02005038831121033015")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOriginalData(text)
		if err != nil {
			return
		}
		if back, err := o.Text(); err != nil || back != text {
			t.Errorf("%q reads as %v, which writes as %q, %v", text, o, back, err)
		}
	})
}

func FuzzReplacement(f *testing.F) {
	f.Add("000000001000" + strings.Repeat("0", 30))
	f.Add("000000001000000000000000C00000000C00000000")
	f.Fuzz(func(t *testing.T, text string) {
		rest, err := ParseReplacement(text)
		if err != nil {
			return
		}
		if back, err := ReplacementText(rest); err != nil || back != text {
			t.Errorf("%q reads as %d, which writes as %q, %v", text, rest, back, err)
		}
	})
}
