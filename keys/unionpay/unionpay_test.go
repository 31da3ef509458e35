package unionpay_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/unionpay"
)

func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// v0 is the published field 62 of form 003: section 12 of the UnionPay notes.
const v0 = "6701EAD6A9AD51E51AA406E2C27FCFA98D0A74B8B651F9E9BACE9AE10000000000000000AB7153CA"

func check(value []byte) ([4]byte, error) {
	k, err := softkey.New(keys.TDES2, value)
	if err != nil {
		return [4]byte{}, err
	}
	return keys.CheckUnionPay(k)
}

func master(t testing.TB) keys.Key {
	t.Helper()
	k, err := softkey.New(keys.TDES2, unhex(t, "CA5D92598DCA48CE8A4C76361A9269E9"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestV0 opens the published field and packs it again: U-42 to U-46.
func TestV0(t *testing.T) {
	set, err := unionpay.Parse(unionpay.Form003, unhex(t, v0))
	if err != nil {
		t.Fatal(err)
	}
	pin, err := unionpay.Open(master(t), set.PIN, check)
	if err != nil || !bytes.Equal(pin, unhex(t, "807A23AD32B36D457AE91FDF927570EA")) {
		t.Errorf("the PIN key is not the published one (%v)", err)
	}
	mac, err := unionpay.Open(master(t), set.MAC, check)
	if err != nil || !bytes.Equal(mac, unhex(t, "5BB5C72CD00B73385BB5C72CD00B7338")) || !set.MAC.Half {
		t.Errorf("the MAC key is not the published one of single length (%v)", err)
	}
	again, err := unionpay.Pack(unionpay.Form003, set)
	if err != nil || !bytes.Equal(again, unhex(t, v0)) {
		t.Errorf("packed again: %X, %v", again, err)
	}
}

// TestA19T3 is what a terminal sees of a field that was changed on its way: a
// changed byte, and two halves exchanged.
func TestA19T3(t *testing.T) {
	field := unhex(t, v0)
	swapped := bytes.Clone(field)
	copy(swapped[0:8], field[8:16])
	copy(swapped[8:16], field[0:8])
	changed := bytes.Clone(field)
	changed[3] ^= 1
	for name, field := range map[string][]byte{"halves exchanged": swapped, "a changed byte": changed} {
		set, err := unionpay.Parse(unionpay.Form003, field)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unionpay.Open(master(t), set.PIN, check); !errors.Is(err, unionpay.ErrContent) {
			t.Errorf("%s: %v, want %v", name, err, unionpay.ErrContent)
		}
	}
}

func slot(fill byte, half bool) unionpay.Slot {
	s := unionpay.Slot{Half: half}
	for i := range s.Value {
		s.Value[i] = fill + byte(i)
	}
	if half {
		clear(s.Value[8:])
	}
	return s
}

func TestPackRefuses(t *testing.T) {
	one, two, three := slot(0x10, false), slot(0x40, false), slot(0x70, false)
	short, shorter := slot(0x10, true), slot(0x40, true)
	twin := slot(0x40, false)
	copy(twin.Value[8:], twin.Value[:8])
	for _, test := range []struct {
		name string
		form unionpay.Form
		set  unionpay.Set
	}{
		{"no such form", "002", unionpay.Set{PIN: one, MAC: two}},
		{"double length in 001", unionpay.Form001, unionpay.Set{PIN: one, MAC: shorter}},
		{"double MAC key in 001", unionpay.Form001, unionpay.Set{PIN: short, MAC: two}},
		{"single PIN key in 003", unionpay.Form003, unionpay.Set{PIN: short, MAC: two}},
		{"data key in 003", unionpay.Form003, unionpay.Set{PIN: one, MAC: two, Data: &three}},
		{"no data key in 004", unionpay.Form004, unionpay.Set{PIN: one, MAC: two}},
		{"single data key in 004", unionpay.Form004, unionpay.Set{PIN: one, MAC: two, Data: &shorter}},
		{"PIN key as MAC key", unionpay.Form003, unionpay.Set{PIN: one, MAC: one}},
		{"a half of the PIN key as MAC key", unionpay.Form003, unionpay.Set{PIN: one, MAC: slot(0x10, true)}},
		{"equal halves", unionpay.Form003, unionpay.Set{PIN: twin, MAC: one}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if field, err := unionpay.Pack(test.form, test.set); !errors.Is(err, unionpay.ErrForm) {
				t.Errorf("%X, %v; want %v", field, err, unionpay.ErrForm)
			}
		})
	}
}

// TestRoundTrip packs and parses sets of every form.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		form := rapid.SampledFrom([]unionpay.Form{unionpay.Form001, unionpay.Form003, unionpay.Form004}).Draw(t, "form")
		draw := func(name string, half bool) unionpay.Slot {
			s := unionpay.Slot{Half: half}
			n := 16
			if half {
				n = 8
			}
			copy(s.Value[:], rapid.SliceOfN(rapid.ByteRange(1, 255), n, n).Draw(t, name))
			copy(s.Check[:], rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name+" CV"))
			return s
		}
		set := unionpay.Set{PIN: draw("PIN", form == unionpay.Form001),
			MAC: draw("MAC", form == unionpay.Form001 || rapid.Bool().Draw(t, "single"))}
		if form == unionpay.Form004 {
			data := draw("data", false)
			set.Data = &data
		}
		field, err := unionpay.Pack(form, set)
		if errors.Is(err, unionpay.ErrForm) {
			return // two halves were drawn equal
		}
		if err != nil || len(field) != form.Size() {
			t.Fatalf("%d bytes, %v", len(field), err)
		}
		back, err := unionpay.Parse(form, field)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(set, back); diff != "" {
			t.Errorf("(-packed +parsed):\n%s", diff)
		}
	})
}

// FuzzParse: whatever is taken apart packs to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add("003", unhex(f, v0))
	f.Add("001", bytes.Repeat([]byte{1, 2, 3}, 8))
	f.Add("004", make([]byte, 60))
	f.Fuzz(func(t *testing.T, form string, field []byte) {
		set, err := unionpay.Parse(unionpay.Form(form), field)
		if err != nil {
			return
		}
		again, err := unionpay.Pack(unionpay.Form(form), set)
		if err != nil || !bytes.Equal(again, field) {
			t.Errorf("%X packs to %X (%v)", field, again, err)
		}
	})
}
