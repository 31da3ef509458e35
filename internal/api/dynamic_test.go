package api_test

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/internal/softkey"
	"keyd.dev/keyd/keys"
	"keyd.dev/keyd/keys/tr31"
)

// carried is a key that a test puts into a key block, under a key of section 16.
type carried struct {
	usage keys.Usage
	kind  keys.Algorithm
	mode  keys.Mode
	value string
}

// block is the key in a block, as a partner would make it.
func (k carried) block(tb testing.TB, kbpk string, a keys.Algorithm, change ...func(*tr31.Header)) string {
	tb.Helper()
	under, err := hex.DecodeString(kbpk)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := softkey.New(a, under)
	if err != nil {
		tb.Fatal(err)
	}
	value, err := hex.DecodeString(k.value)
	if err != nil {
		tb.Fatal(err)
	}
	h := tr31.NewHeader(keys.Attributes{Usage: k.usage, Algorithm: k.kind, Mode: k.mode, Exportability: keys.Exportable}, a)
	for _, f := range change {
		f(&h)
	}
	text, err := tr31.Seal(key, a, h, secret.From(value), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func wrappedMember(name, block, by string) string {
	if by != "" {
		by = fmt.Sprintf(`,"KeyCheckValueAlgorithm":%q`, by)
	}
	return fmt.Sprintf(`,%q:{"WrappedKeyMaterial":{"Tr31KeyBlock":%q}%s}`, name, block, by)
}

func translateBody(in, out, from, to, block, more string) string {
	format := func(name string) string {
		if name == "IsoFormat1" {
			return `{"IsoFormat1":{}}`
		}
		return fmt.Sprintf(`{%q:{"PrimaryAccountNumber":"4111111111111111"}}`, name)
	}
	return fmt.Sprintf(`{"IncomingKeyIdentifier":%q,"OutgoingKeyIdentifier":%q,"IncomingTranslationAttributes":%s,"OutgoingTranslationAttributes":%s,"EncryptedPinBlock":%q%s}`,
		in, out, format(from), format(to), block, more)
}

// TestDynamicKeys (section 10.2): keys in key blocks on either side, under TDES
// and AES key-encryption keys; the answer names the key-encryption key of an
// outgoing one, and the check value of the key in the block (section 8.2).
func TestDynamicKeys(t *testing.T) {
	b := newDataBench(t)
	client := b.client(t, "switch-a")
	tpk := carried{keys.UsagePIN, keys.TDES2, keys.ModeDecrypt, "8FCB7368F7E92C3DDC75A4CE04D6A77A"}
	zpk := carried{keys.UsagePIN, keys.TDES2, keys.ModeEncrypt, "49049D94F1F1929B1A83192CF71038CB"}
	aes := carried{keys.UsagePIN, keys.AES256, keys.ModeBoth, "8FFD058A06164289C2046604ABD7E908088BB47987B40D21D3D6AAFE62F5375D"}
	wide := carried{keys.UsagePIN, keys.TDES3, keys.ModeAny, "7C89D6CB3D45E549C16D76585416A18A7AB9649DE91F1C9E"}
	const in, out, clear, under = "IncomingWrappedKey", "OutgoingWrappedKey", "69924468C501B5FE", "A0BA774BB147CC0F"
	for _, c := range []struct {
		name, body   string
		want         string // the outgoing block, "" for one with random filler
		key, checkBy string
	}{
		{"in, version D", translateBody("alias/zmk-aes", "alias/zpk-a", "IsoFormat0", "IsoFormat0", clear, wrappedMember(in, tpk.block(t, zmkAES, keys.AES256), "")), under, "alias/zpk-a", "F7AFA6"},
		{"in, version B", translateBody("alias/zmk-tdes", "alias/zpk-a", "IsoFormat0", "IsoFormat0", clear, wrappedMember(in, tpk.block(t, zmkTDES, keys.TDES2), "ANSI_X9_24")), under, "alias/zpk-a", "F7AFA6"},
		{"out, version D", translateBody("alias/zpk-a", "alias/zmk-aes", "IsoFormat0", "IsoFormat0", under, wrappedMember(out, zpk.block(t, zmkAES, keys.AES256), "")), under, "alias/zmk-aes", "F7AFA6"},
		{"out, version B", translateBody("alias/zpk-a", "alias/zmk-tdes", "IsoFormat0", "IsoFormat0", under, wrappedMember(out, zpk.block(t, zmkTDES, keys.TDES2), "ANSI_X9_24")), under, "alias/zmk-tdes", "F7AFA6"},
		{"out, check value by CMAC", translateBody("alias/zpk-a", "alias/zmk-aes", "IsoFormat0", "IsoFormat0", under, wrappedMember(out, zpk.block(t, zmkAES, keys.AES256), "CMAC")), under, "alias/zmk-aes", "~F7AFA6"},
		{"both", translateBody("alias/zmk-aes", "alias/zmk-tdes", "IsoFormat0", "IsoFormat0", clear, wrappedMember(in, tpk.block(t, zmkAES, keys.AES256), "")+wrappedMember(out, zpk.block(t, zmkTDES, keys.TDES2), "")), under, "alias/zmk-tdes", "F7AFA6"},
		{"in from DUKPT, out AES", strings.Replace(translateBody("alias/bdk-aes", "alias/zmk-aes", "IsoFormat4", "IsoFormat4", "A912150391AB65A67E52883D81CE2D15", wrappedMember(out, aes.block(t, zmkAES, keys.AES256), "")),
			`"EncryptedPinBlock"`, `"IncomingDukptAttributes":{"KeySerialNumber":"123456789012345600000001"},"EncryptedPinBlock"`, 1), "", "alias/zmk-aes", "A76DE0"},
		{"in AES, format 4", translateBody("alias/zmk-aes", "alias/zpk-b", "IsoFormat4", "IsoFormat0", "AE03C845A8C30C63D48A6DC34EC454C6", wrappedMember(in, aes.block(t, zmkAES, keys.AES256), "CMAC")), "0283D72654F2F983", "alias/zpk-b", "893CDC"},
		{"out, three-key TDES without restriction", translateBody("alias/zpk-aes", "alias/zmk-aes", "IsoFormat4", "IsoFormat0", "AE03C845A8C30C63D48A6DC34EC454C6", wrappedMember(out, wide.block(t, zmkAES, keys.AES256), "")), "0283D72654F2F983", "alias/zmk-aes", "893CDC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := b.call(t, client, "TranslatePinData", c.body)
			got := b.success(t, a, "TranslatePinData")
			if c.want != "" && got["PinBlock"] != c.want {
				t.Errorf("block %v, want %s", got["PinBlock"], c.want)
			}
			other, not := strings.CutPrefix(c.checkBy, "~")
			if got["KeyArn"] != b.arn(c.key) || (got["KeyCheckValue"] == other) == not {
				t.Errorf("the answer names %v with check value %v", got["KeyArn"], got["KeyCheckValue"])
			}
			if a.header.Get("x-keyd-custody") != "process" {
				t.Error("the class is not process")
			}
		})
	}
	data := carried{keys.UsageData, keys.AES128, keys.ModeBoth, dataAES128}
	t.Run("data", func(t *testing.T) {
		more := wrappedMember("WrappedKey", data.block(t, zmkAES, keys.AES256), "")
		for _, v := range dataVectors() {
			if v.key != "alias/pay/data-aes" {
				continue
			}
			got := b.success(t, b.call(t, client, "EncryptData", encryptBody("alias/zmk-aes", v.attributes, dataPlain, more)), "EncryptData")
			if got["CipherText"] != v.ciphered || got["KeyArn"] != b.arn("alias/zmk-aes") || got["KeyCheckValue"] == "5768C0" {
				t.Errorf("%s: %v", v.name, got)
			}
			back := b.success(t, b.call(t, client, "DecryptData", decryptBody("alias/zmk-aes", v.attributes, v.ciphered, more)), "DecryptData")
			if back["PlainText"] != dataPlain {
				t.Errorf("%s: another text came back", v.name)
			}
		}
		cbc := symmetric("CBC", vectorAES)
		const ciphered = "7649ABAC8119B246CEE98E9B12E9197D5086CB9B507219EE95DB113A917678B2"
		body := reencryptBody("alias/zmk-aes", "alias/zmk-aes", cbc, symmetric("ECB", ""), ciphered, wrappedMember(in, data.block(t, zmkAES, keys.AES256), "")+wrappedMember(out, data.block(t, zmkAES, keys.AES256), "ANSI_X9_24"))
		got := b.success(t, b.call(t, client, "ReEncryptData", body), "ReEncryptData")
		if got["CipherText"] != "3AD77BB40D7A3660A89ECAF32466EF97F5D3D58503B9699DE785895A96FDBAAF" || got["KeyCheckValue"] != "7DF76B" {
			t.Errorf("ReEncryptData: %v", got)
		}
	})
	t.Run("nothing is stored", func(t *testing.T) {
		list := b.success(t, b.call(t, b.client(t, "admin"), "ListKeys", `{}`), "ListKeys")["Keys"].([]any)
		if want := len(exampleKeys()) + len(dataKeys()); len(list) != want {
			t.Errorf("%d keys, want %d", len(list), want)
		}
	})
}

// TestDynamicKeysRefused: what is wrong with a wrapped key; what opening its
// block reveals has one text (section 17, row 6).
func TestDynamicKeysRefused(t *testing.T) {
	b := newBench(t)
	b.importKey(t, exampleKey{"alias/zmk-token", "", keys.UsageKBPK, keys.AES256, keys.ModeBoth, zmkAES, map[string]string{"keyd:custody": "token"}})
	b.importKey(t, exampleKey{"alias/zpk-token", "", keys.UsagePIN, keys.TDES2, keys.ModeBoth, dataTDES2, map[string]string{"keyd:custody": "token"}})
	b.importKey(t, exampleKey{"alias/zmk-out", "", keys.UsageKEK, keys.AES256, keys.ModeEncrypt, "8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B8E73B0F7DA0E6452", nil})
	client := b.client(t, "switch-a")
	tpk := carried{keys.UsagePIN, keys.TDES2, keys.ModeBoth, "8FCB7368F7E92C3DDC75A4CE04D6A77A"}
	with := func(change func(*carried)) string { k := tpk; change(&k); return k.block(t, zmkAES, keys.AES256) }
	good := tpk.block(t, zmkAES, keys.AES256)
	const clear, under, uniform = "69924468C501B5FE", "A0BA774BB147CC0F", "~the key block was not accepted"
	for _, c := range []struct {
		name, kek, block string
		out              bool
		more             string
		want             string // member complained of, or part of the message
	}{
		{"MAC wrong in one digit", "alias/zmk-aes", good[:len(good)-1] + flipped(good[len(good)-1]), false, "", uniform},
		{"key wrong in one digit", "alias/zmk-aes", good[:40] + flipped(good[40]) + good[41:], false, "", uniform},
		{"header changed", "alias/zmk-aes", good[:8] + "D" + good[9:], false, "", uniform},
		{"another wrapping key of its strength", "alias/zmk-out2", good, false, "", uniform},
		{"length field", "alias/zmk-aes", good[:1] + "0128" + good[5:], false, "", uniform},
		{"in small letters", "alias/zmk-aes", good[:20] + strings.ToLower(good[20:]), false, "", uniform},
		{"weak key", "alias/zmk-aes", with(func(k *carried) { k.value = "0123456789ABCDEF0123456789ABCDEF" }), false, "", uniform},
		{"all bytes equal", "alias/zmk-aes", with(func(k *carried) { k.value = strings.Repeat("11", 16) }), false, "", uniform},
		{"too short", "alias/zmk-aes", good[:55], false, "", "IncomingWrappedKey.WrappedKeyMaterial.Tr31KeyBlock"},
		{"not ASCII", "alias/zmk-aes", good[:55] + "é", false, "", "IncomingWrappedKey.WrappedKeyMaterial.Tr31KeyBlock"},
		{"usage of another", "alias/zmk-aes", with(func(k *carried) { k.usage = keys.UsageData }), false, "", "~usage P0"},
		{"incoming key for enciphering", "alias/zmk-aes", with(func(k *carried) { k.mode = keys.ModeEncrypt }), false, "", "~mode of use"},
		{"outgoing key for deciphering", "alias/zmk-aes", with(func(k *carried) { k.mode = keys.ModeDecrypt }), true, "", "~mode of use"},
		{"a component", "alias/zmk-aes", tpk.block(t, zmkAES, keys.AES256, func(h *tr31.Header) { h.KeyVersion = "c1" }), false, "", "~component"},
		{"version A", "alias/zmk-tdes", "A0088P0TB00E0000" + strings.Repeat("0", 72), false, "", "~version"},
		{"version C", "alias/zmk-tdes", "C0088P0TB00E0000" + strings.Repeat("0", 72), false, "", "~version"},
		{"version B under AES", "alias/zmk-aes", tpk.block(t, zmkTDES, keys.TDES2), false, "", "~version"},
		{"under a PIN key", "alias/zpk-a", good, false, "", "IncomingKeyIdentifier"},
		{"under a PIN key, outgoing", "alias/zpk-a", good, true, "", "OutgoingKeyIdentifier"},
		{"under a key for wrapping", "alias/zmk-out", good, false, "", "IncomingKeyIdentifier"},
		{"token custody of the wrapping key", "alias/zmk-token", good, false, "", "IncomingKeyIdentifier"},
		{"AES key for format 0", "alias/zmk-aes", with(func(k *carried) { k.kind, k.value = keys.AES128, dataAES128 }), false, "", "~the key cannot be used for this operation"},
		{"check value of HMAC", "alias/zmk-aes", good, false, "HMAC", "IncomingWrappedKey.KeyCheckValueAlgorithm"},
		{"beside DUKPT", "alias/zmk-aes", good, false, `DUKPT`, "IncomingWrappedKey"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kek == "alias/zmk-out2" {
				b.importKey(t, exampleKey{"alias/zmk-out2", "", keys.UsageKEK, keys.AES256, keys.ModeBoth, "8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B8E73B0F7DA0E6453", nil})
			}
			by, also := c.more, ""
			if by == "DUKPT" {
				by, also = "", `,"IncomingDukptAttributes":{"KeySerialNumber":"FFFF9876543210E00001"}`
			}
			body := translateBody(c.kek, "alias/zpk-a", "IsoFormat0", "IsoFormat0", clear, wrappedMember("IncomingWrappedKey", c.block, by)+also)
			if c.out {
				body = translateBody("alias/zpk-a", c.kek, "IsoFormat0", "IsoFormat0", under, wrappedMember("OutgoingWrappedKey", c.block, by))
			}
			answer := b.failure(t, b.call(t, client, "TranslatePinData", body), "TranslatePinData", "ValidationException", 400)
			if part, ok := strings.CutPrefix(c.want, "~"); ok {
				if !strings.Contains(answer["Message"].(string), part) {
					t.Errorf("message %q, want one of %q", answer["Message"], part)
				}
				return
			}
			if paths := fieldsOf(answer); !slices.Equal(paths, []string{c.want}) {
				t.Errorf("complains of %v, want %s: %v", paths, c.want, answer["Message"])
			}
		})
	}
	t.Run("token custody of the other side binds", func(t *testing.T) {
		body := translateBody("alias/zmk-aes", "alias/zpk-token", "IsoFormat0", "IsoFormat0", clear, wrappedMember("IncomingWrappedKey", good, ""))
		b.failure(t, b.call(t, client, "TranslatePinData", body), "TranslatePinData", "ValidationException", 400)
	})
	t.Run("another client's wrapping key", func(t *testing.T) {
		body := translateBody("alias/zmk-aes", "alias/zpk-a", "IsoFormat0", "IsoFormat0", clear, wrappedMember("IncomingWrappedKey", good, ""))
		b.failure(t, b.call(t, b.client(t, "switch-b"), "TranslatePinData", body), "TranslatePinData", "AccessDeniedException", 403)
	})
}

// flipped is another hexadecimal digit.
func flipped(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}

// TestDynamicRecords (L-90): the record names the key-encryption key and the
// header of the block, and nothing behind it.
func TestDynamicRecords(t *testing.T) {
	b := newBench(t)
	e := loadWireExamples(t)["tp-dynamic"]
	b.success(t, b.call(t, b.client(t, "switch-a"), e.Operation, string(e.Request)), e.Operation)
	var request struct {
		IncomingWrappedKey struct{ WrappedKeyMaterial struct{ Tr31KeyBlock string } }
	}
	if err := json.Unmarshal(e.Request, &request); err != nil {
		t.Fatal(err)
	}
	block := request.IncomingWrappedKey.WrappedKeyMaterial.Tr31KeyBlock
	for text, want := range map[string]bool{
		`"role":"kek"`: true, b.ids["alias/zmk-aes"]: true, block[:16]: true, block[:17]: false, block[20:40]: false, "8FCB7368": false,
	} {
		if where := b.found(t, text); (where != "") != want {
			t.Errorf("%q is in %q, want it there = %v", text, where, want)
		}
	}
}
