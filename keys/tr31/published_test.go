package tr31

import (
	"bytes"
	"encoding/hex"
	"testing"

	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
)

// TestSealReproduces seals published blocks again with the filler that they
// have, and wants the very same text.
func TestSealReproduces(t *testing.T) {
	for name, c := range map[string]struct{ block, kbpk string }{
		"X9.143:2021 8.1":    {"D0144P0AE00E00002C77FA3F4A553BED6E88AE5C172A4166E3D4ACA8E2AC71C158A476FAC12C13C3829DE55D3AB54C48F4C4FEF7AC75E90FC47F1B77E7B19A73ED46E64410082557", "88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6"},
		"X9.143:2021 8.4.2":  {"B0120B0TX12S0100KS1800604B120F929280000015CEB14B76D551F21EC43A75390FA118A98C6CB049E3B9E864A5F4A8B9A5108A6DB5635C95B042D7", "1D22BF32387C600AD97F9B97A51311AC"},
		"ISO 20038:2017 B.3": {"D0112M3TV16N000018462FA5903B8D2B82FEE26B29713C0BE7ED81601087F12252093D06FC0A012C1CF769AD0E3E9E4877166AB013FC22B4", "3235362D62697420414553207772617070696E67202849534F20323030333829"},
		"payShield, TDES":    {"D0112B0TN00N000037DB9B046B7B0048785690759580ABC3B9842AB4BB7717B49E92528E575785D8123559376A2553B27BE94F054F4E971C", "4141414141414141414141414141414141414141414141414141414141414141"},
		"payShield, AES-256": {"D0144D0AN00N0000127862F945C2DED04530FAF7CDBC8B0BA10C7AA79BD5E0C2C5D6AC173BF588E4B19ACF1357178D50EA0AB193228E13958304FC6149632DFDCADF3A5B3D57E814", "4141414141414141414141414141414141414141414141414141414141414141"},
	} {
		t.Run(name, func(t *testing.T) {
			value, err := hex.DecodeString(c.kbpk)
			if err != nil {
				t.Fatal(err)
			}
			a := map[int]keys.Algorithm{16: keys.TDES2, 32: keys.AES256}[len(value)]
			kbpk, err := softkey.New(a, value)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Parse(c.block)
			if err != nil {
				t.Fatal(err)
			}
			key, err := b.Open(kbpk, a, Policy{})
			if err != nil {
				t.Fatal(err)
			}
			bk, err := newBlockKeys(kbpk, a)
			if err != nil {
				t.Fatal(err)
			}
			defer bk.close()
			data, err := bk.enc.Decrypt(b.mac, b.sealed)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Seal(kbpk, a, b.Header, key, bytes.NewReader(data[2+key.Len():]))
			if err != nil || got != c.block {
				t.Errorf("the block differs: %v", err)
			}
		})
	}
}
