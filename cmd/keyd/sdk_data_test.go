//lint:file-ignore SA1019 there is no other official Go client of the data plane on the module proxy

package main

import (
	"strings"
	"testing"

	awsv2 "github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
	"github.com/aws/aws-sdk-go/aws"
	data "github.com/aws/aws-sdk-go/service/paymentcryptographydata"
)

// sdkData is the official client of the data plane at work.
type sdkData struct {
	*testing.T
	c    *data.PaymentCryptographyData
	wire *wireLog
	arn  map[string]string // of the keys that the tests made, by alias
}

// TestSDKData: aws-sdk-go v1 drives every operation of the data plane of a real
// daemon over mutual TLS, with keys that the other SDK made.
func TestSDKData(t *testing.T) {
	r := startDev(t, t.TempDir(), "--no-sim")
	defer r.stop()
	s := &sdkData{wire: r.wire("switch"), arn: makeDataKeys(t, r.controlSDK(r.wire("admin"), 1))}
	s.c = r.dataSDK(s.wire, 0)
	for _, part := range []struct {
		name string
		do   func(*sdkData)
	}{
		{"TranslatePinData", (*sdkData).translates}, {"static MACs", (*sdkData).staticMACs}, {"DUKPT MACs", (*sdkData).dukptMACs},
		{"extension algorithms", (*sdkData).extensions}, {"data keys", (*sdkData).symmetric}, {"DUKPT data keys", (*sdkData).dukptData},
		{"keys that travel", (*sdkData).dynamic}, {"guarded counters", (*sdkData).guarded}, {"large values", (*sdkData).large},
	} {
		t.Run(part.name, func(t *testing.T) {
			s.T = t
			part.do(s)
		})
	}
	wantEveryOperation(t, "data", s.wire)
	for path, class := range s.wire.custody {
		if class != "token" && class != "process" {
			t.Errorf("%s has x-keyd-custody %q", path, class)
		}
	}
}

// makeDataKeys makes a key of each kind and returns their ARNs by alias.
func makeDataKeys(t *testing.T, c *control.Client) map[string]string {
	t.Helper()
	arns := make(map[string]string)
	named := func(alias string, key *types.Key, err error) {
		t.Helper()
		if err == nil {
			_, err = c.CreateAlias(t.Context(), &control.CreateAliasInput{AliasName: &alias, KeyArn: key.KeyArn})
		}
		if err != nil {
			t.Fatalf("%s: %v", alias, err)
		}
		arns[alias] = *key.KeyArn
	}
	for alias, a := range map[string]*types.KeyAttributes{
		"alias/sdk/tak-1":     attributes(types.KeyUsageTr31M1Iso97971MacKey, types.KeyAlgorithmTdes2key, macMode()),
		"alias/sdk/tak-3":     attributes(types.KeyUsageTr31M3Iso97973MacKey, types.KeyAlgorithmTdes2key, macMode()),
		"alias/sdk/tak-cmac":  attributes(types.KeyUsageTr31M6Iso97975CmacKey, types.KeyAlgorithmAes256, macMode()),
		"alias/sdk/tak-hmac":  attributes(types.KeyUsageTr31M7HmacKey, types.KeyAlgorithm("HMAC_SHA512"), macMode()),
		"alias/sdk/zpk-aes":   attributes(types.KeyUsageTr31P0PinEncryptionKey, types.KeyAlgorithmAes256, bothModes()),
		"alias/sdk/data-3des": attributes(types.KeyUsageTr31D0SymmetricDataEncryptionKey, types.KeyAlgorithmTdes3key, bothModes()),
	} {
		out, err := c.CreateKey(t.Context(), &control.CreateKeyInput{Exportable: awsv2.Bool(false), KeyAttributes: a})
		if err != nil {
			t.Fatalf("%s: %v", alias, err)
		}
		named(alias, out.Key, nil)
	}
	guarded, err := c.CreateKey(t.Context(), &control.CreateKeyInput{
		Exportable: awsv2.Bool(false), Tags: []types.Tag{{Key: awsv2.String("keyd:ksn-guard"), Value: awsv2.String("monotonic")}},
		KeyAttributes: attributes(types.KeyUsageTr31B0BaseDerivationKey, types.KeyAlgorithmAes128, types.KeyModesOfUse{DeriveKey: true}),
	})
	if err != nil {
		t.Fatal(err)
	}
	named("alias/sdk/bdk-guarded", guarded.Key, nil)
	unionPay := []types.Tag{{Key: awsv2.String("keyd:mac-algorithm"), Value: awsv2.String("KEYD_UNIONPAY_ECB")}}
	for alias, in := range map[string]*control.ImportKeyInput{
		"alias/sdk/zpk":       {KeyMaterial: block("alias/dev/kek", blockZPK)},
		"alias/sdk/data-aes":  {KeyMaterial: block("alias/dev/kek", blockData)},
		"alias/sdk/mak/up_1":  {KeyMaterial: block("alias/dev/kek", blockMACUnionPay), Tags: unionPay},
		"alias/sdk/data/of-a": {KeyMaterial: block("alias/dev/kek", blockData)},
	} {
		out, err := c.ImportKey(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", alias, err)
		}
		named(alias, out.Key, nil)
	}
	return arns
}

// format names ISO format 0, 1, 3 or 4 for a PAN.
func format(n int, pan string) *data.TranslationIsoFormats {
	with := &data.TranslationPinDataIsoFormat034{PrimaryAccountNumber: &pan}
	switch n {
	case 0:
		return &data.TranslationIsoFormats{IsoFormat0: with}
	case 1:
		return &data.TranslationIsoFormats{IsoFormat1: &data.TranslationPinDataIsoFormat1{}}
	case 3:
		return &data.TranslationIsoFormats{IsoFormat3: with}
	}
	return &data.TranslationIsoFormats{IsoFormat4: with}
}

func dukptPIN(ksn string) *data.DukptDerivationAttributes {
	return &data.DukptDerivationAttributes{KeySerialNumber: &ksn}
}

// step is one translation of a chain: out of the key before, into this one.
type step struct {
	name, key string
	format    int
	ksn       string
	want      string // the block, where nothing in it is random
}

// translates walks one PIN, enciphered as X9.24-1 publishes it for counter 1,
// through every format and kind of key and back to the block that it was.
func (s *sdkData) translates() {
	const pan = "4012345678909"
	block, from := "1B9C1845EB993A7A", step{key: "alias/dev/bdk-tdes", ksn: "FFFF9876543210E00001"}
	for _, to := range []step{
		{"TDES DUKPT, format 0, to a static key", "alias/sdk/zpk", 0, "", "DCBAC0ABA559F78B"},
		{"to format 3, by ARN", s.arn["alias/sdk/zpk"], 3, "", ""},
		{"to format 4 under AES", "alias/sdk/zpk-aes", 4, "", ""},
		{"to AES DUKPT", "alias/dev/bdk-aes", 4, "123456789012345600000001", ""},
		{"back to the static key", "alias/sdk/zpk", 0, "", "DCBAC0ABA559F78B"},
		{"to TDES DUKPT", "alias/dev/bdk-tdes", 0, "FFFF9876543210E00001", "1B9C1845EB993A7A"},
	} {
		in := &data.TranslatePinDataInput{
			IncomingKeyIdentifier: aws.String(from.key), IncomingTranslationAttributes: format(from.format, pan), EncryptedPinBlock: aws.String(block),
			OutgoingKeyIdentifier: aws.String(to.key), OutgoingTranslationAttributes: format(to.format, pan),
		}
		if from.ksn != "" {
			in.IncomingDukptAttributes = dukptPIN(from.ksn)
		}
		if to.ksn != "" {
			in.OutgoingDukptAttributes = dukptPIN(to.ksn)
		}
		out, err := s.c.TranslatePinData(in)
		if err != nil {
			s.Fatalf("%s: %v", to.name, err)
		}
		if want := map[bool]int{true: 32, false: 16}[to.format == 4]; len(*out.PinBlock) != want || to.want != "" && *out.PinBlock != to.want {
			s.Errorf("%s: another PIN block", to.name)
		}
		block, from = *out.PinBlock, to
	}
	// tp-static-1-to-3 of the API, where an empty structure must reach the wire.
	out, err := s.c.TranslatePinData(&data.TranslatePinDataInput{
		IncomingKeyIdentifier: aws.String("alias/sdk/zpk"), IncomingTranslationAttributes: format(0, "4111111111111111"), EncryptedPinBlock: aws.String("A0BA774BB147CC0F"),
		OutgoingKeyIdentifier: aws.String("alias/dev/bdk-tdes"), OutgoingTranslationAttributes: format(0, "4111111111111111"),
		OutgoingDukptAttributes: dukptPIN("FFFF9876543210E00002"),
	})
	if err != nil || *out.PinBlock != "95B323631DE613AE" || *out.KeyCheckValue != "08D7B4" {
		s.Errorf("tp-out-dukpt-tdes: %v", err)
	}
	_, err = s.c.TranslatePinData(&data.TranslatePinDataInput{
		IncomingKeyIdentifier: aws.String("alias/sdk/zpk"), IncomingTranslationAttributes: format(1, ""), EncryptedPinBlock: aws.String("A0BA774BB147CC0F"),
		OutgoingKeyIdentifier: aws.String("alias/sdk/zpk"), OutgoingTranslationAttributes: format(1, ""),
	})
	if err == nil || !strings.Contains(err.Error(), "the PIN block was not accepted") {
		s.Errorf("a block of another format: %v", err)
	}
}

// sale is the message of the API's examples, in hexadecimal.
const sale = "30323030333232303034383030304330303030313030303030303030303030303030313030303131323132323135303030303031323330353130305445524D303030314D45524348414E5430303030303031"

// mac makes a MAC and verifies it; it returns it.
func (s *sdkData) mac(key, message string, with *data.MacAttributes, length *int64) string {
	s.Helper()
	made, err := s.c.GenerateMac(&data.GenerateMacInput{KeyIdentifier: &key, MessageData: &message, GenerationAttributes: with, MacLength: length})
	if err != nil {
		s.Errorf("%s: %v", key, err)
		return ""
	}
	good, err := s.c.VerifyMac(&data.VerifyMacInput{KeyIdentifier: &key, MessageData: &message, Mac: made.Mac, VerificationAttributes: with, MacLength: length})
	if err != nil || *good.KeyArn != *made.KeyArn || *good.KeyCheckValue != *made.KeyCheckValue {
		s.Errorf("%s: verifying: %v", key, err)
	}
	return *made.Mac
}

func (s *sdkData) staticMACs() {
	for _, c := range []struct {
		key, algorithm string
		length         *int64
		bytes          int
	}{
		{"alias/sdk/tak-1", "ISO9797_ALGORITHM1", nil, 4},
		{"alias/sdk/tak-3", "ISO9797_ALGORITHM3", aws.Int64(8), 8},
		{s.arn["alias/sdk/tak-cmac"], "CMAC", nil, 16},
		{"alias/sdk/tak-hmac", "HMAC", aws.Int64(32), 32},
		{"alias/sdk/tak-hmac", "HMAC_SHA512", nil, 64},
		{"alias/dev/zak", "ISO9797_ALGORITHM3", nil, 4},
	} {
		mac := s.mac(c.key, sale+"000000000000", &data.MacAttributes{Algorithm: aws.String(c.algorithm)}, c.length)
		if len(mac) != 2*c.bytes {
			s.Errorf("%s under %s: %d bytes, want %d", c.algorithm, c.key, len(mac)/2, c.bytes)
		}
	}
}

func (s *sdkData) dukptMACs() {
	dukpt := func(ksn, variant string) *data.MacAlgorithmDukpt {
		return &data.MacAlgorithmDukpt{KeySerialNumber: &ksn, DukptKeyVariant: &variant}
	}
	const published = "343031323334353637383930394439383700000000000000"
	for _, c := range []struct {
		name, key, message, want string
		with                     *data.MacAttributes
		length                   *int64
	}{
		{"gm-dukpt-alg3", "alias/dev/bdk-tdes", published, "9CCC78173FC4FB64", &data.MacAttributes{DukptIso9797Algorithm3: dukpt("FFFF9876543210E00001", "REQUEST")}, aws.Int64(8)},
		{"gm-dukpt-alg1", "alias/dev/bdk-tdes", sale + "000000000000", "9D1DC061", &data.MacAttributes{DukptIso9797Algorithm1: dukpt("FFFF9876543210E00003", "RESPONSE")}, nil},
		{"gm-dukpt-cmac", "alias/dev/bdk-aes", sale, "A33EF51FEC39BC5475FF7A152164D27A", &data.MacAttributes{DukptCmac: dukpt("123456789012345600000001", "REQUEST")}, nil},
	} {
		if got := s.mac(c.key, c.message, c.with, c.length); got != c.want {
			s.Errorf("%s: another MAC", c.name)
		}
	}
}

// extensions are values that the SDK's model lacks: its enums are text.
func (s *sdkData) extensions() {
	const message = "3230313630393133323031363039313332303136303931333230313630393133"
	for _, key := range []string{"alias/sdk/mak/up_1", s.arn["alias/sdk/mak/up_1"]} {
		if got := s.mac(key, message, &data.MacAttributes{Algorithm: aws.String("KEYD_UNIONPAY_ECB")}, nil); got != "3330323731433734" {
			s.Errorf("gm-unionpay under %s: another MAC", key)
		}
	}
}
