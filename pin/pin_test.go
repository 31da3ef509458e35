package pin_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/pin"
)

func TestVectors(t *testing.T) {
	vectors.PINBlocks(t, softkey.Load)
}

var formats = []pin.Format{pin.Format0, pin.Format1, pin.Format3, pin.Format4}

func mustPIN(t testing.TB, digits string) pin.PIN {
	t.Helper()
	p, err := pin.ParsePIN([]byte(digits))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustPAN(t testing.TB, digits string) pin.PAN {
	t.Helper()
	p, err := pin.ParsePAN(digits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tdes(t testing.TB, key string) secret.Cipher {
	t.Helper()
	c, err := secret.NewTDES(unhex(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func aes(t testing.TB, key string) secret.Cipher {
	t.Helper()
	c, err := secret.NewAES(unhex(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParsePIN(t *testing.T) {
	for _, c := range []struct {
		name, digits string
		ok           bool
	}{
		{"four", "1234", true},
		{"twelve", "123456789012", true},
		{"zeros", "0000", true},
		{"three", "123", false},
		{"thirteen", "1234567890123", false},
		{"empty", "", false},
		{"letter", "123A", false},
		{"slash, below 0", "12/4", false},
		{"colon, above 9", "12:4", false},
		{"high byte", "12\xB14", false},
		{"zero byte", "12\x004", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := pin.ParsePIN([]byte(c.digits))
			switch {
			case c.ok && (err != nil || string(p.AppendDigits(nil)) != c.digits || p.Len() != len(c.digits)):
				t.Errorf("refused or changed: %v", err)
			case !c.ok && (!errors.Is(err, pin.ErrPIN) || p.Len() != 0):
				t.Errorf("%v, want %v", err, pin.ErrPIN)
			}
		})
	}
}

func TestParsePAN(t *testing.T) {
	for n := range 24 {
		digits := strings.Repeat("1234567890", 3)[:n]
		if _, err := pin.ParsePAN(digits); (err == nil) != (n >= 12 && n <= 19) || err != nil && !errors.Is(err, pin.ErrPAN) {
			t.Errorf("%d digits: %v", n, err)
		}
	}
	for _, bad := range []string{"41111111111A1111", "4111 1111 1111 1111", "411111111111111=", "４111111111111"} {
		if _, err := pin.ParsePAN(bad); !errors.Is(err, pin.ErrPAN) {
			t.Errorf("a character that is no digit: %v", err)
		}
	}
}

func TestPrints(t *testing.T) {
	p, pan := mustPIN(t, "739154"), mustPAN(t, "4111111111117391")
	field, err := pin.NewField(pin.Format0, []byte("canary!!"))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %c") {
		for _, v := range []any{p, &p, field, &field} {
			if got := fmt.Sprintf(verb, v); got != secret.Placeholder {
				t.Errorf("C-14 %s of %T shows something else than the placeholder", verb, v)
			}
		}
		if got := fmt.Sprintf(verb, pan); got != "************7391" {
			t.Errorf("%s of a PAN is not masked", verb)
		}
	}
	text, err := json.Marshal([]any{p, pan, field})
	if err != nil {
		t.Fatal(err)
	}
	if want := `["[secret]","************7391","[secret]"]`; string(text) != want {
		t.Errorf("C-14 JSON shows more than %s", want)
	}
	p.Clear()
	if p.Len() != 0 || !bytes.Equal(p.AppendDigits(nil), nil) {
		t.Error("a cleared PIN still has digits")
	}
}

func TestParseFormat(t *testing.T) {
	for _, f := range formats {
		if got, err := pin.ParseFormat(f.String()); err != nil || got != f {
			t.Errorf("%s reads as %s, %v", f, got, err)
		}
	}
	for _, bad := range []string{"", "2", "5", "00", "ISO0", "eci2"} {
		if _, err := pin.ParseFormat(bad); !errors.Is(err, pin.ErrFormat) {
			t.Errorf("%q: %v, want %v", bad, err, pin.ErrFormat)
		}
	}
}

// TestEncodedFields compares clear fields with values worked out by hand.
func TestEncodedFields(t *testing.T) {
	for _, c := range []struct {
		name    string
		format  pin.Format
		rule    pin.PANRule
		pan     string
		digits  string
		filler  string
		want    string // the clear field
		pinPlus string // format 4: what is mixed in, seen through a cipher that does nothing
	}{
		{"0", pin.Format0, 0, "4012345678909", "1234", "", "041274EDCBA9876F", ""},
		{"0, twelve digits of PIN", pin.Format0, 0, "5555555551234567", "123456789012", "", "0C1261032D8226A9", ""},
		{"0, twelve digits of PAN", pin.Format0, 0, "123456789012", "1234", "", "041235DCBA9876FE", ""},
		{"0, nineteen digits of PAN", pin.Format0, 0, "1234567890123456789", "1234", "", "04124C6FEDCBA987", ""},
		{"1", pin.Format1, 0, "", "567081", "00000072215657", "1656708172215657", ""},
		{"3", pin.Format3, 0, "4111111111111111", "1234", "00010203040506070809000102030405", "341225FEBADCBADC", ""},
		{"4", pin.Format4, 0, "4111111111111111", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "44111111111111111000000000000000"},
		{"4, twelve digits of PAN", pin.Format4, 0, "123456789012", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "01234567890120000000000000000000"},
		{"4, nineteen digits of PAN", pin.Format4, 0, "1234567890123456789", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "71234567890123456789000000000000"},
		{"4, rightmost 12", pin.Format4, pin.Rightmost12, "4111111111111111", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "01111111111110000000000000000000"},
		{"4, rightmost 12 of nineteen", pin.Format4, pin.Rightmost12, "1234567890123456789", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "07890123456780000000000000000000"},
		{"4, rightmost 12 of twelve", pin.Format4, pin.Rightmost12, "123456789012", "1234", "2F69ADDE2E9E7ACE", "441234AAAAAAAAAA2F69ADDE2E9E7ACE", "00123456789010000000000000000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			side := pin.Side{Format: c.format, Rule: c.rule}
			if c.pan != "" {
				side.PAN = mustPAN(t, c.pan)
			}
			p := mustPIN(t, c.digits)
			field, err := pin.Encode(&side, &p, bytes.NewReader(unhex(t, c.filler)))
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(t, c.want); !bytes.Equal(field.Bytes(), want) {
				t.Error("the field differs from the one worked out")
			}
			if c.pinPlus == "" {
				return
			}
			mixed, err := pin.Encipher(nothing{16}, &side, &field)
			if err != nil {
				t.Fatal(err)
			}
			for i := range mixed {
				mixed[i] ^= field.Bytes()[i]
			}
			if !bytes.Equal(mixed, unhex(t, c.pinPlus)) {
				t.Error("the PAN field differs from the one worked out")
			}
		})
	}
}

// nothing is a cipher that leaves its block as it is.
type nothing struct{ size int }

func (n nothing) BlockSize() int                        { return n.size }
func (n nothing) Encrypt(_, src []byte) ([]byte, error) { return bytes.Clone(src), nil }
func (n nothing) Decrypt(_, src []byte) ([]byte, error) { return bytes.Clone(src), nil }

func TestRoundTrip(t *testing.T) {
	const digits, panDigits = "907856341209", "9876543210987654321"
	for _, f := range formats {
		for n := 4; n <= 12; n++ {
			for m := 12; m <= 19; m++ {
				side := pin.Side{Format: f, PAN: mustPAN(t, panDigits[:m])}
				p := mustPIN(t, digits[:n])
				field, err := pin.Encode(&side, &p, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				got, err := pin.Decode(&side, &field)
				if err != nil || !got.Equal(&p) {
					t.Errorf("format %s, PIN of %d, PAN of %d digits: %v", f, n, m, err)
				}
			}
		}
	}
}

// accepted is what ISO 9564-1 says about a clear field, written as plainly as
// it can be: the nibbles of the field, the PAN taken out.
func accepted(f pin.Format, nibbles string) (string, bool) {
	length := strings.IndexByte("0123456789abcdef", nibbles[1])
	if nibbles[:1] != f.String() || length < 4 || length > 12 {
		return "", false
	}
	digits, filler := nibbles[2:2+length], nibbles[2+length:16]
	fill := map[pin.Format]string{pin.Format0: "f", pin.Format1: "0123456789abcdef", pin.Format3: "abcdef", pin.Format4: "a"}[f]
	return digits, strings.Trim(digits, "0123456789") == "" && strings.Trim(filler, fill) == ""
}

// TestEveryNibble puts every value at every place of a good field.
func TestEveryNibble(t *testing.T) {
	pan := mustPAN(t, "0000000000000") // changes nothing, so that the field shows its nibbles
	for _, f := range formats {
		for _, good := range []string{"4" + "1234", "9" + "123456789", "c" + "123456789012"} {
			nibbles := []byte(f.String() + good)
			for len(nibbles) < 16 {
				nibbles = append(nibbles, map[pin.Format]byte{pin.Format0: 'f', pin.Format1: '5', pin.Format3: 'b', pin.Format4: 'a'}[f])
			}
			nibbles = append(nibbles, "00112233445566ff"[:2*f.Bytes()-16]...)
			for at := range nibbles {
				for _, v := range []byte("0123456789abcdef") {
					changed := bytes.Clone(nibbles)
					changed[at] = v
					checkDecode(t, f, pan, string(changed))
				}
			}
		}
	}
}

func checkDecode(t *testing.T, f pin.Format, pan pin.PAN, nibbles string) {
	t.Helper()
	side := pin.Side{Format: f, PAN: pan}
	field, err := pin.NewField(f, unhex(t, nibbles))
	if err != nil {
		t.Fatal(err)
	}
	digits, ok := accepted(f, nibbles)
	got, err := pin.Decode(&side, &field)
	switch {
	case ok && (err != nil || string(got.AppendDigits(nil)) != digits):
		t.Errorf("format %s: a good field was refused or misread: %v", f, err)
	case !ok && (err != pin.ErrBlock || got.Len() != 0):
		t.Errorf("format %s: a bad field gives %v, want %v itself and no PIN", f, err, pin.ErrBlock)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(byte(0), []byte("\x04\x12\x34\xff\xff\xff\xff\xff"))
	f.Add(byte(1), []byte("\x14\x12\x34\xff\x00\xab\xff\xff"))
	f.Add(byte(2), []byte("\x3c\x12\x34\x56\x78\x90\x12\xab"))
	f.Add(byte(3), []byte("\x44\x12\x34\xaa\xaa\xaa\xaa\xaa\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(byte(0), []byte{})
	pan := mustPAN(f, "0000000000000")
	f.Fuzz(func(t *testing.T, n byte, clear []byte) {
		format := formats[n%4]
		if len(clear) != format.Bytes() {
			if _, err := pin.NewField(format, clear); !errors.Is(err, pin.ErrLength) {
				t.Errorf("%d bytes for format %s: %v", len(clear), format, err)
			}
			return
		}
		checkDecode(t, format, pan, hex.EncodeToString(clear))
	})
}

func FuzzParsePIN(f *testing.F) {
	f.Add([]byte("1234"))
	f.Add([]byte("123456789012"))
	f.Add([]byte("12a4"))
	f.Fuzz(func(t *testing.T, ascii []byte) {
		p, err := pin.ParsePIN(ascii)
		want := len(ascii) >= 4 && len(ascii) <= 12 && strings.Trim(string(ascii), "0123456789") == ""
		if (err == nil) != want || want && !bytes.Equal(p.AppendDigits(nil), ascii) {
			t.Errorf("%d characters: %v, want accepted: %t", len(ascii), err, want)
		}
	})
}

func TestFillerIsRandom(t *testing.T) {
	pan := mustPAN(t, "0000000000000")
	p := mustPIN(t, "1234")
	seen := map[pin.Format]map[byte]int{}
	for _, f := range formats {
		seen[f] = map[byte]int{}
		side := pin.Side{Format: f, PAN: pan}
		for range 600 {
			field, err := pin.Encode(&side, &p, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			last := field.Bytes()[f.Bytes()-1]
			seen[f][last>>4]++
			seen[f][last&0xF]++
		}
	}
	for f, want := range map[pin.Format]int{pin.Format0: 1, pin.Format1: 16, pin.Format3: 6, pin.Format4: 16} {
		if len(seen[f]) != want {
			t.Errorf("format %s: %d values of filler, want %d", f, len(seen[f]), want)
		}
	}
	for v, n := range seen[pin.Format3] {
		if v < 0xA || n < 120 || n > 280 { // 200 ± 6 standard deviations
			t.Errorf("format 3: filler %X comes %d times of 1200, want about 200", v, n)
		}
	}
}

func TestFillerFails(t *testing.T) {
	p := mustPIN(t, "1234")
	fault := errors.New("no entropy")
	for _, f := range formats {
		side := pin.Side{Format: f, PAN: mustPAN(t, "4111111111111111")}
		_, err := pin.Encode(&side, &p, iotest.ErrReader(fault))
		if f == pin.Format0 && err != nil || f != pin.Format0 && !errors.Is(err, fault) {
			t.Errorf("format %s: %v", f, err)
		}
		_, err = pin.Encode(&side, &p, io.LimitReader(rand.Reader, 3))
		if f != pin.Format0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("format %s, three bytes of random: %v", f, err)
		}
	}
}

func TestCallersFaults(t *testing.T) {
	p, none := mustPIN(t, "1234"), pin.PIN{}
	pan := mustPAN(t, "4111111111111111")
	field, err := pin.NewField(pin.Format0, make([]byte, 8))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		side pin.Side
		pin  *pin.PIN
		want error
	}{
		"no format":      {pin.Side{PAN: pan}, &p, pin.ErrFormat},
		"format 2":       {pin.Side{Format: 3, PAN: pan}, &p, pin.ErrFormat},
		"unknown rule":   {pin.Side{Format: pin.Format4, PAN: pan, Rule: 2}, &p, pin.ErrFormat},
		"0 without PAN":  {pin.Side{Format: pin.Format0}, &p, pin.ErrPAN},
		"3 without PAN":  {pin.Side{Format: pin.Format3}, &p, pin.ErrPAN},
		"4 without PAN":  {pin.Side{Format: pin.Format4}, &p, pin.ErrPAN},
		"the zero PIN":   {pin.Side{Format: pin.Format1}, &none, pin.ErrPIN},
		"1 needs no PAN": {pin.Side{Format: pin.Format1}, &p, nil},
	} {
		if _, err := pin.Encode(&c.side, c.pin, rand.Reader); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	four := pin.Side{Format: pin.Format4, PAN: pan}
	if _, err := pin.Decode(&four, &field); !errors.Is(err, pin.ErrLength) {
		t.Errorf("a field of 8 bytes as format 4: %v, want %v", err, pin.ErrLength)
	}
	if _, err := pin.NewField(0, nil); !errors.Is(err, pin.ErrLength) {
		t.Errorf("an empty field of no format: %v, want %v", err, pin.ErrLength)
	}
}
