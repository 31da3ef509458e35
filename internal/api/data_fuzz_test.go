package api

import (
	"net/url"
	"testing"
	"unicode/utf8"
)

// FuzzKeyInPath: whatever the path, the key's label is what stands between its
// slashes, decoded once; and an escaped name comes back as it was.
func FuzzKeyInPath(f *testing.F) {
	for _, path := range []string{"/keys/alias%2Fpay%2Fdata/encrypt", "/keys//x", "/keys/%zz/decrypt", "/keys/a/b/c", "/keys", "alias/a b%"} {
		f.Add(path)
	}
	names, err := newNamer("", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := &call{Handler: &Handler{names: names}, path: text}
		if err := c.form.read(nil); err != nil {
			t.Fatal(err)
		}
		if ref := c.keyRefInPath("KeyIdentifier"); len(c.form.wrong) == 0 && ref.Alias == "" && ref.ID == "" {
			t.Error("a key without a name was accepted")
		}
		label, verb, ok := keyLabel("/keys/" + url.PathEscape(text) + "/encrypt")
		if text == "" {
			return
		}
		if name, err := url.PathUnescape(label); !ok || verb != "encrypt" || err != nil || name != text {
			t.Errorf("%q became %q, %q, %v, %v", text, name, verb, ok, err)
		}
	})
}

// FuzzDataRequest: what is read of a body without a complaint is whole and
// within its bounds.
func FuzzDataRequest(f *testing.F) {
	block := `"WrappedKey":{"WrappedKeyMaterial":{"Tr31KeyBlock":"D0112P0TB00E0000DB4D2D61C9CC2B259B1D88F03682CE4622CF97DFAA0BE577307361B328B1F44A8C4EDB64A715201FADF7BADAD852D49C"}}`
	for _, body := range []string{
		`{"EncryptionAttributes":{"Symmetric":{"Mode":"CBC","InitializationVector":"0001020304050607"}}}`,
		`{"EncryptionAttributes":{"Dukpt":{"KeySerialNumber":"FFFF9876543210E00001","DukptKeyVariant":"RESPONSE","Mode":"ECB"}}}`,
		`{"EncryptionAttributes":{"Symmetric":{"Mode":"OFB","PaddingType":null}},` + block + `}`,
		`{"EncryptionAttributes":{"Dukpt":{"KeySerialNumber":"FFFF9876543210E00001"}},` + block + `}`,
		`{"EncryptionAttributes":{"Emv":{}}}`, `{"EncryptionAttributes":[]}`, `{"WrappedKey":{"KeyCheckValueAlgorithm":"HMAC"}}`, `{`,
	} {
		f.Add([]byte(body))
	}
	names, err := newNamer("", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c := &call{Handler: &Handler{names: names}, path: "/keys/alias%2Fa/encrypt"}
		if c.form.read(body) != nil {
			return
		}
		side := c.dataSide("KeyIdentifier", "EncryptionAttributes", "WrappedKey", true)
		if len(c.form.wrong) > 0 {
			for _, w := range c.form.wrong {
				if w.path == "" || !utf8.ValidString(w.message) {
					t.Errorf("a complaint of nothing: %+v", w)
				}
			}
			return
		}
		switch {
		case side.Key.Alias != "alias/a" || side.Mode == 0:
			t.Errorf("a side without its key or mode: %+v", side)
		case side.IV != nil && len(side.IV) != 8 && len(side.IV) != 16:
			t.Errorf("a vector of %d bytes", len(side.IV))
		case side.DUKPT != nil && (side.Wrapped != nil || side.DUKPT.Variant == 0 || len(side.DUKPT.KSN) != 10 && len(side.DUKPT.KSN) != 12):
			t.Errorf("DUKPT without its parts, or beside a wrapped key")
		case side.Wrapped != nil && (len(side.Wrapped.Block) < leastKeyBlock || len(side.Wrapped.Block) > mostKeyBlock):
			t.Errorf("a key block of %d characters", len(side.Wrapped.Block))
		}
	})
}
