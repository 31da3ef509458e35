package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Seen is what a connection's certificate was last checked against. Its zero
// value is nothing.
type Seen struct{ m *material }

// Recheck tells whether the certificate of an open connection still holds: the
// CAs still sign it, and no revocation list has it (C-06). It is cheap while the
// files are those of seen, which is what the last call returned. It returns
// [ErrRevoked], [ErrStaleCRL], or the error of crypto/x509.
func (t *TLS) Recheck(cs *tls.ConnectionState, seen Seen) (Seen, error) {
	m := t.now.Load()
	if seen.m == m && !t.files.CRLStrict {
		return seen, nil
	}
	now := time.Now()
	if t.files.CRLStrict && m.stale(now) {
		return Seen{}, fmt.Errorf("%w: %s", ErrStaleCRL, t.files.CRL)
	}
	if seen.m == m {
		return seen, nil
	}
	chains, err := m.chains(cs.PeerCertificates, now)
	if err != nil {
		return Seen{}, err
	}
	if err := m.anyHolds(chains); err != nil {
		return Seen{}, err
	}
	return Seen{m}, nil
}

// NextUpdate is when the next of the revocation lists goes out of date; zero
// without one, or where they do not say.
func (t *TLS) NextUpdate() time.Time { return t.now.Load().nextUpdate }

// verify refuses a peer on a revocation list. It follows the verification of
// the chain, which crypto/tls has done.
func (t *TLS) verify(m *material, cs tls.ConnectionState) error {
	if len(m.crls) == 0 {
		return nil
	}
	if t.files.CRLStrict && m.stale(time.Now()) {
		return fmt.Errorf("%w: %s", ErrStaleCRL, t.files.CRL)
	}
	return m.anyHolds(cs.VerifiedChains)
}

// chains verifies the certificates of a client anew.
func (m *material) chains(peer []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	if len(peer) == 0 {
		return nil, fmt.Errorf("%w: the peer has none", ErrCertificate)
	}
	between := x509.NewCertPool()
	for _, c := range peer[1:] {
		between.AddCert(c)
	}
	return peer[0].Verify(x509.VerifyOptions{
		Roots: m.pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// anyHolds wants one chain of which no certificate is revoked.
func (m *material) anyHolds(chains [][]*x509.Certificate) error {
	err := fmt.Errorf("%w: no verified chain", ErrCertificate)
	for _, chain := range chains {
		if err = m.holds(chain); err == nil {
			return nil
		}
	}
	return err
}

// holds refuses a chain with a revoked certificate.
func (m *material) holds(chain []*x509.Certificate) error {
	for _, c := range chain {
		for i := range m.crls {
			if l := &m.crls[i]; l.serials[string(c.SerialNumber.Bytes())] && bytes.Equal(c.RawIssuer, l.issuer) {
				return fmt.Errorf("%w: serial %s of %q", ErrRevoked, c.SerialNumber, c.Issuer)
			}
		}
	}
	return nil
}

func (m *material) stale(now time.Time) bool {
	return !m.nextUpdate.IsZero() && now.After(m.nextUpdate)
}

// revocations is one list.
type revocations struct {
	issuer  []byte          // its name as it is signed
	serials map[string]bool // of revoked certificates, big-endian bytes
}

// parseCRLs reads the lists of a file, one in DER or any number in PEM. Each
// must be signed by a certificate of the CA file. next is when the first of them
// goes out of date.
func parseCRLs(raw fileSet) (lists []revocations, next time.Time, err error) {
	ders := [][]byte{raw.crl}
	if block, rest := pem.Decode(raw.crl); block != nil {
		ders = nil
		for ; block != nil; block, rest = pem.Decode(rest) {
			ders = append(ders, block.Bytes)
		}
	}
	for _, der := range ders {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, next, err
		}
		if !signedByAny(raw.ca, crl) {
			return nil, next, errors.New("not signed by a certificate of the CA file")
		}
		l := revocations{issuer: crl.RawIssuer, serials: make(map[string]bool, len(crl.RevokedCertificateEntries))}
		for _, entry := range crl.RevokedCertificateEntries {
			if entry.ReasonCode != reasonRemoved {
				l.serials[string(entry.SerialNumber.Bytes())] = true
			}
		}
		lists = append(lists, l)
		if at := crl.NextUpdate; !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return lists, next, nil
}

// reasonRemoved takes a certificate off a list again (RFC 5280, 5.3.1).
const reasonRemoved = 8

func signedByAny(cas []byte, crl *x509.RevocationList) bool {
	for block, rest := pem.Decode(cas); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err == nil && crl.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}
