package vectors

import (
	"bytes"
	"encoding/hex"
	"testing"

	"keyd.dev/keyd/mac"
)

// isoCase is a case of iso8583_mac.json: a whole message, of which the MAC is
// the end.
type isoCase struct {
	ID, Kind, Variant string
	Algorithm         string   `json:"mac_algorithm"`
	Key               hexBytes `json:"mac_key"`
	Input             hexBytes `json:"mac_input"`
	Message, MAC      hexBytes
	Expected          struct {
		Valid bool
		Error string
	}
}

func (c *isoCase) id() string     { return c.ID }
func (c *isoCase) mustFail() bool { return !c.Expected.Valid }

// isoAlgorithms are the file's names of algorithms as mac.json has them, with
// the padding and the cipher that each implies.
var isoAlgorithms = map[string]struct {
	algorithm, cipher string
	padding           int
}{
	"x9_9":                {"x9_9", "des", 1},
	"x9_19":               {"x9_19", "", 1},
	"iso9797_1_alg3_pad2": {"iso9797_1_alg3", "", 2},
	"cmac_aes128":         {"cmac", "aes128", 0},
	"cup_ecb":             {"cup_ecb", "", 0},
}

// ISO8583MAC verifies the MACs of iso8583_mac.json over the bytes of the
// messages, with MAC keys of the factory and again with the clear keys. Whether
// a message has the form of its dialect is for others to say.
func ISO8583MAC(t *testing.T, f Factory) Tally {
	return each(t, "iso8583_mac", f, func(t *testing.T, f Factory, c *isoCase) {
		as, ok := isoAlgorithms[c.Algorithm]
		if !ok {
			t.Fatalf("unknown algorithm %q", c.Algorithm)
		}
		input, received := c.split(t)
		if c.Expected.Valid && (!bytes.Equal(input, c.Input) || !bytes.Equal(received, c.MAC)) {
			t.Fatal("the MAC is not where the case says")
		}
		m := &macCase{Algorithm: as.algorithm, Cipher: as.cipher, Key: c.Key, Message: input, Padding: &as.padding}
		for name, compute := range map[string]func(*testing.T, Factory, *macCase) []byte{"key": macByKey, "clear": macClear} {
			err := mac.Verify(compute(t, f, m), received, 8)
			if (err == nil) != c.Expected.Valid {
				t.Errorf("%s: %v, want valid: %t", name, err, c.Expected.Valid)
			}
		}
	})
}

// split takes the MAC off the end of the message: 16 hexadecimal characters in
// ascii87, 8 bytes elsewhere. What is not hexadecimal is no MAC.
func (c *isoCase) split(t *testing.T) (input, received []byte) {
	t.Helper()
	if c.Variant != "ascii87" {
		at := len(c.Message) - 8
		return c.Message[:at], c.Message[at:]
	}
	at := len(c.Message) - 16
	received, err := hex.DecodeString(string(c.Message[at:]))
	if err != nil {
		return c.Message[:at], nil
	}
	return c.Message[:at], received
}
