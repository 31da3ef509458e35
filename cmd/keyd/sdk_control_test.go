package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
)

// blockZPK is the key of a partner, whose value is published, in a key block
// under alias/dev/kek.
const blockZPK = "D0112P0TB00E00006BC2C9EAB2B50AE38AFDF868E37E3EFA6366CFA3C395E41C16424E3AF97711CCE31D5DA7E09DA9756F7642D998EC51F0"

// blockMACUnionPay is alias/mak-up of section 16 of the API, likewise.
const blockMACUnionPay = "D0112M1TC00E0000497D13DB4EF4A6B3EB9A732033ED6CEFC1DFAC725F867EAE51FBF5FE71984E4AD71D72749BBEACC170545F9CF62DCE26"

// blockData is the AES-128 key of NIST SP 800-38A, appendix F, for data.
const blockData = "D0144D0AB00E00005407409C4E34F342D6E6711D4FE8C7EF892B299511A877C130ADFD0304C30C810850FFA2BA95C157CEB2BDE1A95114F94C25071878C4A7558F49213F9DD4C74F"

// attributes are those of a symmetric key.
func attributes(usage types.KeyUsage, algorithm types.KeyAlgorithm, modes types.KeyModesOfUse) *types.KeyAttributes {
	return &types.KeyAttributes{KeyUsage: usage, KeyAlgorithm: algorithm, KeyClass: types.KeyClassSymmetricKey, KeyModesOfUse: &modes}
}

func macMode() types.KeyModesOfUse { return types.KeyModesOfUse{Generate: true, Verify: true} }

func bothModes() types.KeyModesOfUse {
	return types.KeyModesOfUse{Encrypt: true, Decrypt: true, Wrap: true, Unwrap: true}
}

func block(kek, text string) *types.ImportKeyMaterialMemberTr31KeyBlock {
	return &types.ImportKeyMaterialMemberTr31KeyBlock{Value: types.ImportTr31KeyBlock{WrappingKeyIdentifier: &kek, WrappedKeyBlock: &text}}
}

// sdkControl is the official client of the control plane at work, with what
// its calls have made.
type sdkControl struct {
	*testing.T
	c   *control.Client
	key *types.Key // of the life of one key
}

// TestSDKControl: aws-sdk-go-v2 drives every operation of the control plane of
// a real daemon over mutual TLS.
func TestSDKControl(t *testing.T) {
	r := startDev(t, t.TempDir(), "--no-sim")
	defer r.stop()
	wire := r.wire("admin")
	s := &sdkControl{c: r.controlSDK(wire, 1)}
	for _, part := range []struct {
		name string
		do   func(*sdkControl)
	}{
		{"make", (*sdkControl).makes}, {"alias", (*sdkControl).aliases}, {"tags", (*sdkControl).tags}, {"pages", (*sdkControl).pages},
		{"exchange by key block", (*sdkControl).keyBlocks}, {"exchange by RSA", (*sdkControl).cryptograms}, {"certificates", (*sdkControl).certificates},
		{"life", (*sdkControl).lives}, {"odd values", (*sdkControl).oddValues},
	} {
		t.Run(part.name, func(t *testing.T) {
			s.T = t
			part.do(s)
		})
	}
	wantEveryOperation(t, "control", wire)
	if got := wire.custody[awsTarget+"ExportKey"]; got != "token" && got != "process" {
		t.Errorf("x-keyd-custody of ExportKey is %q", got)
	}
}

// must ends the test of a part that cannot go on.
func (s *sdkControl) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *sdkControl) makes() {
	out, err := s.c.CreateKey(s.Context(), &control.CreateKeyInput{
		Exportable: aws.Bool(true), Enabled: aws.Bool(true), KeyCheckValueAlgorithm: types.KeyCheckValueAlgorithmAnsiX924,
		KeyAttributes: attributes(types.KeyUsageTr31P0PinEncryptionKey, types.KeyAlgorithmTdes3key, bothModes()),
		Tags:          []types.Tag{{Key: aws.String("estate"), Value: aws.String("north")}, {Key: aws.String("keyd:iso4-pan"), Value: aws.String("full")}},
	})
	s.must(err)
	s.key = out.Key
	k := out.Key
	switch {
	case !strings.HasPrefix(*k.KeyArn, "arn:aws:payment-cryptography:"+devRegion+":000000000000:key/"),
		!*k.Enabled || !*k.Exportable, k.KeyState != types.KeyStateCreateComplete, k.KeyOrigin != types.KeyOriginAwsPaymentCryptography,
		k.KeyCheckValueAlgorithm != types.KeyCheckValueAlgorithmAnsiX924, len(*k.KeyCheckValue) != 6,
		k.KeyAttributes.KeyAlgorithm != types.KeyAlgorithmTdes3key, *k.KeyAttributes.KeyModesOfUse != bothModes(),
		time.Since(*k.CreateTimestamp).Abs() > time.Hour, !k.CreateTimestamp.Equal(*k.UsageStartTimestamp), k.UsageStopTimestamp != nil:
		s.Errorf("key %+v", k)
	}
	got, err := s.c.GetKey(s.Context(), &control.GetKeyInput{KeyIdentifier: k.KeyArn})
	s.must(err)
	if *got.Key.KeyCheckValue != *k.KeyCheckValue || *got.Key.KeyArn != *k.KeyArn {
		s.Errorf("GetKey has %s", *got.Key.KeyArn)
	}
}

func (s *sdkControl) aliases() {
	const name = "alias/sdk/zone/A-1_b"
	made, err := s.c.CreateAlias(s.Context(), &control.CreateAliasInput{AliasName: aws.String(name), KeyArn: s.key.KeyArn})
	s.must(err)
	if *made.Alias.AliasName != name || *made.Alias.KeyArn != *s.key.KeyArn {
		s.Errorf("made %+v", made.Alias)
	}
	aliasARN := strings.Replace((*s.key.KeyArn)[:strings.LastIndex(*s.key.KeyArn, "key/")], "key/", "", 1) + name
	for _, as := range []string{name, aliasARN} {
		if got, err := s.c.GetKey(s.Context(), &control.GetKeyInput{KeyIdentifier: &as}); err != nil || *got.Key.KeyArn != *s.key.KeyArn {
			s.Errorf("by %s: %v", as, err)
		}
	}
	if _, err := s.c.UpdateAlias(s.Context(), &control.UpdateAliasInput{AliasName: aws.String(name)}); err != nil {
		s.Error(err)
	}
	got, err := s.c.GetAlias(s.Context(), &control.GetAliasInput{AliasName: aws.String(name)})
	if err != nil || got.Alias.KeyArn != nil {
		s.Errorf("an alias without a key: %+v, %v", got, err)
	}
	if _, err := s.c.UpdateAlias(s.Context(), &control.UpdateAliasInput{AliasName: aws.String(name), KeyArn: s.key.KeyArn}); err != nil {
		s.Error(err)
	}
	list, err := s.c.ListAliases(s.Context(), &control.ListAliasesInput{KeyArn: s.key.KeyArn})
	if err != nil || len(list.Aliases) != 1 || *list.Aliases[0].AliasName != name {
		s.Errorf("aliases of the key: %+v, %v", list, err)
	}
	if _, err := s.c.DeleteAlias(s.Context(), &control.DeleteAliasInput{AliasName: aws.String(name)}); err != nil {
		s.Error(err)
	}
	_, err = s.c.GetAlias(s.Context(), &control.GetAliasInput{AliasName: aws.String(name)})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) || aws.ToString(missing.ResourceId) != name {
		s.Errorf("a deleted alias: %v", err)
	}
}

func (s *sdkControl) tags() {
	_, err := s.c.TagResource(s.Context(), &control.TagResourceInput{ResourceArn: s.key.KeyArn, Tags: []types.Tag{
		{Key: aws.String("keyd:warn-percent"), Value: aws.String("50,80")}, {Key: aws.String("Ümlaut 键"), Value: aws.String("a=b/c:d + \"e\"")},
	}})
	s.must(err)
	if _, err := s.c.UntagResource(s.Context(), &control.UntagResourceInput{ResourceArn: s.key.KeyArn, TagKeys: []string{"estate"}}); err != nil {
		s.Error(err)
	}
	list, err := s.c.ListTagsForResource(s.Context(), &control.ListTagsForResourceInput{ResourceArn: s.key.KeyArn})
	s.must(err)
	var got []string
	for _, tag := range list.Tags {
		got = append(got, *tag.Key+"="+*tag.Value)
	}
	slices.Sort(got)
	want := []string{"keyd:iso4-pan=full", "keyd:warn-percent=50,80", "Ümlaut 键=a=b/c:d + \"e\""}
	if !slices.Equal(got, want) {
		s.Errorf("tags %q, want %q", got, want)
	}
}

// pages walks through every list with the SDK's own paginators.
func (s *sdkControl) pages() {
	var tags []types.Tag
	for i := range 23 {
		tags = append(tags, types.Tag{Key: aws.String(fmt.Sprintf("t%02d", i)), Value: aws.String("v")})
	}
	_, err := s.c.TagResource(s.Context(), &control.TagResourceInput{ResourceArn: s.key.KeyArn, Tags: tags})
	s.must(err)
	for i := range 7 {
		_, err := s.c.CreateAlias(s.Context(), &control.CreateAliasInput{AliasName: aws.String(fmt.Sprintf("alias/sdk/page/%d", i)), KeyArn: s.key.KeyArn})
		s.must(err)
	}
	all, err := s.c.ListKeys(s.Context(), &control.ListKeysInput{MaxResults: aws.Int32(100)})
	s.must(err)
	keys := make(map[string]bool)
	for p := control.NewListKeysPaginator(s.c, &control.ListKeysInput{MaxResults: aws.Int32(2), KeyState: types.KeyStateCreateComplete}); p.HasMorePages(); {
		page, err := p.NextPage(s.Context())
		s.must(err)
		if len(page.Keys) > 2 {
			s.Errorf("a page of %d", len(page.Keys))
		}
		for _, k := range page.Keys {
			keys[*k.KeyArn] = true
		}
	}
	if len(keys) != len(all.Keys) || !keys[*s.key.KeyArn] {
		s.Errorf("%d keys page by page, %d at once", len(keys), len(all.Keys))
	}
	aliases := 0
	for p := control.NewListAliasesPaginator(s.c, &control.ListAliasesInput{KeyArn: s.key.KeyArn, MaxResults: aws.Int32(3)}); p.HasMorePages(); {
		page, err := p.NextPage(s.Context())
		s.must(err)
		aliases += len(page.Aliases)
	}
	if aliases != 7 {
		s.Errorf("%d aliases page by page, want 7", aliases)
	}
	seen := 0
	for p := control.NewListTagsForResourcePaginator(s.c, &control.ListTagsForResourceInput{ResourceArn: s.key.KeyArn, MaxResults: aws.Int32(10)}); p.HasMorePages(); {
		page, err := p.NextPage(s.Context())
		s.must(err)
		seen += len(page.Tags)
	}
	if seen != 26 {
		s.Errorf("%d tags page by page, want 26", seen)
	}
	_, err = s.c.ListKeys(s.Context(), &control.ListKeysInput{NextToken: aws.String("of-another-list")})
	var invalid *types.ValidationException
	if !errors.As(err, &invalid) {
		s.Errorf("a token of nobody: %v", err)
	}
}

func (s *sdkControl) keyBlocks() {
	in, err := s.c.ImportKey(s.Context(), &control.ImportKeyInput{KeyMaterial: block("alias/dev/kek", blockZPK), Enabled: aws.Bool(true)})
	s.must(err)
	if k := in.Key; *k.KeyCheckValue != "F7AFA6" || k.KeyOrigin != types.KeyOriginExternal || k.KeyAttributes.KeyUsage != types.KeyUsageTr31P0PinEncryptionKey {
		s.Errorf("imported %+v", k)
	}
	out, err := s.c.ExportKey(s.Context(), &control.ExportKeyInput{
		ExportKeyIdentifier: in.Key.KeyArn,
		KeyMaterial: &types.ExportKeyMaterialMemberTr31KeyBlock{Value: types.ExportTr31KeyBlock{
			WrappingKeyIdentifier: aws.String("alias/dev/kek"),
			KeyBlockHeaders: &types.KeyBlockHeaders{
				KeyModesOfUse: &types.KeyModesOfUse{Encrypt: true, Wrap: true}, KeyExportability: types.KeyExportabilityNonExportable, KeyVersion: aws.String("00"),
			},
		}},
	})
	s.must(err)
	if w := out.WrappedKey; !strings.HasPrefix(*w.KeyMaterial, "D0112P0TE00N0000") || *w.KeyCheckValue != "F7AFA6" || w.WrappedKeyMaterialFormat != types.WrappedKeyMaterialFormatTr31KeyBlock {
		s.Errorf("exported %s", *w.WrappingKeyArn)
	}
	initial, err := s.c.ExportKey(s.Context(), &control.ExportKeyInput{
		ExportKeyIdentifier: aws.String("alias/dev/bdk-tdes"),
		KeyMaterial:         &types.ExportKeyMaterialMemberTr31KeyBlock{Value: types.ExportTr31KeyBlock{WrappingKeyIdentifier: aws.String("alias/dev/kek")}},
		ExportAttributes: &types.ExportAttributes{
			ExportDukptInitialKey:  &types.ExportDukptInitialKey{KeySerialNumber: aws.String("FFFF9876543210E00000")},
			KeyCheckValueAlgorithm: types.KeyCheckValueAlgorithmAnsiX924,
		},
	})
	s.must(err)
	// The published initial key 6AC292FAA1315B4D858AB3A3D7D5933A.
	if w := initial.WrappedKey; !strings.HasPrefix(*w.KeyMaterial, "D") || (*w.KeyMaterial)[5:7] != "B1" || *w.KeyCheckValue != "AF8C07" {
		s.Errorf("initial key with the check value %s", *w.KeyCheckValue)
	}
}

func (s *sdkControl) cryptograms() {
	params, err := s.c.GetParametersForImport(s.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048,
	})
	s.must(err)
	if until := time.Until(*params.ParametersValidUntilTimestamp); until < 29*24*time.Hour || until > 31*24*time.Hour {
		s.Errorf("parameters live for %v", until)
	}
	wrapping := s.certificate(*params.WrappingKeyCertificate)
	s.must(wrapping.CheckSignatureFrom(s.certificate(*params.WrappingKeyCertificateChain)))
	value, err := hex.DecodeString("A4795D7338988CC757946BFEBC8F1089") // alias/zmk-tdes of section 16
	s.must(err)
	cryptogram, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, wrapping.PublicKey.(*rsa.PublicKey), value, nil)
	s.must(err)
	out, err := s.c.ImportKey(s.Context(), &control.ImportKeyInput{KeyMaterial: &types.ImportKeyMaterialMemberKeyCryptogram{Value: types.ImportKeyCryptogram{
		KeyAttributes: attributes(types.KeyUsageTr31K0KeyEncryptionKey, types.KeyAlgorithmTdes2key, bothModes()),
		Exportable:    aws.Bool(true), ImportToken: params.ImportToken, WrappingSpec: types.WrappingKeySpecRsaOaepSha256,
		WrappedKeyCryptogram: aws.String(strings.ToUpper(hex.EncodeToString(cryptogram))),
	}}})
	s.must(err)
	if *out.Key.KeyCheckValue != "A2E5C9" {
		s.Errorf("check value %s", *out.Key.KeyCheckValue)
	}
	again, err := s.c.GetParametersForImport(s.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048, ReuseLastGeneratedToken: aws.Bool(true),
	})
	if err != nil || *again.ImportToken != *params.ImportToken {
		s.Errorf("the last token again: %v", err)
	}
	export, err := s.c.GetParametersForExport(s.Context(), &control.GetParametersForExportInput{
		KeyMaterialType: types.KeyMaterialTypeTr34KeyBlock, SigningKeyAlgorithm: types.KeyAlgorithmRsa2048,
	})
	s.must(err)
	s.certificate(*export.SigningKeyCertificate)
	if !strings.HasPrefix(*export.ExportToken, "export-token-") {
		s.Errorf("export token %s", *export.ExportToken)
	}
}

// certificate reads base64 of PEM.
func (s *sdkControl) certificate(text string) *x509.Certificate {
	s.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	s.must(err)
	block, _ := pem.Decode(raw)
	if block == nil {
		s.Fatal("no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	s.must(err)
	return cert
}

func (s *sdkControl) certificates() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Partner root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	s.must(err)
	text := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	out, err := s.c.ImportKey(s.Context(), &control.ImportKeyInput{KeyMaterial: &types.ImportKeyMaterialMemberRootCertificatePublicKey{Value: types.RootCertificatePublicKey{
		KeyAttributes: &types.KeyAttributes{
			KeyUsage: types.KeyUsageTr31S0AsymmetricKeyForDigitalSignature, KeyClass: types.KeyClassPublicKey,
			KeyAlgorithm: types.KeyAlgorithmEccNistP256, KeyModesOfUse: &types.KeyModesOfUse{Verify: true},
		},
		PublicKeyCertificate: &text,
	}}})
	s.must(err)
	if out.Key.KeyCheckValueAlgorithm != types.KeyCheckValueAlgorithmSha1 {
		s.Errorf("check value by %s", out.Key.KeyCheckValueAlgorithm)
	}
	got, err := s.c.GetPublicKeyCertificate(s.Context(), &control.GetPublicKeyCertificateInput{KeyIdentifier: out.Key.KeyArn})
	s.must(err)
	if !s.certificate(*got.KeyCertificate).Equal(s.certificate(text)) {
		s.Error("another certificate than the one that came in")
	}
}

func (s *sdkControl) lives() {
	stop, err := s.c.StopKeyUsage(s.Context(), &control.StopKeyUsageInput{KeyIdentifier: s.key.KeyArn})
	s.must(err)
	if *stop.Key.Enabled || stop.Key.UsageStopTimestamp == nil {
		s.Error("a stopped key is in use")
	}
	start, err := s.c.StartKeyUsage(s.Context(), &control.StartKeyUsageInput{KeyIdentifier: s.key.KeyArn})
	s.must(err)
	if !*start.Key.Enabled {
		s.Error("a started key is not in use")
	}
	gone, err := s.c.DeleteKey(s.Context(), &control.DeleteKeyInput{KeyIdentifier: s.key.KeyArn, DeleteKeyInDays: aws.Int32(3)})
	s.must(err)
	if gone.Key.KeyState != types.KeyStateDeletePending || *gone.Key.Enabled || time.Until(*gone.Key.DeletePendingTimestamp) > 73*time.Hour {
		s.Errorf("after DeleteKey %+v", gone.Key)
	}
	list, err := s.c.ListKeys(s.Context(), &control.ListKeysInput{KeyState: types.KeyStateDeletePending})
	if err != nil || len(list.Keys) != 1 {
		s.Errorf("pending keys: %v", err)
	}
	back, err := s.c.RestoreKey(s.Context(), &control.RestoreKeyInput{KeyIdentifier: s.key.KeyArn})
	s.must(err)
	if back.Key.KeyState != types.KeyStateCreateComplete || *back.Key.Enabled || back.Key.DeletePendingTimestamp != nil {
		s.Errorf("after RestoreKey %+v", back.Key)
	}
}

// oddValues are at the ends of what the models admit.
func (s *sdkControl) oddValues() {
	longest := "alias/" + strings.Repeat("a/_-Z", 50) // 256 characters
	_, err := s.c.CreateAlias(s.Context(), &control.CreateAliasInput{AliasName: &longest, KeyArn: s.key.KeyArn})
	s.must(err)
	if got, err := s.c.GetKey(s.Context(), &control.GetKeyInput{KeyIdentifier: &longest}); err != nil || *got.Key.KeyArn != *s.key.KeyArn {
		s.Errorf("by the longest alias: %v", err)
	}
	value := strings.Repeat("€", 256)
	if _, err := s.c.TagResource(s.Context(), &control.TagResourceInput{ResourceArn: s.key.KeyArn, Tags: []types.Tag{
		{Key: aws.String(strings.Repeat("k", 128)), Value: &value}}}); err != nil {
		s.Errorf("the longest tag: %v", err)
	}
	foreign := "arn:aws:payment-cryptography:eu-west-1:000000000000:" + (*s.key.KeyArn)[strings.LastIndex(*s.key.KeyArn, "key/"):]
	_, err = s.c.GetKey(s.Context(), &control.GetKeyInput{KeyIdentifier: &foreign})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) || aws.ToString(missing.ResourceId) != foreign {
		s.Errorf("an ARN of another region: %v", err)
	}
	bare := (*s.key.KeyArn)[strings.LastIndex(*s.key.KeyArn, "/")+1:]
	_, err = s.c.GetKey(s.Context(), &control.GetKeyInput{KeyIdentifier: &bare})
	var invalid *types.ValidationException
	if !errors.As(err, &invalid) {
		s.Errorf("a bare id: %v", err)
	}
}
