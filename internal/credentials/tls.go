package credentials

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// maxPEM is the largest certificate, CA or CRL file that is read, in bytes.
const maxPEM = 4 << 20

// TLSFiles says which files make one end of a TLS connection. Paths are
// absolute. MinVersion 0 is TLS 1.3.
type TLSFiles struct {
	Cert, Key string // PEM chain and key of our own; both or neither; may be one file
	CA        string // PEM of those who may sign the peer's certificate
	CRL       string // PEM or DER; "" for none
	CRLStrict bool   // a CRL past its next update refuses every peer

	MinVersion uint16 // tls.VersionTLS12 or tls.VersionTLS13

	// Alarm hears of a changed file that cannot be used, and of a CRL that is
	// out of date; the old files stay in use. It may be nil. It must not block.
	Alarm func(error)

	// Changed hears, before they are used, of files that are good and others than
	// before: digests over certificates, CA and CRL then and now. It may be nil.
	Changed func(before, after [32]byte)
}

// TLS holds certificates that follow their files. It is safe for concurrent
// use. C-04, C-06, C-07.
type TLS struct {
	files TLSFiles
	now   atomic.Pointer[material]
	stale atomic.Bool // the alarm knows that the CRL is out of date
}

// material is what was read at one moment; it is never changed.
type material struct {
	raw  fileSet
	cert *tls.Certificate // nil when there is none
	leaf *x509.Certificate
	pool *x509.CertPool

	crls       []revocations // none without a file
	nextUpdate time.Time     // of the one that goes out of date first; zero for never
}

// fileSet are the bytes of the files, by which a change is noticed: names and
// times say too little where links are swapped.
type fileSet struct{ cert, key, ca, crl []byte }

func (a fileSet) equal(b fileSet) bool {
	return bytes.Equal(a.cert, b.cert) && bytes.Equal(a.key, b.key) &&
		bytes.Equal(a.ca, b.ca) && bytes.Equal(a.crl, b.crl)
}

// digest covers the certificates and what revokes them, and no key.
func (m *material) digest() [32]byte {
	var parts [][]byte
	if m.cert != nil {
		parts = append(parts, m.cert.Certificate...)
	}
	h := sha256.New()
	for _, part := range append(parts, m.raw.ca, m.raw.crl) {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// NewTLS reads the files. It returns [ErrCertificate] with the file's name.
func NewTLS(files TLSFiles) (*TLS, error) {
	if files.MinVersion == 0 {
		files.MinVersion = tls.VersionTLS13
	}
	if files.MinVersion < tls.VersionTLS12 {
		return nil, fmt.Errorf("%w: TLS below 1.2 is not offered", ErrCertificate)
	}
	if (files.Cert == "") != (files.Key == "") {
		return nil, fmt.Errorf("%w: a certificate and its key go together", ErrCertificate)
	}
	if files.CA == "" {
		return nil, fmt.Errorf("%w: no CA file to check the peer against", ErrCertificate)
	}
	t := &TLS{files: files}
	raw, err := t.readFiles()
	if err != nil {
		return nil, err
	}
	m, err := parseMaterial(files, raw)
	if err != nil {
		return nil, err
	}
	t.now.Store(m)
	return t, nil
}

// Reload reads the files again. When they changed and are good, connections
// made from now on use them; those that stand are not touched. When they are
// not good the old ones stay, the alarm is raised, and the error is returned.
func (t *TLS) Reload() error {
	defer t.tellStale()
	raw, err := t.readFiles()
	if err == nil {
		if raw.equal(t.now.Load().raw) {
			return nil
		}
		var m *material
		if m, err = parseMaterial(t.files, raw); err == nil {
			if t.files.Changed != nil {
				t.files.Changed(t.now.Load().digest(), m.digest())
			}
			t.now.Store(m)
			return nil
		}
	}
	err = fmt.Errorf("%w; the old files stay in use", err)
	t.alarm(err)
	return err
}

// Watch looks for changed files at every interval until ctx is done, and
// raises the alarm for a CRL that went out of date.
func (t *TLS) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	t.tellStale()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = t.Reload() // the alarm has it
		}
	}
}

// tellStale raises the alarm for a CRL that went out of date, once.
func (t *TLS) tellStale() {
	stale := t.now.Load().stale(time.Now())
	if was := t.stale.Swap(stale); stale && !was {
		t.alarm(fmt.Errorf("%w: %s", ErrStaleCRL, t.files.CRL))
	}
}

// Leaf returns our own certificate as it is in use now, nil when there is none.
func (t *TLS) Leaf() *x509.Certificate { return t.now.Load().leaf }

// Server returns the configuration of a listener that demands a client
// certificate of the CA. Session tickets are off: a resumed session would
// outlive the certificate's place on the CRL. protos are those offered in ALPN.
func (t *TLS) Server(protos ...string) *tls.Config {
	cfg := &tls.Config{MinVersion: t.files.MinVersion, SessionTicketsDisabled: true, NextProtos: protos}
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := t.now.Load()
		return &tls.Config{
			MinVersion:             t.files.MinVersion,
			SessionTicketsDisabled: true,
			NextProtos:             protos,
			Certificates:           []tls.Certificate{*m.cert},
			ClientAuth:             tls.RequireAndVerifyClientCert,
			ClientCAs:              m.pool,
			VerifyConnection:       func(cs tls.ConnectionState) error { return t.verify(m, cs) },
		}, nil
	}
	// crypto/tls wants a certificate on the outer configuration too.
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.now.Load().cert, nil }
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg
}

// Client returns the configuration of connections to serverName. Our own
// certificate follows its files; the CAs are those of this moment.
func (t *TLS) Client(serverName string) *tls.Config {
	m := t.now.Load()
	cfg := &tls.Config{
		MinVersion:             t.files.MinVersion,
		ServerName:             serverName,
		RootCAs:                m.pool,
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return t.verify(t.now.Load(), cs) },
	}
	if m.cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.now.Load().cert, nil
		}
	}
	return cfg
}

func (t *TLS) alarm(err error) {
	if t.files.Alarm != nil {
		t.files.Alarm(err)
	}
}

func (t *TLS) readFiles() (fileSet, error) {
	var s fileSet
	for _, f := range []struct {
		path string
		into *[]byte
	}{{t.files.Cert, &s.cert}, {t.files.Key, &s.key}, {t.files.CA, &s.ca}, {t.files.CRL, &s.crl}} {
		if f.path == "" {
			continue
		}
		if f.into == &s.key && f.path == t.files.Cert {
			s.key = s.cert // one file that holds both is read once, so that they fit
			continue
		}
		info, err := os.Stat(f.path)
		if err == nil && info.Size() > maxPEM {
			err = fmt.Errorf("%s: larger than %d bytes", f.path, maxPEM)
		}
		if err == nil {
			*f.into, err = os.ReadFile(f.path)
		}
		if err != nil {
			return fileSet{}, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
	}
	return s, nil
}

// wholePEM refuses a file of which only some blocks can be read: the libraries
// pass over the others, and a chain or a list of CAs would be short in silence.
func wholePEM(text []byte) bool {
	begun, read := bytes.Count(text, []byte("-----BEGIN ")), 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return read == begun
		}
		read++
	}
}

func parseMaterial(files TLSFiles, raw fileSet) (*material, error) {
	m := &material{raw: raw, pool: x509.NewCertPool()}
	for path, text := range map[string][]byte{files.Cert: raw.cert, files.Key: raw.key, files.CA: raw.ca} {
		if !wholePEM(text) {
			return nil, fmt.Errorf("%w: %s: it is written in part, or a block of it is damaged", ErrCertificate, path)
		}
	}
	if files.Cert != "" {
		pair, err := tls.X509KeyPair(raw.cert, raw.key)
		if err != nil {
			return nil, fmt.Errorf("%w: %s with key %s: %w", ErrCertificate, files.Cert, files.Key, err)
		}
		m.cert, m.leaf = &pair, pair.Leaf
	}
	if !m.pool.AppendCertsFromPEM(raw.ca) {
		return nil, fmt.Errorf("%w: %s: no certificate in PEM in it", ErrCertificate, files.CA)
	}
	if files.CRL == "" {
		return m, nil
	}
	var err error
	if m.crls, m.nextUpdate, err = parseCRLs(raw); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCertificate, files.CRL, err)
	}
	return m, nil
}
