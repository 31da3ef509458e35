package custody

import (
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1" // of check values, section 8.2 of the API
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/keys"
)

// PublicKey is a public key from outside: a root, or a certificate that a root
// or intermediate has signed. It verifies signatures and is no secret; its seal
// is the token's, so that nobody puts another in its place.
type PublicKey struct {
	ID          keys.ID
	Algorithm   string   // "ECC_NIST_P256", "RSA_2048" and their kin
	Certificate []byte   // DER
	Authority   keys.ID  // who signed it; "" for a root
	Check       keys.KCV // SHA-1 of the SubjectPublicKeyInfo
	Enabled     bool
	Made        time.Time
	Tags        map[string]string
	Seal        [32]byte
}

// publicSeal keeps the seals of public keys apart from others.
const publicSeal = "keyd/public-key/1"

// ImportCertificate asks for a public key from outside.
type ImportCertificate struct {
	Algorithm   string
	Certificate []byte // DER
	Authority   *Ref   // who signed it; nil for a root, which has signed itself
	Enabled     bool
	Tags        map[string]string

	Invocation string
	Body       [32]byte
	Render     func(PublicKey) ([]byte, error)
}

// ImportCertificate takes a root certificate in, or one that a known authority
// has signed. It needs a second person, since whoever is trusted here may vouch
// for others. It returns [ErrDenied], [ErrNoKey], [ErrRequest], [ErrApproval],
// [ErrRepeated] or [ErrUnavailable]. Section 11.2 of the API.
func (c *Custody) ImportCertificate(ctx context.Context, caller Caller, corr string, q ImportCertificate) (PublicKey, error) {
	if err := c.exchanging(); err != nil {
		return PublicKey{}, err
	}
	if !caller.may(OpImportKey) {
		return PublicKey{}, c.refuse(ctx, caller, corr, OpImportKey, fmt.Errorf("%w: no role of the caller has %s", ErrDenied, OpImportKey))
	}
	_, tags, err := splitTags(q.Tags, c.lists.Load().legacyPIN)
	if err != nil {
		return PublicKey{}, err
	}
	cert, err := c.vouched(ctx, caller, q)
	if err != nil {
		return PublicKey{}, c.refuse(ctx, caller, corr, OpImportKey, err)
	}
	approvals, err := c.approved(ctx, caller, corr, OpImportKey, fmt.Sprintf("certificate of %.80q", cert.Subject.CommonName))
	if err != nil {
		return PublicKey{}, err
	}
	id, err := newID()
	if err != nil {
		return PublicKey{}, err
	}
	digest := sha1.Sum(cert.RawSubjectPublicKeyInfo)
	k := PublicKey{
		ID: id, Algorithm: q.Algorithm, Certificate: q.Certificate, Check: keys.KCV(digest[:3]),
		Enabled: q.Enabled, Made: time.UnixMilli(c.clock().UnixMilli()).UTC(), Tags: tags,
	}
	if len(tags) == 0 {
		k.Tags = nil
	}
	if q.Authority != nil {
		k.Authority = q.Authority.ID
	}
	if k.Seal, err = c.sealPublic(k); err != nil {
		return PublicKey{}, err
	}
	r := c.changeRecord(caller, corr, audit.KeyImport, audit.ChangeKey, string(id))
	r.Approvals = approvals
	r.Keys = []audit.Key{{Role: audit.KeyRoleTarget, ID: string(id), Version: 1, KCV: k.Check.String(), Usage: "S0"}}
	err = c.intended(ctx, r, func(*audit.Record) error { return c.addPublic(ctx, caller, k, q) })
	if err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

func (c *Custody) addPublic(ctx context.Context, caller Caller, k PublicKey, q ImportCertificate) error {
	var once *Once
	if q.Invocation != "" {
		text, err := q.Render(k)
		if err != nil {
			return fmt.Errorf("custody: rendering the answer: %w", err)
		}
		once = &Once{Principal: caller.Name, Invocation: q.Invocation, Operation: OpImportKey, Body: q.Body, Answer: text, At: c.clock()}
	}
	if err := c.exchange.Store.AddPublicKey(ctx, k, once); err != nil {
		return storeError("storing the certificate", err)
	}
	return nil
}

// vouched reads a certificate and checks who vouches for it.
func (c *Custody) vouched(ctx context.Context, caller Caller, q ImportCertificate) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(q.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: PublicKeyCertificate is no certificate", ErrRequest)
	}
	now := c.clock()
	switch {
	case PublicAlgorithm(cert) == "" || PublicAlgorithm(cert) != q.Algorithm:
		return nil, fmt.Errorf("%w: the certificate's key is not of the named algorithm", ErrRequest)
	case now.Before(cert.NotBefore) || !now.Before(cert.NotAfter):
		return nil, fmt.Errorf("%w: the certificate is not valid now", ErrRequest)
	}
	authority := cert
	if q.Authority != nil {
		known, err := c.publicKey(ctx, caller, OpImportKey, *q.Authority)
		if err != nil {
			return nil, err
		}
		if authority, err = x509.ParseCertificate(known.Certificate); err != nil {
			return nil, fmt.Errorf("%w: the authority's certificate", ErrTampered)
		}
		if now.Before(authority.NotBefore) || !now.Before(authority.NotAfter) {
			return nil, fmt.Errorf("%w: the authority's certificate is not valid now", ErrRequest)
		}
	}
	if cert.CheckSignatureFrom(authority) != nil || string(cert.RawIssuer) != string(authority.RawSubject) {
		return nil, fmt.Errorf("%w: the certificate is not signed by its authority", ErrRequest)
	}
	return cert, nil
}

// PublicAlgorithm is the API's word for the algorithm of a certificate's key, or
// "" for one that the API has no word for.
func PublicAlgorithm(cert *x509.Certificate) string {
	switch k := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		name := fmt.Sprintf("RSA_%d", k.N.BitLen())
		if rsaBits(name) != 0 {
			return name
		}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256, 384, 521:
			if strings.HasPrefix(k.Curve.Params().Name, "P-") {
				return "ECC_NIST_P" + strings.TrimPrefix(k.Curve.Params().Name, "P-")
			}
		}
	}
	return ""
}

func (c *Custody) sealPublic(k PublicKey) ([32]byte, error) {
	k.Seal = [32]byte{}
	return c.dual.seal(publicSeal, k)
}

// PublicKey returns a public key from outside. It returns [ErrDenied],
// [ErrNoKey] or [ErrUnavailable].
func (c *Custody) PublicKey(ctx context.Context, caller Caller, corr string, op Operation, ref Ref) (PublicKey, error) {
	k, err := c.publicKey(ctx, caller, op, ref)
	return k, c.refuse(ctx, caller, corr, op, err)
}

// publicKey finds one. It has no alias, so that only those who may use every key
// find it.
func (c *Custody) publicKey(ctx context.Context, caller Caller, op Operation, ref Ref) (PublicKey, error) {
	switch {
	case !caller.may(op) || !caller.mayUse(nil):
		return PublicKey{}, fmt.Errorf("%w: not this key", ErrDenied)
	case c.exchange.Store == nil || ref.ID == "":
		return PublicKey{}, fmt.Errorf("%w: a public key is named by its ARN", ErrNoKey)
	}
	k, err := c.exchange.Store.PublicKey(ctx, ref.ID)
	if err != nil {
		return PublicKey{}, storeError("finding a public key", err)
	}
	want, err := c.sealPublic(k)
	if err != nil {
		return PublicKey{}, err
	}
	if !hmac.Equal(want[:], k.Seal[:]) {
		return PublicKey{}, fmt.Errorf("%w: public key %s", ErrTampered, k.ID)
	}
	return k, nil
}

// PublicChain returns the certificate of a public key from outside and those
// above it. Errors are those of [Custody.PublicKey].
func (c *Custody) PublicChain(ctx context.Context, caller Caller, corr string, ref Ref) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for range mostChain {
		k, err := c.publicKey(ctx, caller, OpGetCertificate, ref)
		if err != nil {
			return nil, c.refuse(ctx, caller, corr, OpGetCertificate, err)
		}
		cert, err := x509.ParseCertificate(k.Certificate)
		if err != nil {
			return nil, errors.Join(ErrTampered, err)
		}
		chain = append(chain, cert)
		if k.Authority == "" {
			return chain, nil
		}
		ref = Ref{ID: k.Authority}
	}
	return nil, fmt.Errorf("%w: the chain has no end", ErrTampered)
}

const mostChain = 8
