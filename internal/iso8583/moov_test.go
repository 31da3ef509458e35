package iso8583

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moov-io/iso8583"
	"github.com/moov-io/iso8583/encoding"
	"github.com/moov-io/iso8583/field"
	"github.com/moov-io/iso8583/prefix"
)

// moovSpec is the dialect's field definitions as moov-io/iso8583 takes them: a
// second opinion on every message that the package reads and writes.
func moovSpec(d *Dialect) *iso8583.MessageSpec {
	spec := &iso8583.MessageSpec{Name: d.Name(), Fields: map[int]field.Field{
		0: field.NewString(d.fieldSpec(0, 4, false, "MTI")),
		1: field.NewBitmap(&field.Spec{Length: 8, Description: "bitmap", Enc: encoding.BytesToASCIIHex, Pref: prefix.Hex.Fixed}),
	}}
	for de, r := range d.rows {
		switch {
		case r == nil:
		case r.unit == 2:
			spec.Fields[de] = field.NewBinary(r.spec)
		default:
			spec.Fields[de] = field.NewString(r.spec)
		}
	}
	return spec
}

func moovTexts(t *testing.T, m *iso8583.Message) map[int]string {
	t.Helper()
	out := map[int]string{}
	for de, f := range m.GetFields() {
		if de < 2 {
			continue
		}
		text, err := f.String()
		if err != nil {
			t.Fatal(err)
		}
		out[de] = text
	}
	return out
}

func TestSecondOpinion(t *testing.T) {
	d := ASCII87()
	spec := moovSpec(d)
	for _, s := range []Side{SideTerminal, SideUpstream} {
		for _, mti := range allMTIs {
			t.Run(fmt.Sprintf("side %d %s", s, mti), func(t *testing.T) {
				u, err := build(d, mti, s, sample(mti, s)).Pack()
				if err != nil {
					t.Fatal(err)
				}
				raw := u.Seal([8]byte{0x2F, 0x3D, 0xB3, 0x43, 0xF2, 0x6D, 0xFD, 0xA5})
				theirs := iso8583.NewMessage(spec)
				if err := theirs.Unpack(raw); err != nil {
					t.Fatal(err)
				}
				ours, err := d.Parse(raw, s)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(moovTexts(t, theirs), texts(ours)); diff != "" {
					t.Errorf("fields (-theirs +ours):\n%s", diff)
				}
				packed, err := theirs.Pack()
				if err != nil {
					t.Fatal(err)
				}
				if string(packed) != string(raw) {
					t.Error("they pack other bytes")
				}
			})
		}
	}
}
