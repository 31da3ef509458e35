package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The lives of the certificates of a development daemon.
const (
	devCALife   = 10 * 365 * 24 * time.Hour
	devLeafLife = 5 * 365 * 24 * time.Hour
)

// devCA signs the certificates of a development daemon.
type devCA struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// makePKI makes the CA and every certificate under dir. hosts are names and
// addresses of the server beside localhost.
func makePKI(dir string, hosts []string, clients []clientConfig) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newDevCA(dir)
	if err != nil {
		return fmt.Errorf("making the CA: %w", err)
	}
	server := &x509.Certificate{
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else if host != "" {
			server.DNSNames = append(server.DNSNames, host)
		}
	}
	errs := []error{ca.issue("server", server), ca.issue("issuer", server)}
	for _, c := range clients {
		errs = append(errs, ca.issueClient(c))
	}
	return errors.Join(errs...)
}

func newDevCA(dir string) (*devCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"keyd dev"}, CommonName: "keyd dev CA, test only"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if err := dated(template, devCALife); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &devCA{dir: dir, cert: cert, key: key}
	return ca, ca.write("ca", der, key)
}

// issue signs a certificate and writes NAME.pem and NAME.key.
func (ca *devCA) issue(name string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := *template
	leaf.Subject = pkix.Name{Organization: []string{"keyd dev"}, CommonName: name}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.BasicConstraintsValid = true
	if err := dated(&leaf, devLeafLife); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &leaf, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", name, err)
	}
	return ca.write(name, der, key)
}

// dated gives a certificate its serial number and its life. It begins an hour
// ago, for the sake of clocks that are behind.
func dated(c *x509.Certificate, life time.Duration) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	c.SerialNumber = serial.Add(serial, big.NewInt(1))
	now := time.Now()
	c.NotBefore, c.NotAfter = now.Add(-time.Hour), now.Add(life)
	return nil
}

func (ca *devCA) write(name string, der []byte, key *ecdsa.PrivateKey) error {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	base := filepath.Join(ca.dir, name)
	return errors.Join(
		writeFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600),
		writeFile(base+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
	)
}
