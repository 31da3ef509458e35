package pin_test

import (
	"errors"
	"fmt"
	"testing"

	moov "github.com/moov-io/pinblock/formats"
	"keyd.dev/keyd/pin"
)

func decodeLegacy(t *testing.T, name, block string) (pin.PIN, error) {
	t.Helper()
	f, err := pin.ParseLegacy(name)
	if err != nil {
		t.Fatal(err)
	}
	field, err := pin.NewField(f, unhex(t, block))
	if err != nil {
		t.Fatal(err)
	}
	return pin.Decode(&pin.Side{Format: f, Legacy: true}, &field)
}

func TestLegacyBlocks(t *testing.T) {
	tests := []struct {
		format, block, pin string // no PIN: refused
	}{
		{"eci2", "1234A5B6C7D8E9F0", "1234"},
		{"eci2", "12A4A5B6C7D8E9F0", ""},
		{"eci3", "4123400ABCDEF012", "1234"},
		{"eci3", "5123450ABCDEF012", "12345"},
		{"eci3", "6123456ABCDEF012", "123456"},
		{"eci3", "4123410ABCDEF012", ""}, // place behind the PIN not zero
		{"eci3", "4123401ABCDEF012", ""},
		{"eci3", "3123000ABCDEF012", ""},
		{"eci3", "7123456ABCDEF012", ""},
		{"eci3", "412B400ABCDEF012", ""},
		{"visa2", "5123450123456789", "12345"},
		{"visa2", "4123400987654321", "1234"},
		{"visa2", "512345012345678A", ""}, // filler is decimal
		{"visa2", "5123456123456789", ""},
		{"visa2", "3123000123456789", ""},
		{"visa3", "1234567F00000000", "1234567"},
		{"visa3", "1234F99999999999", "1234"},
		{"visa3", "123456789012FAAA", "123456789012"},
		{"visa3", "1234FFFFFFFFFFFF", "1234"},
		{"visa3", "1234567F00000001", ""}, // filler changes
		{"visa3", "123F000000000000", ""}, // too short
		{"visa3", "1234567890123FAA", ""}, // too long
		{"visa3", "12A4567F00000000", ""},
		{"visa3", "1234567890123456", ""}, // no delimiter
	}
	for _, test := range tests {
		t.Run(test.format+" "+test.block, func(t *testing.T) {
			got, err := decodeLegacy(t, test.format, test.block)
			if test.pin == "" {
				if err != pin.ErrBlock {
					t.Errorf("accepted, or another error: %v", err)
				}
				return
			}
			want := mustPIN(t, test.pin)
			if err != nil || !got.Equal(&want) {
				t.Errorf("not the PIN: %v", err)
			}
		})
	}
}

// TestLegacySecondOpinion reads what another implementation writes.
func TestLegacySecondOpinion(t *testing.T) {
	const digits = "907856341278"
	for name, f := range map[string]struct {
		their    moov.Format
		from, to int
	}{
		"eci2":  {moov.NewECI2(), 4, 4},
		"eci3":  {moov.NewECI3(), 4, 6},
		"visa2": {moov.NewVISA2(), 4, 6},
		"visa3": {moov.NewVISA3(), 4, 12},
	} {
		for n := f.from; n <= f.to; n++ {
			t.Run(fmt.Sprintf("%s PIN of %d", name, n), func(t *testing.T) {
				for range 20 {
					text, err := f.their.Encode(digits[:n], "")
					if err != nil {
						t.Fatal(err)
					}
					got, err := decodeLegacy(t, name, text)
					want := mustPIN(t, digits[:n])
					if err != nil || !got.Equal(&want) {
						t.Fatalf("their block is not ours: %v", err)
					}
				}
			})
		}
	}
}

func TestLegacyNeedsItsProfile(t *testing.T) {
	plain := pin.Side{Format: pin.ECI2}
	if err := plain.Validate(); !errors.Is(err, pin.ErrFormat) {
		t.Errorf("a legacy format without its profile: %v", err)
	}
	if _, err := pin.ParseFormat("eci2"); !errors.Is(err, pin.ErrFormat) {
		t.Errorf("a legacy format by the name of a format: %v", err)
	}
	legacy := pin.Side{Format: pin.VISA3, Legacy: true}
	iso := pin.Side{Format: pin.Format0, PAN: mustPAN(t, "4012345678909")}
	if err := pin.CheckTranslation(&legacy, &iso); err != nil {
		t.Errorf("from a legacy format: %v", err)
	}
	if err := pin.CheckTranslation(&iso, &legacy); !errors.Is(err, pin.ErrTranslation) {
		t.Errorf("into a legacy format: %v", err)
	}
	p := mustPIN(t, "1234")
	if _, err := pin.Encode(&legacy, &p, nil); !errors.Is(err, pin.ErrFormat) {
		t.Errorf("written in a legacy format: %v", err)
	}
}
