package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"keyd.dev/keyd/keys"
)

// TestUnionPayMAC (section 10.4): what the examples do not show of
// KEYD_UNIONPAY_ECB: its key, its length, its tag.
func TestUnionPayMAC(t *testing.T) {
	b := newBench(t)
	up := map[string]string{"keyd:mac-algorithm": "KEYD_UNIONPAY_ECB"}
	b.importKey(t, exampleKey{"alias/mak-m0", "", keys.UsageMACISO16609, keys.TDES2, keys.ModeMAC, "AB73C9416D41E936E82AAC11053BCEDD", up})
	b.importKey(t, exampleKey{"alias/mak-m0-bare", "", keys.UsageMACISO16609, keys.TDES2, keys.ModeMAC, dataTDES2, nil})
	b.importKey(t, exampleKey{"alias/mak-verify", "", keys.UsageMACAlg1, keys.TDES2, keys.ModeVerify, "AB73C9416D41E936E82AAC11053BCEDD", up})
	client, admin := b.client(t, "switch-a"), b.client(t, "admin")
	const message, mac = "3230313630393133323031363039313332303136303931333230313630393133", "3330323731433734"
	generate := func(key, algorithm, more string) string {
		return fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":%q,"GenerationAttributes":{"Algorithm":%q}%s}`, key, message, algorithm, more)
	}
	verify := func(key, algorithm, mac, more string) string {
		return fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":%q,"Mac":%q,"VerificationAttributes":{"Algorithm":%q}%s}`, key, message, mac, algorithm, more)
	}
	const alg = "KEYD_UNIONPAY_ECB"
	t.Run("usage M0", func(t *testing.T) {
		if got := b.success(t, b.call(t, client, "GenerateMac", generate("alias/mak-m0", alg, `,"MacLength":8`)), "GenerateMac"); got["Mac"] != mac {
			t.Errorf("MAC %v, want %s", got["Mac"], mac)
		}
		b.success(t, b.call(t, client, "VerifyMac", verify("alias/mak-verify", alg, mac, `,"MacLength":8`)), "VerifyMac")
	})
	t.Run("a message that is no whole block is filled with zeros", func(t *testing.T) {
		short := strings.Replace(generate("alias/mak-up", alg, ""), message, message[:26], 1)
		whole := strings.Replace(generate("alias/mak-up", alg, ""), message, message[:26]+"000000", 1)
		first := b.success(t, b.call(t, client, "GenerateMac", short), "GenerateMac")["Mac"]
		if second := b.success(t, b.call(t, client, "GenerateMac", whole), "GenerateMac")["Mac"]; first != second {
			t.Errorf("%v and %v", first, second)
		}
	})
	for _, c := range []struct{ name, operation, body, error, member string }{
		{"another MAC", "VerifyMac", verify("alias/mak-up", alg, "3330323731433735", ""), "VerificationFailedException", ""},
		{"bytes in place of characters", "VerifyMac", verify("alias/mak-up", alg, "30271C7400000000", ""), "VerificationFailedException", ""},
		{"half of it", "VerifyMac", verify("alias/mak-up", alg, mac[:8], ""), "ValidationException", ""},
		{"more than it", "VerifyMac", verify("alias/mak-up", alg, mac+"30", ""), "ValidationException", ""},
		{"half of it asked for", "GenerateMac", generate("alias/mak-up", alg, `,"MacLength":4`), "ValidationException", ""},
		{"more than it asked for", "GenerateMac", generate("alias/mak-up", alg, `,"MacLength":9`), "ValidationException", ""},
		{"a key without the tag", "GenerateMac", generate("alias/tak-alg1", alg, ""), "ValidationException", "KeyIdentifier"},
		{"usage M0 without the tag", "GenerateMac", generate("alias/mak-m0-bare", alg, ""), "ValidationException", "KeyIdentifier"},
		{"usage M3", "GenerateMac", generate("alias/tak-42", alg, ""), "ValidationException", "KeyIdentifier"},
		{"a key with the tag for another algorithm", "GenerateMac", generate("alias/mak-up", "ISO9797_ALGORITHM1", ""), "ValidationException", "KeyIdentifier"},
		{"usage M0 for another algorithm", "GenerateMac", generate("alias/mak-m0", "ISO9797_ALGORITHM1", ""), "ValidationException", "KeyIdentifier"},
		{"generation with a key that verifies", "GenerateMac", generate("alias/mak-verify", alg, ""), "ValidationException", "KeyIdentifier"},
		{"AS 2805", "GenerateMac", generate("alias/mak-up", "AS2805_4_1", ""), "ValidationException", "GenerationAttributes.Algorithm"},
		{"SM4", "VerifyMac", verify("alias/mak-up", "KEYD_SM4_POS_ECB", mac, ""), "ValidationException", "VerificationAttributes.Algorithm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := b.failure(t, b.call(t, client, c.operation, c.body), c.operation, c.error, 400)
			if paths := fieldsOf(answer); c.member != "" && (len(paths) != 1 || paths[0] != c.member) {
				t.Errorf("complains of %v, want %s", paths, c.member)
			}
		})
	}
	create := func(usage, algorithm string) string {
		return fmt.Sprintf(`{"Exportable":true,"KeyAttributes":{"KeyUsage":%q,"KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":%q,"KeyModesOfUse":{"Generate":true,"Verify":true}},
			"Tags":[{"Key":"keyd:mac-algorithm","Value":"KEYD_UNIONPAY_ECB"}]}`, usage, algorithm)
	}
	for usage, ok := range map[[2]string]bool{
		{"TR31_M0_ISO_16609_MAC_KEY", "TDES_2KEY"}: true, {"TR31_M1_ISO_9797_1_MAC_KEY", "TDES_2KEY"}: true,
		{"TR31_M1_ISO_9797_1_MAC_KEY", "TDES_3KEY"}: false, {"TR31_M3_ISO_9797_3_MAC_KEY", "TDES_2KEY"}: false, {"TR31_M6_ISO_9797_5_CMAC_KEY", "AES_128"}: false,
	} {
		t.Run(fmt.Sprintf("the tag on %s %s", usage[0], usage[1]), func(t *testing.T) {
			a := b.call(t, admin, "CreateKey", create(usage[0], usage[1]))
			if ok {
				b.success(t, a, "CreateKey")
			} else if answer := b.failure(t, a, "CreateKey", "ValidationException", 400); !strings.Contains(answer["Message"].(string), "keyd:mac-algorithm") {
				t.Errorf("message %v", answer["Message"])
			}
		})
	}
	t.Run("the log calls it cup_ecb", func(t *testing.T) {
		if b.found(t, `"alg":"cup_ecb"`) == "" {
			t.Error("no record has it")
		}
	})
}

// guardedBench has BDKs whose serial numbers are guarded.
func guardedBench(tb testing.TB) *bench {
	tb.Helper()
	b := newBench(tb)
	guard := map[string]string{"keyd:ksn-guard": "monotonic"}
	b.importKey(tb, exampleKey{"alias/bdk-guarded", "", keys.UsageBDK, keys.TDES2, keys.ModeDerive, "0123456789ABCDEFFEDCBA9876543210", guard})
	b.importKey(tb, exampleKey{"alias/bdk-aes-guarded", "", keys.UsageBDK, keys.AES128, keys.ModeDerive, "FEDCBA9876543210F1F1F1F1F1F1F1F1", guard})
	b.importKey(tb, exampleKey{"alias/pay/data-aes", "", keys.UsageData, keys.AES128, keys.ModeBoth, dataAES128, nil})
	return b
}

// TestKSNGuard (section 9, section 17 row 8): one transaction, as its parts come.
func TestKSNGuard(t *testing.T) {
	b := guardedBench(t)
	client := b.client(t, "switch-a")
	all := loadWireExamples(t)
	under := func(id, ksn string) (operation, body string) {
		text := strings.Replace(string(all[id].Request), "alias/bdk-tdes", "alias/bdk-guarded", 1)
		return all[id].Operation, strings.Replace(text, "FFFF9876543210E00001", ksn, 1)
	}
	data := func(ksn string) string { return decryptBody("alias/bdk-guarded", dukptOf(ksn, ""), dataPlain, "") }
	again := func(ksn string) string {
		return reencryptBody("alias/bdk-guarded", "alias/pay/data-aes", dukptOf(ksn, ""), symmetric("CBC", ""), dataPlain, "")
	}
	const one, two, three = "FFFF9876543210E00001", "FFFF9876543210E00002", "FFFF9876543210E00003"
	pin, pinBody := under("tp-dukpt-tdes", one)
	vm, vmBody := under("vm-dukpt-alg3", one)
	gm, gmBody := under("gm-dukpt-alg3", one)
	for _, step := range []struct {
		name, operation, body string
		id                    string // of the invocation
		want                  string // an error, or "" for a success
	}{
		{"the MAC", vm, vmBody, "", ""},
		{"the PIN of the same message", pin, pinBody, "", ""},
		{"its data", "DecryptData", data(one), "", ""},
		{"the MAC again", vm, vmBody, "", "used"},
		{"the PIN again", pin, pinBody, "", "used"},
		{"its data again", "DecryptData", data(one), "", "used"},
		{"its data in another way", "ReEncryptData", again(one), "", "used"},
		{"the answer's MAC", gm, gmBody, "", ""},
		{"the answer's MAC again", gm, gmBody, "", ""},
		{"data of an answer", "EncryptData", encryptBody("alias/bdk-guarded", dukptOf(one, ""), dataPlain, ""), "", ""},
		{"a translation to the terminal", "TranslatePinData", strings.Replace(strings.Replace(string(all["tp-out-dukpt-tdes"].Request), "alias/bdk-tdes", "alias/bdk-guarded", 1), "E00002", "E00001", 1), "", ""},
		{"a wrong MAC spends nothing", vm, strings.Replace(strings.Replace(vmBody, one, two, 1), "9CCC7817", "00000000", 1), "", "MAC"},
		{"a block that is not accepted spends nothing", pin, strings.Replace(pinBody, one, two, 1), "", "PIN"},
		{"a wrong length spends nothing", vm, strings.Replace(strings.Replace(vmBody, one, two, 1), "9CCC7817", "9CCC78", 1), "", "bytes"},
		{"data at the next counter, first delivery", "ReEncryptData", again(two), "call-1", ""},
		{"its second delivery", "ReEncryptData", again(two), "call-1", ""},
		{"a replay by another call", "ReEncryptData", again(two), "call-2", "used"},
		{"another body in the same call", "DecryptData", data(two), "call-1", "used"},
		{"a later counter", "DecryptData", data(three), "call-3", ""},
		{"the second delivery of the earlier call, late", "ReEncryptData", again(two), "call-1", ""},
		{"a PIN at the earlier counter", pin, strings.Replace(pinBody, one, two, 1), "", "used"},
		{"a MAC at the first counter", vm, vmBody, "", "used"},
	} {
		t.Run(step.name, func(t *testing.T) {
			var headers []string
			if step.id != "" {
				headers = []string{invocationHeader, step.id}
			}
			a := b.call(t, client, step.operation, step.body, headers...)
			if step.want == "" {
				b.success(t, a, step.operation)
				return
			}
			name := "ValidationException"
			if step.want == "MAC" {
				name = "VerificationFailedException"
			}
			answer := b.failure(t, a, step.operation, name, 400)
			if step.want == "used" {
				if answer["Message"] != "key serial number already used" {
					t.Errorf("message %v", answer["Message"])
				}
				found := b.recordsOf(t, a, 2)
				if len(found) == 2 && (found[0].Action != "ksn.refuse" || found[0].Reason != "ksn_replay" || found[1].Outcome != "refused" || found[1].Reason != "ksn_replay") {
					t.Errorf("records %+v", found)
				}
			} else if !strings.Contains(answer["Message"].(string), step.want) {
				t.Errorf("message %v", answer["Message"])
			}
		})
	}
	t.Run("another client's call of the same id", func(t *testing.T) {
		body := again("FFFF9876543210E00004")
		b.success(t, b.call(t, client, "ReEncryptData", body, invocationHeader, "call-9"), "ReEncryptData")
		other := b.clientWith(t, b.certificate(t, byDNS))
		b.failure(t, b.call(t, other, "ReEncryptData", body, invocationHeader, "call-9"), "ReEncryptData", "ValidationException", 400)
	})
	t.Run("the same body as another operation", func(t *testing.T) {
		const five = "FFFF9876543210E00005"
		body := strings.TrimSuffix(again(five), "}") + `,"DecryptionAttributes":` + dukptOf(five, "") + "}"
		b.success(t, b.call(t, client, "ReEncryptData", body, invocationHeader, "call-11"), "ReEncryptData")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/keys/alias%2Fbdk-guarded/decrypt", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(invocationHeader, "call-11")
		b.failure(t, b.do(t, client, r), "DecryptData", "ValidationException", 400)
	})
	t.Run("AES", func(t *testing.T) {
		body := strings.Replace(string(all["vm-dukpt-cmac"].Request), "alias/bdk-aes", "alias/bdk-aes-guarded", 1)
		b.success(t, b.call(t, client, "VerifyMac", body), "VerifyMac")
		b.failure(t, b.call(t, client, "VerifyMac", body), "VerifyMac", "ValidationException", 400)
	})
	t.Run("a key without the guard", func(t *testing.T) {
		for range 2 {
			b.success(t, b.call(t, client, "VerifyMac", string(all["vm-dukpt-alg3"].Request)), "VerifyMac")
		}
	})
	t.Run("the guard is for BDKs", func(t *testing.T) {
		body := fmt.Sprintf(`{"ResourceArn":%q,"Tags":[{"Key":"keyd:ksn-guard","Value":"monotonic"}]}`, b.arn("alias/zpk-a"))
		answer := b.failure(t, b.call(t, b.client(t, "admin"), "TagResource", body), "TagResource", "ValidationException", 400)
		if !strings.Contains(answer["Message"].(string), "keyd:ksn-guard") {
			t.Errorf("message %v", answer["Message"])
		}
	})
}

// TestKSNGuardRaces: of many deliveries that race, calls of their own, one gets
// a result.
func TestKSNGuardRaces(t *testing.T) {
	b := guardedBench(t)
	client := b.client(t, "switch-a")
	body := strings.Replace(string(loadWireExamples(t)["vm-dukpt-alg3"].Request), "alias/bdk-tdes", "alias/bdk-guarded", 1)
	const racers = 32
	status := make(chan int, racers)
	for i := range racers {
		go func() {
			status <- b.call(t, client, "VerifyMac", body, invocationHeader, fmt.Sprint("racer-", i)).status
		}()
	}
	won := 0
	for range racers {
		if <-status == 200 {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d results, want 1", won)
	}
}

// TestDerivationTypes (section 17, row 9): TDES working keys of an AES BDK are for
// PINs, data and CMAC, and not for algorithms 1 and 3.
func TestDerivationTypes(t *testing.T) {
	b := newBench(t)
	b.importKey(t, exampleKey{"alias/bdk-aes256", "", keys.UsageBDK, keys.AES256, keys.ModeAny, "FEDCBA9876543210F1F1F1F1F1F1F1F1FEDCBA9876543210F1F1F1F1F1F1F1F1", nil})
	b.importKey(t, exampleKey{"alias/bdk-tdes3", "", keys.UsageBDK, keys.TDES3, keys.ModeDerive, dataTDES3, nil})
	client := b.client(t, "switch-a")
	const ksn = "123456789012345600000001"
	mac := func(member, key, ksn, derive string) string {
		return fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"0011223344556677","GenerationAttributes":{%q:{"KeySerialNumber":%q,"DukptKeyVariant":"REQUEST","DukptDerivationType":%q}}}`, key, member, ksn, derive)
	}
	for _, c := range []struct {
		name, operation, body string
		ok                    bool
	}{
		{"CMAC with TDES_2KEY", "GenerateMac", mac("DukptCmac", "alias/bdk-aes", ksn, "TDES_2KEY"), true},
		{"CMAC with TDES_3KEY", "GenerateMac", mac("DukptCmac", "alias/bdk-aes256", ksn, "TDES_3KEY"), true},
		{"CMAC with AES_192 of AES_256", "GenerateMac", mac("DukptCmac", "alias/bdk-aes256", ksn, "AES_192"), true},
		{"CMAC with AES_192 of AES_128", "GenerateMac", mac("DukptCmac", "alias/bdk-aes", ksn, "AES_192"), false},
		{"algorithm 1 of an AES BDK", "GenerateMac", mac("DukptIso9797Algorithm1", "alias/bdk-aes", ksn, "TDES_2KEY"), false},
		{"algorithm 3 of an AES BDK", "GenerateMac", mac("DukptIso9797Algorithm3", "alias/bdk-aes", ksn, "TDES_2KEY"), false},
		{"AES_128 of a TDES BDK", "GenerateMac", mac("DukptCmac", "alias/bdk-tdes", "FFFF9876543210E00001", "AES_128"), false},
		{"TDES_3KEY of a TDES BDK", "GenerateMac", mac("DukptCmac", "alias/bdk-tdes", "FFFF9876543210E00001", "TDES_3KEY"), false},
		{"CMAC of a TDES BDK", "GenerateMac", mac("DukptCmac", "alias/bdk-tdes", "FFFF9876543210E00001", "TDES_2KEY"), true},
		{"triple-length TDES BDK", "GenerateMac", mac("DukptCmac", "alias/bdk-tdes3", "FFFF9876543210E00001", "TDES_2KEY"), false},
		{"data with TDES_2KEY", "EncryptData", encryptBody("alias/bdk-aes", dukptOf(ksn, `,"DukptKeyDerivationType":"TDES_2KEY"`), dataPlain[:16], ""), true},
		{"data with TDES_3KEY", "DecryptData", decryptBody("alias/bdk-aes256", dukptOf(ksn, `,"DukptKeyDerivationType":"TDES_3KEY"`), dataPlain[:16], ""), true},
		{"data with AES_128, half a block", "EncryptData", encryptBody("alias/bdk-aes", dukptOf(ksn, `,"DukptKeyDerivationType":"AES_128"`), dataPlain[:16], ""), false},
		{"data with AES_256 of AES_256", "EncryptData", encryptBody("alias/bdk-aes256", dukptOf(ksn, `,"DukptKeyDerivationType":"AES_256"`), dataPlain, ""), true},
		{"PIN with TDES_2KEY, out", "TranslatePinData", strings.Replace(translateBody("alias/zpk-a", "alias/bdk-aes", "IsoFormat0", "IsoFormat0", "A0BA774BB147CC0F", ""),
			`"EncryptedPinBlock"`, `"OutgoingDukptAttributes":{"KeySerialNumber":"`+ksn+`","DukptKeyDerivationType":"TDES_2KEY"},"EncryptedPinBlock"`, 1), true},
		{"PIN with AES_128, out, format 0", "TranslatePinData", strings.Replace(translateBody("alias/zpk-a", "alias/bdk-aes", "IsoFormat0", "IsoFormat0", "A0BA774BB147CC0F", ""),
			`"EncryptedPinBlock"`, `"OutgoingDukptAttributes":{"KeySerialNumber":"`+ksn+`","DukptKeyDerivationType":"AES_128"},"EncryptedPinBlock"`, 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := b.call(t, client, c.operation, c.body)
			if c.ok {
				b.success(t, a, c.operation)
			} else {
				b.failure(t, a, c.operation, "ValidationException", 400)
			}
		})
	}
}

// TestFormats (section 10.2): every pair of formats, by the table.
func TestFormats(t *testing.T) {
	b := newBench(t)
	client := b.client(t, "switch-a")
	blocks := map[string]string{"IsoFormat0": "59E8F963CDF70695", "IsoFormat1": "D639ABA95CE6BD92", "IsoFormat4": "AE03C845A8C30C63D48A6DC34EC454C6"}
	first := b.success(t, b.call(t, client, "TranslatePinData", translateBody("alias/tpk-17", "alias/tpk-17", "IsoFormat0", "IsoFormat3", blocks["IsoFormat0"], "")), "TranslatePinData")
	blocks["IsoFormat3"] = first["PinBlock"].(string)
	const want = "A0BA774BB147CC0F" // the PIN in format 0 under zpk-a
	for in, block := range blocks {
		for out := range blocks {
			t.Run(in+" to "+out, func(t *testing.T) {
				key := func(format, short string) string {
					if format == "IsoFormat4" {
						return "alias/zpk-aes"
					}
					return short
				}
				from, to := key(in, "alias/tpk-17"), key(out, "alias/zpk-a")
				a := b.call(t, client, "TranslatePinData", translateBody(from, to, in, out, block, ""))
				if out == "IsoFormat1" && in != "IsoFormat1" {
					b.failure(t, a, "TranslatePinData", "ValidationException", 400)
					return
				}
				made := b.success(t, a, "TranslatePinData")["PinBlock"].(string)
				if len(made) != map[bool]int{true: 32, false: 16}[out == "IsoFormat4"] {
					t.Errorf("a block of %d characters", len(made))
				}
				back := b.success(t, b.call(t, client, "TranslatePinData", translateBody(to, "alias/zpk-a", out, "IsoFormat0", made, "")), "TranslatePinData")
				if back["PinBlock"] != want {
					t.Error("another PIN")
				}
			})
		}
	}
	for _, c := range []struct{ name, in, out, from, to, block string }{
		{"format 0 under AES", "alias/zpk-aes", "alias/zpk-a", "IsoFormat0", "IsoFormat0", blocks["IsoFormat0"]},
		{"format 4 under TDES", "alias/tpk-17", "alias/zpk-a", "IsoFormat4", "IsoFormat0", blocks["IsoFormat4"]},
		{"to format 4 under TDES", "alias/tpk-17", "alias/zpk-a", "IsoFormat0", "IsoFormat4", blocks["IsoFormat0"]},
		{"to format 3 under AES", "alias/tpk-17", "alias/zpk-aes", "IsoFormat0", "IsoFormat3", blocks["IsoFormat0"]},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.failure(t, b.call(t, client, "TranslatePinData", translateBody(c.in, c.out, c.from, c.to, c.block, "")), "TranslatePinData", "ValidationException", 400)
		})
	}
}

// TestISO4PAN (section 9): the PAN field of format 4 is that of the key's policy,
// on each side for itself.
func TestISO4PAN(t *testing.T) {
	b := newBench(t)
	const value = "8FFD058A06164289C2046604ABD7E908088BB47987B40D21D3D6AAFE62F5375D"
	b.importKey(t, exampleKey{"alias/zpk-aes12", "", keys.UsagePIN, keys.AES256, keys.ModeBoth, value, map[string]string{"keyd:iso4-pan": "rightmost12"}})
	client := b.client(t, "switch-a")
	translate := func(in, out, from, to, block string) answer {
		return b.call(t, client, "TranslatePinData", translateBody(in, out, from, to, block, ""))
	}
	const clear, under = "59E8F963CDF70695", "A0BA774BB147CC0F"
	for _, c := range []struct {
		made, read string
		ok         bool
	}{
		{"alias/zpk-aes", "alias/zpk-aes", true}, {"alias/zpk-aes12", "alias/zpk-aes12", true},
		{"alias/zpk-aes", "alias/zpk-aes12", false}, {"alias/zpk-aes12", "alias/zpk-aes", false},
	} {
		t.Run(c.made+" to "+c.read, func(t *testing.T) {
			made := b.success(t, translate("alias/tpk-17", c.made, "IsoFormat0", "IsoFormat4", clear), "TranslatePinData")["PinBlock"].(string)
			back := translate(c.read, "alias/zpk-a", "IsoFormat4", "IsoFormat0", made)
			if !c.ok {
				answer := b.failure(t, back, "TranslatePinData", "ValidationException", 400)
				if answer["Message"] != "the PIN block was not accepted" {
					t.Errorf("message %v", answer["Message"])
				}
			} else if got := b.success(t, back, "TranslatePinData")["PinBlock"]; got != under {
				t.Error("another PIN")
			}
		})
	}
}

// TestDUKPTPadding (section 9): the padding of a MAC under DUKPT is that of the
// BDK's policy. The message and the MAC with padding 1 are the published ones of
// X9.24-1, annex A.4.2.
func TestDUKPTPadding(t *testing.T) {
	b := newBench(t)
	for _, padding := range []string{"none", "1", "2"} {
		b.importKey(t, exampleKey{"alias/bdk-pad-" + padding, "", keys.UsageBDK, keys.TDES2, keys.ModeDerive, "0123456789ABCDEFFEDCBA9876543210", map[string]string{"keyd:mac-padding": padding}})
	}
	client := b.client(t, "switch-a")
	const bare = "3430313233343536373839303944393837"
	mac := func(key, message string) answer {
		return b.call(t, client, "GenerateMac", fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":%q,"MacLength":8,
			"GenerationAttributes":{"DukptIso9797Algorithm3":{"KeySerialNumber":"FFFF9876543210E00001","DukptKeyVariant":"REQUEST"}}}`, key, message))
	}
	b.failure(t, mac("alias/bdk-pad-none", bare), "GenerateMac", "ValidationException", 400)
	zeros := b.success(t, mac("alias/bdk-pad-1", bare), "GenerateMac")["Mac"]
	if zeros != "9CCC78173FC4FB64" {
		t.Errorf("padding 1 gave %v", zeros)
	}
	marked := b.success(t, mac("alias/bdk-pad-2", bare), "GenerateMac")["Mac"]
	if by := b.success(t, mac("alias/bdk-pad-none", bare+"80000000000000"), "GenerateMac")["Mac"]; marked != by {
		t.Errorf("padding 2 gave %v, the message so padded %v", marked, by)
	}
}
