package pin_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/moov-io/pinblock/encryption"
	moov "github.com/moov-io/pinblock/formats"
	"keyd.dev/keyd/pin"
)

// TestSecondOpinion compares with another implementation where that can be
// asked: PINs of 4 to 9 digits and PANs of 13 and more, beyond which it panics
// or refuses, and never a block that it did not make or that was not checked
// here first.
func TestSecondOpinion(t *testing.T) {
	aesKey := bytes.Repeat([]byte{0x5A}, 16)
	theirAES, err := encryption.NewAesECB(aesKey)
	if err != nil {
		t.Fatal(err)
	}
	ourAES := aes(t, fmt.Sprintf("%X", aesKey))
	theirs := map[pin.Format]moov.Format{
		pin.Format0: moov.NewISO0(),
		pin.Format1: moov.NewISO1(),
		pin.Format3: moov.NewISO3(),
		pin.Format4: moov.NewISO4(theirAES),
	}
	const digits, panDigits = "907856341", "9876543210987654321"
	for f, their := range theirs {
		for n := 4; n <= 9; n++ {
			for m := 13; m <= 19; m++ {
				t.Run(fmt.Sprintf("format %s PIN of %d PAN of %d", f, n, m), func(t *testing.T) {
					side := pin.Side{Format: f, PAN: mustPAN(t, panDigits[:m])}
					p := mustPIN(t, digits[:n])
					text, err := their.Encode(digits[:n], panDigits[:m])
					if err != nil {
						t.Fatal(err)
					}
					var cipher pinCipher = nothing{8}
					if f == pin.Format4 {
						cipher = ourAES
					}
					field, err := pin.Decipher(cipher, &side, unhex(t, text))
					if err != nil {
						t.Fatal(err)
					}
					got, err := pin.Decode(&side, &field)
					if err != nil || !got.Equal(&p) {
						t.Errorf("their block is not ours: %v", err)
					}
					if field, err = pin.Encode(&side, &p, rand.Reader); err != nil {
						t.Fatal(err)
					}
					block, err := pin.Encipher(cipher, &side, &field)
					if err != nil {
						t.Fatal(err)
					}
					back, err := their.Decode(strings.ToUpper(fmt.Sprintf("%x", block)), panDigits[:m])
					if err != nil || back != digits[:n] {
						t.Errorf("our block is not theirs: %v", err)
					}
				})
			}
		}
	}
}

type pinCipher interface {
	pin.Encrypter
	pin.Decrypter
}
