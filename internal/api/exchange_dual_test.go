package api_test

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// TestExchangeDualControl: which forms of exchange need a second person, by what
// is exchanged; the same request is good once after the approval.
func TestExchangeDualControl(t *testing.T) {
	b := newExchange(t, dualControl, func(cfg *custody.Config) {
		cfg.Exchange.CryptogramImport, cfg.Exchange.CryptogramExport = []string{"alias/zmk-tdes"}, []string{"alias/zmk-tdes"}
	})
	anna, raj := b.clientWith(t, b.person(t, "admin", "anna")), b.clientWith(t, b.person(t, "admin-b", "raj"))
	kbpk, err := hex.DecodeString(zmkAES)
	if err != nil {
		t.Fatal(err)
	}
	soft, err := softkey.New(keys.AES256, kbpk)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := tr31.Seal(soft, keys.AES256, tr31.NewHeader(keys.Attributes{Usage: keys.UsageKEK, Algorithm: keys.TDES2, Mode: keys.ModeBoth, Exportability: 'N'}, keys.AES256),
		secret.From([]byte("0123456789abcdeg")), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exports := func(key, more string) string {
		return fmt.Sprintf(`{"ExportKeyIdentifier":%q,"KeyMaterial":{"Tr31KeyBlock":{"WrappingKeyIdentifier":"alias/zmk-aes"}}%s}`, key, more)
	}
	for _, c := range []struct {
		name, operation, body string
		own, two              bool
	}{
		{"a key-encryption key in", "ImportKey", fmt.Sprintf(`{"KeyMaterial":{"Tr31KeyBlock":{"WrappingKeyIdentifier":"alias/zmk-aes","WrappedKeyBlock":%q}}}`, kek), false, true},
		{"a PIN key in", "ImportKey", string(exampleOf(t, "import-tr31").Request), false, false},
		{"a root in", "ImportKey", string(exampleOf(t, "import-root").Request), false, true},
		{"a PIN key out", "ExportKey", exports("alias/zpk-a", ""), false, false},
		{"a base derivation key out", "ExportKey", exports("alias/bdk-tdes", ""), false, true},
		{"an initial key out", "ExportKey", exports("alias/bdk-tdes", `,"ExportAttributes":{"ExportDukptInitialKey":{"KeySerialNumber":"FFFF9876543210E00000"}}`), false, true},
		{"a PIN key out as a cryptogram", "ExportCryptogram", `{"ExportKeyIdentifier":"alias/zpk-a","WrappingKeyIdentifier":"alias/zmk-tdes","KeyScheme":"U"}`, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := b.call
			if c.own {
				call = func(_ testing.TB, client *http.Client, operation, body string, _ ...string) answer {
					return b.own(t, client, operation, body)
				}
			}
			first := call(t, anna, c.operation, c.body)
			if !c.two {
				if first.status != http.StatusOK {
					t.Errorf("%d %s", first.status, first.body)
				}
				return
			}
			ref := reference(t, first)
			if a := b.own(t, raj, "Approve", `{"Reference":"`+ref+`"}`); a.status != http.StatusOK {
				t.Fatalf("approve: %s", a.body)
			}
			if second := call(t, anna, c.operation, c.body); second.status != http.StatusOK {
				t.Errorf("after the approval: %d %s", second.status, second.body)
			}
			if third := call(t, anna, c.operation, c.body); !strings.Contains(string(third.body), "approval required") {
				t.Errorf("the approval was good twice: %s", third.body)
			}
		})
	}
}
