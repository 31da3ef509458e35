package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

const invocationHeader = "amz-sdk-invocation-id"

// keyCount is the number of keys that there are.
func (b *bench) keyCount(tb testing.TB) int {
	tb.Helper()
	admin := b.client(tb, "admin")
	count, token := 0, ""
	for {
		body := b.success(tb, b.call(tb, admin, "ListKeys", `{"MaxResults":100`+token+`}`), "ListKeys")
		count += len(body["Keys"].([]any))
		next, more := body["NextToken"]
		if !more {
			return count
		}
		token = fmt.Sprintf(`,"NextToken":%q`, next)
	}
}

// TestIdempotency is section 7: one invocation changes things once.
func TestIdempotency(t *testing.T) {
	b := newBench(t)
	admin, other := b.client(t, "admin"), b.client(t, "admin-b")
	create := string(loadWireExamples(t)["create-key"].Request)
	const id = "8a1b5f0e-6d7c-4f3b-9a55-0c9d1e2f3a4b"
	first := b.call(t, admin, "CreateKey", create, invocationHeader, id)
	b.success(t, first, "CreateKey")
	before := b.keyCount(t)
	t.Run("the same again gets the same answer and makes no key", func(t *testing.T) {
		again := b.call(t, admin, "CreateKey", create, invocationHeader, id)
		b.success(t, again, "CreateKey")
		if string(again.body) != string(first.body) {
			t.Error("another answer")
		}
		if again.header.Get("x-amzn-RequestId") == first.header.Get("x-amzn-RequestId") {
			t.Error("the same request id")
		}
		if after := b.keyCount(t); after != before {
			t.Errorf("%d keys, there were %d", after, before)
		}
	})
	t.Run("same id with another body", func(t *testing.T) {
		b.failure(t, b.call(t, admin, "CreateKey", create+" ", invocationHeader, id), "CreateKey", "ValidationException", 400)
	})
	t.Run("same id with another operation", func(t *testing.T) {
		body := `{"AliasName":"alias/idem"}`
		b.failure(t, b.call(t, admin, "CreateAlias", body, invocationHeader, id), "CreateAlias", "ValidationException", 400)
	})
	t.Run("same id of another principal", func(t *testing.T) {
		a := b.call(t, other, "CreateKey", create, invocationHeader, id)
		b.success(t, a, "CreateKey")
		if string(a.body) == string(first.body) {
			t.Error("the key of the other principal")
		}
	})
	t.Run("without an id each request makes a key", func(t *testing.T) {
		before := b.keyCount(t)
		b.success(t, b.call(t, admin, "CreateKey", create), "CreateKey")
		b.success(t, b.call(t, admin, "CreateKey", create), "CreateKey")
		if after := b.keyCount(t); after != before+2 {
			t.Errorf("%d keys, want %d", after, before+2)
		}
	})
	t.Run("at the same time", func(t *testing.T) {
		before := b.keyCount(t)
		var answers [8]answer
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = b.call(t, admin, "CreateKey", create, invocationHeader, "together") })
		}
		all.Wait()
		for _, a := range answers {
			b.success(t, a, "CreateKey")
			if string(a.body) != string(answers[0].body) {
				t.Error("another answer")
			}
		}
		if after := b.keyCount(t); after != before+1 {
			t.Errorf("%d keys, want %d", after, before+1)
		}
	})
	t.Run("alias", func(t *testing.T) {
		body := fmt.Sprintf(`{"AliasName":"alias/idem-2","KeyArn":%q}`, b.arn("alias/zpk-a"))
		first := b.call(t, admin, "CreateAlias", body, invocationHeader, "alias-1")
		b.success(t, first, "CreateAlias")
		again := b.call(t, admin, "CreateAlias", body, invocationHeader, "alias-1")
		b.success(t, again, "CreateAlias")
		if string(again.body) != string(first.body) {
			t.Error("another answer")
		}
	})
	for name, id := range map[string]string{"too long": strings.Repeat("a", 129), "with a space": "a b"} {
		t.Run("id "+name, func(t *testing.T) {
			b.failure(t, b.call(t, admin, "CreateKey", create, invocationHeader, id), "CreateKey", "ValidationException", 400)
		})
	}
	t.Run("an error is not an answer to keep", func(t *testing.T) {
		wrong := strings.Replace(create, "keyd:mac-padding", "keyd:unknown", 1)
		b.failure(t, b.call(t, admin, "CreateKey", wrong, invocationHeader, "wrong"), "CreateKey", "ValidationException", 400)
		b.success(t, b.call(t, admin, "CreateKey", create, invocationHeader, "wrong"), "CreateKey")
	})
}

// TestPaging: a listing in pages is the listing at once, and a token is good
// for its own principal and query only.
func TestPaging(t *testing.T) {
	b := newBench(t)
	admin, operator := b.client(t, "admin"), b.client(t, "operator")
	whole := b.success(t, b.call(t, admin, "ListKeys", `{}`), "ListKeys")
	if whole["NextToken"] != nil {
		t.Fatal("ten keys need more than one page of 50")
	}
	for size := 1; size <= 11; size++ {
		t.Run(fmt.Sprintf("pages of %d", size), func(t *testing.T) {
			var list []any
			token := ""
			for {
				page := b.success(t, b.call(t, admin, "ListKeys", fmt.Sprintf(`{"MaxResults":%d%s}`, size, token)), "ListKeys")
				keys := page["Keys"].([]any)
				if len(keys) > size {
					t.Fatalf("%d keys on a page of %d", len(keys), size)
				}
				list = append(list, keys...)
				next, more := page["NextToken"]
				if !more {
					break
				}
				if len(keys) != size {
					t.Errorf("a page of %d keys before the last", len(keys))
				}
				token = fmt.Sprintf(`,"NextToken":%q`, next)
			}
			if fmt.Sprint(list) != fmt.Sprint(whole["Keys"]) {
				t.Error("the pages are not the whole")
			}
		})
	}
	next := b.success(t, b.call(t, admin, "ListKeys", `{"MaxResults":2}`), "ListKeys")["NextToken"].(string)
	t.Run("another page size goes on", func(t *testing.T) {
		b.success(t, b.call(t, admin, "ListKeys", fmt.Sprintf(`{"MaxResults":5,"NextToken":%q}`, next)), "ListKeys")
	})
	t.Run("another principal", func(t *testing.T) {
		b.failure(t, b.call(t, operator, "ListKeys", fmt.Sprintf(`{"NextToken":%q}`, next)), "ListKeys", "ValidationException", 400)
	})
	t.Run("another query", func(t *testing.T) {
		b.failure(t, b.call(t, admin, "ListKeys", fmt.Sprintf(`{"KeyState":"CREATE_COMPLETE","NextToken":%q}`, next)), "ListKeys", "ValidationException", 400)
	})
	for name, token := range map[string]string{"changed": "B" + next[1:], "foreign": "ZXhhbXBsZS1wYWdlLXRva2VuLTI", "empty": "", "long": strings.Repeat("A", 8193)} {
		t.Run("token "+name, func(t *testing.T) {
			b.failure(t, b.call(t, admin, "ListKeys", fmt.Sprintf(`{"NextToken":%q}`, token)), "ListKeys", "ValidationException", 400)
		})
	}
	for name, body := range map[string]string{
		"0": `{"MaxResults":0}`, "101": `{"MaxResults":101}`, "text": `{"MaxResults":"5"}`, "state": `{"KeyState":"GONE"}`,
	} {
		t.Run("refused "+name, func(t *testing.T) {
			b.failure(t, b.call(t, admin, "ListKeys", body), "ListKeys", "ValidationException", 400)
		})
	}
	t.Run("by state", func(t *testing.T) {
		for state, want := range map[string]int{"CREATE_COMPLETE": len(exampleKeys()), "CREATE_IN_PROGRESS": 0, "DELETE_PENDING": 0, "DELETE_COMPLETE": 0} {
			got := b.success(t, b.call(t, admin, "ListKeys", fmt.Sprintf(`{"KeyState":%q}`, state)), "ListKeys")["Keys"].([]any)
			if len(got) != want {
				t.Errorf("%s: %d keys, want %d", state, len(got), want)
			}
		}
	})
}

// TestCreateKey: every row of section 8.1 that keyd makes, and what it refuses.
func TestCreateKey(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	request := func(usage, algorithm, modes, more string) string {
		return fmt.Sprintf(`{"KeyAttributes":{"KeyUsage":%q,"KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":%q,"KeyModesOfUse":{%s}},"Exportable":true%s}`, usage, algorithm, modes, more)
	}
	const both = `"Encrypt":true,"Decrypt":true,"Wrap":true,"Unwrap":true`
	for _, c := range []struct{ name, usage, algorithm, modes, check string }{
		{"P0 TDES_2KEY B", "TR31_P0_PIN_ENCRYPTION_KEY", "TDES_2KEY", both, "ANSI_X9_24"},
		{"P0 TDES_3KEY E", "TR31_P0_PIN_ENCRYPTION_KEY", "TDES_3KEY", `"Encrypt":true,"Wrap":true`, "ANSI_X9_24"},
		{"P0 AES_128 D", "TR31_P0_PIN_ENCRYPTION_KEY", "AES_128", `"Decrypt":true,"Unwrap":true`, "CMAC"},
		{"K0 AES_256 N", "TR31_K0_KEY_ENCRYPTION_KEY", "AES_256", `"NoRestrictions":true`, "CMAC"},
		{"K1 AES_192 B", "TR31_K1_KEY_BLOCK_PROTECTION_KEY", "AES_192", both, "CMAC"},
		{"B0 AES_128 X", "TR31_B0_BASE_DERIVATION_KEY", "AES_128", `"DeriveKey":true`, "CMAC"},
		{"M1 TDES_3KEY G", "TR31_M1_ISO_9797_1_MAC_KEY", "TDES_3KEY", `"Generate":true`, "ANSI_X9_24"},
		{"M3 TDES_2KEY V", "TR31_M3_ISO_9797_3_MAC_KEY", "TDES_2KEY", `"Verify":true`, "ANSI_X9_24"},
		{"M6 AES_128 C", "TR31_M6_ISO_9797_5_CMAC_KEY", "AES_128", `"Generate":true,"Verify":true`, "CMAC"},
		{"M7 HMAC_SHA512 C", "TR31_M7_HMAC_KEY", "HMAC_SHA512", `"Generate":true,"Verify":true`, "HMAC"},
		{"M7 HMAC_SHA224 C", "TR31_M7_HMAC_KEY", "HMAC_SHA224", `"Generate":true,"Verify":true`, "HMAC"},
		{"flags that are false are absent", "TR31_M7_HMAC_KEY", "HMAC_SHA384", `"Generate":true,"Verify":true,"Sign":false,"Encrypt":null`, "HMAC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := b.success(t, b.call(t, admin, "CreateKey", request(c.usage, c.algorithm, c.modes, "")), "CreateKey")["Key"].(map[string]any)
			if key["KeyCheckValueAlgorithm"] != c.check || key["Enabled"] != true || key["KeyOrigin"] != "AWS_PAYMENT_CRYPTOGRAPHY" {
				t.Errorf("check value by %v, enabled %v, origin %v", key["KeyCheckValueAlgorithm"], key["Enabled"], key["KeyOrigin"])
			}
			got := b.success(t, b.call(t, admin, "GetKey", fmt.Sprintf(`{"KeyIdentifier":%q}`, key["KeyArn"])), "GetKey")["Key"]
			if fmt.Sprint(got) != fmt.Sprint(key) {
				t.Error("GetKey tells something else than CreateKey")
			}
		})
	}
	t.Run("not enabled", func(t *testing.T) {
		body := request("TR31_M6_ISO_9797_5_CMAC_KEY", "AES_128", `"Generate":true`, `,"Enabled":false`)
		key := b.success(t, b.call(t, admin, "CreateKey", body), "CreateKey")["Key"].(map[string]any)
		if _, started := key["UsageStartTimestamp"]; started || key["Enabled"] != false {
			t.Errorf("enabled %v, started %v", key["Enabled"], started)
		}
		use := fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"00","GenerationAttributes":{"Algorithm":"CMAC"}}`, key["KeyArn"])
		answer := b.failure(t, b.call(t, b.client(t, "switch-a"), "GenerateMac", use), "GenerateMac", "ValidationException", 400)
		if answer["Message"] != "the key is not in use" {
			t.Errorf("message %v", answer["Message"])
		}
	})
	t.Run("not exportable", func(t *testing.T) {
		body := strings.Replace(request("TR31_M6_ISO_9797_5_CMAC_KEY", "AES_128", `"Generate":true`, ""), `"Exportable":true`, `"Exportable":false`, 1)
		if key := b.success(t, b.call(t, admin, "CreateKey", body), "CreateKey")["Key"].(map[string]any); key["Exportable"] != false {
			t.Error("exportable")
		}
	})
	t.Run("check value by CMAC for TDES", func(t *testing.T) {
		body := request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"KeyCheckValueAlgorithm":"CMAC"`)
		if key := b.success(t, b.call(t, admin, "CreateKey", body), "CreateKey")["Key"].(map[string]any); key["KeyCheckValueAlgorithm"] != "CMAC" {
			t.Errorf("by %v", key["KeyCheckValueAlgorithm"])
		}
	})
	tags := func(list string) string {
		return request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"Tags":[`+list+`]`)
	}
	t.Run("200 tags, one of them without a value", func(t *testing.T) {
		var list strings.Builder
		for i := range 199 {
			fmt.Fprintf(&list, `{"Key":"tag-%d","Value":"é"},`, i)
		}
		b.success(t, b.call(t, admin, "CreateKey", tags(list.String()+`{"Key":"empty","Value":""}`)), "CreateKey")
	})
	m1 := func(modes string) string { return request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", modes, "") }
	for _, c := range []struct{ name, body, message string }{
		{"nothing", `{}`, "KeyAttributes is required; Exportable is required"},
		{"usage unknown", request("TR31_X0", "TDES_2KEY", `"Generate":true`, ""), "KeyAttributes.KeyUsage is not a key usage that keyd serves"},
		{"usage of asymmetric keys", request("TR31_K2_TR34_ASYMMETRIC_KEY", "TDES_2KEY", `"Generate":true`, ""), "KeyAttributes.KeyUsage is not a key usage that keyd serves"},
		{"class of asymmetric keys", strings.Replace(m1(`"Generate":true`), "SYMMETRIC_KEY", "ASYMMETRIC_KEY_PAIR", 1), "KeyAttributes.KeyClass is not a key class that keyd makes; it makes SYMMETRIC_KEY"},
		{"algorithm of asymmetric keys", strings.Replace(m1(`"Generate":true`), "TDES_2KEY", "RSA_2048", 1), "KeyAttributes.KeyAlgorithm is not a key algorithm that keyd makes"},
		{"AES for M1", strings.Replace(m1(`"Generate":true`), "TDES_2KEY", "AES_128", 1), "KeyAttributes.KeyAlgorithm is not a permitted algorithm for TR31_M1_ISO_9797_1_MAC_KEY"},
		{"triple length for M3", request("TR31_M3_ISO_9797_3_MAC_KEY", "TDES_3KEY", `"Generate":true`, ""), "KeyAttributes.KeyAlgorithm is not a permitted algorithm for TR31_M3_ISO_9797_3_MAC_KEY"},
		{"no mode", m1(``), "KeyAttributes.KeyModesOfUse is not a combination of X9.143"},
		{"Encrypt and Decrypt without Wrap and Unwrap", m1(`"Encrypt":true,"Decrypt":true`), "KeyAttributes.KeyModesOfUse is not a combination of X9.143"},
		{"a mode of another usage", m1(`"DeriveKey":true`), "KeyAttributes.KeyModesOfUse is not a permitted combination for TR31_M1_ISO_9797_1_MAC_KEY"},
		{"a mode as text", m1(`"Generate":"true"`), "KeyAttributes.KeyModesOfUse.Generate must be true or false; KeyAttributes.KeyModesOfUse is not a combination of X9.143"},
		{"check value by HMAC for TDES", request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"KeyCheckValueAlgorithm":"HMAC"`), "KeyCheckValueAlgorithm is not one for this key algorithm"},
		{"check value by SHA-1 for TDES", request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"KeyCheckValueAlgorithm":"SHA_1"`), "KeyCheckValueAlgorithm is not one for this key algorithm"},
		{"check value by something else", request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"KeyCheckValueAlgorithm":"MD5"`), "KeyCheckValueAlgorithm must be ANSI_X9_24, CMAC, HMAC or SHA_1"},
		{"replicas", request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"ReplicationRegions":["eu-central-1"]`), "ReplicationRegions is not served by keyd"},
		{"tags no list", request("TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY", `"Generate":true`, `,"Tags":{}`), "Tags must be a list"},
		{"a tag no object", tags(`"x"`), "Tags[0] must be an object"},
		{"a tag without a value", tags(`{"Key":"a","Value":"b"},{"Key":"c"}`), "Tags[1].Value is required"},
		{"a tag twice", tags(`{"Key":"a","Value":"b"},{"Key":"a","Value":"c"}`), "Tags[1].Key occurs twice"},
		{"a tag without a name", tags(`{"Key":"","Value":"b"}`), "Tags[0].Key must be 1 to 128 printable characters"},
		{"a long tag name", tags(`{"Key":"` + strings.Repeat("é", 129) + `","Value":"b"}`), "Tags[0].Key must be 1 to 128 printable characters"},
		{"a long tag value", tags(`{"Key":"a","Value":"` + strings.Repeat("é", 257) + `"}`), "Tags[0].Value must be at most 256 printable characters"},
		{"a control character in a tag", tags(`{"Key":"a","Value":"\u0000"}`), "Tags[0].Value must be at most 256 printable characters"},
		{"201 tags", tags(strings.Repeat(`{"Key":"a","Value":"b"},`, 200) + `{"Key":"a","Value":"b"}`), ""},
		{"unknown policy tag", tags(`{"Key":"keyd:something","Value":"b"}`), "unknown policy tag or value: a name beginning with keyd:"},
		{"unknown policy value", tags(`{"Key":"keyd:mac-padding","Value":"3"}`), "unknown policy tag or value: keyd:mac-padding"},
		{"reserved tag", tags(`{"Key":"aws:x","Value":"3"}`), "tag names beginning with aws: are reserved"},
	} {
		t.Run("refused: "+c.name, func(t *testing.T) {
			answer := b.failure(t, b.call(t, admin, "CreateKey", c.body), "CreateKey", "ValidationException", 400)
			if c.message != "" && answer["Message"] != c.message {
				t.Errorf("message %q, want %q", answer["Message"], c.message)
			}
		})
	}
}

// TestAliases is section 11.4 as far as it goes.
func TestAliases(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	alias := func(name, arn string) string {
		if arn == "" {
			return fmt.Sprintf(`{"AliasName":%q}`, name)
		}
		return fmt.Sprintf(`{"AliasName":%q,"KeyArn":%q}`, name, arn)
	}
	t.Run("a second name for a key", func(t *testing.T) {
		b.success(t, b.call(t, admin, "CreateAlias", alias("alias/second", b.arn("alias/zpk-a"))), "CreateAlias")
		key := b.success(t, b.call(t, admin, "GetKey", `{"KeyIdentifier":"alias/second"}`), "GetKey")["Key"].(map[string]any)
		if key["KeyArn"] != b.arn("alias/zpk-a") {
			t.Errorf("it names %v", key["KeyArn"])
		}
	})
	t.Run("an alias without a key", func(t *testing.T) {
		body := b.success(t, b.call(t, admin, "CreateAlias", alias("alias/empty", "")), "CreateAlias")
		if _, has := body["Alias"].(map[string]any)["KeyArn"]; has {
			t.Error("it has a key")
		}
		b.success(t, b.call(t, admin, "GetAlias", alias("alias/empty", "")), "GetAlias")
		b.failure(t, b.call(t, admin, "GetKey", `{"KeyIdentifier":"alias/empty"}`), "GetKey", "ResourceNotFoundException", 400)
	})
	t.Run("the same again", func(t *testing.T) {
		b.success(t, b.call(t, admin, "CreateAlias", alias("alias/zpk-a", b.arn("alias/zpk-a"))), "CreateAlias")
	})
	t.Run("for another key", func(t *testing.T) {
		answer := b.failure(t, b.call(t, admin, "CreateAlias", alias("alias/zpk-a", b.arn("alias/zpk-b"))), "CreateAlias", "ConflictException", 400)
		if answer["Message"] != "alias/zpk-a already exists" {
			t.Errorf("message %v", answer["Message"])
		}
	})
	t.Run("of no key", func(t *testing.T) {
		const nowhere = "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/00000000000000000000000000000000"
		answer := b.failure(t, b.call(t, admin, "CreateAlias", alias("alias/new", nowhere)), "CreateAlias", "ResourceNotFoundException", 400)
		if answer["ResourceId"] != nowhere {
			t.Errorf("ResourceId %v", answer["ResourceId"])
		}
	})
	t.Run("of a key elsewhere", func(t *testing.T) {
		foreign := strings.Replace(b.arn("alias/zpk-a"), "000000000000:", "123456789012:", 1)
		answer := b.failure(t, b.call(t, admin, "CreateAlias", alias("alias/new", foreign)), "CreateAlias", "ResourceNotFoundException", 400)
		if answer["ResourceId"] != foreign {
			t.Errorf("ResourceId %v", answer["ResourceId"])
		}
	})
	t.Run("no such alias", func(t *testing.T) {
		answer := b.failure(t, b.call(t, admin, "GetAlias", alias("alias/none", "")), "GetAlias", "ResourceNotFoundException", 400)
		if answer["ResourceId"] != "alias/none" {
			t.Errorf("ResourceId %v", answer["ResourceId"])
		}
	})
	for name, body := range map[string]string{
		"name missing": `{}`, "name without the prefix": alias("zpk", ""), "name with a dot": alias("alias/a.b", ""),
		"alias for a key": alias("alias/x", "alias/zpk-a"), "bare id for a key": alias("alias/x", "6g1dpp3ele1d02exhhsxvp74f7g7onlp"),
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			b.failure(t, b.call(t, admin, "CreateAlias", body), "CreateAlias", "ValidationException", 400)
		})
	}
}
