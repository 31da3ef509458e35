package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// notServed are the operations of the models that keyd does not do: those of
// later, and those of never (section 1). Those of the data plane have a path.
func notServed() (data map[string]string, control []string) {
	return map[string]string{
			// tier 2, not done yet
			"GeneratePinData": "/pindata/generate", "VerifyPinData": "/pindata/verify",
			"GenerateCardValidationData": "/cardvalidationdata/generate", "VerifyCardValidationData": "/cardvalidationdata/verify",
			"VerifyAuthRequestCryptogram": "/cryptogram/verify",
			// never
			"GenerateAuthRequestCryptogram": "/cryptogram/generate", "GenerateMacEmvPinChange": "/macemvpinchange/generate",
			"TranslateKeyMaterial": "/keymaterial/translate", "GenerateAs2805KekValidation": "/as2805kekvalidation/generate",
		}, []string{
			"GetCertificateSigningRequest", "PutResourcePolicy", "GetResourcePolicy", "DeleteResourcePolicy",
			"AddKeyReplicationRegions", "RemoveKeyReplicationRegions", "EnableDefaultKeyReplicationRegions",
			"DisableDefaultKeyReplicationRegions", "GetDefaultKeyReplicationRegions",
			"AssociateMpaTeam", "DisassociateMpaTeam", "GetMpaTeamAssociation",
		}
}

// TestOperationsNotServed: each operation of the models is served, or answers
// that it is not, as itself and to nobody's harm.
func TestOperationsNotServed(t *testing.T) {
	b := newBench(t)
	data, control := notServed()
	for name, path := range data {
		t.Run(name, func(t *testing.T) {
			for _, body := range []string{"", "{}", `{"KeyIdentifier":"alias/zpk-a"}`} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/json")
				answer := b.failure(t, b.do(t, b.client(t, "switch-a"), r), "VerifyMac", "UnknownOperationException", 404)
				if answer["Message"] != "keyd does not implement this operation" {
					t.Errorf("message %v", answer["Message"])
				}
			}
		})
	}
	for _, name := range control {
		t.Run(name, func(t *testing.T) {
			answer := b.failure(t, b.call(t, b.client(t, "admin"), name, `{}`), "GetKey", "UnknownOperationException", 400)
			if answer["Message"] != "keyd does not implement "+name {
				t.Errorf("message %v", answer["Message"])
			}
		})
	}
	t.Run("the others are served", func(t *testing.T) {
		for _, name := range []string{"data", "control"} {
			for operation := range loadModel(t, name).Operations {
				if _, later := data[operation]; later || slices.Contains(control, operation) {
					continue
				}
				who := b.client(t, "switch-a")
				if name == "control" {
					who = b.client(t, "admin")
				}
				if a := b.call(t, who, operation, `{"KeyIdentifier":"alias/x","IncomingKeyIdentifier":"alias/x"}`); a.header.Get("x-amzn-ErrorType") == "UnknownOperationException" {
					t.Errorf("%s: %s", operation, a.body)
				}
			}
		}
		if served := len(loadModel(t, "data").Operations) + len(data); served != 15 {
			t.Errorf("%d operations of the data plane are accounted for, the model has 15", served)
		}
		both := maps.Clone(loadModel(t, "control").Operations)
		for _, name := range control {
			delete(both, name)
		}
		if served := len(both) + len(control); served != 32 {
			t.Errorf("%d operations of the control plane are accounted for, the model has 32", served)
		}
	})
}

// unionAt is a union of a request: where it stands, and which of its members
// keyd serves.
type unionAt struct {
	operation, shape, path string
	body                   string // with %s for the union
	served                 []string
}

func unions() []unionAt {
	mac := []string{"Algorithm", "DukptIso9797Algorithm1", "DukptIso9797Algorithm3", "DukptCmac"}
	iso := []string{"IsoFormat0", "IsoFormat1", "IsoFormat3", "IsoFormat4"}
	side := []string{"Symmetric", "Dukpt"}
	block := []string{"Tr31KeyBlock"}
	pins := `{"IncomingKeyIdentifier":"alias/zpk-a","OutgoingKeyIdentifier":"alias/zpk-a","EncryptedPinBlock":"0011223344556677",` +
		`"IncomingTranslationAttributes":{"IsoFormat1":{}},"OutgoingTranslationAttributes":{"IsoFormat1":{}},%s}`
	ecb := `{"Symmetric":{"Mode":"ECB"}}`
	re := `{"IncomingKeyIdentifier":"alias/zpk-a","OutgoingKeyIdentifier":"alias/zpk-a","CipherText":"00",` +
		`"IncomingEncryptionAttributes":` + ecb + `,"OutgoingEncryptionAttributes":` + ecb + `,%s}`
	wrapped := func(member string) string { return `"` + member + `":{"WrappedKeyMaterial":%s}` }
	return []unionAt{
		{"GenerateMac", "MacAttributes", "GenerationAttributes", `{"KeyIdentifier":"alias/tak-42","MessageData":"00","GenerationAttributes":%s}`, mac},
		{"VerifyMac", "MacAttributes", "VerificationAttributes", `{"KeyIdentifier":"alias/tak-42","MessageData":"00","Mac":"0011","VerificationAttributes":%s}`, mac},
		{"TranslatePinData", "TranslationIsoFormats", "IncomingTranslationAttributes", strings.NewReplacer(`"IncomingTranslationAttributes":{"IsoFormat1":{}},`, "", "%s", `"IncomingTranslationAttributes":%s`).Replace(pins), iso},
		{"TranslatePinData", "TranslationIsoFormats", "OutgoingTranslationAttributes", strings.NewReplacer(`"OutgoingTranslationAttributes":{"IsoFormat1":{}},`, "", "%s", `"OutgoingTranslationAttributes":%s`).Replace(pins), iso},
		{"TranslatePinData", "WrappedKeyMaterial", "IncomingWrappedKey.WrappedKeyMaterial", strings.Replace(pins, "%s", wrapped("IncomingWrappedKey"), 1), block},
		{"TranslatePinData", "WrappedKeyMaterial", "OutgoingWrappedKey.WrappedKeyMaterial", strings.Replace(pins, "%s", wrapped("OutgoingWrappedKey"), 1), block},
		{"EncryptData", "EncryptionDecryptionAttributes", "EncryptionAttributes", `{"KeyIdentifier":"alias/zpk-a","PlainText":"00","EncryptionAttributes":%s}`, side},
		{"DecryptData", "EncryptionDecryptionAttributes", "DecryptionAttributes", `{"KeyIdentifier":"alias/zpk-a","CipherText":"00","DecryptionAttributes":%s}`, side},
		{"EncryptData", "WrappedKeyMaterial", "WrappedKey.WrappedKeyMaterial", `{"KeyIdentifier":"alias/zpk-a","PlainText":"00","EncryptionAttributes":` + ecb + `,` + wrapped("WrappedKey") + `}`, block},
		{"DecryptData", "WrappedKeyMaterial", "WrappedKey.WrappedKeyMaterial", `{"KeyIdentifier":"alias/zpk-a","CipherText":"00","DecryptionAttributes":` + ecb + `,` + wrapped("WrappedKey") + `}`, block},
		{"ReEncryptData", "ReEncryptionAttributes", "IncomingEncryptionAttributes", strings.NewReplacer(`"IncomingEncryptionAttributes":`+ecb+`,`, "", "%s", `"IncomingEncryptionAttributes":%s`).Replace(re), side},
		{"ReEncryptData", "ReEncryptionAttributes", "OutgoingEncryptionAttributes", strings.NewReplacer(`"OutgoingEncryptionAttributes":`+ecb+`,`, "", "%s", `"OutgoingEncryptionAttributes":%s`).Replace(re), side},
		{"ReEncryptData", "WrappedKeyMaterial", "IncomingWrappedKey.WrappedKeyMaterial", strings.Replace(re, "%s", wrapped("IncomingWrappedKey"), 1), block},
		{"ReEncryptData", "WrappedKeyMaterial", "OutgoingWrappedKey.WrappedKeyMaterial", strings.Replace(re, "%s", wrapped("OutgoingWrappedKey"), 1), block},
		{"ImportKey", "ImportKeyMaterial", "KeyMaterial", `{"KeyMaterial":%s}`,
			[]string{"RootCertificatePublicKey", "TrustedCertificatePublicKey", "Tr31KeyBlock", "KeyCryptogram"}},
		{"ExportKey", "ExportKeyMaterial", "KeyMaterial", `{"ExportKeyIdentifier":"alias/zpk-a","KeyMaterial":%s}`, []string{"Tr31KeyBlock"}},
	}
}

// TestUnionMembers: each member that the models have of each union in a request
// is served, or refused by its path; those of no model are no members.
func TestUnionMembers(t *testing.T) {
	b := newBench(t)
	for _, u := range unions() {
		t.Run(u.operation+" "+u.path, func(t *testing.T) {
			_, control := dataPath(u.operation)
			plane, who := "data", b.client(t, "switch-a")
			if control {
				plane, who = "control", b.client(t, "admin")
			}
			s := loadModel(t, plane).Shapes[u.shape]
			if !s.Union || len(s.Members) == 0 {
				t.Fatalf("%s is no union of the model", u.shape)
			}
			for _, name := range u.served {
				if _, ok := s.Members[name]; !ok {
					t.Errorf("the model has no member %s", name)
				}
			}
			for name := range s.Members {
				answer := b.call(t, who, u.operation, fmt.Sprintf(u.body, fmt.Sprintf(`{%q:{}}`, name)))
				refused := u.path + "." + name + " is not served by keyd"
				said := strings.Contains(string(answer.body), refused)
				if served := slices.Contains(u.served, name); said == served {
					t.Errorf("%s is served: %v; the answer: %s", name, served, answer.body)
				}
				if said {
					b.failure(t, answer, u.operation, "ValidationException", 400)
				}
			}
			for _, body := range []string{`{}`, `{"Nothing":{}}`, `{"__type":"x"}`, `null`} {
				answer := b.failure(t, b.call(t, who, u.operation, fmt.Sprintf(u.body, body)), u.operation, "ValidationException", 400)
				if !control && !slices.Contains(fieldsOf(answer), u.path) || control && !strings.Contains(answer["Message"].(string), u.path+" ") {
					t.Errorf("%s: complains of %v %v", body, fieldsOf(answer), answer["Message"])
				}
			}
		})
	}
}

// TestValuesNotServed: values of the models' enums that keyd does not do.
func TestValuesNotServed(t *testing.T) {
	b := newBench(t)
	admin := b.client(t, "admin")
	for _, usage := range []string{
		"TR31_K2_TR34_ASYMMETRIC_KEY", "TR31_K3_ASYMMETRIC_KEY_FOR_KEY_AGREEMENT", "TR31_P1_PIN_GENERATION_KEY", "TR31_D1_ASYMMETRIC_KEY_FOR_DATA_ENCRYPTION",
	} {
		t.Run(usage, func(t *testing.T) {
			body := fmt.Sprintf(`{"Exportable":true,"KeyAttributes":{"KeyUsage":%q,"KeyClass":"SYMMETRIC_KEY","KeyAlgorithm":"TDES_2KEY","KeyModesOfUse":{"Encrypt":true,"Decrypt":true,"Wrap":true,"Unwrap":true}}}`, usage)
			answer := b.failure(t, b.call(t, admin, "CreateKey", body), "CreateKey", "ValidationException", 400)
			if !strings.Contains(answer["Message"].(string), "KeyAttributes.KeyUsage") {
				t.Errorf("message %v", answer["Message"])
			}
		})
	}
	for _, kind := range []string{"TR34_KEY_BLOCK", "TR31_KEY_BLOCK", "ROOT_PUBLIC_KEY_CERTIFICATE", "TRUSTED_PUBLIC_KEY_CERTIFICATE"} {
		t.Run(kind, func(t *testing.T) {
			body := fmt.Sprintf(`{"KeyMaterialType":%q,"WrappingKeyAlgorithm":"RSA_2048"}`, kind)
			answer := b.failure(t, b.call(t, admin, "GetParametersForImport", body), "GetParametersForImport", "ValidationException", 400)
			if !strings.Contains(answer["Message"].(string), "KeyMaterialType") {
				t.Errorf("message %v", answer["Message"])
			}
		})
	}
}
