package api_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	control "github.com/aws/aws-sdk-go-v2/service/paymentcryptography"
	"github.com/aws/aws-sdk-go-v2/service/paymentcryptography/types"
	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// The wrapping keys of section 16 of the API.
const (
	zmkTDES = "A4795D7338988CC757946BFEBC8F1089"
	zmkAES  = "0FA631684D70DF34BFB34A63293AB7BC04A23935B38B553B041EBF28E0D93085"
)

// newExchange is a bench with the wrapping keys of the examples.
func newExchange(tb testing.TB, changes ...func(*custody.Config)) *bench {
	tb.Helper()
	return newBench(tb, changes...)
}

// controlExample is one of testdata/examples.json.
type controlExample struct {
	ID, Operation     string
	Request, Response json.RawMessage
}

func exampleOf(tb testing.TB, id string) controlExample {
	tb.Helper()
	raw, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		tb.Fatal(err)
	}
	var all struct{ Examples []controlExample }
	if err := json.Unmarshal(raw, &all); err != nil {
		tb.Fatal(err)
	}
	for _, e := range all.Examples {
		if e.ID == id {
			return e
		}
	}
	tb.Fatalf("no example %s", id)
	return controlExample{}
}

// sameKey compares an answer with structure Key to an example's, but for what
// each keyd draws or reads off the clock.
func sameKey(tb testing.TB, got answer, want json.RawMessage) {
	tb.Helper()
	if got.status != 200 {
		tb.Fatalf("%d %s", got.status, got.body)
	}
	strip := func(raw []byte) map[string]any {
		var v struct{ Key map[string]any }
		if err := json.Unmarshal(raw, &v); err != nil {
			tb.Fatal(err)
		}
		for _, name := range []string{"KeyArn", "CreateTimestamp", "UsageStartTimestamp"} {
			if v.Key[name] == nil {
				tb.Errorf("no %s", name)
			}
			delete(v.Key, name)
		}
		return v.Key
	}
	if diff := cmp.Diff(strip(want), strip(got.body)); diff != "" {
		tb.Errorf("-want +got\n%s", diff)
	}
}

// opened opens an exported block in software and returns the key's digits.
func opened(tb testing.TB, text, kbpk string, a keys.Algorithm) (string, *tr31.Block) {
	tb.Helper()
	raw, err := hex.DecodeString(kbpk)
	if err != nil {
		tb.Fatal(err)
	}
	k, err := softkey.New(a, raw)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := tr31.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	value, err := block.Open(k, a, tr31.Policy{})
	if err != nil {
		tb.Fatal(err)
	}
	return strings.ToUpper(hex.EncodeToString(value.Reveal())), block
}

// TestImportExamples runs the examples of section 11.2 that are the same in
// every keyd.
func TestImportExamples(t *testing.T) {
	b := newExchange(t)
	admin := b.client(t, "admin")
	for _, id := range []string{"import-tr31", "import-root"} {
		t.Run(id, func(t *testing.T) {
			e := exampleOf(t, id)
			got := b.call(t, admin, e.Operation, string(e.Request), "amz-sdk-invocation-id", "once-"+id)
			sameKey(t, got, e.Response)
			executed(id)
			again := b.call(t, admin, e.Operation, string(e.Request), "amz-sdk-invocation-id", "once-"+id)
			if string(again.body) != string(got.body) {
				t.Errorf("the repeat: %s", again.body)
			}
			if id == "import-tr31" && got.header.Get("X-Keyd-Custody") != "process" {
				t.Errorf("custody %q", got.header.Get("X-Keyd-Custody"))
			}
			if id != "import-root" {
				return
			}
			root := got.json(t)["Key"].(map[string]any)["KeyArn"].(string)
			sameKey(t, b.call(t, admin, "GetKey", fmt.Sprintf(`{"KeyIdentifier":%q}`, root)), e.Response)
			trusted := exampleOf(t, "import-trusted")
			text := strings.ReplaceAll(string(trusted.Request), "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/8y43lilo5wb0jgrzq9rsqvpxskdvvhc2", root)
			leaf := b.call(t, admin, trusted.Operation, text)
			sameKey(t, leaf, trusted.Response)
			executed("import-trusted")
			arn := leaf.json(t)["Key"].(map[string]any)["KeyArn"].(string)
			chain := b.call(t, admin, "GetPublicKeyCertificate", fmt.Sprintf(`{"KeyIdentifier":%q}`, arn)).json(t)
			if got := certificatesOf(t, chain["KeyCertificate"]); len(got) != 1 || got[0].Subject.CommonName != "Partner example signer" {
				t.Errorf("certificate %v", got)
			}
			if got := certificatesOf(t, chain["KeyCertificateChain"]); len(got) != 1 || got[0].Subject.CommonName != "Partner example root" {
				t.Errorf("chain %v", got)
			}
			// A leaf that vouches for itself, and one under a foreign authority.
			if bad := b.call(t, admin, trusted.Operation, strings.ReplaceAll(string(trusted.Request), "8y43lilo5wb0jgrzq9rsqvpxskdvvhc2", strings.Repeat("a", 32))); bad.status != 400 || !strings.Contains(string(bad.body), "ResourceNotFound") {
				t.Errorf("an unknown authority: %s", bad.body)
			}
			if bad := b.call(t, admin, trusted.Operation, strings.ReplaceAll(text, root, arn)); bad.status != 400 || !strings.Contains(string(bad.body), "not signed by its authority") {
				t.Errorf("another authority: %s", bad.body)
			}
		})
	}
}

func certificatesOf(tb testing.TB, text any) []*x509.Certificate {
	tb.Helper()
	raw, err := base64.StdEncoding.DecodeString(text.(string))
	if err != nil {
		tb.Fatal(err)
	}
	var all []*x509.Certificate
	for len(raw) > 0 {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			tb.Fatal("no PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, cert)
	}
	return all
}

// TestExportExamples runs the examples of section 11.3: the blocks hold what
// those of the examples hold.
func TestExportExamples(t *testing.T) {
	b := newExchange(t)
	admin := b.client(t, "admin")
	for _, c := range []struct {
		id, value string
		header    int // characters that every keyd writes alike
	}{
		{"export-tr31", "49049D94F1F1929B1A83192CF71038CB", 16},
		{"export-ipek-tdes", "6AC292FAA1315B4D858AB3A3D7D5933A", 48},
		{"export-ipek-aes", "1273671EA26AC29AFA4D1084127652A1", 48},
	} {
		t.Run(c.id, func(t *testing.T) {
			e := exampleOf(t, c.id)
			got := b.call(t, admin, e.Operation, string(e.Request))
			if got.status != 200 || got.header.Get("X-Keyd-Custody") != "process" {
				t.Fatalf("%d %s", got.status, got.body)
			}
			var want, have struct{ WrappedKey map[string]string }
			if err := errors.Join(json.Unmarshal(e.Response, &want), json.Unmarshal(got.body, &have)); err != nil {
				t.Fatal(err)
			}
			wantBlock, haveBlock := want.WrappedKey["KeyMaterial"], have.WrappedKey["KeyMaterial"]
			if len(wantBlock) != len(haveBlock) || wantBlock[:c.header] != haveBlock[:c.header] {
				t.Errorf("header %q, want %q", haveBlock[:c.header], wantBlock[:c.header])
			}
			for _, text := range []string{wantBlock, haveBlock} {
				if value, _ := opened(t, text, zmkAES, keys.AES256); value != c.value {
					t.Errorf("the block holds another key")
				}
			}
			executed(c.id)
			want.WrappedKey["WrappingKeyArn"], want.WrappedKey["KeyMaterial"] = b.arn("alias/zmk-aes"), haveBlock
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestImportParameters runs the examples of an RSA cryptogram with this keyd's
// own wrapping key, by the SDK.
func TestImportParameters(t *testing.T) {
	b := newExchange(t)
	admin := controlClient(t, b, "admin")
	e := exampleOf(t, "params-import")
	raw := b.call(t, b.client(t, "admin"), e.Operation, string(e.Request))
	var want map[string]any
	if err := json.Unmarshal(e.Response, &want); err != nil {
		t.Fatal(err)
	}
	have := raw.json(t)
	if diff := cmp.Diff(names(want), names(have)); diff != "" {
		t.Errorf("members -want +got\n%s", diff)
	}
	executed("params-import")
	leaf, chain := certificatesOf(t, have["WrappingKeyCertificate"]), certificatesOf(t, have["WrappingKeyCertificateChain"])
	if err := leaf[0].CheckSignatureFrom(chain[0]); err != nil || !chain[0].IsCA {
		t.Errorf("the chain: %v", err)
	}
	out, err := admin.GetParametersForImport(t.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048, ReuseLastGeneratedToken: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.ImportToken) != have["ImportToken"] || aws.ToString(out.WrappingKeyCertificate) != have["WrappingKeyCertificate"] {
		t.Error("a token with 30 days left was not given out again")
	}
	fresh, err := admin.GetParametersForImport(t.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048,
	})
	if err != nil || aws.ToString(fresh.ImportToken) == aws.ToString(out.ImportToken) {
		t.Errorf("a new token was asked for: %v", err)
	}
	value, err := hex.DecodeString(zmkTDES)
	if err != nil {
		t.Fatal(err)
	}
	public := leaf[0].PublicKey.(*rsa.PublicKey)
	for spec, hash := range map[types.WrappingKeySpec]crypto.Hash{types.WrappingKeySpecRsaOaepSha256: crypto.SHA256, types.WrappingKeySpecRsaOaepSha512: crypto.SHA512} {
		cryptogram, err := rsa.EncryptOAEP(hash.New(), rand.Reader, public, value, nil)
		if err != nil {
			t.Fatal(err)
		}
		e := exampleOf(t, "import-cryptogram")
		var in map[string]any
		if err := json.Unmarshal(e.Request, &in); err != nil {
			t.Fatal(err)
		}
		material := in["KeyMaterial"].(map[string]any)["KeyCryptogram"].(map[string]any)
		material["WrappedKeyCryptogram"], material["ImportToken"], material["WrappingSpec"] = fmt.Sprintf("%X", cryptogram), have["ImportToken"], string(spec)
		body, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		sameKey(t, b.call(t, b.client(t, "admin"), "ImportKey", string(body)), e.Response)
		executed("import-cryptogram")

		material["KeyAttributes"].(map[string]any)["KeyAlgorithm"] = "AES_128"
		if body, err = json.Marshal(in); err != nil {
			t.Fatal(err)
		}
		if got := b.call(t, b.client(t, "admin"), "ImportKey", string(body)); !strings.Contains(string(got.body), "not one for this key algorithm") && !strings.Contains(string(got.body), "stronger than the wrapping key") {
			t.Errorf("AES_128 under RSA_2048: %s", got.body)
		}
	}
	if _, err := controlClient(t, b, "operator").GetParametersForImport(t.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048,
	}); err == nil {
		t.Error("an operator got import parameters")
	}
}

// TestExportParameters runs the example of GetParametersForExport: a key that
// can sign and does, with this keyd's own values.
func TestExportParameters(t *testing.T) {
	b := newExchange(t)
	e := exampleOf(t, "params-export")
	var want map[string]any
	if err := json.Unmarshal(e.Response, &want); err != nil {
		t.Fatal(err)
	}
	have := b.call(t, b.client(t, "admin"), e.Operation, string(e.Request)).json(t)
	if diff := cmp.Diff(names(want), names(have)); diff != "" {
		t.Errorf("members -want +got\n%s", diff)
	}
	executed("params-export")
	leaf, chain := certificatesOf(t, have["SigningKeyCertificate"]), certificatesOf(t, have["SigningKeyCertificateChain"])
	if err := leaf[0].CheckSignatureFrom(chain[0]); err != nil || leaf[0].KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("the chain: %v, key usage %v", err, leaf[0].KeyUsage)
	}
	out, err := controlClient(t, b, "admin").GetParametersForExport(t.Context(), &control.GetParametersForExportInput{
		KeyMaterialType: types.KeyMaterialTypeTr34KeyBlock, SigningKeyAlgorithm: types.KeyAlgorithmRsa2048, ReuseLastGeneratedToken: aws.Bool(true),
	})
	if err != nil || aws.ToString(out.ExportToken) != have["ExportToken"] {
		t.Errorf("reuse: %v", err)
	}
	in, err := controlClient(t, b, "admin").GetParametersForImport(t.Context(), &control.GetParametersForImportInput{
		KeyMaterialType: types.KeyMaterialTypeKeyCryptogram, WrappingKeyAlgorithm: types.KeyAlgorithmRsa2048, ReuseLastGeneratedToken: aws.Bool(true),
	})
	if err != nil || !strings.HasPrefix(aws.ToString(in.ImportToken), "import-token-") {
		t.Errorf("a signing key was given out to wrap under: %v", err)
	}
}

func names(v map[string]any) []string { return slices.Sorted(maps.Keys(v)) }

// TestExchangeSDK: a key goes out by the SDK and comes in again.
func TestExchangeSDK(t *testing.T) {
	b := newExchange(t)
	admin := controlClient(t, b, "admin")
	out, err := admin.ExportKey(t.Context(), &control.ExportKeyInput{
		ExportKeyIdentifier: aws.String("alias/zpk-b"),
		KeyMaterial: &types.ExportKeyMaterialMemberTr31KeyBlock{Value: types.ExportTr31KeyBlock{
			WrappingKeyIdentifier: aws.String("alias/zmk-aes"),
			KeyBlockHeaders: &types.KeyBlockHeaders{
				KeyModesOfUse: &types.KeyModesOfUse{Decrypt: true, Unwrap: true}, KeyExportability: types.KeyExportabilitySensitive,
				KeyVersion: aws.String("07"), OptionalBlocks: map[string]string{"LB": "zone1", "10": "x"},
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := aws.ToString(out.WrappedKey.KeyMaterial)
	if text[:16] != "D0144P0TD07S0300" {
		t.Errorf("header %q", text[:16])
	}
	in, err := admin.ImportKey(t.Context(), &control.ImportKeyInput{
		KeyMaterial: &types.ImportKeyMaterialMemberTr31KeyBlock{Value: types.ImportTr31KeyBlock{
			WrappingKeyIdentifier: aws.String("alias/zmk-aes"), WrappedKeyBlock: &text,
		}},
		Tags: []types.Tag{{Key: aws.String("partner"), Value: aws.String("a")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(in.Key.KeyCheckValue) != "893CDC" || in.Key.KeyOrigin != types.KeyOriginExternal || in.Key.KeyAttributes.KeyModesOfUse.Encrypt {
		t.Errorf("came in as %+v", in.Key)
	}
	again, err := admin.ExportKey(t.Context(), &control.ExportKeyInput{
		ExportKeyIdentifier: in.Key.KeyArn,
		KeyMaterial: &types.ExportKeyMaterialMemberTr31KeyBlock{Value: types.ExportTr31KeyBlock{
			WrappingKeyIdentifier: aws.String("alias/zmk-aes"),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, block := opened(t, aws.ToString(again.WrappedKey.KeyMaterial), zmkAES, keys.AES256)
	want := tr31.Header{
		Version: 'D', Usage: "P0", Algorithm: 'T', Mode: 'D', KeyVersion: "07", Exportability: 'S',
		Optional: []tr31.Optional{{ID: "10", Data: "x"}, {ID: "LB", Data: "zone1"}},
	}
	if diff := cmp.Diff(want, block.Header); diff != "" {
		t.Errorf("what the block said does not reappear: -want +got\n%s", diff)
	}
	_, err = admin.ExportKey(t.Context(), &control.ExportKeyInput{
		ExportKeyIdentifier: in.Key.KeyArn,
		KeyMaterial: &types.ExportKeyMaterialMemberTr31KeyBlock{Value: types.ExportTr31KeyBlock{
			WrappingKeyIdentifier: aws.String("alias/zmk-aes"), KeyBlockHeaders: &types.KeyBlockHeaders{KeyExportability: types.KeyExportabilityExportable},
		}},
	})
	var invalid *types.ValidationException
	if !errors.As(err, &invalid) {
		t.Errorf("widened: %v", err)
	}
}
