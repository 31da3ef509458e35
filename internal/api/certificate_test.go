package api

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// partnerPEM64 is the certificate of the example import-root.
func partnerPEM64(tb testing.TB) string {
	tb.Helper()
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all struct {
		Examples []struct {
			ID      string
			Request struct {
				KeyMaterial struct {
					RootCertificatePublicKey struct{ PublicKeyCertificate string }
				}
			}
		}
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		tb.Fatal(err)
	}
	for _, e := range all.Examples {
		if e.ID == "import-root" && e.Request.KeyMaterial.RootCertificatePublicKey.PublicKeyCertificate != "" {
			return e.Request.KeyMaterial.RootCertificatePublicKey.PublicKeyCertificate
		}
	}
	tb.Fatal("no example import-root")
	return ""
}

func TestParsePEM64(t *testing.T) {
	good := partnerPEM64(t)
	text, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"one", good, 1},
		{"two", encode(string(text) + string(text)), 2},
		{"no base64", "!", 0},
		{"nothing", "", 0},
		{"no PEM", encode("certificate"), 0},
		{"words before it", encode("hello\n" + string(text)), 0},
		{"words behind it", encode(string(text) + "hello\n"), 0},
		{"another kind", encode(strings.ReplaceAll(string(text), "CERTIFICATE", "PRIVATE KEY")), 0},
		{"cut", encode(string(text[:300])), 0},
		{"nine of them", encode(strings.Repeat(string(text), 9)), 0},
	} {
		if chain, ok := parsePEM64([]byte(c.text)); len(chain) != c.want && ok || ok != (c.want > 0) {
			t.Errorf("%s: %d certificates, %v", c.name, len(chain), ok)
		}
	}
}

// FuzzParsePEM64: what is read is written in a form that reads as the same.
func FuzzParsePEM64(f *testing.F) {
	f.Add(partnerPEM64(f))
	f.Add("")
	f.Add("LS0tLS1CRUdJTiA=")
	f.Fuzz(func(t *testing.T, text string) {
		chain, ok := parsePEM64([]byte(text))
		if !ok {
			return
		}
		again, ok := parsePEM64(appendPEM64(nil, raws(chain)...))
		if !ok || len(again) != len(chain) {
			t.Errorf("%d certificates, then %d, %v", len(chain), len(again), ok)
		}
	})
}
