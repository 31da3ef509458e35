package store

import (
	"encoding/hex"
	"errors"
	"testing"

	"keyd.dev/keyd/internal/isoswitch"
)

func TestTrackDataIsRefused(t *testing.T) {
	db := open(t)
	for n, tt := range []struct {
		name, hex string
		want      error
	}{
		{"R-07 track 2 equivalent", "820218005713" + "4761739001010010D22122011143804400000F", ErrRule},
		{"R-07 PAN", "5A084761739001010010", ErrRule},
		{"R-07 track 1", "5602AAAA", ErrRule},
		{"R-07 track 1 discretionary", "9F1F0130", ErrRule},
		{"R-07 track 2 discretionary", "9F200130", ErrRule},
		{"R-07 contactless track 2", "9F6B0130", ErrRule},
		{"R-07 PIN data", "990412345678", ErrRule},
		{"R-07 inside a template", "7006" + "5A0447617390", ErrRule},
		{"R-07 after filler", "00FF00" + "5A0447617390", ErrRule},
		{"R-07 long form of the length", "5A810447617390", ErrRule},
		{"R-07 longer form of the length", "5A82000447617390", ErrRule},
		{"allowed objects", "9F2608A1A2A3A4A5A6A7A89F360200019505000000800082021800", nil},
		{"a value that looks like a tag", "9F260257119F36025A01", nil},
		{"no TLV", "9F", nil},
		{"cut short", "9F2608A1", nil},
		{"indefinite length", "7080", nil},
		{"length of three bytes", "5A83000001AA", nil},
		{"tag without end", "5FFFFFFFFF", nil},
		{"empty", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sale := aTxn(byte(n))
			var err error
			if sale.EMV, err = hex.DecodeString(tt.hex); err != nil {
				t.Fatal(err)
			}
			err = db.Update(t.Context(), func(tx isoswitch.Tx) error { return tx.InsertTxn(sale) })
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func FuzzCheckEMV(f *testing.F) {
	for _, seed := range []string{"8202180057034761FF", "70065A0447617390", "5A82000447617390", "00", "5FFFFFFF"} {
		p, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if checkEMV(p) != nil {
			return
		}
		// A PAN in front is found, whatever comes after it.
		if checkEMV(append([]byte{0x5A, 0x01, 0x40}, p...)) == nil {
			t.Errorf("%x is accepted after a PAN", p)
		}
	})
}
