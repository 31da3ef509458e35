package keys_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/internal/vectors"
	"keyd.dev/keyd/keys"
)

func TestVectors(t *testing.T) {
	vectors.KCV(t, softkey.Load)
}

func TestAlgorithms(t *testing.T) {
	var got []string
	for _, a := range keys.Algorithms() {
		got = append(got, fmt.Sprintf("%s %d %d %c", a, a.KeyBytes(), a.BlockSize(), a.TR31()))
		if back, err := keys.ParseAlgorithm(a.String()); err != nil || back != a {
			t.Errorf("%s reads as %s, %v", a, back, err)
		}
		if n := btoi(a.IsTDES()) + btoi(a.IsAES()) + btoi(a.IsHMAC()); n != 1 {
			t.Errorf("%s is of %d families", a, n)
		}
	}
	want := []string{
		"TDES_2KEY 16 8 T", "TDES_3KEY 24 8 T",
		"AES_128 16 16 A", "AES_192 24 16 A", "AES_256 32 16 A",
		"HMAC_SHA224 32 0 H", "HMAC_SHA256 32 0 H", "HMAC_SHA384 48 0 H", "HMAC_SHA512 64 0 H",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, bad := range []keys.Algorithm{0, keys.HMACSHA512 + 1, 255} {
		if bad.KeyBytes() != 0 || bad.BlockSize() != 0 || bad.TR31() != 0 || !strings.HasPrefix(bad.String(), "Algorithm(") {
			t.Errorf("%s has properties", bad)
		}
	}
	for _, bad := range []string{"", "AES_512", "aes_128", "RSA_2048", "Algorithm(0)"} {
		if _, err := keys.ParseAlgorithm(bad); !errors.Is(err, keys.ErrAttributes) {
			t.Errorf("%q: %v, want %v", bad, err, keys.ErrAttributes)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// matrix is section 8.1 of the API, written out: the algorithms by their last
// word and the modes of each usage.
var matrix = map[string]string{
	"B0": "2KEY 3KEY 128 192 256 / X N",
	"P0": "2KEY 3KEY 128 192 256 / B E D N",
	"K0": "2KEY 3KEY 128 192 256 / B E D N",
	"K1": "2KEY 3KEY 128 192 256 / B E D N",
	"D0": "2KEY 3KEY 128 192 256 / B E D N",
	"M0": "2KEY 3KEY / C G V N",
	"M1": "2KEY 3KEY / C G V N",
	"M3": "2KEY / C G V N",
	"M6": "2KEY 3KEY 128 192 256 / C G V N",
	"M7": "SHA224 SHA256 SHA384 SHA512 / C G V N",
	"C0": "2KEY 3KEY / C G V N",
	"V1": "2KEY 3KEY / C G V N",
	"V2": "2KEY 3KEY / C G V N",
	"E0": "2KEY 3KEY / X N",
	"E1": "2KEY 3KEY / X N",
	"E2": "2KEY 3KEY / X N",
	"E4": "2KEY 3KEY / X N",
	"E5": "2KEY 3KEY / X N",
	"E6": "2KEY 3KEY / X N",
}

// TestValidate goes through every usage of two characters, every algorithm and
// every mode; for the usages that there are, every character as mode.
func TestValidate(t *testing.T) {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	accepted := 0
	for _, first := range alphabet {
		for _, second := range alphabet {
			usage := string([]rune{first, second})
			algorithms, modes, _ := strings.Cut(matrix[usage], "/")
			for _, a := range keys.Algorithms() {
				word := a.String()[strings.IndexByte(a.String(), '_')+1:]
				for mode := range 256 {
					if algorithms == "" && strings.IndexByte("BCDEGNSVX", byte(mode)) < 0 {
						continue
					}
					want := slices.Contains(strings.Fields(algorithms), word) && mode > ' ' && mode < 128 && strings.Contains(modes, string(rune(mode)))
					err := keys.Attributes{Usage: keys.Usage(usage), Algorithm: a, Mode: keys.Mode(mode), Exportability: keys.NonExportable}.Validate()
					if (err == nil) != want || err != nil && !errors.Is(err, keys.ErrAttributes) {
						t.Errorf("%s %s %q: %v, want valid: %t", usage, a, byte(mode), err, want)
					}
					accepted += btoi(err == nil)
				}
			}
		}
	}
	if accepted != 5*2+4*5*4+2*2*4+1*4+5*4+4*4+3*2*4+6*2*2 {
		t.Errorf("%d combinations are accepted", accepted)
	}
}

func TestValidateExportability(t *testing.T) {
	for e := range 256 {
		err := keys.Attributes{Usage: keys.UsagePIN, Algorithm: keys.AES128, Mode: keys.ModeBoth, Exportability: keys.Exportability(e)}.Validate()
		if want := strings.IndexByte("ENS", byte(e)) >= 0; (err == nil) != want {
			t.Errorf("%q: %v, want valid: %t", byte(e), err, want)
		}
	}
	for _, bad := range []keys.Attributes{
		{},
		{Usage: keys.UsageInitialKey, Algorithm: keys.AES128, Mode: keys.ModeDerive, Exportability: keys.Exportable},
		{Usage: keys.UsagePIN, Mode: keys.ModeBoth, Exportability: keys.Exportable},
	} {
		if err := bad.Validate(); !errors.Is(err, keys.ErrAttributes) {
			t.Errorf("%v: %v, want %v", bad, err, keys.ErrAttributes)
		}
	}
}

func TestUsages(t *testing.T) {
	if len(keys.Usages()) != len(matrix) {
		t.Errorf("%d usages, want %d", len(keys.Usages()), len(matrix))
	}
	for _, u := range keys.Usages() {
		name := u.Name()
		if back, err := keys.ParseUsage(name); err != nil || back != u || !strings.HasPrefix(name, "TR31_"+string(u)+"_") {
			t.Errorf("%s is %q and reads as %q, %v", u, name, back, err)
		}
	}
	for u, want := range map[keys.Usage]string{
		keys.UsageBDK:         "TR31_B0_BASE_DERIVATION_KEY",
		keys.UsageMACAlg3:     "TR31_M3_ISO_9797_3_MAC_KEY",
		keys.UsageCMAC:        "TR31_M6_ISO_9797_5_CMAC_KEY",
		keys.UsageInitialKey:  "",
		keys.Usage("unknown"): "",
	} {
		if got := u.Name(); got != want {
			t.Errorf("%s: %q, want %q", u, got, want)
		}
	}
	for _, bad := range []string{"", "B0", "TR31_K3_ASYMMETRIC_KEY_FOR_KEY_AGREEMENT", "tr31_b0_base_derivation_key"} {
		if _, err := keys.ParseUsage(bad); !errors.Is(err, keys.ErrAttributes) {
			t.Errorf("%q: %v, want %v", bad, err, keys.ErrAttributes)
		}
	}
}
