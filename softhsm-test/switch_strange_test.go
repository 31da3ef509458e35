package softhsmtest_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyd.dev/keyd/internal/iso8583"
)

// draft is a message as a stranger packs it: by a table of its own, with nothing of
// keyd's codec.
type draft struct {
	packed bool
	mti    string
	fields map[int]string
	pad    byte // the nibble that fills an odd number of digits
	place  int  // field of the MAC; 0 for none
	also   int  // another that the bitmap announces, or 0
}

// digitsOf announce the length of a field of either variant: 2 or 3 digits. The
// others have a fixed length.
var digitsOf = map[int]int{2: 2, 32: 2, 35: 2, 60: 3, 55: 3}

// numeric are fields of digits, which are packed two a byte.
var numeric = []int{2, 3, 4, 11, 14, 22, 23, 25, 26, 32, 35, 53, 60}

// pack is the message up to its MAC.
func (d draft) pack() []byte {
	announced := slices.Collect(maps.Keys(d.fields))
	for _, de := range []int{d.place, d.also} {
		if de > 0 {
			announced = append(announced, de)
		}
	}
	slices.Sort(announced)
	bits := make([]byte, 8)
	if announced[len(announced)-1] > 64 {
		bits = make([]byte, 16)
		bits[0] = 0x80
	}
	for _, de := range announced {
		bits[(de-1)/8] |= 0x80 >> ((de - 1) % 8)
	}
	var out bytes.Buffer
	if d.packed {
		out.Write(d.nibbles(d.mti))
		out.Write(bits)
	} else {
		fmt.Fprintf(&out, "%s%X", d.mti, bits)
	}
	for _, de := range announced {
		if value, ok := d.fields[de]; ok {
			d.field(&out, de, value)
		}
	}
	return out.Bytes()
}

func (d draft) field(out *bytes.Buffer, de int, value string) {
	n := len(value)
	if de == 55 {
		n /= 2
	}
	switch digits := digitsOf[de]; {
	case digits > 0 && d.packed:
		out.Write(d.nibbles(fmt.Sprintf("%0*d", digits+digits%2, n)))
	case digits > 0:
		fmt.Fprintf(out, "%0*d", digits, n)
	}
	switch {
	case d.packed && slices.Contains(numeric, de):
		out.Write(d.nibbles(value))
	case d.packed && de == 55:
		raw, _ := hex.DecodeString(value)
		out.Write(raw)
	default:
		out.WriteString(value)
	}
}

// nibbles packs digits on the left.
func (d draft) nibbles(text string) []byte {
	text = strings.ReplaceAll(text, "=", "D")
	if len(text)%2 == 1 {
		text += fmt.Sprintf("%X", d.pad)
	}
	raw, _ := hex.DecodeString(text)
	return raw
}

// anyDraft is a message that a terminal could send: fields that the variant
// demands, and some that it permits.
func anyDraft(t *rapid.T, j *judged, stan string) draft {
	digits := func(n int) string { return rapid.StringMatching(fmt.Sprintf("[0-9]{%d}", n)).Draw(t, "digits") }
	d := draft{packed: j.variant != "ascii87", place: 64}
	d.mti = rapid.SampledFrom([]string{"0200", "0400", "0401", "0420"}).Draw(t, "MTI")
	reversal := d.mti[1] == '4'
	pan := "6" + digits(rapid.IntRange(12, 18).Draw(t, "PAN"))
	d.fields = map[int]string{
		2: pan, 3: "000000", 4: "0000" + digits(7) + "2", 11: stan, 22: "051", 25: "00", 41: j.tid, 42: j.mid,
		49: rapid.SampledFrom([]string{"156", "840", "978"}).Draw(t, "currency"),
	}
	optional := map[int]string{14: "30" + rapid.SampledFrom([]string{"01", "12"}).Draw(t, "month"), 32: digits(rapid.IntRange(1, 11).Draw(t, "acquirer")),
		37: digits(12), 55: "9F2608" + digits(16)}
	if d.packed {
		d.fields[60] = "22" + "000024" + "000" + digits(rapid.IntRange(0, 8).Draw(t, "rest of DE 60"))
		delete(optional, 32)
		maps.Copy(optional, map[int]string{23: digits(3), 35: pan[:min(16, len(pan))] + "=3012" + digits(rapid.IntRange(3, 15).Draw(t, "track"))})
		if !reversal {
			optional[32], optional[26], optional[53] = digits(7), "12", "2600000000000000"
			optional[35] = pan + "=3012" + digits(rapid.IntRange(1, 13).Draw(t, "track"))
		}
	} else {
		maps.Copy(d.fields, map[int]string{7: "1122110000", 12: "120000", 13: "1122"})
		if reversal {
			d.fields[90] = "0200" + digits(6) + "1122105900" + strings.Repeat("0", 22)
			d.place = 128
		}
	}
	if reversal {
		optional[39], optional[38] = "98", digits(6)
	}
	for _, de := range slices.Sorted(maps.Keys(optional)) {
		if rapid.Bool().Draw(t, fmt.Sprint("DE ", de)) {
			d.fields[de] = optional[de]
		}
	}
	return d
}

// twist is something that goes wrong, and the rule by which the message is then
// refused; empty for one that is not refused for its form or its MAC.
type twist struct {
	name, rule string
	fits       func(*judged, draft) bool
	make       func(t *rapid.T, j *judged, d draft) []byte
}

// sealed is a draft with its MAC.
func (d draft) sealed(t *rapid.T, j *judged) []byte {
	input := d.pack()
	full, err := ways()[j.algorithm].make(j.key, input)
	if err != nil {
		t.Fatal(err)
	}
	return append(input, j.field(full)...)
}

func always(*judged, draft) bool { return true }

func twists() []twist {
	ascii := func(_ *judged, d draft) bool { return !d.packed }
	hexed := func(j *judged, _ draft) bool { return j.variant == "ascii87" || j.algorithm == "cup_ecb" }
	return []twist{
		{"nothing", "", always, func(t *rapid.T, j *judged, d draft) []byte { return d.sealed(t, j) }},
		{"another amount", "D-04", always, func(t *rapid.T, j *judged, d draft) []byte {
			raw := d.sealed(t, j)
			d.fields[4] = "000000000018"
			return append(d.pack(), raw[len(d.pack()):]...)
		}},
		{"another MTI", "D-04", always, func(t *rapid.T, j *judged, d draft) []byte {
			raw := d.sealed(t, j)
			d.mti = map[string]string{"0200": "0100", "0400": "0420", "0401": "0400", "0420": "0400"}[d.mti]
			return append(d.pack(), raw[len(d.pack()):]...)
		}},
		{"a MAC of other bytes", "D-04", always, func(t *rapid.T, j *judged, d draft) []byte {
			input := d.pack()
			full, err := ways()[j.algorithm].make(j.key, input)
			if err != nil {
				t.Fatal(err)
			}
			full[rapid.IntRange(0, 3).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			return append(input, j.field(full)...)
		}},
		{"the MAC's bit not set when it was made (M-03)", "D-04", always, func(t *rapid.T, j *judged, d draft) []byte {
			place := d.place
			d.place = 0
			raw := d.sealed(t, j)
			field := raw[len(d.pack()):]
			d.place = place
			return append(d.pack(), field...)
		}},
		{"no MAC", "D-03", always, func(_ *rapid.T, _ *judged, d draft) []byte { d.place = 0; return d.pack() }},
		{"a MAC cut short", "D-03", always, func(t *rapid.T, j *judged, d draft) []byte {
			raw := d.sealed(t, j)
			return raw[:len(raw)-rapid.IntRange(1, len(raw)-len(d.pack())).Draw(t, "cut")]
		}},
		{"small letters in the MAC (U-55)", "D-03", hexed, func(t *rapid.T, j *judged, d draft) []byte {
			raw := d.sealed(t, j)
			at := len(d.pack())
			if low := bytes.ToLower(raw[at:]); !bytes.Equal(low, raw[at:]) {
				return append(raw[:at:at], low...)
			}
			raw[at] = 'a'
			return raw
		}},
		{"DE 64 beside DE 128", "D-03", func(_ *judged, d draft) bool { return d.place == 128 }, func(t *rapid.T, j *judged, d draft) []byte {
			d.also = 64
			input := d.pack()
			at := bytes.LastIndex(input, []byte(d.fields[90]))
			full, err := ways()[j.algorithm].make(j.key, input)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Concat(input[:at], j.field(full), input[at:], j.field(full))
		}},
		{"DE 64 where DE 128 should be", "D-03", func(_ *judged, d draft) bool { return d.place == 128 }, func(t *rapid.T, j *judged, d draft) []byte {
			d.place = 64
			input := d.pack()
			at := bytes.LastIndex(input, []byte(d.fields[90]))
			full, err := ways()[j.algorithm].make(j.key, input[:at])
			if err != nil {
				t.Fatal(err)
			}
			return slices.Concat(input[:at], j.field(full), input[at:])
		}},
		{"DE 128 that nothing needs", "D-03", func(_ *judged, d draft) bool { return !d.packed && d.place == 64 }, func(t *rapid.T, j *judged, d draft) []byte {
			d.place = 128
			return d.sealed(t, j)
		}},
		{"a byte behind the MAC", "D-01", always, func(t *rapid.T, j *judged, d draft) []byte {
			return append(d.sealed(t, j), rapid.SampledFrom([]byte{0, '0', ' ', 0xFF}).Draw(t, "byte"))
		}},
		{"a field that nobody knows", "D-01", ascii, func(t *rapid.T, j *judged, d draft) []byte {
			d.fields[18] = "5999"
			return d.sealed(t, j)
		}},
		{"a pad nibble that is not 0 (U-09)", "D-01", func(_ *judged, d draft) bool { return d.packed && len(d.fields[2])%2 == 1 }, func(t *rapid.T, j *judged, d draft) []byte {
			d.pad = byte(rapid.IntRange(1, 15).Draw(t, "nibble"))
			return d.sealed(t, j)
		}},
		{"a field that must be there is not", "D-01", always, func(t *rapid.T, j *judged, d draft) []byte {
			delete(d.fields, rapid.SampledFrom([]int{3, 22, 25, 49}).Draw(t, "field"))
			return d.sealed(t, j)
		}},
	}
}

// TestMessagesOfStrangers sends what terminals of the vector file's variants could
// send, and what goes wrong with it, packed without keyd's codec: under every
// algorithm what is right is believed, and everything else is refused by its rule.
func TestMessagesOfStrangers(t *testing.T) {
	var terminals []*judged
	for _, variant := range []string{"ascii87", "unionpay_bcd"} {
		for i, algorithm := range slices.Sorted(maps.Keys(ways())) {
			j := &judged{variant: variant, algorithm: algorithm, mid: "MERCHANT0000001", tid: fmt.Sprintf("%c%07d", variant[0]-32, i)}
			j.key, _ = hex.DecodeString("3B0D6E5F9A1C7284D0438AC1577FE926")
			j.key = append([]byte{j.tid[0] ^ j.tid[7]}, j.key[1:ways()[algorithm].length]...)
			terminals = append(terminals, j)
		}
	}
	h := newBench(t, terminals)
	n := 0
	want := map[string]string{}
	about := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		j := rapid.SampledFrom(terminals).Draw(t, "terminal")
		n++
		stan := fmt.Sprintf("%06d", n)
		d := anyDraft(t, j, stan)
		w := rapid.SampledFrom(slices.DeleteFunc(twists(), func(w twist) bool { return !w.fits(j, d) })).Draw(t, "twist")
		raw := w.make(t, j, d)
		m := h.utter(j, raw)
		want[stan], about[stan] = w.rule, fmt.Sprintf("%s %s, %s", j.variant, j.algorithm, w.name)
		code := m.Text(39)
		told := ""
		switch code {
		case "30":
			told = "D-01"
		case j.speech.Codes.MACError:
			told = "D-03 or D-04"
		}
		if (told == "") != (w.rule == "") || !strings.Contains(told, w.rule) {
			t.Fatalf("%s: %s got %s, want %q\n%X", about[stan], d.mti, code, w.rule, raw)
		}
		if m.MTI() != d.typeOf(raw).Response() {
			t.Fatalf("%s is answered by %s", d.typeOf(raw), m.MTI())
		}
	})
	got := map[string]string{}
	for _, r := range h.records(func(r record) bool { return strings.HasSuffix(r.Action, ".refuse") && r.ISO.STAN != "" }) {
		if r.ISO.Rule == "D-01" || r.ISO.Rule == "D-03" || r.ISO.Rule == "D-04" {
			got[r.ISO.STAN] = r.ISO.Rule
		}
	}
	for stan, rule := range want {
		if got[stan] != rule {
			t.Errorf("%s: recorded as %q, want %q", about[stan], got[stan], rule)
		}
	}
	if len(want) < 50 {
		t.Errorf("%d messages were sent", len(want))
	}
}

// typeOf is the message type that went out.
func (d draft) typeOf(raw []byte) iso8583.MTI {
	if d.packed {
		return iso8583.MTI(fmt.Sprintf("%X", raw[:2]))
	}
	return iso8583.MTI(raw[:4])
}
