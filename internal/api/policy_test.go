package api_test

import (
	"fmt"
	"testing"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// TestMACPolicy: the tags of section 9 bind whoever uses the key, whatever the
// request says.
func TestMACPolicy(t *testing.T) {
	b := newBench(t)
	client, admin := b.client(t, "switch-a"), b.client(t, "admin")
	for _, c := range []struct {
		name, tags string
		accepted   []int // bytes of a right MAC
		refused    []int
	}{
		{"default", ``, []int{4, 5, 8}, []int{2, 3}},
		{"at least 8", `{"Key":"keyd:mac-min-bytes","Value":"8"}`, []int{8}, []int{2, 4, 7}},
		{"half MACs", `{"Key":"keyd:mac-min-bytes","Value":"2"}`, []int{2, 3, 4, 8}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			create := fmt.Sprintf(`{"KeyAttributes":{"KeyUsage":"TR31_M3_ISO_9797_3_MAC_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"TDES_2KEY","KeyModesOfUse":{"Generate":true,"Verify":true}},"Exportable":false,"Tags":[%s]}`, c.tags)
			key := b.success(t, b.call(t, admin, "CreateKey", create), "CreateKey")["Key"].(map[string]any)["KeyArn"]
			generate := fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"0011223344556677","GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"},"MacLength":8}`, key)
			mac := b.success(t, b.call(t, client, "GenerateMac", generate), "GenerateMac")["Mac"].(string)
			verify := func(n int, more string) answer {
				return b.call(t, client, "VerifyMac", fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"0011223344556677","Mac":%q,"VerificationAttributes":{"Algorithm":"ISO9797_ALGORITHM3"}%s}`, key, mac[:2*n], more))
			}
			for _, n := range c.accepted {
				b.success(t, verify(n, ""), "VerifyMac")
			}
			for _, n := range c.refused {
				b.failure(t, verify(n, ""), "VerifyMac", "ValidationException", 400)
				if n >= 4 {
					b.failure(t, verify(n, fmt.Sprintf(`,"MacLength":%d`, n)), "VerifyMac", "ValidationException", 400)
				}
			}
		})
	}
	t.Run("padding", func(t *testing.T) {
		macs := make(map[string]string)
		for _, padding := range []string{"none", "1", "2"} {
			create := fmt.Sprintf(`{"KeyAttributes":{"KeyUsage":"TR31_M1_ISO_9797_1_MAC_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"TDES_2KEY","KeyModesOfUse":{"NoRestrictions":true}},"Exportable":false,"Tags":[{"Key":"keyd:mac-padding","Value":%q}]}`, padding)
			key := b.success(t, b.call(t, admin, "CreateKey", create), "CreateKey")["Key"].(map[string]any)["KeyArn"]
			for _, message := range []string{"00112233445566", "0011223344556600", "0011223344556680"} {
				a := b.call(t, client, "GenerateMac", fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":%q,"GenerationAttributes":{"Algorithm":"ISO9797_ALGORITHM1"}}`, key, message))
				if padding == "none" && len(message)%16 != 0 {
					b.failure(t, a, "GenerateMac", "ValidationException", 400)
					continue
				}
				macs[padding+message] = b.success(t, a, "GenerateMac")["Mac"].(string)
			}
		}
		if macs["100112233445566"] != macs["10011223344556600"] {
			t.Error("method 1 does not fill with zeros")
		}
		if macs["200112233445566"] == macs["20011223344556680"] {
			t.Error("method 2 adds nothing to whole blocks")
		}
	})
	t.Run("no clear secret outside the token", func(t *testing.T) {
		create := `{"KeyAttributes":{"KeyUsage":"TR31_B0_BASE_DERIVATION_KEY","KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"TDES_2KEY","KeyModesOfUse":{"DeriveKey":true}},"Exportable":false,"Tags":[{"Key":"keyd:custody","Value":"token"}]}`
		// Its value would be drawn in the process.
		b.failure(t, b.call(t, admin, "CreateKey", create), "CreateKey", "ValidationException", 400)
		custodian := custody.SystemCaller("custodian", custody.RoleCustodian)
		if _, err := b.custody.ImportClear(t.Context(), custodian, "test", custody.ImportClear{
			Attributes: keys.Attributes{Usage: keys.UsageBDK, Algorithm: keys.TDES2, Mode: keys.ModeDerive, Exportability: keys.NonExportable},
			Policy:     map[string]string{custody.TagCustody: "token"},
			Value:      secret.From([]byte("\x01\x23\x45\x67\x89\xAB\xCD\xEF\xFE\xDC\xBA\x98\x76\x54\x32\x10")), Alias: "alias/bdk-inside",
		}); err != nil {
			t.Fatal(err)
		}
		a := b.call(t, client, "GenerateMac", fmt.Sprintf(`{"KeyIdentifier":%q,"MessageData":"0011223344556677","GenerationAttributes":{"DukptIso9797Algorithm3":{"KeySerialNumber":"FFFF9876543210E00001","DukptKeyVariant":"REQUEST"}}}`, "alias/bdk-inside"))
		if paths := fieldsOf(b.failure(t, a, "GenerateMac", "ValidationException", 400)); len(paths) != 1 || paths[0] != "KeyIdentifier" {
			t.Errorf("complains of %v", paths)
		}
	})
}
