package api

import (
	"crypto"
	"errors"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

const (
	leastBlock, mostBlock           = 56, 9984
	leastCryptogram, mostCryptogram = 16, 4096
	importTokenPrefix               = "import-token-"
	wrappingKeyMember               = "WrappingKeyIdentifier"
)

// importKey is ImportKey (section 11.2).
func (c *call) importKey() error {
	f := &c.form
	material := f.object(0, "KeyMaterial", required)
	kinds := []string{"Tr31KeyBlock", "KeyCryptogram", "RootCertificatePublicKey", "TrustedCertificatePublicKey"}
	which, _ := f.union(material, kinds, []string{"Tr34KeyBlock", "DiffieHellmanTr31KeyBlock", "As2805KeyCryptogram"})
	f.unserved(0, "ReplicationRegions")
	if which < 0 {
		return c.check()
	}
	member := f.object(material, kinds[which], required)
	switch which {
	case 0:
		return c.importBlock(member)
	case 1:
		return c.importOAEP(member)
	}
	return c.importCertificate(member, which == 3)
}

// importedAs are the members that all forms of import have.
type importedAs struct {
	checkBy keys.CheckMethod
	enabled bool
	tags    map[string]string
}

func (c *call) importedAs(a keys.Algorithm) importedAs {
	as := importedAs{checkBy: c.checkMethod(a), enabled: true, tags: c.tags()}
	if at, text := c.form.string(0, "KeyCheckValueAlgorithm", optional); at >= 0 && string(text) == checkOfPublicKeys && a == 0 {
		c.form.failAt(at, "is not one for this key algorithm")
	}
	if enabled, given := c.form.bool(0, "Enabled", optional); given {
		as.enabled = enabled
	}
	return as
}

func (c *call) importBlock(member int32) error {
	q := custody.ImportBlock{KEK: c.keyRefOf(member, wrappingKeyMember), Block: c.text(member, "WrappedKeyBlock", leastBlock, mostBlock)}
	as := c.importedAs(0)
	q.CheckBy, q.Enabled, q.Tags = as.checkBy, as.enabled, as.tags
	if err := c.check(); err != nil {
		return err
	}
	return c.imported(member, wrappingKeyMember, func(repeat *custody.Repeat) (custody.KeyRecord, audit.Custody, error) {
		q.Once = repeat
		return c.custody.ImportBlock(c.ctx, c.caller, c.id, q)
	})
}

// text reads printable ASCII of least to most characters.
func (c *call) text(object int32, name string, least, most int) string {
	at, text := c.form.string(object, name, required)
	if at < 0 {
		return ""
	}
	ok := len(text) >= least && len(text) <= most
	for _, b := range text {
		ok = ok && b >= ' ' && b <= '~'
	}
	if !ok {
		c.form.failAt(at, "must be "+between(least, most)+" printable characters")
		return ""
	}
	return string(text)
}

func (c *call) importOAEP(member int32) error {
	q := custody.ImportOAEP{Attributes: c.keyAttributesOf(member), Token: c.importToken(member, required), Hash: crypto.SHA256}
	c.exportability(member, &q.Attributes)
	_, q.Cryptogram = c.form.hexRange(member, "WrappedKeyCryptogram", required, leastCryptogram, mostCryptogram)
	if at, text := c.form.string(member, "WrappingSpec", optional); at >= 0 {
		switch string(text) {
		case "RSA_OAEP_SHA_256":
		case "RSA_OAEP_SHA_512":
			q.Hash = crypto.SHA512
		default:
			c.form.failAt(at, "must be RSA_OAEP_SHA_256 or RSA_OAEP_SHA_512")
		}
	}
	as := c.importedAs(q.Attributes.Algorithm)
	q.CheckBy, q.Enabled, q.Tags = as.checkBy, as.enabled, as.tags
	if len(c.form.wrong) == 0 {
		c.checkAttributesOf("KeyMaterial.KeyCryptogram.", q.Attributes)
	}
	if err := c.check(); err != nil {
		return err
	}
	return c.imported(member, "ImportToken", func(repeat *custody.Repeat) (custody.KeyRecord, audit.Custody, error) {
		q.Once = repeat
		return c.custody.ImportOAEP(c.ctx, c.caller, c.id, q)
	})
}

func (c *call) exportability(object int32, a *keys.Attributes) {
	a.Exportability = keys.NonExportable
	if exportable, _ := c.form.bool(object, "Exportable", required); exportable {
		a.Exportability = keys.Exportable
	}
}

// importToken reads import-token- and 16 to 64 letters or digits.
func (c *call) importToken(object int32, need bool) string {
	at, text := c.form.string(object, "ImportToken", need)
	if at < 0 {
		return ""
	}
	name, ok := cut(text, importTokenPrefix)
	if !ok || !isID(name) {
		c.form.failAt(at, "must be import-token- and 16 to 64 letters or digits")
		return ""
	}
	return string(text)
}

// importCryptogram is keyd's own ImportCryptogram: a TDES key under a zone
// master key, as old hosts write it.
func (c *call) importCryptogram() error {
	q := custody.ImportCryptogram{Attributes: c.keyAttributes(), ZMK: c.keyRef(wrappingKeyMember)}
	c.exportability(0, &q.Attributes)
	q.Scheme, q.Cryptogram = c.scheme(), nil
	if at, text := c.form.string(0, "Cryptogram", required); at >= 0 && q.Scheme != 0 {
		var err error
		if q.Cryptogram, err = q.Scheme.ParseCryptogram(string(text)); err != nil {
			c.form.failAt(at, "must be as many hexadecimal digits as the scheme's keys have")
		}
	}
	if at, text := c.form.string(0, "KeyCheckValue", required); at >= 0 {
		var err error
		if q.Check, err = keys.ParseKCV(string(text)); err != nil {
			c.form.failAt(at, "must be 6 hexadecimal digits")
		}
	}
	as := c.importedAs(q.Attributes.Algorithm)
	q.CheckBy, q.Enabled, q.Tags = as.checkBy, as.enabled, as.tags
	if len(c.form.wrong) == 0 {
		c.checkAttributes(q.Attributes)
	}
	if err := c.check(); err != nil {
		return err
	}
	return c.imported(0, wrappingKeyMember, func(repeat *custody.Repeat) (custody.KeyRecord, audit.Custody, error) {
		q.Once = repeat
		return c.custody.ImportCryptogram(c.ctx, c.caller, c.id, q)
	})
}

func (c *call) scheme() keys.Scheme {
	at, text := c.form.string(0, "KeyScheme", required)
	if at < 0 {
		return 0
	}
	scheme, err := keys.ParseScheme(string(text))
	if err != nil {
		c.form.failAt(at, "must be X, Y, U or T")
	}
	return scheme
}

// imported answers for a key that came in. member and name are where the
// request names what it came under.
func (c *call) imported(member int32, name string, do func(*custody.Repeat) (custody.KeyRecord, audit.Custody, error)) error {
	err := c.once(custody.OpImportKey, func(repeat *custody.Repeat) error {
		repeat.Render = func(k custody.KeyRecord) ([]byte, error) { return c.appendKey(nil, k), nil }
		k, class, err := do(repeat)
		if err != nil {
			return err
		}
		c.custodyIs = class
		c.out = c.appendKey(c.out, k)
		return nil
	})
	if err != nil {
		c.namedIn(member, name)
	}
	return err
}

// namedIn notes which member of an object names the key that was not found.
func (c *call) namedIn(object int32, name string) {
	if at := c.form.doc.member(object, name); at >= 0 {
		c.asked = string(c.form.doc.bytes(c.form.doc.nodes[at].text))
	}
}

// getParametersForImport is GetParametersForImport (section 11.2).
func (c *call) getParametersForImport() error {
	f := &c.form
	if at, text := f.string(0, "KeyMaterialType", required); at >= 0 {
		switch string(text) {
		case "KEY_CRYPTOGRAM":
		case "TR34_KEY_BLOCK":
			f.refuse(at)
		case "TR31_KEY_BLOCK", "ROOT_PUBLIC_KEY_CERTIFICATE", "TRUSTED_PUBLIC_KEY_CERTIFICATE":
			f.failAt(at, "needs no import token")
		default:
			f.failAt(at, "must be KEY_CRYPTOGRAM")
		}
	}
	q := custody.ImportParams{Invocation: c.invocation, Body: c.digest}
	if at, text := f.string(0, "WrappingKeyAlgorithm", required); at >= 0 {
		q.Algorithm = string(text)
		if index([]string{"RSA_2048", "RSA_3072", "RSA_4096"}, text) < 0 {
			f.failAt(at, "must be RSA_2048, RSA_3072 or RSA_4096")
		}
	}
	return c.parameters(custody.OpImportParams, q, "Wrapping", "Import")
}

// getParametersForExport is GetParametersForExport (section 11.3): a key that
// signs, for a form of export that keyd does not have yet.
func (c *call) getParametersForExport() error {
	f := &c.form
	if at, text := f.string(0, "KeyMaterialType", required); at >= 0 && string(text) != "TR34_KEY_BLOCK" {
		f.failAt(at, "must be TR34_KEY_BLOCK")
	}
	q := custody.ImportParams{Export: true, Invocation: c.invocation, Body: c.digest}
	if at, text := f.string(0, "SigningKeyAlgorithm", required); at >= 0 {
		if q.Algorithm = string(text); q.Algorithm != "RSA_2048" {
			f.failAt(at, "must be RSA_2048")
		}
	}
	return c.parameters(custody.OpExportKey, q, "Signing", "Export")
}

// parameters answers with the certificate of a new key, or a known one; key and
// token are how the members are named.
func (c *call) parameters(op custody.Operation, q custody.ImportParams, key, token string) error {
	q.Reuse, _ = c.form.bool(0, "ReuseLastGeneratedToken", optional)
	if err := c.check(); err != nil {
		return err
	}
	return c.once(op, func(*custody.Repeat) error {
		q.Render = func(p custody.ImportParameters) ([]byte, error) { return appendParameters(nil, p, key, token), nil }
		p, err := c.custody.ImportParams(c.ctx, c.caller, c.id, q)
		if err != nil {
			return err
		}
		c.out = appendParameters(c.out, p, key, token)
		return nil
	})
}

func appendParameters(b []byte, p custody.ImportParameters, key, token string) []byte {
	b = append(append(append(b, `{"`...), key...), `KeyCertificate":"`...)
	b = appendPEM64(b, p.Certificate)
	b = append(append(append(b, `","`...), key...), `KeyCertificateChain":"`...)
	b = appendPEM64(b, raws(p.Chain)...)
	b = append(append(append(b, `","`...), key...), `KeyAlgorithm":`...)
	b = appendString(b, p.Algorithm)
	b = append(append(append(b, `,"`...), token...), `Token":`...)
	b = appendString(b, p.Token)
	b = appendTime(b, "ParametersValidUntilTimestamp", p.Until)
	return append(b, '}')
}

// exchangeNamed notes which of the two keys of an exchange was not found.
func (c *call) exchangeNamed(err error, wrapping int32, key string) {
	if errors.Is(err, custody.ErrNoWrappingKey) {
		c.namedIn(wrapping, wrappingKeyMember)
		return
	}
	c.namedIn(0, key)
}
