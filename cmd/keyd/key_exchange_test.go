package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// oaep CERTIFICATE DIGITS FILE enciphers a key as a partner does, under the
// first certificate of a file, and writes the cryptogram's digits.
func cmdOAEP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: oaep CERTIFICATE DIGITS FILE")
	}
	block, rest := pem.Decode([]byte(ts.ReadFile(args[0])))
	cert, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	above, _ := pem.Decode(rest)
	issuer, err := x509.ParseCertificate(above.Bytes)
	ts.Check(err)
	ts.Check(cert.CheckSignatureFrom(issuer))
	value, err := hex.DecodeString(args[1])
	ts.Check(err)
	cryptogram, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, cert.PublicKey.(*rsa.PublicKey), value, nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(hex.EncodeToString(cryptogram)+"\n"), 0o600))
}

// behind FILE LINE OTHER puts the lines of another file behind a line.
func cmdBehind(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: behind FILE LINE OTHER")
	}
	text := ts.ReadFile(args[0])
	if strings.Count(text, "\n"+args[1]+"\n") != 1 {
		ts.Fatalf("%s has not one line %q", args[0], args[1])
	}
	text = strings.Replace(text, "\n"+args[1]+"\n", "\n"+args[1]+"\n"+ts.ReadFile(args[2]), 1)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// signcsr REQUEST CHAIN signs a request as a CA outside does and writes the
// certificate and that of the CA.
func cmdSignCSR(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signcsr REQUEST CHAIN")
	}
	block, _ := pem.Decode([]byte(ts.ReadFile(args[0])))
	request, err := x509.ParseCertificateRequest(block.Bytes)
	ts.Check(err)
	ts.Check(request.CheckSignature())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := func(serial int64, name pkix.Name) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	root := template(1, pkix.Name{CommonName: "Example CA"})
	var chain []byte
	for _, c := range []struct {
		cert   *x509.Certificate
		public any
	}{{template(2, request.Subject), request.PublicKey}, {root, &key.PublicKey}} {
		der, err := x509.CreateCertificate(rand.Reader, c.cert, root, c.public, key)
		ts.Check(err)
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), chain, 0o600))
}
