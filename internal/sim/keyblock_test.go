package sim

import (
	"encoding/hex"
	"slices"
	"testing"

	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// TestKeyBlock: what the issuer makes by the standard's text is what keyd opens.
func TestKeyBlock(t *testing.T) {
	kek, err := hex.DecodeString("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
	if err != nil {
		t.Fatal(err)
	}
	key, err := newTDESKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyBlock(kek, "M3", 'C', key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := tr31.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	under, err := softkey.New(keys.AES256, kek)
	if err != nil {
		t.Fatal(err)
	}
	got, err := block.Open(under, keys.AES256, tr31.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Reveal(), key) || block.Usage != keys.UsageMACAlg3 || block.Mode != keys.ModeMAC {
		t.Errorf("%s opens to another key", text)
	}
	carried, err := softkey.New(keys.TDES2, key)
	if err != nil {
		t.Fatal(err)
	}
	want, err := keys.Check(carried, keys.CheckByZeros)
	if err != nil {
		t.Fatal(err)
	}
	if check, err := checkValue(key); err != nil || check != want.String() {
		t.Errorf("check value %s, %v; want %s", check, err, want)
	}
}
