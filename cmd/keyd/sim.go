package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// simCmd are the two ends of a switch link, for trials against `keyd dev`.
type simCmd struct {
	Issuer simIssuerCmd `cmd:"" help:"Answer the upstream link as an issuer would, faults on request."`
	Pos    simPosCmd    `cmd:"" help:"Send messages as a POS terminal does, forgeries among them."`
	Fraud  simFraudCmd  `cmd:"" help:"Run every attack of the catalogue against a running switch, and say what stopped it."`
}

// readDev reads the dev.json of a running `keyd dev`.
func readDev(dir string) (*devReport, error) {
	path := filepath.Join(dir, "dev.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, advise(err, "is `keyd dev --dir %s` running?", dir)
	}
	dev := new(devReport)
	if err := json.Unmarshal(text, dev); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return dev, nil
}

// devTLS is the TLS of one of the clients of `keyd dev`.
func devTLS(dev *devReport, client string) (*tls.Config, error) {
	who, ok := dev.Clients[client]
	if !ok {
		return nil, fmt.Errorf("dev.json has no client %q", client)
	}
	cert, err := tls.LoadX509KeyPair(who.Cert, who.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate of client %q: %w", client, err)
	}
	pem, err := os.ReadFile(dev.CACert)
	if err != nil {
		return nil, fmt.Errorf("the CA of keyd dev: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", dev.CACert)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}
