package api_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
	softhsmtest "keyd.dev/keyd/softhsm-test"
)

// The message of NIST SP 800-38A, annex F, two blocks of AES and four of TDES;
// initial vectors; keys of the annex and of the tests.
const (
	dataPlain  = "6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E51"
	vectorTDES = "0001020304050607"
	vectorAES  = "000102030405060708090A0B0C0D0E0F"
	dataTDES2  = "AE015761A22523D06D8F25B908CD86FE"
	dataTDES3  = "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E"
	dataAES128 = "2B7E151628AED2A6ABF7158809CF4F3C"
	dataAES256 = "603DEB1015CA71BE2B73AEF0857D77811F352C073B6108D72D9810A30914DFF4"
)

// dataKeys are the keys that the tests of data operations have besides those of
// the examples.
func dataKeys() []exampleKey {
	return []exampleKey{
		{"alias/pay/data-tdes", "", keys.UsageData, keys.TDES2, keys.ModeBoth, dataTDES2, nil},
		{"alias/pay/data-tdes3", "", keys.UsageData, keys.TDES3, keys.ModeAny, dataTDES3, nil},
		{"alias/pay/data-aes", "", keys.UsageData, keys.AES128, keys.ModeBoth, dataAES128, nil},
		{"alias/pay/data-aes256", "", keys.UsageData, keys.AES256, keys.ModeAny, dataAES256, nil},
		{"alias/pay/data-in", "", keys.UsageData, keys.AES128, keys.ModeDecrypt, "8E73B0F7DA0E6452C810F32B809079E5", nil},
		{"alias/pay/data-out", "", keys.UsageData, keys.AES128, keys.ModeEncrypt, "62F8EAD2522C6B7B8E73B0F7DA0E6452", nil},
	}
}

// newDataBench is a bench with these keys.
func newDataBench(tb testing.TB, changes ...func(*custody.Config)) *bench {
	tb.Helper()
	b := newBench(tb, changes...)
	for _, k := range dataKeys() {
		b.importKey(tb, k)
	}
	return b
}

// symmetric and dukptOf are the members of the union, for a key and mode.
func symmetric(mode, iv string) string {
	if iv != "" {
		iv = fmt.Sprintf(`,"InitializationVector":%q`, iv)
	}
	return fmt.Sprintf(`{"Symmetric":{"Mode":%q%s}}`, mode, iv)
}

func dukptOf(ksn, more string) string {
	return fmt.Sprintf(`{"Dukpt":{"KeySerialNumber":%q%s}}`, ksn, more)
}

func encryptBody(key, attributes, plain, more string) string {
	return fmt.Sprintf(`{"KeyIdentifier":%q,"EncryptionAttributes":%s,"PlainText":%q%s}`, key, attributes, plain, more)
}

func decryptBody(key, attributes, ciphered, more string) string {
	return fmt.Sprintf(`{"KeyIdentifier":%q,"DecryptionAttributes":%s,"CipherText":%q%s}`, key, attributes, ciphered, more)
}

func reencryptBody(in, out, from, to, ciphered, more string) string {
	return fmt.Sprintf(`{"IncomingKeyIdentifier":%q,"OutgoingKeyIdentifier":%q,"IncomingEncryptionAttributes":%s,"OutgoingEncryptionAttributes":%s,"CipherText":%q%s}`,
		in, out, from, to, ciphered, more)
}

// dataVector is a key, how it is used, and what comes out.
type dataVector struct {
	name, key, attributes, ciphered string
	class                           string
}

// dataVectors are known answers: of NIST SP 800-38A for AES, of OpenSSL for
// TDES, and of OpenSSL with the published data keys of X9.24-1 (A.4) and X9.24-3
// for DUKPT. The plain text is dataPlain.
func dataVectors() []dataVector {
	const tdesKSN, aesKSN = "FFFF9876543210E00001", "123456789012345600000001"
	return []dataVector{
		{"AES-128 ECB", "alias/pay/data-aes", symmetric("ECB", ""), "3AD77BB40D7A3660A89ECAF32466EF97F5D3D58503B9699DE785895A96FDBAAF", "token"},
		{"AES-128 CBC", "alias/pay/data-aes", symmetric("CBC", vectorAES), "7649ABAC8119B246CEE98E9B12E9197D5086CB9B507219EE95DB113A917678B2", "token"},
		{"AES-256 CBC", "alias/pay/data-aes256", symmetric("CBC", vectorAES), "F58C4C04D6E5F1BA779EABFB5F7BFBD69CFC4E967EDB808D679F777BC6702C7D", "token"},
		{"AES-128 CFB", "alias/pay/data-aes", symmetric("CFB", vectorAES), "3B3FD92EB72DAD20333449F8E83CFB4AC8A64537A0B3A93FCDE3CDAD9F1CE58B", "token"},
		{"AES-128 CFB128", "alias/pay/data-aes", symmetric("CFB128", vectorAES), "3B3FD92EB72DAD20333449F8E83CFB4AC8A64537A0B3A93FCDE3CDAD9F1CE58B", "token"},
		{"AES-256 CFB128", "alias/pay/data-aes256", symmetric("CFB128", vectorAES), "DC7E84BFDA79164B7ECD8486985D386039FFED143B28B1C832113C6331E5407B", "token"},
		{"AES-128 OFB", "alias/pay/data-aes", symmetric("OFB", vectorAES), "3B3FD92EB72DAD20333449F8E83CFB4A7789508D16918F03F53C52DAC54ED825", "token"},
		{"AES-256 OFB", "alias/pay/data-aes256", symmetric("OFB", vectorAES), "DC7E84BFDA79164B7ECD8486985D38604FEBDC6740D20B3AC88F6AD82A4FB08D", "token"},
		{"TDES-2 ECB", "alias/pay/data-tdes", symmetric("ECB", ""), "718DF3B9F7C4476A78E46A04725EACA9C004263BEB5C9B63C9F4734EE4ED0D70", "token"},
		{"TDES-3 ECB", "alias/pay/data-tdes3", symmetric("ECB", ""), "AC60602574905E15C97A4573FDD2125552EAE1AB1B8EECC7F8CBD3F803EF98F9", "token"},
		{"TDES-2 CBC", "alias/pay/data-tdes", symmetric("CBC", vectorTDES), "23D5732D750C05E719F9429ECA08C48B036BE61DFBE701637F3656C55E8F6F2D", "token"},
		{"TDES-3 CBC", "alias/pay/data-tdes3", symmetric("CBC", vectorTDES), "084275D2B8D4A0786A6FC08B5D45876511731966E8D59BEBA1D25DF1407DAA00", "token"},
		{"TDES-2 CFB", "alias/pay/data-tdes", symmetric("CFB", vectorTDES), "E76093DA799EA98F7BBD4C4FB66A20B72C6E06DC38B572E0F9BE388562228042", "token"},
		{"TDES-2 CFB64", "alias/pay/data-tdes", symmetric("CFB64", vectorTDES), "E76093DA799EA98F7BBD4C4FB66A20B72C6E06DC38B572E0F9BE388562228042", "token"},
		{"TDES-2 CFB1", "alias/pay/data-tdes", symmetric("CFB1", vectorTDES), "B35924FF09701CA110C2DD97FD865175AB4E1C9FB1FCDC31EF0A6AC5180C5F97", "token"},
		{"TDES-3 CFB8", "alias/pay/data-tdes3", symmetric("CFB8", vectorTDES), "447FF1481502131ACFF6696695EC1BB645F8787364E35692BCCE341253272983", "token"},
		{"TDES-3 OFB", "alias/pay/data-tdes3", symmetric("OFB", vectorTDES), "449EA09E321C2A8719B136BBCFD4679319D3ABFCD74A0FB81483D871D491FF44", "token"},
		{"TDES DUKPT, defaults", "alias/bdk-tdes", dukptOf(tdesKSN, ""), "6D50A23220410552F964BB911160488C1BFB789DC45E8C850082EA50346D745A", "process"},
		{"TDES DUKPT request CBC", "alias/bdk-tdes", dukptOf(tdesKSN, `,"Mode":"CBC","DukptKeyVariant":"REQUEST","DukptKeyDerivationType":"TDES_2KEY","InitializationVector":"0000000000000000"`),
			"6D50A23220410552F964BB911160488C1BFB789DC45E8C850082EA50346D745A", "process"},
		{"TDES DUKPT request ECB", "alias/bdk-tdes", dukptOf(tdesKSN, `,"Mode":"ECB"`), "6D50A23220410552C26B3CABF0E3011808EB9A1CE674CCE33DC7C65363380961", "process"},
		{"TDES DUKPT response CBC", "alias/bdk-tdes", dukptOf(tdesKSN, `,"DukptKeyVariant":"RESPONSE"`), "16C5688A5081A353FD1829B4DD91DC662E7740C341AA93D5B7CDC58C9D94C35B", "process"},
		{"AES DUKPT 3000", "alias/bdk-aes", dukptOf(aesKSN, ""), "E05BCD545E2936DEC3749F8AD30C20F1F3A1DD6C72F3E374B7838809F01D414A", "process"},
		{"AES DUKPT 3000, in the token", "alias/bdk-aes-token", dukptOf(aesKSN, ""), "E05BCD545E2936DEC3749F8AD30C20F1F3A1DD6C72F3E374B7838809F01D414A", "token"},
		{"AES DUKPT 3001", "alias/bdk-aes", dukptOf(aesKSN, `,"DukptKeyVariant":"RESPONSE"`), underAES("16292C6EA8F64C5420A0584BFBC577BE"), "process"},
		{"AES DUKPT 3002", "alias/bdk-aes", dukptOf(aesKSN, `,"DukptKeyVariant":"BIDIRECTIONAL"`), underAES("A308E080DD15A1B741F1721BF67DE11C"), "process"},
		{"AES DUKPT 3002, in the token", "alias/bdk-aes-token", dukptOf(aesKSN, `,"DukptKeyVariant":"BIDIRECTIONAL"`), underAES("A308E080DD15A1B741F1721BF67DE11C"), "token"},
	}
}

// underAES is dataPlain under a published key in CBC mode, by the standard library.
func underAES(key string) string {
	raw, _ := hex.DecodeString(key)
	plain, _ := hex.DecodeString(dataPlain)
	c, err := secret.NewAES(raw)
	if err != nil {
		return err.Error()
	}
	out, err := c.Encrypt(make([]byte, 16), plain)
	if err != nil {
		return err.Error()
	}
	return strings.ToUpper(hex.EncodeToString(out))
}

// TestDataPlaneOnSoftokn runs the known answers of the data plane once more, on
// softokn.
func TestDataPlaneOnSoftokn(t *testing.T) {
	softhsmtest.Again(t, "-test.run=^(TestDataOperations|TestDynamicKeys|TestUnionPayMAC|TestKSNGuard|TestDerivationTypes|TestFormats|TestExamplesDataPlane)$")
}

// TestDataOperations: known answers of EncryptData and DecryptData through the
// listener and a real token; ReEncryptData brings each to another key and back.
func TestDataOperations(t *testing.T) {
	b := newDataBench(t)
	b.importKey(t, exampleKey{"alias/bdk-aes-token", "", keys.UsageBDK, keys.AES128, keys.ModeDerive, "FEDCBA9876543210F1F1F1F1F1F1F1F1", map[string]string{"keyd:custody": "token"}})
	client := b.client(t, "switch-a")
	for _, v := range dataVectors() {
		t.Run(v.name, func(t *testing.T) {
			want := func(operation, body, member, value, key, class string) {
				t.Helper()
				a := b.call(t, client, operation, body)
				got := b.success(t, a, operation)
				if got[member] != value {
					t.Errorf("%s gave %v, want %s", operation, got[member], value)
				}
				if got["KeyArn"] != b.arn(key) {
					t.Errorf("%s names %v", operation, got["KeyArn"])
				}
				if got := a.header.Get("x-keyd-custody"); got != class {
					t.Errorf("%s: class %q, want %q", operation, got, class)
				}
			}
			want("EncryptData", encryptBody(v.key, v.attributes, dataPlain, ""), "CipherText", v.ciphered, v.key, v.class)
			want("DecryptData", decryptBody(v.key, v.attributes, strings.ToLower(v.ciphered), ""), "PlainText", dataPlain, v.key, v.class)
			if v.key == "alias/bdk-aes-token" {
				return
			}
			other, under := "alias/pay/data-aes", "7649ABAC8119B246CEE98E9B12E9197D5086CB9B507219EE95DB113A917678B2"
			want("ReEncryptData", reencryptBody(v.key, other, v.attributes, symmetric("CBC", vectorAES), v.ciphered, ""), "CipherText", under, other, "process")
			want("ReEncryptData", reencryptBody(other, v.key, symmetric("CBC", vectorAES), v.attributes, under, ""), "CipherText", v.ciphered, v.key, "process")
		})
	}
	t.Run("the check value is that of the key", func(t *testing.T) {
		got := b.success(t, b.call(t, client, "EncryptData", encryptBody("alias/bdk-tdes", dukptOf("FFFF9876543210E00001", ""), dataPlain, "")), "EncryptData")
		if got["KeyCheckValue"] != "08D7B4" {
			t.Errorf("check value %v", got["KeyCheckValue"])
		}
	})
	t.Run("a name without a vector has zeros", func(t *testing.T) {
		first := b.success(t, b.call(t, client, "EncryptData", encryptBody("alias/pay/data-aes", symmetric("CBC", ""), dataPlain, "")), "EncryptData")
		if first["CipherText"] != underAES(dataAES128) {
			t.Errorf("got %v", first["CipherText"])
		}
	})
}

// TestKeyInThePath (section 3.2): the label is decoded once, and is the key.
func TestKeyInThePath(t *testing.T) {
	b := newDataBench(t)
	client := b.client(t, "switch-a")
	arn := b.arn("alias/pay/data-aes")
	alias := "arn:aws:payment-cryptography:xx-keyd-1:000000000000:alias/pay/data-aes"
	body := `{"EncryptionAttributes":{"Symmetric":{"Mode":"ECB"}},"PlainText":"` + dataPlain + `"}`
	for _, c := range []struct {
		name, path, error string
		status            int
		member            string // complained of, or ResourceId
	}{
		{"alias", "/keys/alias%2Fpay%2Fdata-aes/encrypt", "", 200, ""},
		{"alias, escaped in small letters", "/keys/alias%2fpay%2fdata-aes/encrypt", "", 200, ""},
		{"alias, letters escaped too", "/keys/%61lias%2Fpay%2Fdata%2Daes/encrypt", "", 200, ""},
		{"key ARN", "/keys/" + strings.NewReplacer(":", "%3A", "/", "%2F").Replace(arn) + "/encrypt", "", 200, ""},
		{"key ARN with bare colons", "/keys/" + strings.ReplaceAll(arn, "/", "%2F") + "/encrypt", "", 200, ""},
		{"alias ARN", "/keys/" + strings.NewReplacer(":", "%3A", "/", "%2F").Replace(alias) + "/encrypt", "", 200, ""},
		{"with a query", "/keys/alias%2Fpay%2Fdata-aes/encrypt?x=1", "", 200, ""},
		{"decoded twice it would be one", "/keys/alias%252Fpay%252Fdata-aes/encrypt", "ValidationException", 400, "KeyIdentifier"},
		{"unencoded", "/keys/alias/pay/data-aes/encrypt", "UnknownOperationException", 404, ""},
		{"half encoded", "/keys/alias%2Fpay/data-aes/encrypt", "UnknownOperationException", 404, ""},
		{"dots", "/keys/alias%2F..%2Fpay%2Fdata-aes/encrypt", "ValidationException", 400, "KeyIdentifier"},
		{"doubled slashes", "/keys/alias%2F%2Fpay/encrypt", "ResourceNotFoundException", 404, "alias//pay"},
		{"no key", "/keys//encrypt", "UnknownOperationException", 404, ""},
		{"no verb", "/keys/alias%2Fpay%2Fdata-aes", "UnknownOperationException", 404, ""},
		{"slash at the end", "/keys/alias%2Fpay%2Fdata-aes/encrypt/", "UnknownOperationException", 404, ""},
		{"another verb", "/keys/alias%2Fpay%2Fdata-aes/wrap", "UnknownOperationException", 404, ""},
		{"escaped verb", "/keys/alias%2Fpay%2Fdata-aes/%65ncrypt", "UnknownOperationException", 404, ""},
		{"bare id", "/keys/" + b.ids["alias/pay/data-aes"] + "/encrypt", "ValidationException", 400, "KeyIdentifier"},
		{"unknown alias", "/keys/alias%2Fpay%2Fnone/encrypt", "ResourceNotFoundException", 404, "alias/pay/none"},
		{"a line break", "/keys/alias%2Fpay%0A/encrypt", "ValidationException", 400, "KeyIdentifier"},
		{"a zero byte", "/keys/alias%2Fpay%00/encrypt", "ValidationException", 400, "KeyIdentifier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "POST", b.url+c.path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			a := b.do(t, client, r)
			if c.status == 200 {
				if got := b.success(t, a, "EncryptData"); got["KeyArn"] != arn {
					t.Errorf("the answer names %v", got["KeyArn"])
				}
				return
			}
			answer := b.failure(t, a, "EncryptData", c.error, c.status)
			if c.error == "ResourceNotFoundException" && answer["ResourceId"] != c.member {
				t.Errorf("ResourceId %v, want %s", answer["ResourceId"], c.member)
			}
			if paths := fieldsOf(answer); c.error == "ValidationException" && !slices.Equal(paths, []string{c.member}) {
				t.Errorf("complains of %v, want %s", paths, c.member)
			}
		})
	}
}

// TestDataRefused: what the data operations refuse, by error and member.
func TestDataRefused(t *testing.T) {
	b := newDataBench(t)
	b.importKey(t, exampleKey{"alias/pay/data-token", "", keys.UsageData, keys.AES128, keys.ModeBoth, "8E73B0F7DA0E6452C810F32B809079E6", map[string]string{"keyd:custody": "token"}})
	b.importKey(t, exampleKey{"alias/bdk-tdes-token", "", keys.UsageBDK, keys.TDES2, keys.ModeDerive, "0123456789ABCDEFFEDCBA9876543210", map[string]string{"keyd:custody": "token"}})
	client := b.client(t, "switch-a")
	const tdesKSN = "FFFF9876543210E00001"
	cbc, ecb := symmetric("CBC", ""), symmetric("ECB", "")
	long := strings.Repeat("00", 2048)
	const aes, tdes = "alias/pay/data-aes", "alias/pay/data-tdes"
	in, out := "IncomingKeyIdentifier", "OutgoingKeyIdentifier"
	for _, c := range []struct {
		name, operation, body string
		member                string // complained of, or part of the message
	}{
		{"PlainText missing", "EncryptData", `{"KeyIdentifier":"alias/pay/data-aes","EncryptionAttributes":` + ecb + `}`, "PlainText"},
		{"PlainText too long", "EncryptData", encryptBody(aes, ecb, long+"00", ""), "PlainText"},
		{"PlainText of odd length", "EncryptData", encryptBody(aes, ecb, "123", ""), "PlainText"},
		{"PlainText not hexadecimal", "EncryptData", encryptBody(aes, ecb, "12345G", ""), "PlainText"},
		{"PlainText empty", "EncryptData", encryptBody(aes, ecb, "", ""), "PlainText"},
		{"CipherText missing", "DecryptData", `{"KeyIdentifier":"alias/pay/data-aes","DecryptionAttributes":` + ecb + `}`, "CipherText"},
		{"CipherText too long", "DecryptData", decryptBody(aes, ecb, strings.Repeat("00", 2113), ""), "CipherText"},
		{"attributes missing", "EncryptData", `{"KeyIdentifier":"alias/pay/data-aes","PlainText":"00"}`, "EncryptionAttributes"},
		{"union empty", "EncryptData", encryptBody(aes, `{}`, dataPlain, ""), "EncryptionAttributes"},
		{"union with two members", "EncryptData", encryptBody(aes, `{"Symmetric":{"Mode":"ECB"},"Dukpt":{}}`, dataPlain, ""), "EncryptionAttributes"},
		{"Asymmetric", "EncryptData", encryptBody(aes, `{"Asymmetric":{"PaddingType":"OAEP_SHA256"}}`, dataPlain, ""), "EncryptionAttributes.Asymmetric"},
		{"Asymmetric of DecryptData", "DecryptData", decryptBody(aes, `{"Asymmetric":{}}`, dataPlain, ""), "DecryptionAttributes.Asymmetric"},
		{"Emv", "EncryptData", encryptBody(aes, `{"Emv":{}}`, dataPlain, ""), "EncryptionAttributes.Emv"},
		{"Emv of DecryptData", "DecryptData", decryptBody(aes, `{"Emv":{}}`, dataPlain, ""), "DecryptionAttributes.Emv"},
		{"Asymmetric of ReEncryptData, whose model has none", "ReEncryptData", reencryptBody(aes, tdes, `{"Asymmetric":{}}`, ecb, dataPlain, ""), "IncomingEncryptionAttributes"},
		{"PaddingType", "EncryptData", encryptBody(aes, `{"Symmetric":{"Mode":"ECB","PaddingType":"PKCS1"}}`, dataPlain, ""), "EncryptionAttributes.Symmetric.PaddingType"},
		{"Mode missing", "EncryptData", encryptBody(aes, `{"Symmetric":{}}`, dataPlain, ""), "EncryptionAttributes.Symmetric.Mode"},
		{"Mode unknown", "EncryptData", encryptBody(aes, symmetric("CTR", ""), dataPlain, ""), "EncryptionAttributes.Symmetric.Mode"},
		{"Mode in small letters", "EncryptData", encryptBody(aes, symmetric("cbc", ""), dataPlain, ""), "EncryptionAttributes.Symmetric.Mode"},
		{"DUKPT in a mode that it has not", "EncryptData", encryptBody("alias/bdk-tdes", dukptOf(tdesKSN, `,"Mode":"OFB"`), dataPlain, ""), "EncryptionAttributes.Dukpt.Mode"},
		{"DUKPT variant unknown", "EncryptData", encryptBody("alias/bdk-tdes", dukptOf(tdesKSN, `,"DukptKeyVariant":"BOTH"`), dataPlain, ""), "EncryptionAttributes.Dukpt.DukptKeyVariant"},
		{"DUKPT without a serial number", "EncryptData", encryptBody("alias/bdk-tdes", `{"Dukpt":{}}`, dataPlain, ""), "EncryptionAttributes.Dukpt.KeySerialNumber"},
		{"vector of 24", "EncryptData", encryptBody(aes, symmetric("CBC", vectorTDES+"00000000"), dataPlain, ""), "EncryptionAttributes.Symmetric.InitializationVector"},
		{"a key from a Diffie-Hellman exchange", "EncryptData", encryptBody(aes, ecb, dataPlain, `,"WrappedKey":{"WrappedKeyMaterial":{"DiffieHellmanSymmetricKey":{}}}`), "WrappedKey.WrappedKeyMaterial.DiffieHellmanSymmetricKey"},

		{"vector of another cipher", "EncryptData", encryptBody(aes, symmetric("CBC", vectorTDES), dataPlain, ""), "~InitializationVector"},
		{"vector for ECB", "EncryptData", encryptBody(aes, symmetric("ECB", vectorAES), dataPlain, ""), "~InitializationVector"},
		{"part of a block of AES", "EncryptData", encryptBody(aes, cbc, dataPlain[:16], ""), "~whole blocks of 16"},
		{"part of a block of TDES", "DecryptData", decryptBody(tdes, cbc, dataPlain[:14], ""), "~whole blocks of 8"},
		{"blocks of one side only", "ReEncryptData", reencryptBody(tdes, aes, cbc, cbc, dataPlain[:16], ""), "~whole blocks of 16"},
		{"segments of 128 bits under TDES", "EncryptData", encryptBody(tdes, symmetric("CFB128", ""), dataPlain, ""), "~Mode"},
		{"much in CFB1", "EncryptData", encryptBody(aes, symmetric("CFB1", ""), long, ""), "~Mode"},
		{"both ways under TDES DUKPT", "DecryptData", decryptBody("alias/bdk-tdes", dukptOf(tdesKSN, `,"DukptKeyVariant":"BIDIRECTIONAL"`), dataPlain, ""), "~DukptKeyVariant"},
		{"KSN of AES for a TDES BDK", "DecryptData", decryptBody("alias/bdk-tdes", dukptOf("123456789012345600000001", ""), dataPlain, ""), "~10 bytes"},
		{"derivation stronger than the BDK", "DecryptData", decryptBody("alias/bdk-aes", dukptOf("123456789012345600000001", `,"DukptKeyDerivationType":"AES_256"`), dataPlain, ""), "~derivation type"},

		{"PIN key", "EncryptData", encryptBody("alias/zpk-a", ecb, dataPlain, ""), "KeyIdentifier"},
		{"MAC key", "DecryptData", decryptBody("alias/tak-42", ecb, dataPlain, ""), "KeyIdentifier"},
		{"BDK without DUKPT", "DecryptData", decryptBody("alias/bdk-tdes", ecb, dataPlain, ""), "KeyIdentifier"},
		{"DUKPT without a BDK", "DecryptData", decryptBody(aes, dukptOf(tdesKSN, ""), dataPlain, ""), "KeyIdentifier"},
		{"enciphering with a key for deciphering", "EncryptData", encryptBody("alias/pay/data-in", ecb, dataPlain, ""), "KeyIdentifier"},
		{"deciphering with a key for enciphering", "DecryptData", decryptBody("alias/pay/data-out", ecb, dataPlain, ""), "KeyIdentifier"},
		{"deciphering a stream with a key for deciphering", "DecryptData", decryptBody("alias/pay/data-in", symmetric("OFB", ""), dataPlain, ""), "KeyIdentifier"},
		{"incoming key of another usage", "ReEncryptData", reencryptBody("alias/zpk-a", aes, ecb, ecb, dataPlain, ""), in},
		{"outgoing key of another usage", "ReEncryptData", reencryptBody(aes, "alias/zpk-a", ecb, ecb, dataPlain, ""), out},
		{"outgoing key for deciphering", "ReEncryptData", reencryptBody(aes, "alias/pay/data-in", ecb, ecb, dataPlain, ""), out},
		{"token custody of TDES DUKPT", "DecryptData", decryptBody("alias/bdk-tdes-token", dukptOf(tdesKSN, ""), dataPlain, ""), "KeyIdentifier"},
		{"token custody of a plain text between two keys", "ReEncryptData", reencryptBody("alias/pay/data-token", aes, ecb, ecb, dataPlain, ""), in},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := b.failure(t, b.call(t, client, c.operation, c.body), c.operation, "ValidationException", 400)
			if part, ok := strings.CutPrefix(c.member, "~"); ok {
				if !strings.Contains(answer["Message"].(string), part) {
					t.Errorf("message %q, want one of %q", answer["Message"], part)
				}
				return
			}
			if paths := fieldsOf(answer); !slices.Equal(paths, []string{c.member}) {
				t.Errorf("complains of %v, want %s: %s", paths, c.member, answer["Message"])
			}
		})
	}
	t.Run("token custody of a stored key", func(t *testing.T) {
		a := b.call(t, client, "EncryptData", encryptBody("alias/pay/data-token", ecb, dataPlain, ""))
		b.success(t, a, "EncryptData")
		if a.header.Get("x-keyd-custody") != "token" {
			t.Error("the class is not token")
		}
	})
	t.Run("the greatest sizes", func(t *testing.T) {
		for _, mode := range []string{"ECB", "CBC", "CFB8", "OFB"} {
			got := b.success(t, b.call(t, client, "EncryptData", encryptBody(aes, symmetric(mode, ""), long, "")), "EncryptData")
			back := b.success(t, b.call(t, client, "DecryptData", decryptBody(aes, symmetric(mode, ""), got["CipherText"].(string), "")), "DecryptData")
			if back["PlainText"] != long {
				t.Errorf("%s: another text came back", mode)
			}
		}
		for _, mode := range []string{"ECB", "CFB1"} {
			b.success(t, b.call(t, client, "DecryptData", decryptBody(aes, symmetric(mode, ""), strings.Repeat("00", 2112), "")), "DecryptData")
		}
	})
	t.Run("names that there are not", func(t *testing.T) {
		for body, want := range map[string]string{
			reencryptBody("alias/none", aes, ecb, ecb, dataPlain, ""):  "alias/none",
			reencryptBody(aes, "alias/none2", ecb, ecb, dataPlain, ""): "alias/none2",
		} {
			if answer := b.failure(t, b.call(t, client, "ReEncryptData", body), "ReEncryptData", "ResourceNotFoundException", 404); answer["ResourceId"] != want {
				t.Errorf("ResourceId %v, want %s", answer["ResourceId"], want)
			}
		}
	})
	t.Run("another client's keys", func(t *testing.T) {
		other := b.client(t, "switch-b") // of alias/zpk-* alone
		for operation, body := range map[string]string{
			"EncryptData": encryptBody(aes, ecb, dataPlain, ""), "DecryptData": decryptBody(aes, ecb, dataPlain, ""),
			"ReEncryptData": reencryptBody(aes, aes, ecb, ecb, dataPlain, ""),
		} {
			b.failure(t, b.call(t, other, operation, body), operation, "AccessDeniedException", 403)
		}
	})
}

// TestDataRecords: each data operation leaves one record, which names the keys
// and none of the data; so does the daemon's log.
func TestDataRecords(t *testing.T) {
	b := newDataBench(t)
	client := b.client(t, "switch-a")
	const secretText, key = "4716530912345671D2512201000012300000", "alias/pay/data-aes"
	text := secretText + strings.Repeat("F", 64-len(secretText))
	var ciphered string
	for _, c := range []struct {
		operation, action string
		body              func() string
		outcome, reason   string
	}{
		{"EncryptData", "data.encrypt", func() string { return encryptBody(key, symmetric("CBC", vectorAES), text, "") }, "ok", ""},
		{"DecryptData", "data.decrypt", func() string { return decryptBody(key, symmetric("CBC", vectorAES), ciphered, "") }, "ok", ""},
		{"ReEncryptData", "data.reencrypt", func() string {
			return reencryptBody(key, "alias/pay/data-tdes", symmetric("CBC", vectorAES), symmetric("ECB", ""), ciphered, "")
		}, "ok", ""},
		{"EncryptData", "data.encrypt", func() string { return encryptBody("alias/zpk-a", symmetric("ECB", ""), text, "") }, "refused", "key_usage"},
		{"DecryptData", "data.decrypt", func() string { return decryptBody("alias/none", symmetric("ECB", ""), text, "") }, "refused", "key_unknown"},
	} {
		t.Run(c.operation, func(t *testing.T) {
			a := b.call(t, client, c.operation, c.body())
			if c.outcome == "ok" {
				if got := b.success(t, a, c.operation); c.operation == "EncryptData" {
					ciphered = got["CipherText"].(string)
				}
			}
			for _, r := range b.recordsOf(t, a, 1) {
				if r.Action != c.action || r.Outcome != c.outcome || r.Reason != c.reason {
					t.Errorf("got %s %s %s, want %s %s %s", r.Action, r.Outcome, r.Reason, c.action, c.outcome, c.reason)
				}
			}
		})
	}
	for _, value := range []string{secretText, ciphered[:32], vectorAES} {
		if where := b.found(t, value); where != "" {
			t.Errorf("a value of a request stands in %s", where)
		}
		if strings.Contains(strings.ToUpper(b.errors.String()), value) {
			t.Error("a value of a request stands in the daemon's log")
		}
	}
}
