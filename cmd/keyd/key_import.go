package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"keyd.dev/keyd/keys"
)

type keyImportCmd struct {
	TR31        keyImportTR31Cmd        `cmd:"" name:"tr31" help:"Take a key in out of a TR-31 key block, which says what the key is."`
	OAEP        keyImportOAEPCmd        `cmd:"" name:"oaep" help:"Take a key in that was enciphered under a wrapping certificate (see import-params)."`
	Cryptogram  keyImportCryptogramCmd  `cmd:"" help:"Take a key of an old host in, under a zone master key; its check value must fit."`
	Certificate keyImportCertificateCmd `cmd:"" help:"Take a root certificate in, or one that a known authority has signed."`
}

// importFlags are those of every form of import.
type importFlags struct {
	doorFlags
	Alias   string            `placeholder:"ALIAS" help:"Name the key so afterwards."`
	Tag     map[string]string `placeholder:"NAME=VALUE" help:"A tag of the key; may be repeated."`
	Stopped bool              `help:"Take the key in without starting its use."`
}

// newKeyFlags say what a key is to be where nothing that comes with it does.
type newKeyFlags struct {
	Usage      string `required:"" placeholder:"CODE" help:"Usage of X9.143, P0 for example."`
	Mode       string `required:"" placeholder:"LETTER" help:"Mode of use of X9.143, B for example."`
	Exportable bool   `help:"The key may leave again under a key-encryption key."`
}

func (f *newKeyFlags) attributes(algorithm string) (map[string]any, error) {
	name := keys.Usage(f.Usage).Name()
	modes, err := modesOfUse(f.Mode)
	if name == "" || err != nil {
		return nil, usageError("--usage=%s --mode=%s: want codes of X9.143, P0 and B for example", f.Usage, f.Mode)
	}
	return map[string]any{"KeyUsage": name, "KeyClass": "SYMMETRIC_KEY", "KeyAlgorithm": algorithm, "KeyModesOfUse": modes}, nil
}

// modesOfUse are the flags of the API for a mode of X9.143.
func modesOfUse(mode string) (map[string]bool, error) {
	flags := map[string][]string{
		"B": {"Encrypt", "Decrypt", "Wrap", "Unwrap"}, "E": {"Encrypt", "Wrap"}, "D": {"Decrypt", "Unwrap"},
		"C": {"Generate", "Verify"}, "G": {"Generate"}, "V": {"Verify"}, "X": {"DeriveKey"}, "S": {"Sign"}, "N": {"NoRestrictions"},
	}[mode]
	if flags == nil {
		return nil, usageError("mode of use %q: want one of B E D C G V X S N", mode)
	}
	set := make(map[string]bool)
	for _, flag := range flags {
		set[flag] = true
	}
	return set, nil
}

// importedKey is the daemon's answer to an import.
type importedKey struct {
	Key struct {
		KeyArn        string
		KeyCheckValue string
		KeyAttributes struct{ KeyUsage, KeyAlgorithm string }
	}
}

// importKey sends the request, names the key, and says what came in.
func (f *importFlags) importKey(p *program, call func(*door, map[string]any, *importedKey) error, body map[string]any) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	if len(f.Tag) > 0 {
		body["Tags"] = tagList(f.Tag)
	}
	body["Enabled"] = !f.Stopped
	var in importedKey
	if err := call(d, body, &in); err != nil {
		return err
	}
	k := in.Key
	if f.Alias != "" {
		if err := d.aws(p.ctx, "CreateAlias", map[string]string{"AliasName": f.Alias, "KeyArn": k.KeyArn}, nil); err != nil {
			return fmt.Errorf("the key came in as %s and has no name: %w", k.KeyArn, err)
		}
	}
	name := strings.TrimSpace(f.Alias + " " + k.KeyArn)
	_, err = fmt.Fprintf(p.stdout, "%s\n%s %s, check value %s\n", name, k.KeyAttributes.KeyUsage, k.KeyAttributes.KeyAlgorithm, k.KeyCheckValue)
	return err
}

// byImportKey sends the material of an ImportKey.
func byImportKey(ctx context.Context) func(*door, map[string]any, *importedKey) error {
	return func(d *door, body map[string]any, in *importedKey) error { return d.aws(ctx, "ImportKey", body, in) }
}

func tagList(tags map[string]string) []map[string]string {
	var list []map[string]string
	for _, name := range sortedNames(tags) {
		list = append(list, map[string]string{"Key": name, "Value": tags[name]})
	}
	return list
}

type keyImportTR31Cmd struct {
	importFlags
	KEK   string `name:"kek" required:"" placeholder:"KEY" help:"The key-encryption key: alias or ARN."`
	Block string `required:"" placeholder:"FILE" help:"The key block; - reads it from the standard input."`
}

// Run takes a key block in.
func (c *keyImportTR31Cmd) Run(p *program) error {
	block, err := readInput(p, "--block", c.Block)
	if err != nil {
		return err
	}
	material := map[string]any{"Tr31KeyBlock": map[string]any{"WrappingKeyIdentifier": c.KEK, "WrappedKeyBlock": block}}
	return c.importKey(p, byImportKey(p.ctx), map[string]any{"KeyMaterial": material})
}

type keyImportOAEPCmd struct {
	importFlags
	newKeyFlags
	ImportToken string `required:"" placeholder:"TOKEN" help:"The import token that came with the wrapping certificate."`
	Algorithm   string `required:"" placeholder:"NAME" help:"TDES_2KEY, TDES_3KEY or AES_128."`
	Hash        string `default:"256" enum:"256,512" help:"SHA-2 hash of the OAEP and its mask: 256 or 512."`
	Cryptogram  string `required:"" placeholder:"FILE" help:"The cryptogram, hexadecimal; - reads it from the standard input."`
}

// Run takes an RSA cryptogram in.
func (c *keyImportOAEPCmd) Run(p *program) error {
	attributes, err := c.attributes(c.Algorithm)
	if err != nil {
		return err
	}
	digits, err := readInput(p, "--cryptogram", c.Cryptogram)
	if err != nil {
		return err
	}
	material := map[string]any{"KeyCryptogram": map[string]any{
		"KeyAttributes": attributes, "Exportable": c.Exportable, "WrappedKeyCryptogram": digits,
		"ImportToken": c.ImportToken, "WrappingSpec": "RSA_OAEP_SHA_" + c.Hash,
	}}
	return c.importKey(p, byImportKey(p.ctx), map[string]any{"KeyMaterial": material})
}

type keyImportCryptogramCmd struct {
	importFlags
	newKeyFlags
	ZMK        string `name:"zmk" required:"" placeholder:"KEY" help:"The zone master key: alias or ARN; api.cryptogram_import must name it."`
	Scheme     string `required:"" placeholder:"LETTER" help:"U or T (variants), X or Y (X9.17)."`
	Cryptogram string `required:"" placeholder:"FILE" help:"The cryptogram, hexadecimal, with or without the scheme's letter; - reads it from the standard input."`
	KCV        string `name:"kcv" required:"" placeholder:"DIGITS" help:"The key's check value, 6 digits, as it came with the key."`
}

// Run takes a cryptogram of an old host in.
func (c *keyImportCryptogramCmd) Run(p *program) error {
	scheme, err := keys.ParseScheme(c.Scheme)
	if err != nil {
		return usageError("--scheme=%s: want X, Y, U or T", c.Scheme)
	}
	attributes, err := c.attributes(scheme.Algorithm().String())
	if err != nil {
		return err
	}
	digits, err := readInput(p, "--cryptogram", c.Cryptogram)
	if err != nil {
		return err
	}
	call := func(d *door, body map[string]any, in *importedKey) error {
		return d.own(p.ctx, "ImportCryptogram", body, in)
	}
	return c.importKey(p, call, map[string]any{
		"KeyAttributes": attributes, "Exportable": c.Exportable, "WrappingKeyIdentifier": c.ZMK, "KeyScheme": c.Scheme,
		"Cryptogram": digits, "KeyCheckValue": c.KCV,
	})
}

type keyImportCertificateCmd struct {
	doorFlags
	File      string `arg:"" help:"The certificate, PEM."`
	Authority string `placeholder:"ARN" help:"The key that has signed it; without, it is a root and has signed itself."`
}

// Run takes a certificate in.
func (c *keyImportCertificateCmd) Run(p *program) error {
	text, err := os.ReadFile(c.File)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	algorithm, err := certificateAlgorithm(text)
	if err != nil {
		return fmt.Errorf("reading %s: %w", c.File, err)
	}
	material := map[string]any{
		"KeyAttributes": map[string]any{
			"KeyUsage": "TR31_S0_ASYMMETRIC_KEY_FOR_DIGITAL_SIGNATURE", "KeyClass": "PUBLIC_KEY", "KeyAlgorithm": algorithm,
			"KeyModesOfUse": map[string]bool{"Verify": true},
		},
		"PublicKeyCertificate": base64.StdEncoding.EncodeToString(text),
	}
	kind := "RootCertificatePublicKey"
	if c.Authority != "" {
		kind, material["CertificateAuthorityPublicKeyIdentifier"] = "TrustedCertificatePublicKey", c.Authority
	}
	flags := importFlags{doorFlags: c.doorFlags}
	return flags.importKey(p, byImportKey(p.ctx), map[string]any{"KeyMaterial": map[string]any{kind: material}})
}

type keyImportParamsCmd struct {
	doorFlags
	Algorithm string `default:"RSA_2048" enum:"RSA_2048,RSA_3072,RSA_4096" help:"RSA_2048, RSA_3072 (for AES_128 keys) or RSA_4096."`
	Reuse     bool   `help:"The newest one again, where it has a week left."`
	Out       string `required:"" placeholder:"FILE" help:"Write the certificate and its chain there, PEM; the file must not exist."`
	JSON      bool   `help:"Print JSON."`
}

// Run asks for a wrapping certificate and an import token.
func (c *keyImportParamsCmd) Run(p *program) error {
	d, err := c.open()
	if err != nil {
		return err
	}
	if err := mustNotExist(c.Out); err != nil {
		return err
	}
	var out struct {
		WrappingKeyCertificate, WrappingKeyCertificateChain []byte
		ImportToken                                         string
		ParametersValidUntilTimestamp                       float64
	}
	body := map[string]any{"KeyMaterialType": "KEY_CRYPTOGRAM", "WrappingKeyAlgorithm": c.Algorithm, "ReuseLastGeneratedToken": c.Reuse}
	if err := d.aws(p.ctx, "GetParametersForImport", body, &out); err != nil {
		return err
	}
	if err := writeOutput(p, c.Out, append(out.WrappingKeyCertificate, out.WrappingKeyCertificateChain...)); err != nil {
		return err
	}
	until := time.Unix(int64(out.ParametersValidUntilTimestamp), 0).UTC().Format(time.RFC3339)
	if c.JSON {
		return json.NewEncoder(p.stdout).Encode(map[string]string{"import_token": out.ImportToken, "until": until, "certificate": c.Out})
	}
	_, err = fmt.Fprintf(p.stdout, "%s\nvalid until %s, certificate in %s\n", out.ImportToken, until, c.Out)
	return err
}

// mostInput bounds what a command reads of a cryptogram, block or certificate.
const mostInput = 64 << 10

// readInput reads a file, or the standard input for "-", without white space.
func readInput(p *program, flag, name string) (string, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(p.stdin, mostInput))
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", flag, err)
	}
	trimmed := strings.TrimSpace(string(text))
	if trimmed == "" {
		return "", fmt.Errorf("reading %s: %s is empty", flag, name)
	}
	return trimmed, nil
}

// mustNotExist refuses a file to be written before anything was done for it.
func mustNotExist(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s exists and is not overwritten", name)
	}
	return nil
}

// writeOutput writes a new file that only its owner reads; without a name it
// writes to the standard output. It never overwrites.
func writeOutput(p *program, name string, text []byte) (err error) {
	if name == "" {
		_, err := p.stdout.Write(text)
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return f.Sync()
}

// checkHex refuses what is no hexadecimal number before it goes anywhere.
func checkHex(flag, digits string, lengths ...int) error {
	_, err := hex.DecodeString(digits)
	for _, n := range lengths {
		if err == nil && len(digits) == n {
			return nil
		}
	}
	return usageError("%s=%s: want %v hexadecimal digits", flag, digits, lengths)
}
