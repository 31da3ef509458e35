package sim

import (
	"errors"
	"testing"

	"keyd.dev/keyd/dukpt"
)

// TestDUKPTJudges: a terminal says that a MAC is valid of those alone that it has
// checked, and calls no other answer its own (U-58).
func TestDUKPTJudges(t *testing.T) {
	d, err := NewDUKPT(TerminalConfig{
		TID: "T0000001", MID: "M00000000000001", BDK: "0123456789ABCDEFFEDCBA9876543210", KSN: "FFFF9876543210E00001",
	})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := d.Sale(1000, Card{PAN: "4111111111111111"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// answer is the switch's to the sale, with one field changed.
	answer := func(de int, text string) []byte {
		b := sent.Message.Answer("00").Set(37, "000000000001").Set(38, "123456")
		if de != 0 {
			b.Set(de, text)
		}
		open, err := b.Pack()
		if err != nil {
			t.Fatal(err)
		}
		sum, err := sent.keys.mac(sent.KSN, dukpt.MACResponse, open.MACInput())
		if err != nil {
			t.Fatal(err)
		}
		return open.Seal(sum)
	}
	tests := []struct {
		name string
		raw  []byte
		mac  MACState
		err  error
	}{
		{"its own", answer(0, ""), MACValid, nil},
		{"another amount under a valid MAC", answer(4, "000000000999"), MACValid, ErrMismatch},
		{"of another STAN", answer(11, "999999"), MACUnchecked, ErrMismatch},
		{"of another terminal", answer(41, "T0000002"), MACUnchecked, ErrMismatch},
		{"cut short", Faults{Garble: true}.spoil(answer(0, "")), MACNone, ErrMismatch},
		{"a spoiled MAC", spoiled(answer(0, "")), MACWrong, ErrAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := d.judge(sent, tt.raw)
			if got.MAC != tt.mac || !errors.Is(err, tt.err) {
				t.Errorf("MAC %q, %v; want %q, %v", got.MAC, err, tt.mac, tt.err)
			}
		})
	}
}
