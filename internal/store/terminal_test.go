package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/isoswitch"
)

func aTerminal(n int) isoswitch.Terminal {
	return isoswitch.Terminal{
		TID: fmt.Sprintf("T%07d", n), MID: "M00000000000001", Scheme: isoswitch.TDESDUKPT, BDK: "alias/dev/bdk-tdes",
		Device: isoswitch.Device(fmt.Sprintf("FFFF%010X000000", n)), MACBytes: 8, Disabled: n == 2, Most: int64(100 * n),
	}
}

func TestTerminals(t *testing.T) {
	db := open(t)
	var all []isoswitch.Terminal
	for n := 1; n <= 3; n++ {
		all = append(all, aTerminal(n))
	}
	all[2].Scheme, all[2].Device, all[2].MACBytes = isoswitch.AESDUKPT, "1234567890123456", 4
	allSet(t, all[1], "PINKey", "MACKey") // of a terminal that signs in: TestRegistry
	for _, terminal := range []int{2, 0, 1} {
		if err := db.AddTerminal(t.Context(), all[terminal]); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range all {
		got, err := db.Terminal(t.Context(), want.TID)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	for name, page := range map[string]struct {
		after string
		limit int
		want  []isoswitch.Terminal
	}{
		"all":            {"", 0, all},
		"first page":     {"", 2, all[:2]},
		"second page":    {all[1].TID, 2, all[2:]},
		"after the last": {all[2].TID, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := db.Terminals(t.Context(), page.after, page.limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(page.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("not there", func(t *testing.T) {
		if _, err := db.Terminal(t.Context(), "T9999999"); !errors.Is(err, isoswitch.ErrNoTerminal) {
			t.Errorf("Terminal: %v, want ErrNoTerminal", err)
		}
		if err := db.DisableTerminal(t.Context(), "T9999999", true); !errors.Is(err, isoswitch.ErrNoTerminal) {
			t.Errorf("DisableTerminal: %v, want ErrNoTerminal", err)
		}
	})
	t.Run("disable and enable", func(t *testing.T) {
		for _, disabled := range []bool{true, false} {
			if err := db.DisableTerminal(t.Context(), all[0].TID, disabled); err != nil {
				t.Fatal(err)
			}
			got, err := db.Terminal(t.Context(), all[0].TID)
			if err != nil || got.Disabled != disabled {
				t.Errorf("got %v, %v", got, err)
			}
		}
	})
	t.Run("TID again", func(t *testing.T) {
		again := aTerminal(1)
		again.Device = "FFFF0000000009000000"
		if err := db.AddTerminal(t.Context(), again); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
	})
	t.Run("device of another TID", func(t *testing.T) {
		foreign := aTerminal(4)
		foreign.Device = all[0].Device
		if err := db.AddTerminal(t.Context(), foreign); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
	})
}

func TestTerminalRefused(t *testing.T) {
	db := open(t)
	tests := []struct {
		name   string
		change func(*isoswitch.Terminal)
	}{
		{"TID too short", func(x *isoswitch.Terminal) { x.TID = "T000001" }},
		{"TID of spaces", func(x *isoswitch.Terminal) { x.TID = "        " }},
		{"TID with a control character", func(x *isoswitch.Terminal) { x.TID = "T000000\n" }},
		{"MID too long", func(x *isoswitch.Terminal) { x.MID += "0" }},
		{"no scheme", func(x *isoswitch.Terminal) { x.Scheme = "" }},
		{"unknown scheme", func(x *isoswitch.Terminal) { x.Scheme = "fixed" }},
		{"BDK without prefix", func(x *isoswitch.Terminal) { x.BDK = "bdk" }},
		{"BDK that is a prefix only", func(x *isoswitch.Terminal) { x.BDK = "alias/" }},
		{"device of the other scheme", func(x *isoswitch.Terminal) { x.Device = "1234567890123456" }},
		{"device in lower case", func(x *isoswitch.Terminal) { x.Device = "ffff9876543210e00000" }},
		{"device with a counter", func(x *isoswitch.Terminal) { x.Device = "FFFF9876543210E00001" }},
		{"device with the counter's top bit", func(x *isoswitch.Terminal) { x.Device = "FFFF9876543210F00000" }},
		{"no MAC", func(x *isoswitch.Terminal) { x.MACBytes = 0 }},
		{"MAC of 5 bytes", func(x *isoswitch.Terminal) { x.MACBytes = 5 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			terminal := aTerminal(1)
			tt.change(&terminal)
			if err := db.AddTerminal(t.Context(), terminal); err == nil {
				t.Error("accepted")
			}
			if got, err := db.Terminals(t.Context(), "", 0); err != nil || len(got) != 0 {
				t.Errorf("registered: %v, %v", got, err)
			}
		})
	}
}
