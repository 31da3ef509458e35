package isoswitch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

// keyMessage is an 0800 of a host.
func keyMessage(t testing.TB, which, what string) (*iso8583.Message, error) {
	t.Helper()
	d := iso8583.ASCII87Link()
	b := d.Build(iso8583.NetworkRequest, iso8583.SideUpstream).
		Set(7, "1122093000").Set(11, "000001").Set(41, "ISSUER01").Set(42, "ISSUER000000001").Set(70, keyChange)
	if which != "" {
		b.Set(53, which)
	}
	if what != "" {
		b.Set(48, what)
	}
	open, err := b.Pack()
	if err != nil {
		return nil, err
	}
	return d.Parse(open.Seal([8]byte{}), iso8583.SideUpstream)
}

// TestKeyOffer: what DE 48 and 53 of a key change must be.
func TestKeyOffer(t *testing.T) {
	block := "D0112" + strings.Repeat("0", 107)
	for _, tt := range []struct {
		name, which, what string
		good              bool
	}{
		{"a MAC key", "0220261122093000", "08D7B4" + block, true},
		{"a PIN key", "0100000000000001", "08d7b4" + block, true},
		{"another key", "0320261122093000", "08D7B4" + block, false},
		{"no number", "0200000000000000", "08D7B4" + block, false},
		{"no check value", "0220261122093000", "xxxxxx" + block, false},
		{"no block", "0220261122093000", "08D7B4", false},
		{"no DE 48", "0220261122093000", "", false},
		{"no DE 53", "", "08D7B4" + block, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := keyMessage(t, tt.which, tt.what)
			if err != nil {
				t.Fatal(err)
			}
			o, err := parseKeyOffer(m)
			if (err == nil) != tt.good || err != nil && !errors.Is(err, errKeyOffer) {
				t.Fatalf("%+v, %v", o, err)
			}
			if tt.good && (o.block != block || o.check.String() != "08D7B4" || o.kind != tt.which[:2]) {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestKeyRefusal: what the host is told.
func TestKeyRefusal(t *testing.T) {
	for err, want := range map[error]string{
		errNoExchange:            "40",
		errShared:                "40",
		errNoSuchFunction:        "40",
		errStale:                 "30",
		errSignedOffBefore:       "94",
		errKeyOffer:              "30",
		custody.ErrRequest:       "30",
		custody.ErrRepeated:      "94",
		custody.ErrKeyBlock:      "63",
		custody.ErrKeyUse:        "63",
		custody.ErrNoWrappingKey: "63",
		custody.ErrUnavailable:   "96",
		custody.ErrConflict:      "96",
	} {
		if got := keyRefusal(fmt.Errorf("of a test: %w", err)); got != want {
			t.Errorf("%v is answered %s, want %s", err, got, want)
		}
	}
}

// TestTerminalsChangeNoKeys: the fields of a key change are none of a terminal's.
func TestTerminalsChangeNoKeys(t *testing.T) {
	m, err := keyMessage(t, "0220261122093000", "08D7B4"+strings.Repeat("0", 112))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iso8583.ASCII87().Parse(m.Raw(), iso8583.SideTerminal); err == nil {
		t.Error("a terminal's 0800 may have DE 48 and 53")
	}
}

func FuzzKeyOffer(f *testing.F) {
	f.Add("0220261122093000", "08D7B4D0112M3TC00N0000")
	f.Add("0100000000000001", "xxxxxx")
	f.Fuzz(func(t *testing.T, which, what string) {
		m, err := keyMessage(t, which, what)
		if err != nil {
			return
		}
		if o, err := parseKeyOffer(m); err == nil && (o.number == 0 || o.block == "" || o.kind != zonePIN && o.kind != zoneMAC) {
			t.Errorf("%q and %q are read as %+v", which, what, o)
		}
	})
}
