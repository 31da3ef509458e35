package vectors

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/pin"
)

// pinCase is a case of pin_blocks.json.
type pinCase struct {
	ID, Kind, Format, PIN string
	PAN                   *string
	Fill                  string
	Random                hexBytes
	PINBlock              hexBytes `json:"pin_block"`
	PINField              hexBytes `json:"pin_field"`
	Key                   hexBytes
	KeyAlgorithm          string `json:"key_algorithm"`
	Encrypted             hexBytes
	Deterministic         bool

	FormatIn  string   `json:"format_in"`
	FormatOut string   `json:"format_out"`
	KeyIn     hexBytes `json:"key_in"`
	KeyOut    hexBytes `json:"key_out"`
	AlgIn     string   `json:"key_in_algorithm"`
	AlgOut    string   `json:"key_out_algorithm"`
	In        hexBytes `json:"encrypted_in"`
	Expected  struct {
		PINBlock   hexBytes `json:"pin_block"`
		Out        hexBytes `json:"encrypted_out"`
		DecodedPIN string   `json:"decoded_pin"`
	}
}

// notServed is the format of the file that keyd refuses by name: it is for chip
// cards off line.
var notServed = []string{"2"}

// PINBlocks runs pin_blocks.json with PIN keys of the factory.
func PINBlocks(t *testing.T, f Factory) Tally {
	return each(t, "pin_blocks", f, func(t *testing.T, f Factory, c *pinCase) {
		if slices.Contains(notServed, c.Format) {
			if _, err := pin.ParseFormat(c.Format); !errors.Is(err, pin.ErrFormat) {
				t.Errorf("format %s: %v, want %v", c.Format, err, pin.ErrFormat)
			}
			return
		}
		switch c.Kind {
		case "encode":
			pinEncode(t, f, c)
			pinDecode(t, f, c, c.PIN)
		case "decode":
			pinDecode(t, f, c, c.PIN)
		case "decode_other_pan":
			pinDecode(t, f, c, c.Expected.DecodedPIN)
		case "malformed":
			pinMalformed(t, f, c)
		case "malformed_encode":
			pinMalformedEncode(t, c)
		case "translate":
			pinTranslate(t, f, c)
		default:
			t.Fatalf("unknown kind %q", c.Kind)
		}
	})
}

func parseSide(t *testing.T, format string, pan *string) pin.Side {
	t.Helper()
	side := pin.Side{}
	if f, err := pin.ParseLegacy(format); err == nil {
		side.Format, side.Legacy = f, true
	} else {
		side.Format = must[pin.Format](t)(pin.ParseFormat(format))
	}
	if pan != nil {
		side.PAN = must[pin.PAN](t)(pin.ParsePAN(*pan))
	}
	return side
}

func pinEncode(t *testing.T, f Factory, c *pinCase) {
	t.Helper()
	side := parseSide(t, c.Format, c.PAN)
	p := must[pin.PIN](t)(pin.ParsePIN([]byte(c.PIN)))
	field := must[pin.Field](t)(pin.Encode(&side, &p, fixed(c.Random)))
	if c.PINBlock != nil {
		same(t, "clear block", field.Bytes(), c.PINBlock)
	}
	if c.PINField != nil {
		same(t, "PIN field", field.Bytes(), c.PINField)
	}
	if c.Key != nil {
		key := blockKey(t, f, c.KeyAlgorithm, c.Key)
		same(t, "block", must[[]byte](t)(pin.Encipher(key, &side, &field)), c.Encrypted)
	}
}

func pinDecode(t *testing.T, f Factory, c *pinCase, want string) {
	t.Helper()
	side := parseSide(t, c.Format, c.PAN)
	plain := c.PINBlock
	if plain == nil {
		plain = c.PINField
	}
	field := must[pin.Field](t)(pin.NewField(side.Format, plain))
	got := must[pin.PIN](t)(pin.Decode(&side, &field))
	samePIN(t, &got, want)
	if c.Key != nil {
		decipherPIN(t, blockKey(t, f, c.KeyAlgorithm, c.Key), &side, c.Encrypted, want)
	}
	if c.Format == "1" {
		again := must[pin.Field](t)(pin.Encode(&side, &got, fixed(fillBytes(t, c))))
		same(t, "clear block, encoded again", again.Bytes(), c.PINBlock)
	}
}

// fillBytes puts a vector's filler of format 1 where a reader's bytes go.
func fillBytes(t *testing.T, c *pinCase) []byte {
	t.Helper()
	nibbles := "00000000000000"
	text := nibbles[:len(nibbles)-len(c.Fill)] + c.Fill
	return must[[]byte](t)(hex.DecodeString(text))
}

func decipherPIN(t *testing.T, key keys.Key, side *pin.Side, block []byte, want string) {
	t.Helper()
	field := must[pin.Field](t)(pin.Decipher(key, side, block))
	got := must[pin.PIN](t)(pin.Decode(side, &field))
	samePIN(t, &got, want)
}

func samePIN(t *testing.T, got *pin.PIN, want string) {
	t.Helper()
	p := must[pin.PIN](t)(pin.ParsePIN([]byte(want)))
	if !got.Equal(&p) {
		t.Error("the PIN differs")
	}
}

func pinMalformed(t *testing.T, f Factory, c *pinCase) {
	t.Helper()
	side := parseSide(t, c.Format, c.PAN)
	field, err := pin.NewField(side.Format, c.PINBlock)
	if len(c.PINBlock) != side.Format.Bytes() {
		if !errors.Is(err, pin.ErrLength) {
			t.Errorf("a block of %d bytes: %v, want %v", len(c.PINBlock), err, pin.ErrLength)
		}
		return
	}
	if _, err = pin.Decode(&side, &field); err != pin.ErrBlock {
		t.Errorf("decoding: %v, want %v itself", err, pin.ErrBlock)
	}
	key := blockKey(t, f, map[bool]string{true: "aes128"}[side.Format == pin.Format4], c.Key)
	block := must[[]byte](t)(pin.Encipher(key, &side, &field))
	same(t, "malformed block", block, c.Encrypted)
	if _, err = pin.Translate(key, &side, block, key, &side, rand.Reader); err != pin.ErrBlock {
		t.Errorf("translating: %v, want %v itself", err, pin.ErrBlock)
	}
}

func pinMalformedEncode(t *testing.T, c *pinCase) {
	t.Helper()
	_, pinErr := pin.ParsePIN([]byte(c.PIN))
	var panErr error
	if c.PAN != nil {
		_, panErr = pin.ParsePAN(*c.PAN)
	}
	if pinErr == nil && panErr == nil {
		t.Error("PIN and PAN were accepted")
	}
}

func pinTranslate(t *testing.T, f Factory, c *pinCase) {
	t.Helper()
	from, to := parseSide(t, c.FormatIn, c.PAN), parseSide(t, c.FormatOut, c.PAN)
	in, out := blockKey(t, f, c.AlgIn, c.KeyIn), blockKey(t, f, c.AlgOut, c.KeyOut)
	block := must[[]byte](t)(pin.Translate(in, &from, c.In, out, &to, rand.Reader))
	decipherPIN(t, out, &to, block, c.PIN)
	if c.Deterministic {
		same(t, "translated block", block, c.Expected.Out)
		return
	}
	again := must[[]byte](t)(pin.Translate(in, &from, c.In, out, &to, rand.Reader))
	if bytes.Equal(block, again) {
		t.Error("the random filler is the same twice")
	}
}
