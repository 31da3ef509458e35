package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

type keyExportCmd struct {
	TR31       keyExportTR31Cmd       `cmd:"" name:"tr31" help:"Let a key out as a TR-31 key block."`
	InitialKey keyExportInitialCmd    `cmd:"" name:"initial-key" help:"Let the DUKPT initial keys of terminals out as key blocks, for their injection."`
	Cryptogram keyExportCryptogramCmd `cmd:"" help:"Let a key out for an old host, under a zone master key and bound to nothing."`
}

type keyExportTR31Cmd struct {
	doorFlags
	Name     string            `arg:"" name:"alias" help:"The key: alias or ARN."`
	KEK      string            `name:"kek" required:"" placeholder:"KEY" help:"The key-encryption key: alias or ARN."`
	Restrict string            `placeholder:"CODES" help:"What the block permits at most: a mode of use, an exportability (N or S), or both: E, N, EN."`
	Version  string            `placeholder:"CHARS" help:"Key version of the header, two characters."`
	Extra    map[string]string `placeholder:"ID=VALUE" help:"An optional block to add; may be repeated."`
	Out      string            `placeholder:"FILE" help:"Write the block there; the file must not exist. Default: print it."`
}

// wrappedKey is the daemon's answer to an export.
type wrappedKey struct {
	WrappedKey struct{ KeyMaterial, KeyCheckValue, KeyCheckValueAlgorithm string }
}

// Run lets a key out.
func (c *keyExportTR31Cmd) Run(p *program) error {
	headers, err := c.headers()
	if err != nil {
		return err
	}
	block := map[string]any{"WrappingKeyIdentifier": c.KEK}
	if len(headers) > 0 {
		block["KeyBlockHeaders"] = headers
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	var out wrappedKey
	body := map[string]any{"ExportKeyIdentifier": c.Name, "KeyMaterial": map[string]any{"Tr31KeyBlock": block}}
	if err := d.aws(p.ctx, "ExportKey", body, &out); err != nil {
		return err
	}
	if err := writeOutput(p, c.Out, []byte(out.WrappedKey.KeyMaterial+"\n")); err != nil {
		return err
	}
	return sayCheckValue(p, c.Out, out.WrappedKey.KeyCheckValue)
}

// sayCheckValue prints the check value beside a block that went to a file; with
// the block on the standard output, it goes to the other.
func sayCheckValue(p *program, file, value string) error {
	to := p.stdout
	if file == "" {
		to = p.stderr
	}
	_, err := fmt.Fprintf(to, "check value %s\n", value)
	return err
}

// headers reads --restrict, --version and --extra.
func (c *keyExportTR31Cmd) headers() (map[string]any, error) {
	h := make(map[string]any)
	for _, code := range c.Restrict {
		word := string(code)
		switch modes, err := modesOfUse(word); {
		case word == "N" || word == "S":
			h["KeyExportability"] = map[string]string{"N": "NON_EXPORTABLE", "S": "SENSITIVE"}[word]
		case err == nil:
			h["KeyModesOfUse"] = modes
		default:
			return nil, usageError("--restrict=%s: want a mode of use (E D G V) and an exportability (N S), EN for example", c.Restrict)
		}
	}
	if c.Version != "" {
		h["KeyVersion"] = c.Version
	}
	if len(c.Extra) > 0 {
		h["OptionalBlocks"] = c.Extra
	}
	return h, nil
}

type keyExportInitialCmd struct {
	doorFlags
	BDK string   `arg:"" name:"bdk" help:"The base derivation key: alias or ARN."`
	KEK string   `name:"kek" required:"" placeholder:"KEY" help:"The key-encryption key of the injection facility: alias or ARN."`
	KSN []string `name:"ksn" required:"" placeholder:"DIGITS" help:"Key serial number with its counter zero: 20 digits (TDES) or 24 (AES); may be repeated."`
	Out string   `placeholder:"FILE" help:"Write the list there; the file must not exist. Default: print it."`
}

// Run lets initial keys out, a line each: key serial number, check value, block.
// Nothing is written unless all of them went well.
func (c *keyExportInitialCmd) Run(p *program) error {
	for _, ksn := range c.KSN {
		if err := checkHex("--ksn", ksn, 20, 24); err != nil {
			return err
		}
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, ksn := range c.KSN {
		out, err := initialKey(p.ctx, d, c.BDK, c.KEK, ksn)
		if err != nil {
			return fmt.Errorf("initial key %s: %w", ksn, err)
		}
		fmt.Fprintf(&list, "%s %s %s\n", ksn, out.WrappedKey.KeyCheckValue, out.WrappedKey.KeyMaterial)
	}
	if err := writeOutput(p, c.Out, list.Bytes()); err != nil || c.Out == "" {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d initial keys in %s\n", len(c.KSN), c.Out)
	return err
}

func initialKey(ctx context.Context, d *door, bdk, kek, ksn string) (out wrappedKey, err error) {
	err = d.aws(ctx, "ExportKey", map[string]any{
		"ExportKeyIdentifier": bdk,
		"KeyMaterial":         map[string]any{"Tr31KeyBlock": map[string]any{"WrappingKeyIdentifier": kek}},
		"ExportAttributes":    map[string]any{"ExportDukptInitialKey": map[string]any{"KeySerialNumber": ksn}},
	}, &out)
	return out, err
}

type keyExportCryptogramCmd struct {
	doorFlags
	Name   string `arg:"" name:"alias" help:"The key: alias or ARN."`
	ZMK    string `name:"zmk" required:"" placeholder:"KEY" help:"The zone master key: alias or ARN; api.cryptogram_export must name it."`
	Scheme string `required:"" placeholder:"LETTER" help:"U or T (variants), X or Y (X9.17)."`
	Out    string `placeholder:"FILE" help:"Write the cryptogram there; the file must not exist. Default: print it."`
}

// Run lets a key out for an old host.
func (c *keyExportCryptogramCmd) Run(p *program) error {
	if _, err := keys.ParseScheme(c.Scheme); err != nil {
		return usageError("--scheme=%s: want X, Y, U or T", c.Scheme)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	var out struct{ Cryptogram, KeyCheckValue string }
	body := map[string]any{"ExportKeyIdentifier": c.Name, "WrappingKeyIdentifier": c.ZMK, "KeyScheme": c.Scheme}
	if err := d.own(p.ctx, "ExportCryptogram", body, &out); err != nil {
		return err
	}
	if err := writeOutput(p, c.Out, []byte(out.Cryptogram+"\n")); err != nil {
		return err
	}
	return sayCheckValue(p, c.Out, out.KeyCheckValue)
}

type keyCSRCmd struct {
	doorFlags
	CN      string `name:"cn" required:"" placeholder:"NAME" help:"Common name."`
	O       string `name:"o" placeholder:"NAME" help:"Organisation."`
	OU      string `name:"ou" placeholder:"NAME" help:"Unit of the organisation."`
	Country string `placeholder:"CODE" help:"Country, two letters."`
	Out     string `placeholder:"FILE" help:"Write the request there, PEM; the file must not exist. Default: print it."`
}

// Run asks for a signing request of the key that issues wrapping certificates.
func (c *keyCSRCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	subject := map[string]string{"CommonName": c.CN}
	for name, value := range map[string]string{"Organization": c.O, "OrganizationUnit": c.OU, "Country": c.Country} {
		if value != "" {
			subject[name] = value
		}
	}
	var out struct{ CertificateSigningRequest []byte }
	if err := d.own(p.ctx, "GetIssuingCertificateSigningRequest", map[string]any{"CertificateSubject": subject}, &out); err != nil {
		return err
	}
	return writeOutput(p, c.Out, out.CertificateSigningRequest)
}

type keyCertificateCmd struct {
	Get     keyCertificateGetCmd     `cmd:"" help:"Get the certificate of the key that issues wrapping certificates, or of an import token."`
	Install keyCertificateInstallCmd `cmd:"" help:"Install the chain that a CA has given that key."`
}

type keyCertificateGetCmd struct {
	doorFlags
	ImportToken string `placeholder:"TOKEN" help:"The certificate of this import token in place of the issuer's."`
	Out         string `placeholder:"FILE" help:"Write it there with its chain, PEM; the file must not exist. Default: print it."`
}

// Run gets a certificate with its chain.
func (c *keyCertificateGetCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	body := map[string]string{}
	if c.ImportToken != "" {
		body["ImportToken"] = c.ImportToken
	}
	var out struct{ Certificate, CertificateChain []byte }
	if err := d.own(p.ctx, "GetWrappingCertificate", body, &out); err != nil {
		return err
	}
	text := out.Certificate
	if !bytes.Equal(text, out.CertificateChain) {
		text = append(text, out.CertificateChain...)
	}
	return writeOutput(p, c.Out, text)
}

type keyCertificateInstallCmd struct {
	doorFlags
	File string `arg:"" help:"The chain, PEM: the issuing key's certificate first, then each signed by the next."`
}

// Run installs a chain.
func (c *keyCertificateInstallCmd) Run(p *program) error {
	text, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("reading the chain: %w", err)
	}
	d, err := c.open()
	if err != nil {
		return err
	}
	return d.own(p.ctx, "InstallIssuingCertificate", map[string]string{"CertificateChain": base64.StdEncoding.EncodeToString(text)}, nil)
}

// certificateAlgorithm is the API's word for a certificate's key.
func certificateAlgorithm(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("it is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	algorithm := custody.PublicAlgorithm(cert)
	if algorithm == "" {
		return "", errors.New("its key is neither RSA of 2048, 3072 or 4096 bits nor on a NIST curve")
	}
	return algorithm, nil
}

func sortedNames(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
