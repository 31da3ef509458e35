package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"testing"
	"time"
)

// state is that of an open connection with the named certificate.
func (a *authority) state(name string) *tls.ConnectionState {
	a.t.Helper()
	text, err := os.ReadFile(a.path(name + ".pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
}

// TestRecheck is C-06 on a connection that was open before the files changed.
func TestRecheck(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	tests := []struct {
		name   string
		strict bool
		change func(a *authority)
		want   error // nil: it still holds
		gone   bool  // some error of crypto/x509
	}{
		{name: "C-06 nothing changed", change: func(*authority) {}},
		{name: "C-06 another was revoked", change: func(a *authority) { a.revoke(soon, 99) }},
		{name: "C-06 it was revoked", change: func(a *authority) { a.revoke(soon, 11, 12) }, want: ErrRevoked},
		{name: "C-06 the list is stale", change: func(a *authority) { a.revoke(time.Now().Add(-time.Minute)) }},
		{name: "C-06 the list is stale, strict", strict: true, change: func(a *authority) { a.revoke(time.Now().Add(-time.Minute)) }, want: ErrStaleCRL},
		{name: "C-06 its CA was taken out", gone: true, change: func(a *authority) {
			other := newAuthority(t, "theirs")
			a.write("ca.pem", "CERTIFICATE", other.cert.Raw)
			other.revoke(soon)
			text, err := os.ReadFile(other.path("crl.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(a.path("crl.pem"), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca := newAuthority(t, "ours")
			ca.issue("server", 10)
			ca.issue("client", 11)
			ca.revoke(soon)
			files := ca.files("server")
			files.CRL, files.CRLStrict = ca.path("crl.pem"), tt.strict
			server, conn := mustTLS(t, files), ca.state("client")
			seen, err := server.Recheck(conn, Seen{})
			if err != nil {
				t.Fatalf("at first: %v", err)
			}
			tt.change(ca)
			if err := server.Reload(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time by what the first one saw
				seen, err = server.Recheck(conn, seen)
				if tt.gone && err == nil || !tt.gone && !errors.Is(err, tt.want) {
					t.Errorf("Recheck = %v, want %v (gone: %v)", err, tt.want, tt.gone)
				}
			}
		})
	}
}

// TestListsOfSeveralCAs: one file has the lists of all of them.
func TestListsOfSeveralCAs(t *testing.T) {
	one, two := newAuthority(t, "one"), newAuthority(t, "two")
	one.issue("server", 10)
	one.issue("client", 11)
	two.issue("client", 11) // the same serial of another CA
	one.revoke(time.Now().Add(time.Hour), 50)
	two.revoke(time.Now().Add(time.Minute), 11)
	for _, name := range []string{"ca.pem", "crl.pem"} {
		var both bytes.Buffer
		for _, a := range []*authority{one, two} {
			text, err := os.ReadFile(a.path(name))
			if err != nil {
				t.Fatal(err)
			}
			both.Write(text)
		}
		if err := os.WriteFile(one.path(name), both.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := one.files("server")
	files.CRL = one.path("crl.pem")
	server := mustTLS(t, files)
	if _, err := server.Recheck(one.state("client"), Seen{}); err != nil {
		t.Errorf("C-06 a serial that another CA revoked: %v", err)
	}
	if _, err := server.Recheck(two.state("client"), Seen{}); !errors.Is(err, ErrRevoked) {
		t.Errorf("C-06 the second list of the file: %v, want ErrRevoked", err)
	}
	if in := time.Until(server.NextUpdate()); in > time.Minute {
		t.Errorf("the next update is in %v, want that of the list that ends first", in)
	}
}
