package isoswitch

import (
	"errors"
	"testing"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

func TestWindows(t *testing.T) {
	at := func(clock string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", "2026-07-22 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		name, zone, window, at string
		in                     bool
	}{
		{"inside", "", "08:00-22:00", "08:00", true},
		{"the last minute", "", "08:00-22:00", "21:59", true},
		{"the end is outside", "", "08:00-22:00", "22:00", false},
		{"before", "", "08:00-22:00", "07:59", false},
		{"over midnight, late", "", "23:50-00:10", "23:55", true},
		{"over midnight, early", "", "23:50-00:10", "00:09", true},
		{"over midnight, outside", "", "23:50-00:10", "12:00", false},
		{"the whole day", "", "00:00-24:00", "23:59", true},
		{"summer time of the zone", "Europe/Berlin", "08:00-22:00", "06:00", true},
		{"UTC would be inside", "Europe/Berlin", "08:00-22:00", "20:30", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := parseWindows(c.zone, []string{c.window})
			if err != nil {
				t.Fatal(err)
			}
			if got := w.has(at(c.at)); got != c.in {
				t.Errorf("%s in %s: %v", c.at, c.window, got)
			}
		})
	}
}

func FuzzParseWindows(f *testing.F) {
	f.Add("08:00-22:00")
	f.Add("23:50-00:10")
	f.Add("25:00-26:00")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWindows("", []string{text})
		if err != nil {
			return
		}
		if len(w.list) != 1 || len(text) != 11 || w.list[0].to > 24*60 {
			t.Errorf("%q gives %+v", text, w.list)
		}
	})
}

func TestDoorIsChecked(t *testing.T) {
	for name, d := range map[string]Door{
		"zone":         {Zone: "Mars/Olympus"},
		"hours":        {Hours: []string{"8-22"}},
		"25 hours":     {Hours: []string{"08:00-24:30"}},
		"no time":      {Cutover: []string{"08:00-08:00"}},
		"type":         {Types: []string{"99"}},
		"entry mode":   {EntryModes: []string{"05"}},
		"rule: hours":  {Rules: []Rule{{Name: "a", Hours: []string{"x"}}}},
		"rule: type":   {Rules: []Rule{{Name: "a", Types: []string{""}}}},
		"rule: TID":    {Rules: []Rule{{Name: "a", Terminals: []string{"[T"}}}},
		"rule: MID":    {Rules: []Rule{{Name: "a", Merchants: []string{""}}}},
		"rule: amount": {Rules: []Rule{{Name: "a", MaxAmount: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.open(); !errors.Is(err, ErrConfig) {
				t.Errorf("got %v, want ErrConfig", err)
			}
		})
	}
}

// TestDoor has what each rule refuses, and with which code (R-31, R-38, R-39,
//
func TestDoor(t *testing.T) {
	shop := Rule{Name: "kiosk", Terminals: []string{"T000000?"}, Merchants: []string{"M*"}, MaxAmount: 500}
	sale := func(*iso8583.Builder) {}
	for _, c := range []struct {
		name, code string
		door       Door
		kind       kind
		draft      func(*iso8583.Builder)
	}{
		{"nothing is said", "", Door{}, saleKind, sale},
		{"R-72 an entry mode that is none", "30", Door{}, saleKind, func(b *iso8583.Builder) { b.Set(22, "999") }},
		{"R-72 an entry mode that is not allowed", "30", Door{EntryModes: []string{"07?"}}, saleKind, sale},
		{"R-72 one that is", "", Door{EntryModes: []string{"07?", "051"}}, saleKind, sale},
		{"R-48 type", "40", Door{Types: []string{"31"}}, saleKind, sale},
		{"R-48 type of a void", "40", Door{Types: []string{"00"}}, voidKind, func(b *iso8583.Builder) { b.Set(3, "200000") }},
		{"R-48 hours", "58", Door{Hours: []string{"13:00-22:00"}}, saleKind, sale},
		{"R-48 in the hours", "", Door{Hours: []string{"01:00-02:00", "11:00-13:00"}}, saleKind, sale},
		{"R-48 a void out of hours", "", Door{Hours: []string{"13:00-22:00"}}, voidKind, sale},
		{"R-39 cut-over", "90", Door{Cutover: []string{"11:55-12:05"}}, saleKind, sale},
		{"R-39 before cut-over", "", Door{Cutover: []string{"12:01-12:05"}}, saleKind, sale},
		{"R-39 a void in cut-over", "", Door{Cutover: []string{"11:55-12:05"}}, voidKind, sale},
		{"R-48 amount of a rule", "61", Door{Rules: []Rule{shop}}, saleKind, sale},
		{"R-48 a void above it", "", Door{Rules: []Rule{shop}}, voidKind, sale},
		{"a rule for other terminals", "", Door{Rules: []Rule{{Name: "a", Terminals: []string{"X*"}, MaxAmount: 1}}}, saleKind, sale},
		{"a rule for other merchants", "", Door{Rules: []Rule{{Name: "a", Merchants: []string{"X*"}, MaxAmount: 1}}}, saleKind, sale},
		{"the second rule", "58", Door{Rules: []Rule{{Name: "a", MaxAmount: 5000}, {Name: "b", Hours: []string{"00:00-01:00"}}}}, saleKind, sale},
		{"a rule cannot widen", "40", Door{Types: []string{"31"}, Rules: []Rule{{Name: "a", Types: []string{"00"}}}}, saleKind, sale},
		{"R-31 expiry", "30", Door{}, saleKind, func(b *iso8583.Builder) { b.Set(14, "2913") }},
		{"R-31 a good expiry", "", Door{}, saleKind, func(b *iso8583.Builder) { b.Set(14, "2912") }},
		{"R-31 check digit", "14", Door{CheckDigit: true}, saleKind, func(b *iso8583.Builder) { b.Set(2, "4111111111111112") }},
		{"R-31 check digit off", "", Door{}, saleKind, func(b *iso8583.Builder) { b.Set(2, "4111111111111112") }},
		{"R-31 a void with no good expiry", "", Door{}, voidKind, func(b *iso8583.Builder) { b.Set(14, "2913") }},
		{"R-31 a void with no good check digit", "", Door{CheckDigit: true}, voidKind, func(b *iso8583.Builder) { b.Set(2, "4111111111111112") }},
		{"R-38 a void by a skewed clock", "", Door{RefuseSkew: true}, voidKind, func(b *iso8583.Builder) { b.Set(7, "1122113000") }},
		{"R-31 a good check digit", "", Door{CheckDigit: true}, saleKind, sale},
		{"R-38 a skewed clock is told", "", Door{}, saleKind, func(b *iso8583.Builder) { b.Set(7, "1122113000") }},
		{"R-38 a skewed clock is refused", "30", Door{RefuseSkew: true}, saleKind, func(b *iso8583.Builder) { b.Set(7, "1122113000") }},
		{"R-38 a good clock", "", Door{RefuseSkew: true}, saleKind, sale},
		{"R-38 DE 12 is no time", "30", Door{RefuseSkew: true}, saleKind, func(b *iso8583.Builder) { b.Set(12, "250000") }},
		{"R-38 DE 13 is another day", "30", Door{RefuseSkew: true}, saleKind, func(b *iso8583.Builder) { b.Set(13, "1120") }},
		{"R-38 local time far in the east", "", Door{RefuseSkew: true}, saleKind, func(b *iso8583.Builder) { b.Set(12, "015900").Set(13, "1123") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := c.door.open()
			if err != nil {
				t.Fatal(err)
			}
			r := newMachine().message("0200", c.draft)
			r.terminal.MID = "M00000000000001"
			code := ""
			if v := d.permits(r, c.kind, machineAmount, 10*time.Minute); v != nil {
				code = v.code
				if v.reason == 0 {
					t.Error("the refusal has no reason")
				}
			}
			if code != c.code {
				t.Errorf("code %q, want %q", code, c.code)
			}
		})
	}
}
