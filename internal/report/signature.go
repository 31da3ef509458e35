package report

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
)

// The verdicts on a signature.
const (
	good    = "good"
	broken  = "BAD"
	unknown = "not checked"
)

// checkSignature checks a signature over the statement of a record (L-76) by the
// certificate with this SHA-256, or by one of this common name.
func checkSignature(certs []*x509.Certificate, sum, who string, raw, sig []byte) (verdict, why string) {
	message, err := statement(raw)
	if err != nil {
		return unknown, "the record cannot be taken apart"
	}
	seen := 0
	for _, c := range certs {
		have := sha256.Sum256(c.Raw)
		if sum != "" && hex.EncodeToString(have[:]) != sum || sum == "" && c.Subject.CommonName != who {
			continue
		}
		seen++
		ok, known := signed(c, message, sig)
		switch {
		case !known:
			return unknown, fmt.Sprintf("the certificate has a key of kind %s", c.PublicKeyAlgorithm)
		case ok:
			return good, "by the certificate with SHA-256 " + hex.EncodeToString(have[:])
		}
	}
	switch {
	case seen > 0:
		return broken, "the signature does not verify under the certificate of " + who
	case sum != "":
		return unknown, "no certificate with SHA-256 " + sum + " was given (--signer)"
	}
	return unknown, "no certificate with the name " + who + " was given (--signer)"
}

// signed checks a signature: Ed25519 over the message, ECDSA over its hash, in DER
// or as two numbers. known is false for another kind of key.
func signed(c *x509.Certificate, message, sig []byte) (ok, known bool) {
	switch pub := c.PublicKey.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, message, sig), true
	case *ecdsa.PublicKey:
		size := (pub.Curve.Params().BitSize + 7) / 8
		hash := sha256.Sum256(message)
		digest := hash[:]
		if size > sha256.Size {
			long := sha512.Sum384(message)
			digest = long[:]
		}
		if ecdsa.VerifyASN1(pub, digest, sig) {
			return true, true
		}
		if len(sig) != 2*size {
			return false, true
		}
		r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
		return ecdsa.Verify(pub, digest, r, s), true
	}
	return false, false
}

// statement is what was signed of a stored record: its bytes without the members
// seq, cer.sig and cer.witness_sig.
func statement(raw []byte) ([]byte, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, err
	}
	var cer map[string]json.RawMessage
	if err := json.Unmarshal(top["cer"], &cer); err != nil {
		return nil, err
	}
	delete(top, "seq")
	delete(cer, "sig")
	delete(cer, "witness_sig")
	var err error
	if top["cer"], err = canonical(cer); err != nil {
		return nil, err
	}
	return canonical(top)
}

// canonical writes members by name, their values as they were.
func canonical(members map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(members); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
