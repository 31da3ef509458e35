package api

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"

	"keyd.dev/keyd/internal/custody"
)

const (
	mostPEM64  = 32768
	mostInPEM  = 8 // certificates of a chain
	pemCert    = "CERTIFICATE"
	pemRequest = "CERTIFICATE REQUEST"
)

// appendPEM64 appends the base64 of the PEM of certificates, DER.
func appendPEM64(b []byte, ders ...[]byte) []byte { return appendPEMOf(b, pemCert, ders...) }

func appendPEMOf(b []byte, kind string, ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return base64.StdEncoding.AppendEncode(b, text)
}

func raws(chain []*x509.Certificate) [][]byte {
	all := make([][]byte, len(chain))
	for i, cert := range chain {
		all[i] = cert.Raw
	}
	return all
}

// parsePEM64 reads the base64 of PEM text with certificates and nothing else.
func parsePEM64(text []byte) ([]*x509.Certificate, bool) {
	rest, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return nil, false
	}
	var all []*x509.Certificate
	for len(bytes.TrimSpace(rest)) > 0 {
		if !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("-----BEGIN ")) {
			return nil, false
		}
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != pemCert || len(all) == mostInPEM {
			return nil, false
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, false
		}
		all = append(all, cert)
	}
	return all, len(all) > 0
}

// certificates reads a member that is base64 of PEM; most is how many it may hold.
func (c *call) certificates(object int32, name string, most int) []*x509.Certificate {
	at, text := c.form.string(object, name, required)
	if at < 0 {
		return nil
	}
	chain, ok := parsePEM64(text)
	if !ok || len(text) > mostPEM64 || len(chain) > most {
		what := "the base64 of a certificate in PEM"
		if most > 1 {
			what = "the base64 of certificates in PEM, each signed by the next"
		}
		c.form.failAt(at, "must be "+what)
		return nil
	}
	return chain
}

// importCertificate is ImportKey of a root certificate, or of a trusted one.
func (c *call) importCertificate(member int32, trusted bool) error {
	f := &c.form
	q := custody.ImportCertificate{Enabled: true, Invocation: c.invocation, Body: c.digest}
	q.Algorithm = c.publicAttributes(member)
	if chain := c.certificates(member, "PublicKeyCertificate", 1); len(chain) == 1 {
		q.Certificate = chain[0].Raw
	}
	if trusted {
		ref := c.keyRefOf(member, "CertificateAuthorityPublicKeyIdentifier")
		q.Authority = &ref
	}
	if at, text := f.string(0, "KeyCheckValueAlgorithm", optional); at >= 0 && string(text) != checkOfPublicKeys {
		f.failAt(at, "must be SHA_1 for a public key")
	}
	if enabled, given := f.bool(0, "Enabled", optional); given {
		q.Enabled = enabled
	}
	q.Tags = c.tags()
	if err := c.check(); err != nil {
		return err
	}
	err := c.once(custody.OpImportKey, func(*custody.Repeat) error {
		q.Render = func(k custody.PublicKey) ([]byte, error) { return c.appendPublicKey(nil, k), nil }
		k, err := c.custody.ImportCertificate(c.ctx, c.caller, c.id, q)
		if err != nil {
			return err
		}
		c.out = c.appendPublicKey(c.out, k)
		return nil
	})
	if err != nil {
		c.namedIn(member, "CertificateAuthorityPublicKeyIdentifier")
	}
	return err
}

const usageSignature = "TR31_S0_ASYMMETRIC_KEY_FOR_DIGITAL_SIGNATURE"

// publicAttributes reads the KeyAttributes of a public key, which can only be
// these: the algorithm is what they tell.
func (c *call) publicAttributes(member int32) string {
	f := &c.form
	at := f.object(member, "KeyAttributes", required)
	if usage, text := f.string(at, "KeyUsage", required); usage >= 0 && string(text) != usageSignature {
		f.failAt(usage, "must be "+usageSignature+" for a certificate")
	}
	if class, text := f.string(at, "KeyClass", required); class >= 0 && string(text) != "PUBLIC_KEY" {
		f.failAt(class, "must be PUBLIC_KEY for a certificate")
	}
	modes := f.object(at, "KeyModesOfUse", required)
	for _, flag := range modeFlags() {
		if set, _ := f.bool(modes, flag.name, optional); modes >= 0 && set != (flag.name == "Verify") {
			f.failAt(modes, "must be Verify alone for a certificate")
			break
		}
	}
	place, text := f.string(at, "KeyAlgorithm", required)
	if place < 0 {
		return ""
	}
	known := []string{"RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"}
	if index(known, text) < 0 {
		f.failAt(place, "is not an algorithm of public keys")
	}
	return string(text)
}

// appendPublicKey appends an answer with the structure Key.
func (c *call) appendPublicKey(b []byte, k custody.PublicKey) []byte {
	b = append(b, `{"Key":{"KeyArn":"`...)
	b = c.names.appendARN(b, k.ID)
	b = append(b, `","KeyAttributes":{"KeyUsage":"`+usageSignature+`","KeyClass":"PUBLIC_KEY","KeyAlgorithm":`...)
	b = appendString(b, k.Algorithm)
	b = append(b, `,"KeyModesOfUse":{`...)
	for i, flag := range modeFlags() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), flag.name...), `":`...)
		b = appendBool(b, flag.name == "Verify")
	}
	b = append(b, `}},"KeyCheckValue":"`...)
	b = appendHex(b, k.Check[:])
	b = append(b, `","KeyCheckValueAlgorithm":"`+checkOfPublicKeys+`","Enabled":`...)
	b = appendBool(b, k.Enabled)
	b = append(b, `,"Exportable":true,"KeyState":"CREATE_COMPLETE","KeyOrigin":"EXTERNAL"`...)
	b = appendTime(b, "CreateTimestamp", k.Made)
	if k.Enabled {
		b = appendTime(b, "UsageStartTimestamp", k.Made)
	}
	return append(b, `}}`...)
}

// getPublicKeyCertificate is GetPublicKeyCertificate: of a certificate that came
// in, with those above it.
func (c *call) getPublicKeyCertificate() error {
	ref := c.keyRef("KeyIdentifier")
	if err := c.check(); err != nil {
		return err
	}
	chain, err := c.custody.PublicChain(c.ctx, c.caller, c.id, ref)
	if err != nil {
		c.named("KeyIdentifier")
		return err
	}
	c.appendChain("KeyCertificate", "KeyCertificateChain", chain)
	return nil
}

// appendChain answers with a certificate and those above it; a root stands for
// its own chain.
func (c *call) appendChain(own, above string, chain []*x509.Certificate) {
	rest := chain[1:]
	if len(rest) == 0 {
		rest = chain
	}
	c.out = append(append(append(c.out, `{"`...), own...), `":"`...)
	c.out = appendPEM64(c.out, chain[0].Raw)
	c.out = append(append(append(c.out, `","`...), above...), `":"`...)
	c.out = appendPEM64(c.out, raws(rest)...)
	c.out = append(c.out, `"}`...)
}

// getWrappingCertificate is keyd's own: the certificate of an import token's
// wrapping key, or of the key that issues those.
func (c *call) getWrappingCertificate() error {
	token := c.importToken(0, optional)
	if err := c.check(); err != nil {
		return err
	}
	chain, err := c.custody.WrappingCertificate(c.ctx, c.caller, c.id, token)
	if err != nil {
		return err
	}
	c.appendChain("Certificate", "CertificateChain", chain)
	return nil
}

// getIssuingRequest is keyd's own GetIssuingCertificateSigningRequest.
func (c *call) getIssuingRequest() error {
	f := &c.form
	at := f.object(0, "CertificateSubject", required)
	var name pkix.Name
	for _, part := range []struct {
		member string
		need   bool
		most   int
		put    func(string)
	}{
		{"CommonName", required, 64, func(v string) { name.CommonName = v }},
		{"OrganizationUnit", optional, 64, func(v string) { name.OrganizationalUnit = []string{v} }},
		{"Organization", optional, 64, func(v string) { name.Organization = []string{v} }},
		{"City", optional, 128, func(v string) { name.Locality = []string{v} }},
		{"Country", optional, 2, func(v string) { name.Country = []string{v} }},
		{"StateOrProvince", optional, 128, func(v string) { name.Province = []string{v} }},
	} {
		place, text := f.string(at, part.member, part.need)
		if place < 0 {
			continue
		}
		if len(text) < 1 || len(text) > part.most || !printable(text) || part.most == 2 && len(text) != 2 {
			f.failAt(place, "must be "+between(1, part.most)+" printable characters, a country two")
			continue
		}
		part.put(string(text))
	}
	if err := c.check(); err != nil {
		return err
	}
	der, err := c.custody.SigningRequest(c.ctx, c.caller, c.id, name)
	if err != nil {
		return err
	}
	c.out = append(c.out, `{"CertificateSigningRequest":"`...)
	c.out = appendPEMOf(c.out, pemRequest, der)
	c.out = append(c.out, `"}`...)
	return nil
}

// installIssuingCertificate is keyd's own: the chain that a CA outside has given.
func (c *call) installIssuingCertificate() error {
	chain := c.certificates(0, "CertificateChain", mostInPEM)
	if err := c.check(); err != nil {
		return err
	}
	if err := c.custody.InstallCertificate(c.ctx, c.caller, c.id, chain); err != nil {
		return err
	}
	c.out = append(c.out, `{}`...)
	return nil
}
