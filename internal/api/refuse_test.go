package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// edit returns the request of an example with one piece of text replaced.
func edit(tb testing.TB, e wireExample, old, new string) string {
	tb.Helper()
	text := string(e.Request)
	if !strings.Contains(text, old) {
		tb.Fatalf("%s does not contain %s", e.ID, old)
	}
	return strings.Replace(text, old, new, 1)
}

// fieldsOf lists the members that a data plane error complains of.
func fieldsOf(body map[string]any) []string {
	list, _ := body["fieldList"].([]any)
	var paths []string
	for _, each := range list {
		paths = append(paths, each.(map[string]any)["path"].(string))
	}
	slices.Sort(paths)
	return paths
}

// TestDataPlaneShapes: what is wrong with a request is refused at step 3, by
// the member's path, and nothing of the request stands in the answer.
func TestDataPlaneShapes(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	all := loadWireExamples(t)
	for _, c := range []struct {
		name, example, old, new string
		paths                   []string
	}{
		{"KeyIdentifier missing", "vm-alg3", `"KeyIdentifier": "alias/tak-42",`, ``, []string{"KeyIdentifier"}},
		{"KeyIdentifier null", "vm-alg3", `"alias/tak-42"`, `null`, []string{"KeyIdentifier"}},
		{"KeyIdentifier a number", "vm-alg3", `"alias/tak-42"`, `42`, []string{"KeyIdentifier"}},
		{"KeyIdentifier a bare id", "vm-alg3", `alias/tak-42`, `75nzoeshnymaek7ojpur4238tp0qzkj8`, []string{"KeyIdentifier"}},
		{"name in another case", "vm-alg3", `"KeyIdentifier"`, `"keyIdentifier"`, []string{"KeyIdentifier"}},
		{"message not hexadecimal", "vm-alg3", `"MessageData": "30`, `"MessageData": "3G`, []string{"MessageData"}},
		{"message of odd length", "vm-alg3", `"MessageData": "30`, `"MessageData": "3`, []string{"MessageData"}},
		{"message empty", "gm-unionpay", `3230313630393133323031363039313332303136303931333230313630393133`, ``, []string{"MessageData"}},
		{"AS2805_4_1 of GenerateMac", "gm-unionpay", `KEYD_UNIONPAY_ECB`, `AS2805_4_1`, []string{"GenerationAttributes.Algorithm"}},
		{"an extension of later", "gm-unionpay", `KEYD_UNIONPAY_ECB`, `KEYD_SM4_CBC`, []string{"GenerationAttributes.Algorithm"}},
		{"message too long", "vm-dukpt-alg3", `343031323334353637383930394439383700000000000000`, strings.Repeat("00", 65537), []string{"MessageData"}},
		{"Mac too short", "vm-dukpt-alg3", `9CCC7817`, `9C`, []string{"Mac"}},
		{"Mac too long", "vm-dukpt-alg3", `9CCC7817`, strings.Repeat("9C", 65), []string{"Mac"}},
		{"MacLength a string", "vm-alg3", `"MacLength": 8`, `"MacLength": "8"`, []string{"MacLength"}},
		{"MacLength a fraction", "vm-alg3", `"MacLength": 8`, `"MacLength": 8.5`, []string{"MacLength"}},
		{"MacLength with an exponent", "vm-alg3", `"MacLength": 8`, `"MacLength": 8e0`, []string{"MacLength"}},
		{"MacLength negative", "vm-alg3", `"MacLength": 8`, `"MacLength": -8`, []string{"MacLength"}},
		{"MacLength 3", "vm-alg3", `"MacLength": 8`, `"MacLength": 3`, []string{"MacLength"}},
		{"MacLength 33", "vm-alg3", `"MacLength": 8`, `"MacLength": 33`, []string{"MacLength"}},
		{"MacLength beyond any number", "vm-alg3", `"MacLength": 8`, `"MacLength": 99999999999999999999999`, []string{"MacLength"}},
		{"MacLength of another length than Mac", "vm-alg3", `"MacLength": 8`, `"MacLength": 4`, []string{"MacLength"}},
		{"union empty", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{}`, []string{"VerificationAttributes"}},
		{"union null", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `null`, []string{"VerificationAttributes"}},
		{"union with a null member only", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"Algorithm": null}`, []string{"VerificationAttributes"}},
		{"union with an unknown member only", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"Other": {}}`, []string{"VerificationAttributes"}},
		{"union with a known and an unknown member", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"Algorithm": "CMAC", "Other": {}}`, []string{"VerificationAttributes"}},
		{"union with two members", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"Algorithm": "CMAC", "DukptCmac": {}}`, []string{"VerificationAttributes"}},
		{"union a list", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `[]`, []string{"VerificationAttributes"}},
		{"union of __type only", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"__type": "x"}`, []string{"VerificationAttributes"}},
		{"EmvMac", "vm-alg3", `{"Algorithm": "ISO9797_ALGORITHM3"}`, `{"EmvMac": {}}`, []string{"VerificationAttributes.EmvMac"}},
		{"AS2805_4_1", "vm-alg3", `ISO9797_ALGORITHM3`, `AS2805_4_1`, []string{"VerificationAttributes.Algorithm"}},
		{"algorithm unknown", "vm-alg3", `ISO9797_ALGORITHM3`, `ISO9797_ALGORITHM9`, []string{"VerificationAttributes.Algorithm"}},
		{"algorithm in small letters", "vm-alg3", `ISO9797_ALGORITHM3`, `iso9797_algorithm3`, []string{"VerificationAttributes.Algorithm"}},
		{"algorithm an object", "vm-alg3", `"ISO9797_ALGORITHM3"`, `{}`, []string{"VerificationAttributes.Algorithm"}},
		{"DUKPT a string", "vm-dukpt-cmac", `{"KeySerialNumber": "123456789012345600000001", "DukptKeyVariant": "REQUEST", "DukptDerivationType": "AES_128"}`, `"x"`, []string{"VerificationAttributes.DukptCmac"}},
		{"DUKPT empty", "vm-dukpt-cmac", `{"KeySerialNumber": "123456789012345600000001", "DukptKeyVariant": "REQUEST", "DukptDerivationType": "AES_128"}`, `{}`,
			[]string{"VerificationAttributes.DukptCmac.DukptKeyVariant", "VerificationAttributes.DukptCmac.KeySerialNumber"}},
		{"KSN of 16", "vm-dukpt-alg3", `FFFF9876543210E00001`, `9876543210E00001`, []string{"VerificationAttributes.DukptIso9797Algorithm3.KeySerialNumber"}},
		{"KSN of 22", "vm-dukpt-alg3", `FFFF9876543210E00001`, `FFFFFF9876543210E00001`, []string{"VerificationAttributes.DukptIso9797Algorithm3.KeySerialNumber"}},
		{"variant unknown", "vm-dukpt-alg3", `"REQUEST"`, `"BOTH"`, []string{"VerificationAttributes.DukptIso9797Algorithm3.DukptKeyVariant"}},
		{"derivation type unknown", "vm-dukpt-cmac", `AES_128`, `AES_512`, []string{"VerificationAttributes.DukptCmac.DukptDerivationType"}},
		{"two at once", "vm-alg3", `"MacLength": 8`, `"MacLength": 0, "MacLength2": 0`, []string{"MacLength"}},

		{"PIN block of 15", "tp-static-0-to-4", `59E8F963CDF70695`, `59E8F963CDF7069`, []string{"EncryptedPinBlock"}},
		{"PIN block of 18", "tp-static-0-to-4", `59E8F963CDF70695`, `59E8F963CDF7069500`, []string{"EncryptedPinBlock"}},
		{"PIN block not hexadecimal", "tp-static-0-to-4", `59E8F963CDF70695`, `59E8F963CDF7069X`, []string{"EncryptedPinBlock"}},
		{"PIN block of 32 for format 0", "tp-static-0-to-4", `59E8F963CDF70695`, `59E8F963CDF7069559E8F963CDF70695`, []string{"EncryptedPinBlock"}},
		{"PIN block of 16 for format 4", "tp-out-dukpt-aes", `AE03C845A8C30C63D48A6DC34EC454C6`, `AE03C845A8C30C63`, []string{"EncryptedPinBlock"}},
		{"PAN of 11", "tp-static-1-to-3", `4111111111111111`, `41111111111`, []string{"OutgoingTranslationAttributes.IsoFormat3.PrimaryAccountNumber"}},
		{"PAN of 20", "tp-static-1-to-3", `4111111111111111`, `41111111111111111111`, []string{"OutgoingTranslationAttributes.IsoFormat3.PrimaryAccountNumber"}},
		{"PAN with a letter", "tp-static-1-to-3", `4111111111111111`, `411111111111111A`, []string{"OutgoingTranslationAttributes.IsoFormat3.PrimaryAccountNumber"}},
		{"PAN missing", "tp-static-1-to-3", `{"PrimaryAccountNumber": "4111111111111111"}`, `{}`, []string{"OutgoingTranslationAttributes.IsoFormat3.PrimaryAccountNumber"}},
		{"PAN a number", "tp-static-1-to-3", `"4111111111111111"`, `4111111111111111`, []string{"OutgoingTranslationAttributes.IsoFormat3.PrimaryAccountNumber"}},
		{"format of AS 2805", "tp-static-1-to-3", `"IsoFormat1": {}`, `"As2805Format0": {}`, []string{"IncomingTranslationAttributes.As2805Format0"}},
		{"format a list", "tp-static-1-to-3", `"IsoFormat1": {}`, `"IsoFormat1": []`, []string{"IncomingTranslationAttributes.IsoFormat1"}},
		{"attributes of AS 2805", "tp-static-1-to-3", `"EncryptedPinBlock"`, `"IncomingAs2805Attributes": {}, "EncryptedPinBlock"`, []string{"IncomingAs2805Attributes"}},
		{"dynamic key out", "tp-static-1-to-3", `"EncryptedPinBlock"`, `"OutgoingWrappedKey": {}, "EncryptedPinBlock"`, []string{"OutgoingWrappedKey.WrappedKeyMaterial"}},
		{"DUKPT KSN of 16", "tp-dukpt-tdes", `FFFF9876543210E00001`, `9876543210E00001`, []string{"IncomingDukptAttributes.KeySerialNumber"}},
		{"DUKPT attributes a string", "tp-out-dukpt-tdes", `{"KeySerialNumber": "FFFF9876543210E00002"}`, `""`, []string{"OutgoingDukptAttributes"}},
		{"everything missing", "tp-static-1-to-3", "", "",
			[]string{"EncryptedPinBlock", "IncomingKeyIdentifier", "IncomingTranslationAttributes", "OutgoingKeyIdentifier", "OutgoingTranslationAttributes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := all[c.example]
			body := ""
			if c.old != "" {
				body = edit(t, e, c.old, c.new)
			}
			got := b.call(t, client, e.Operation, body)
			answer := b.failure(t, got, e.Operation, "ValidationException", 400)
			if paths := fieldsOf(answer); !slices.Equal(paths, c.paths) {
				t.Errorf("complains of %v, want %v", paths, c.paths)
			}
			for _, sent := range []string{"4111111111111111", "59E8F963CDF70695", "9CCC7817", "FFFF9876543210E00001", "alias/"} {
				if strings.Contains(string(got.body), sent) {
					t.Errorf("the answer repeats a value of the request")
				}
			}
		})
	}
	t.Run("the message counts the fields", func(t *testing.T) {
		answer := b.failure(t, b.call(t, client, "VerifyMac", `{"KeyIdentifier":1,"MessageData":1}`), "VerifyMac", "ValidationException", 400)
		if answer["Message"] != "4 fields are invalid" {
			t.Errorf("message %v", answer["Message"])
		}
	})
}

// TestLenient: what must not be refused.
func TestLenient(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	all := loadWireExamples(t)
	for _, c := range []struct{ name, example, old, new string }{
		{"unknown member", "vm-alg3", `"MacLength": 8`, `"MacLength": 8, "NewInALaterModel": {"a": [1, {"b": null}]}`},
		{"unknown member below", "vm-dukpt-alg3", `"DukptKeyVariant"`, `"New": 1, "DukptKeyVariant"`},
		{"null for an optional member", "vm-alg3", `"MacLength": 8`, `"MacLength": null`},
		{"null in a union", "vm-alg3", `{"Algorithm"`, `{"DukptCmac": null, "Algorithm"`},
		{"__type in a union", "vm-alg3", `{"Algorithm"`, `{"__type": "x", "Algorithm"`},
		{"hexadecimal in small letters", "vm-alg3", `17A3F159FD8186A4`, `17a3f159fd8186a4`},
		{"KSN in small letters", "vm-dukpt-alg3", `FFFF9876543210E00001`, `ffff9876543210e00001`},
		{"escapes in values", "vm-alg3", `alias/tak-42`, `alias\/t\u0061k-42`},
		{"escapes in names", "vm-alg3", `"KeyIdentifier"`, `"Key\u0049dentifier"`},
		{"an empty wrapped key is absent", "tp-static-1-to-3", `"EncryptedPinBlock"`, `"IncomingWrappedKey": null, "EncryptedPinBlock"`},
		{"a variant for a PIN key", "tp-dukpt-tdes", `"DukptKeyDerivationType"`, `"DukptKeyVariant": "RESPONSE", "DukptKeyDerivationType"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := all[c.example]
			b.success(t, b.call(t, client, e.Operation, edit(t, e, c.old, c.new)), e.Operation)
		})
	}
	t.Run("message of 65,536 bytes", func(t *testing.T) {
		body := fmt.Sprintf(`{"KeyIdentifier":"alias/tak-42","MessageData":%q,"GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}}`, strings.Repeat("00", 65536))
		b.success(t, b.call(t, client, "GenerateMac", body), "GenerateMac")
	})
	t.Run("an alias ARN and a key ARN name the key", func(t *testing.T) {
		for _, name := range []string{b.arn("alias/tak-42"), "arn:aws:payment-cryptography:xx-keyd-1:000000000000:alias/tak-42"} {
			body := strings.Replace(string(all["vm-alg3"].Request), "alias/tak-42", name, 1)
			got := b.success(t, b.call(t, client, "VerifyMac", body), "VerifyMac")
			if got["KeyArn"] != b.arn("alias/tak-42") {
				t.Errorf("the answer names %v", got["KeyArn"])
			}
		}
	})
}

// TestRefusedByCustody: steps 5 to 8, each with its error and the key it is about.
func TestRefusedByCustody(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	all := loadWireExamples(t)
	const nowhere = "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/00000000000000000000000000000000"
	foreign := strings.Replace(b.arn("alias/zpk-a"), "xx-keyd-1", "eu-central-1", 1)
	for _, c := range []struct {
		name, example, old, new string
		error                   string
		status                  int
		member                  string // ResourceId, the path complained of, or the message
	}{
		{"no such alias", "vm-alg3", "alias/tak-42", "alias/tak-43", "ResourceNotFoundException", 404, "alias/tak-43"},
		{"no such key", "vm-alg3", "alias/tak-42", nowhere, "ResourceNotFoundException", 404, nowhere},
		{"ARN of another region", "tp-static-1-to-3", "alias/zpk-a", foreign, "ResourceNotFoundException", 404, foreign},
		{"no such incoming key", "tp-static-1-to-3", "alias/tpk-17", "alias/tpk-18", "ResourceNotFoundException", 404, "alias/tpk-18"},
		{"no such outgoing key", "tp-static-1-to-3", "alias/zpk-a", "alias/zpk-x", "ResourceNotFoundException", 404, "alias/zpk-x"},
		{"key of another usage", "vm-alg3", "alias/tak-42", "alias/zpk-a", "ValidationException", 400, "KeyIdentifier"},
		{"key of another algorithm", "vm-alg3", "ISO9797_ALGORITHM3", "CMAC", "ValidationException", 400, "KeyIdentifier"},
		{"hash that is not the key's", "gm-hmac", "HMAC_SHA256", "HMAC_SHA512", "ValidationException", 400, "KeyIdentifier"},
		{"incoming key of another usage", "tp-static-1-to-3", "alias/tpk-17", "alias/tak-42", "ValidationException", 400, "IncomingKeyIdentifier"},
		{"outgoing key of another usage", "tp-static-1-to-3", "alias/zpk-a", "alias/tak-42", "ValidationException", 400, "OutgoingKeyIdentifier"},
		{"incoming BDK without DUKPT", "tp-static-1-to-3", "alias/tpk-17", "alias/bdk-tdes", "ValidationException", 400, "IncomingKeyIdentifier"},
		{"incoming DUKPT without a BDK", "tp-dukpt-tdes", "alias/bdk-tdes", "alias/tpk-17", "ValidationException", 400, "IncomingKeyIdentifier"},
		{"MAC too long for the algorithm", "gm-alg3", `"MacLength": 8`, `"MacLength": 9`, "ValidationException", 400, ""},
		{"message not in whole blocks", "vm-alg3", `000000000000",`, `0000000000",`, "ValidationException", 400, ""},
		{"KSN of AES for a TDES BDK", "vm-dukpt-alg3", "FFFF9876543210E00001", "123456789012345600000001", "ValidationException", 400, ""},
		{"KSN with counter 0", "vm-dukpt-alg3", "FFFF9876543210E00001", "FFFF9876543210E00000", "ValidationException", 400, ""},
		{"KSN with too many ones", "vm-dukpt-alg3", "FFFF9876543210E00001", "FFFF9876543210EFFFFF", "ValidationException", 400, ""},
		{"derivation stronger than the BDK", "vm-dukpt-cmac", "AES_128", "AES_256", "ValidationException", 400, ""},
		{"PANs that differ", "tp-out-dukpt-tdes", `"PrimaryAccountNumber": "4111111111111111"`, `"PrimaryAccountNumber": "4111111111111112"`, "ValidationException", 400, ""},
		{"format 0 to 1", "tp-dukpt-tdes", `"OutgoingTranslationAttributes": {"IsoFormat0": {"PrimaryAccountNumber": "4012345678909"}}`, `"OutgoingTranslationAttributes": {"IsoFormat1": {}}`, "ValidationException", 400, ""},
		{"PIN block of another key", "tp-static-1-to-3", "D639ABA95CE6BD92", "0000000000000000", "ValidationException", 400, "the PIN block was not accepted"},
		{"MAC wrong in one bit", "vm-alg3", "17A3F159FD8186A4", "17A3F159FD8186A5", "VerificationFailedException", 400, "INVALID_MAC"},
		{"message wrong in one bit", "vm-alg3", `"MessageData": "30`, `"MessageData": "31`, "VerificationFailedException", 400, "INVALID_MAC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := all[c.example]
			answer := b.failure(t, b.call(t, client, e.Operation, edit(t, e, c.old, c.new)), e.Operation, c.error, c.status)
			switch c.error {
			case "ResourceNotFoundException":
				if answer["ResourceId"] != c.member {
					t.Errorf("ResourceId %v, want %s", answer["ResourceId"], c.member)
				}
			case "VerificationFailedException":
				if answer["Reason"] != c.member {
					t.Errorf("reason %v, want %s", answer["Reason"], c.member)
				}
			default:
				if paths := fieldsOf(answer); c.member != answer["Message"] && (len(paths) > 0 || c.member != "") && !slices.Equal(paths, []string{c.member}) {
					t.Errorf("complains of %v, want %q: %s", paths, c.member, answer["Message"])
				}
			}
		})
	}
}

// TestRouting: section 3, what answers to which request line.
func TestRouting(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	const target = "PaymentCryptographyControlPlane."
	for _, c := range []struct {
		name, method, path, target string
		status                     int
		plane                      string
	}{
		{"unknown path", "POST", "/nothing", "", 404, "data"},
		{"root without a target", "POST", "/", "", 404, "data"},
		{"extensions", "POST", "/keyd/x", "", 404, "data"},
		{"tier 2", "POST", "/pindata/generate", "", 404, "data"},
		{"never", "POST", "/keymaterial/translate", "", 404, "data"},
		{"alias in the path, not escaped", "POST", "/keys/alias/pay/encrypt", "", 404, "data"},
		{"escaped slash between the parts", "POST", "/pindata%2Ftranslate", "", 404, "data"},
		{"escaped letter", "POST", "/%70indata/translate", "", 404, "data"},
		{"doubled slash in front", "POST", "//pindata/translate", "", 404, "data"},
		{"slash at the end", "POST", "/pindata/translate/", "", 404, "data"},
		{"dots", "POST", "/x/../pindata/translate", "", 404, "data"},
		{"path in capitals", "POST", "/PinData/Translate", "", 404, "data"},
		{"GET of a known path", "GET", "/pindata/translate", "", 405, "data"},
		{"PUT of a known path", "PUT", "/mac/verify", "", 405, "data"},
		{"GET of a path of tier 2", "GET", "/keys/alias%2Fx/decrypt", "", 405, "data"},
		{"GET of the root", "GET", "/", "", 405, "data"},
		{"GET of an unknown path", "GET", "/nothing", "", 404, "data"},
		{"unknown target", "POST", "/", target + "Nothing", 400, "control"},
		{"target of another service", "POST", "/", "TrentService.CreateKey", 400, "control"},
		{"target with a longer prefix", "POST", "/", "x" + target + "GetKey", 400, "control"},
		{"target in small letters", "POST", "/", strings.ToLower(target) + "GetKey", 400, "control"},
		{"target of the other plane", "POST", "/", target + "TranslatePinData", 400, "control"},
		{"never on the control plane", "POST", "/", target + "PutResourcePolicy", 400, "control"},
		{"target on a path", "POST", "/nothing", target + "GetKey", 404, "data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), c.method, b.url+c.path, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			if c.target != "" {
				r.Header.Set("X-Amz-Target", c.target)
			}
			operation := "VerifyMac" // any of the data plane
			if c.plane == "control" {
				operation = "GetKey"
			}
			a := b.do(t, client, r)
			b.failure(t, a, operation, "UnknownOperationException", c.status)
			if allow := a.header.Get("Allow"); (allow == "POST") != (c.status == 405) {
				t.Errorf("Allow is %q", allow)
			}
		})
	}
	t.Run("a query is ignored", func(t *testing.T) {
		e := loadWireExamples(t)["vm-alg3"]
		r, err := http.NewRequestWithContext(t.Context(), "POST", b.url+"/mac/verify?x=/mac/generate", strings.NewReader(string(e.Request)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		b.success(t, b.do(t, client, r), "VerifyMac")
	})
}

// TestBodies: section 3.3 and 3.4, limits and content types.
func TestBodies(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	admin := b.client(t, "admin")
	good := string(loadWireExamples(t)["vm-alg3"].Request)
	pad := func(n int) string { return good + strings.Repeat(" ", n-len(good)) }
	for _, c := range []struct {
		name, kind string
		ok         bool
	}{
		{"data plane", "application/json", true},
		{"control plane", "application/x-amz-json-1.0", true},
		{"version 1.1", "application/x-amz-json-1.1", true},
		{"with a character set", "application/json; charset=utf-8", true},
		{"in capitals", "Application/JSON", true},
		{"none", "", false},
		{"text", "text/plain", false},
		{"form", "application/x-www-form-urlencoded", false},
		{"another version", "application/x-amz-json-2.0", false},
	} {
		t.Run("content type "+c.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "POST", b.url+"/mac/verify", strings.NewReader(good))
			if err != nil {
				t.Fatal(err)
			}
			if c.kind != "" {
				r.Header.Set("Content-Type", c.kind)
			}
			if a := b.do(t, client, r); c.ok {
				b.success(t, a, "VerifyMac")
			} else {
				b.failure(t, a, "VerifyMac", "ValidationException", 400)
			}
		})
	}
	t.Run("data plane body of 256 KiB", func(t *testing.T) {
		b.success(t, b.call(t, client, "VerifyMac", pad(256<<10)), "VerifyMac")
	})
	t.Run("data plane body of 256 KiB and one byte", func(t *testing.T) {
		b.failure(t, b.call(t, client, "VerifyMac", pad(256<<10+1)), "VerifyMac", "ValidationException", 400)
	})
	t.Run("a body over the limit ends the connection", func(t *testing.T) {
		plain := b.client(t, "switch-a")
		plain.Transport.(*http.Transport).ForceAttemptHTTP2 = false
		a := b.call(t, plain, "VerifyMac", pad(256<<10+1))
		b.failure(t, a, "VerifyMac", "ValidationException", 400)
		if !a.closed {
			t.Error("the connection stays open")
		}
	})
	t.Run("control plane body of 128 KiB and one byte", func(t *testing.T) {
		body := `{"KeyIdentifier":"alias/zpk-a"}`
		full := body + strings.Repeat(" ", 128<<10-len(body))
		b.success(t, b.call(t, admin, "GetKey", full), "GetKey")
		b.failure(t, b.call(t, admin, "GetKey", full+" "), "GetKey", "ValidationException", 400)
	})
	t.Run("chunked body", func(t *testing.T) {
		for _, c := range []struct {
			body string
			ok   bool
		}{{pad(200 << 10), true}, {pad(256<<10 + 1), false}} {
			r, err := http.NewRequestWithContext(t.Context(), "POST", b.url+"/mac/verify", struct{ *strings.Reader }{strings.NewReader(c.body)})
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = -1
			r.Header.Set("Content-Type", "application/json")
			if a := b.do(t, client, r); c.ok {
				b.success(t, a, "VerifyMac")
			} else {
				b.failure(t, a, "VerifyMac", "ValidationException", 400)
			}
		}
	})
	for name, body := range map[string]string{
		"name twice":       `{"KeyIdentifier":"alias/tak-42",` + good[1:],
		"not JSON":         `{`,
		"a list":           `[]`,
		"byte order mark":  "\xEF\xBB\xBF" + good,
		"two objects":      good + good,
		"nested too deep":  `{"x":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + "}",
		"not UTF-8":        "{\"x\":\"\xC0\xAF\"}",
		"just white space": "  ",
	} {
		t.Run(name, func(t *testing.T) {
			b.failure(t, b.call(t, client, "VerifyMac", body), "VerifyMac", "ValidationException", 400)
		})
	}
	t.Run("SigV4 is neither verified nor repeated", func(t *testing.T) {
		for _, authorization := range []string{"", "nonsense", "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20000101/us-east-1/payment-cryptography/aws4_request, SignedHeaders=host, Signature=00"} {
			a := b.call(t, client, "VerifyMac", good, "Authorization", authorization, "X-Amz-Security-Token", "FwoGZXIvYXdzEXAMPLE")
			b.success(t, a, "VerifyMac")
		}
		for _, secret := range []string{"AKIAEXAMPLE", "FwoGZXIvYXdzEXAMPLE"} {
			if strings.Contains(b.errors.String(), secret) {
				t.Error("the daemon's log has a credential")
			}
		}
	})
}
