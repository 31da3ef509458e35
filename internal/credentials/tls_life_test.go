package credentials

import (
	"os"
	"testing"
	"time"
)

// TestLife: until when certificates and lists are good, as they stand in the
// files in use; of several CAs the one that ends first.
func TestLife(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	a.issue("server", 7)
	next := time.Now().Add(30 * time.Minute).UTC().Truncate(time.Second)
	a.revoke(next)
	files := a.files("server")
	both, err := os.ReadFile(b.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.CA, append(both, own...), 0o600); err != nil {
		t.Fatal(err)
	}
	first := a.cert.NotAfter
	if b.cert.NotAfter.Before(first) {
		first = b.cert.NotAfter
	}

	plain := mustTLS(t, files)
	files.CRL = a.path("crl.pem")
	withList := mustTLS(t, files)
	files.Cert, files.Key = "", ""
	bare := mustTLS(t, files)

	for _, c := range []struct {
		name       string
		of         *TLS
		cert, list bool
	}{
		{"certificate", plain, true, false},
		{"C-06 certificate and list", withList, true, true},
		{"no certificate", bare, false, true},
	} {
		l := c.of.Life()
		if !l.CA.Equal(first) {
			t.Errorf("%s: the first CA ends %v, want %v", c.name, l.CA, first)
		}
		if leaf := c.of.Leaf(); c.cert != !l.Ends.IsZero() || c.cert && (!l.Ends.Equal(leaf.NotAfter) || !l.Begins.Equal(leaf.NotBefore)) {
			t.Errorf("%s: certificate of %v to %v", c.name, l.Begins, l.Ends)
		}
		if c.list != l.NextUpdate.Equal(next) {
			t.Errorf("%s: next update %v", c.name, l.NextUpdate)
		}
	}
}
