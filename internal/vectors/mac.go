package vectors

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/mac"
)

// macCase is a case of mac.json.
type macCase struct {
	ID, Kind, Algorithm, Cipher string
	Key, Message, MAC           hexBytes
	Padding                     *int   // method of ISO 9797-1, 1 or 2
	MACLength                   int    `json:"mac_length"`
	MACASCII                    string `json:"mac_ascii"`
	Expected                    struct{ Valid bool }
}

// MAC runs mac.json with MAC keys of the factory, and again with the clear keys
// and Go's ciphers.
func MAC(t *testing.T, f Factory) Tally {
	return each(t, "mac", f, func(t *testing.T, f Factory, c *macCase) {
		for name, compute := range map[string]func(*testing.T, Factory, *macCase) []byte{"key": macByKey, "clear": macClear} {
			full := compute(t, f, c)
			length := c.MACLength
			if c.Algorithm == "cup_ecb" {
				length = 8
			}
			err := mac.Verify(full, c.MAC, length)
			switch c.Kind {
			case "generate":
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				checkForgeries(t, full, c.MAC, length)
			case "verify":
				if (err == nil) != c.Expected.Valid {
					t.Errorf("%s: %v, want valid: %t", name, err, c.Expected.Valid)
				}
			default:
				t.Fatalf("unknown kind %q", c.Kind)
			}
		}
	})
}

// checkForgeries changes the MAC of a case in each bit and in length.
func checkForgeries(t *testing.T, full, good []byte, length int) {
	t.Helper()
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := mac.Verify(full, bad, length); !errors.Is(err, mac.ErrMAC) {
			t.Errorf("bit %d changed: %v, want %v", bit, err, mac.ErrMAC)
		}
	}
	for _, bad := range [][]byte{nil, {}, good[:len(good)-1], append(bytes.Clone(good), 0)} {
		if err := mac.Verify(full, bad, length); !errors.Is(err, mac.ErrMAC) {
			t.Errorf("%d bytes for %d: %v, want %v", len(bad), length, err, mac.ErrMAC)
		}
	}
}

func (c *macCase) padding() mac.Padding {
	switch {
	case c.Padding != nil && *c.Padding == 2:
		return mac.Padding2
	case c.Padding != nil && *c.Padding == 1:
		return mac.Padding1
	}
	return mac.NoPadding
}

func macByKey(t *testing.T, f Factory, c *macCase) []byte {
	t.Helper()
	switch c.Algorithm {
	case "iso9797_1_alg3", "x9_19", "as2805_4_1":
		left, full := blockKey(t, f, "", c.Key[:8]), blockKey(t, f, "", c.Key)
		return algorithm3(t, left, full, c)
	case "hmac_sha256":
		k, ok := makeKey(t, f, keys.HMACSHA256, hmacKey(c.Key)).(keys.HMACKey)
		if !ok {
			t.Fatal("the factory's HMAC key has no HMAC")
		}
		return must[[]byte](t)(k.HMAC(c.Message))
	}
	k := blockKey(t, f, c.Cipher, c.Key)
	if c.Algorithm == "cmac" {
		same(t, "CMAC over the cipher", must[[]byte](t)(mac.CMAC(k, c.Message)), must[[]byte](t)(k.CMAC(c.Message)))
		return must[[]byte](t)(k.CMAC(c.Message))
	}
	return overCipher(t, k, c)
}

// hmacKey returns a key that gives the same HMAC and has at least the length
// of the hash, since some tokens want that: RFC 2104 fills short keys with
// zeros and hashes long ones.
func hmacKey(value []byte) []byte {
	if len(value) > sha256.BlockSize {
		sum := sha256.Sum256(value)
		return sum[:]
	}
	filled := make([]byte, max(len(value), sha256.Size))
	copy(filled, value)
	return filled
}

func macClear(t *testing.T, _ Factory, c *macCase) []byte {
	t.Helper()
	switch c.Algorithm {
	case "iso9797_1_alg3", "x9_19", "as2805_4_1":
		left, full, err := mac.NewAlgorithm3(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		return algorithm3(t, left, full, c)
	case "hmac_sha256":
		return must[[]byte](t)(mac.HMAC(mac.SHA256, c.Key, c.Message))
	}
	newCipher := mac.NewTDES
	if blockAlgorithms[c.Cipher].IsAES() {
		newCipher = mac.NewAES
	}
	return overCipher(t, must[mac.Cipher](t)(newCipher(c.Key)), c)
}

func algorithm3(t *testing.T, left, full mac.Cipher, c *macCase) []byte {
	t.Helper()
	if c.Algorithm == "as2805_4_1" {
		m := must[[4]byte](t)(mac.AS2805(left, full, c.Message))
		return m[:]
	}
	return must[[]byte](t)(mac.Algorithm3(left, full, c.Message, c.padding()))
}

func overCipher(t *testing.T, k mac.Cipher, c *macCase) []byte {
	t.Helper()
	switch c.Algorithm {
	case "iso9797_1_alg1", "x9_9":
		return must[[]byte](t)(mac.Algorithm1(k, c.Message, c.padding()))
	case "cmac":
		return must[[]byte](t)(mac.CMAC(k, c.Message))
	case "cup_ecb":
		m := must[[8]byte](t)(mac.UnionPay(k, c.Message))
		if c.MACASCII != "" && string(m[:]) != c.MACASCII {
			t.Error("the characters of the MAC differ")
		}
		return m[:]
	}
	panic(fmt.Sprintf("vectors: unknown algorithm %q", c.Algorithm))
}
