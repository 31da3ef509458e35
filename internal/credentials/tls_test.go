package credentials

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// authority is a CA in a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), cert: cert, key: key}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(a.path(name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, serial int64) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", raw)
}

func (a *authority) revoke(next time.Time, serials ...int64) {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("crl.pem", "X509 CRL", der)
}

func (a *authority) files(name string) TLSFiles {
	return TLSFiles{Cert: a.path(name + ".pem"), Key: a.path(name + ".key"), CA: a.path("ca.pem")}
}

func mustTLS(t *testing.T, files TLSFiles) *TLS {
	t.Helper()
	got, err := NewTLS(files)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// shake makes a connection over loopback and returns what each side saw.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		s := tls.Server(raw, server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, client)
	clientErr := c.Handshake()
	seen := c.ConnectionState()
	if clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1)) // under TLS 1.3 a refused client learns it here
	}
	raw.Close()
	return seen, <-done, clientErr
}

func TestServerAndClient(t *testing.T) {
	ca, other := newAuthority(t, "ours"), newAuthority(t, "theirs")
	ca.issue("server", 10)
	ca.issue("client", 11)
	other.issue("client", 12)
	server := mustTLS(t, ca.files("server"))

	t.Run("C-07 TLS 1.3 and both sides known", func(t *testing.T) {
		seen, serr, cerr := shake(t, server.Server("h2"), mustTLS(t, ca.files("client")).Client("localhost"))
		if serr != nil || cerr != nil || seen.Version != tls.VersionTLS13 {
			t.Errorf("server %v, client %v, version %x", serr, cerr, seen.Version)
		}
	})
	t.Run("C-06 client of another CA", func(t *testing.T) {
		files := other.files("client")
		files.CA = ca.path("ca.pem")
		_, serr, cerr := shake(t, server.Server(), mustTLS(t, files).Client("localhost"))
		if serr == nil || cerr == nil {
			t.Errorf("server %v, client %v; both must fail", serr, cerr)
		}
	})
	t.Run("C-06 no client certificate", func(t *testing.T) {
		_, serr, _ := shake(t, server.Server(), mustTLS(t, TLSFiles{CA: ca.path("ca.pem")}).Client("localhost"))
		if serr == nil {
			t.Error("the server took a client without a certificate")
		}
	})
	t.Run("R-53 server of another CA", func(t *testing.T) {
		files := ca.files("client")
		files.CA = other.path("ca.pem")
		_, _, cerr := shake(t, server.Server(), mustTLS(t, files).Client("localhost"))
		var unknown x509.UnknownAuthorityError
		if !errors.As(cerr, &unknown) {
			t.Errorf("client error %v, want UnknownAuthorityError", cerr)
		}
	})
	t.Run("C-07 TLS 1.2 is refused unless allowed", func(t *testing.T) {
		old := mustTLS(t, ca.files("client")).Client("localhost")
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if _, serr, cerr := shake(t, server.Server(), old); serr == nil || cerr == nil {
			t.Errorf("server %v, client %v; both must fail", serr, cerr)
		}
		files := ca.files("server")
		files.MinVersion = tls.VersionTLS12
		seen, serr, cerr := shake(t, mustTLS(t, files).Server(), old)
		if serr != nil || cerr != nil || seen.Version != tls.VersionTLS12 {
			t.Errorf("allowed: server %v, client %v, version %x", serr, cerr, seen.Version)
		}
	})
}

func TestReload(t *testing.T) {
	ca := newAuthority(t, "ours")
	ca.issue("server", 10)
	ca.issue("client", 11)
	var alarms []error
	files := ca.files("server")
	files.Alarm = func(err error) { alarms = append(alarms, err) }
	server := mustTLS(t, files)
	cfg := server.Server()
	client := mustTLS(t, ca.files("client"))
	serial := func() int64 {
		t.Helper()
		seen, serr, cerr := shake(t, cfg, client.Client("localhost"))
		if serr != nil || cerr != nil {
			t.Fatalf("server %v, client %v", serr, cerr)
		}
		return seen.PeerCertificates[0].SerialNumber.Int64()
	}

	ca.issue("server", 20)
	if got := serial(); got != 10 {
		t.Errorf("before the reload: serial %d, want 10", got)
	}
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 20 || server.Leaf().SerialNumber.Int64() != 20 {
		t.Errorf("C-04 after the reload: serial %d, want 20", got)
	}

	spoil := []struct {
		name string
		do   func()
	}{
		{"C-04 a key that does not fit", func() {
			ca.issue("server", 30)
			key, err := os.ReadFile(ca.path("client.key"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(ca.path("server.key"), key, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"C-04 a chain that is half written", func() {
			ca.issue("server", 31)
			ca.shorten("server.pem", "ca.pem")
		}},
		{"C-04 not PEM", func() {
			if err := os.WriteFile(ca.path("server.pem"), []byte("no"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"C-04 gone", func() {
			if err := os.Remove(ca.path("server.pem")); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, s := range spoil {
		t.Run(s.name, func(t *testing.T) {
			s.do()
			alarms = nil
			if err := server.Reload(); !errors.Is(err, ErrCertificate) {
				t.Errorf("Reload = %v, want ErrCertificate", err)
			}
			if len(alarms) != 1 {
				t.Errorf("%d alarms, want 1", len(alarms))
			}
			if got := serial(); got != 20 {
				t.Errorf("serial %d in use, want the old 20", got)
			}
		})
	}
}

// shorten adds a certificate to a file and leaves its second half out.
func (a *authority) shorten(name, more string) {
	a.t.Helper()
	own, err := os.ReadFile(a.path(name))
	if err != nil {
		a.t.Fatal(err)
	}
	next, err := os.ReadFile(a.path(more))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(a.path(name), append(own, next[:len(next)/2]...), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	ca := newAuthority(t, "ours")
	ca.issue("server", 10)
	server := mustTLS(t, ca.files("server"))
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { server.Watch(ctx, time.Second); close(done) }()
		ca.issue("server", 20)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if got := server.Leaf().SerialNumber.Int64(); got != 20 {
			t.Errorf("C-04 a second after the change: serial %d, want 20", got)
		}
		cancel()
		<-done
	})
}

func TestCRL(t *testing.T) {
	ca := newAuthority(t, "ours")
	ca.issue("server", 10)
	ca.issue("client", 11)
	client := mustTLS(t, ca.files("client"))
	tests := []struct {
		name   string
		next   time.Time
		strict bool
		serial []int64
		want   error
	}{
		{"C-06 not on the list", time.Now().Add(time.Hour), false, []int64{99}, nil},
		{"C-06 revoked", time.Now().Add(time.Hour), false, []int64{11}, ErrRevoked},
		{"C-06 stale list, not strict", time.Now().Add(-time.Minute), false, nil, nil},
		{"C-06 stale list, strict", time.Now().Add(-time.Minute), true, nil, ErrStaleCRL},
		{"C-06 stale list still revokes", time.Now().Add(-time.Minute), false, []int64{11}, ErrRevoked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca.revoke(tt.next, tt.serial...)
			files := ca.files("server")
			files.CRL, files.CRLStrict = ca.path("crl.pem"), tt.strict
			_, serr, _ := shake(t, mustTLS(t, files).Server(), client.Client("localhost"))
			if !errors.Is(serr, tt.want) {
				t.Errorf("server error %v, want %v", serr, tt.want)
			}
		})
	}
	t.Run("C-06 a list by somebody else", func(t *testing.T) {
		other := newAuthority(t, "theirs")
		other.revoke(time.Now().Add(time.Hour))
		files := ca.files("server")
		files.CRL = other.path("crl.pem")
		if _, err := NewTLS(files); !errors.Is(err, ErrCertificate) {
			t.Errorf("NewTLS = %v, want ErrCertificate", err)
		}
	})
}

func TestNewTLSRefuses(t *testing.T) {
	ca := newAuthority(t, "ours")
	ca.issue("server", 10)
	ca.issue("client", 11)
	good := ca.files("server")
	tests := []struct {
		name   string
		change func(*TLSFiles)
	}{
		{"C-04 a list of CAs that is half written", func(f *TLSFiles) {
			half := newAuthority(t, "half")
			half.shorten("ca.pem", "ca.pem")
			f.CA = half.path("ca.pem")
		}},
		{"C-04 absent file", func(f *TLSFiles) { f.Cert = ca.path("none.pem") }},
		{"C-04 foreign key", func(f *TLSFiles) { f.Key = ca.path("client.key") }},
		{"C-04 certificate without key", func(f *TLSFiles) { f.Key = "" }},
		{"C-06 no CA", func(f *TLSFiles) { f.CA = "" }},
		{"C-06 CA without certificate", func(f *TLSFiles) { f.CA = ca.path("server.key") }},
		{"C-07 TLS 1.1", func(f *TLSFiles) { f.MinVersion = tls.VersionTLS11 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := good
			tt.change(&files)
			if _, err := NewTLS(files); !errors.Is(err, ErrCertificate) {
				t.Errorf("NewTLS = %v, want ErrCertificate", err)
			}
		})
	}
}
