package hsm_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/hsm"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/softhsm-test"
)

// goldenLMK is a published test value.
const goldenLMK = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"

// goldenKinds are the kinds of keys in the golden file.
func goldenKinds() []keys.Attributes {
	var all []keys.Attributes
	add := func(u keys.Usage, m keys.Mode, algorithms ...keys.Algorithm) {
		for _, a := range algorithms {
			all = append(all, keys.Attributes{Usage: u, Algorithm: a, Mode: m, Exportability: keys.Exportable})
		}
	}
	tdes := []keys.Algorithm{keys.TDES2, keys.TDES3}
	aes := []keys.Algorithm{keys.AES128, keys.AES192, keys.AES256}
	both := append(append([]keys.Algorithm{}, tdes...), aes...)
	add(keys.UsagePIN, keys.ModeBoth, both...)
	add("D0", keys.ModeBoth, both...)
	add(keys.UsageKEK, keys.ModeBoth, both...)
	add(keys.UsageMACAlg1, keys.ModeMAC, keys.TDES2)
	add(keys.UsageMACAlg3, keys.ModeMAC, keys.TDES2)
	add(keys.UsageCMAC, keys.ModeMAC, both...)
	add(keys.UsageHMAC, keys.ModeMAC, keys.HMACSHA256)
	add(keys.UsageBDK, keys.Mode(0x58), keys.TDES2, keys.AES128, keys.AES256)
	return all
}

// TestGoldenBlocks: the blocks of this version in testdata/blocks.golden, made
// under a published local master key, stay readable, and are what this version
// makes of the same values.
func TestGoldenBlocks(t *testing.T) {
	token := softhsmtest.Open(t, softhsmtest.Config(t))
	m := hsm.NewManager(token)
	if err := m.InitFrom(t.Context(), secret.From(unhex(t, goldenLMK))); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/blocks.golden"
	var made strings.Builder
	for _, a := range goldenKinds() {
		tmpl := keys.Block{ID: "zyxwvutsrqponmlkjihgfedcba987654", Version: 3, CreatedMs: 1767225600250, Attributes: a}
		raw, err := imported(t, m, tmpl, unhex(t, clear32)[:a.Algorithm.KeyBytes()]).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&made, "%s %c %c %x\n", a.Usage, a.Algorithm, a.Mode, raw)
	}
	if os.Getenv("KEYD_UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(golden, []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), made.String()); diff != "" {
		t.Errorf("blocks have another form (-golden +made):\n%s", diff)
	}
	zero := make([]byte, 16)
	for line := range strings.Lines(string(want)) {
		raw, err := hex.DecodeString(strings.Fields(line)[3])
		if err != nil {
			t.Fatal(err)
		}
		b, err := keys.ParseBlock(raw)
		if err != nil {
			t.Fatalf("%.6s: %v", line, err)
		}
		key := loaded(t, token, b).Key
		if b.Attributes.Usage != "D0" {
			continue
		}
		// The check value of TDES keys is what they make of zeros.
		if out, err := key.Encrypt(nil, zero); err != nil {
			t.Errorf("%.6s: %v", line, err)
		} else if b.CheckBy == keys.CheckByZeros && hex.EncodeToString(out[:3]) != hex.EncodeToString(b.Check[:]) {
			t.Errorf("%.6s: the key is another than the one whose check value the block has", line)
		}
	}
}
