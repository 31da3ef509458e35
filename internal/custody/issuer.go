package custody

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"keyd.dev/keyd/audit"
)

// issuer is the key that signs the certificates of wrapping keys, in the token,
// and its own certificate: made by itself, or by a CA outside.
type issuer struct {
	signer crypto.Signer
	chain  []*x509.Certificate // its own first; never empty
}

const issuerLife = 10 * 365 * 24 * time.Hour

// issuer finds the issuing key and makes what is missing: the pair, and a
// self-signed certificate. A stored chain of another key is not taken.
func (c *Custody) issuer(ctx context.Context, caller Caller, corr string) (*issuer, error) {
	signer, err := c.exchange.Token.Issuer(ctx)
	if err != nil {
		return nil, tokenError("finding the issuing key", err)
	}
	key, err := publicHash(signer.Public())
	if err != nil {
		return nil, err
	}
	stored, err := c.exchange.Store.IssuerChain(ctx, key)
	if err != nil {
		return nil, storeError("finding the issuer's certificate", err)
	}
	if len(stored) > 0 {
		chain, err := x509.ParseCertificates(stored)
		if err != nil || !sameKey(chain[0].PublicKey, signer.Public()) {
			return nil, fmt.Errorf("%w: the stored certificate is not that of the issuing key", ErrTampered)
		}
		return &issuer{signer, chain}, nil
	}
	i := &issuer{signer: signer}
	r := c.changeRecord(caller, corr, audit.KeyCreate, audit.ChangeKey, "issuer")
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: "issuer", Version: 1, Algo: audit.AlgoP256}}
	err = c.intended(ctx, r, func(r *audit.Record) error {
		r.Custody = audit.CustodyToken
		return c.selfSigned(ctx, i, key)
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (c *Custody) selfSigned(ctx context.Context, i *issuer, key [32]byte) error {
	now := c.clock().UTC()
	root := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "keyd issuing root", SerialNumber: c.serial},
		NotBefore: now.Add(-clockSlack), NotAfter: now.Add(issuerLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	i.chain = []*x509.Certificate{root}
	der, err := i.sign(root, i.signer.Public())
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("custody: reading the issuer's certificate: %w", err)
	}
	i.chain[0] = cert
	if err := c.exchange.Store.SetIssuerChain(ctx, key, der); err != nil {
		return storeError("storing the issuer's certificate", err)
	}
	return nil
}

// sign makes a certificate and returns it, DER.
func (i *issuer) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	var err error
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.chain[0], public, i.signer)
	if err != nil {
		return nil, tokenError("signing a certificate", err)
	}
	return der, nil
}

// signed reports whether the issuing key has signed cert, under whatever name.
func (i *issuer) signed(cert *x509.Certificate) bool {
	own := &x509.Certificate{PublicKeyAlgorithm: x509.ECDSA, PublicKey: i.signer.Public(), BasicConstraintsValid: true, IsCA: true, Version: 3}
	return cert.CheckSignatureFrom(own) == nil
}

// named reports whether cert says that the present chain issued it.
func (i *issuer) named(cert *x509.Certificate) bool {
	return string(cert.RawIssuer) == string(i.chain[0].RawSubject)
}

func publicHash(public crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return [32]byte{}, fmt.Errorf("custody: a public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

func sameKey(a, b crypto.PublicKey) bool {
	x, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && x.Equal(b)
}

// WrappingCertificate returns the certificate of an import token's wrapping key
// and its chain; of the issuing key itself where token is empty. It returns
// [ErrDenied], [ErrRequest] or [ErrUnavailable].
func (c *Custody) WrappingCertificate(ctx context.Context, caller Caller, corr, token string) ([]*x509.Certificate, error) {
	i, err := c.issuerFor(ctx, caller, corr, OpGetCertificate)
	if err != nil || token == "" {
		return i.all(), err
	}
	pair, err := c.usableToken(ctx, caller, corr, token)
	if err != nil {
		return nil, err
	}
	return append([]*x509.Certificate{pair.cert}, i.chain...), nil
}

func (i *issuer) all() []*x509.Certificate {
	if i == nil {
		return nil
	}
	return i.chain
}

func (c *Custody) issuerFor(ctx context.Context, caller Caller, corr string, op Operation) (*issuer, error) {
	if err := c.exchanging(); err != nil {
		return nil, err
	}
	if !caller.may(op) {
		return nil, c.refuse(ctx, caller, corr, op, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, op))
	}
	return c.issuer(ctx, caller, corr)
}

// SigningRequest returns a certificate signing request, PKCS #10 in DER, of the
// issuing key, for a CA outside to sign. Wrapping keys can sign nothing, not even
// a request. It returns [ErrDenied], [ErrRequest] or [ErrUnavailable].
func (c *Custody) SigningRequest(ctx context.Context, caller Caller, corr string, subject pkix.Name) ([]byte, error) {
	i, err := c.issuerFor(ctx, caller, corr, OpGetCSR)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, i.signer)
	if err != nil {
		return nil, tokenError("signing a request", err)
	}
	return der, nil
}

// InstallCertificate takes the chain that a CA outside has given the issuing key:
// its own certificate first, then each signed by the next. From then on it is
// what goes out with wrapping certificates. It returns [ErrDenied],
// [ErrRequest], [ErrApproval] or [ErrUnavailable].
func (c *Custody) InstallCertificate(ctx context.Context, caller Caller, corr string, chain []*x509.Certificate) error {
	i, err := c.issuerFor(ctx, caller, corr, OpImportKey)
	if err != nil {
		return err
	}
	if err := c.checkChain(chain, i.signer.Public()); err != nil {
		return err
	}
	key, err := publicHash(i.signer.Public())
	if err != nil {
		return err
	}
	var der []byte
	for _, cert := range chain {
		der = append(der, cert.Raw...)
	}
	approvals, err := c.approved(ctx, caller, corr, OpImportKey, fmt.Sprintf("certificate of the issuing key, SHA-256 %x", sha256.Sum256(der)))
	if err != nil {
		return err
	}
	r := c.changeRecord(caller, corr, audit.KeyAttr, audit.ChangeKey, "issuer")
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: "issuer", Version: 1, Algo: audit.AlgoP256}}
	r.Approvals = approvals
	return c.intended(ctx, r, func(*audit.Record) error {
		if err := c.exchange.Store.SetIssuerChain(ctx, key, der); err != nil {
			return storeError("storing the issuer's certificate", err)
		}
		return nil
	})
}

func (c *Custody) checkChain(chain []*x509.Certificate, own crypto.PublicKey) error {
	now := c.clock()
	switch {
	case len(chain) == 0 || !sameKey(chain[0].PublicKey, own):
		return fmt.Errorf("%w: the first certificate is not of keyd's issuing key", ErrRequest)
	case !chain[0].IsCA || chain[0].KeyUsage != 0 && chain[0].KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%w: the first certificate may not sign certificates", ErrRequest)
	}
	for n, cert := range chain {
		if now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
			return fmt.Errorf("%w: a certificate of the chain is not valid now", ErrRequest)
		}
		if n+1 < len(chain) && cert.CheckSignatureFrom(chain[n+1]) != nil {
			return fmt.Errorf("%w: a certificate of the chain is not signed by the next", ErrRequest)
		}
	}
	return nil
}
