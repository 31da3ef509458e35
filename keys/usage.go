package keys

import (
	"fmt"
	"slices"
	"strings"
)

// usages is the one table of usages: the API's name, and the algorithms and
// modes that go with each (section 8.1 of the API). A usage that is not here
// has no key in keyd.
var usages = []struct {
	usage      Usage
	name       string
	algorithms []Algorithm
	modes      string
}{
	{UsageBDK, "TR31_B0_BASE_DERIVATION_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "XN"},
	{UsagePIN, "TR31_P0_PIN_ENCRYPTION_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "BEDN"},
	{UsageKEK, "TR31_K0_KEY_ENCRYPTION_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "BEDN"},
	{UsageKBPK, "TR31_K1_KEY_BLOCK_PROTECTION_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "BEDN"},
	{UsageMACISO16609, "TR31_M0_ISO_16609_MAC_KEY", []Algorithm{TDES2, TDES3}, "CGVN"},
	{UsageMACAlg1, "TR31_M1_ISO_9797_1_MAC_KEY", []Algorithm{TDES2, TDES3}, "CGVN"},
	{UsageMACAlg3, "TR31_M3_ISO_9797_3_MAC_KEY", []Algorithm{TDES2}, "CGVN"},
	{UsageCMAC, "TR31_M6_ISO_9797_5_CMAC_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "CGVN"},
	{UsageHMAC, "TR31_M7_HMAC_KEY", []Algorithm{HMACSHA224, HMACSHA256, HMACSHA384, HMACSHA512}, "CGVN"},
	{UsageData, "TR31_D0_SYMMETRIC_DATA_ENCRYPTION_KEY", []Algorithm{TDES2, TDES3, AES128, AES192, AES256}, "BEDN"},
	{UsageCVK, "TR31_C0_CARD_VERIFICATION_KEY", []Algorithm{TDES2, TDES3}, "CGVN"},
	{UsagePVKIBM3624, "TR31_V1_IBM3624_PIN_VERIFICATION_KEY", []Algorithm{TDES2, TDES3}, "CGVN"},
	{UsagePVKVisa, "TR31_V2_VISA_PIN_VERIFICATION_KEY", []Algorithm{TDES2, TDES3}, "CGVN"},
	{UsageEMVCryptograms, "TR31_E0_EMV_MKEY_APP_CRYPTOGRAMS", []Algorithm{TDES2, TDES3}, "XN"},
	{UsageEMVConfidentiality, "TR31_E1_EMV_MKEY_CONFIDENTIALITY", []Algorithm{TDES2, TDES3}, "XN"},
	{UsageEMVIntegrity, "TR31_E2_EMV_MKEY_INTEGRITY", []Algorithm{TDES2, TDES3}, "XN"},
	{UsageEMVDynamicNumbers, "TR31_E4_EMV_MKEY_DYNAMIC_NUMBERS", []Algorithm{TDES2, TDES3}, "XN"},
	{UsageEMVPersonalization, "TR31_E5_EMV_MKEY_CARD_PERSONALIZATION", []Algorithm{TDES2, TDES3}, "XN"},
	{UsageEMVOther, "TR31_E6_EMV_MKEY_OTHER", []Algorithm{TDES2, TDES3}, "XN"},
}

// Usages lists the usages that a stored key may have. [UsageInitialKey] is not
// one of them: keyd derives initial keys and keeps none.
func Usages() []Usage {
	all := make([]Usage, len(usages))
	for i, u := range usages {
		all[i] = u.usage
	}
	return all
}

// Name returns the API's name of the usage, "TR31_P0_PIN_ENCRYPTION_KEY" for
// P0, or "" for a usage that no stored key may have.
func (u Usage) Name() string {
	for _, row := range usages {
		if row.usage == u {
			return row.name
		}
	}
	return ""
}

// ParseUsage is the inverse of [Usage.Name]. It returns [ErrAttributes] for
// any other name.
func ParseUsage(name string) (Usage, error) {
	for _, row := range usages {
		if row.name == name {
			return row.usage, nil
		}
	}
	return "", fmt.Errorf("%w: key usage %q has no key here", ErrAttributes, name)
}

// Validate reports whether the attributes go together: usage, algorithm and
// mode are a row of section 8.1 of the API, and the exportability is one of
// X9.143. Otherwise it returns [ErrAttributes], which names the first that
// does not fit.
func (a Attributes) Validate() error {
	for _, row := range usages {
		if row.usage != a.Usage {
			continue
		}
		switch {
		case !slices.Contains(row.algorithms, a.Algorithm):
			return fmt.Errorf("%w: a key of usage %s cannot be %s; choose one of %v", ErrAttributes, a.Usage, a.Algorithm, row.algorithms)
		case !strings.ContainsRune(row.modes, rune(a.Mode)):
			return fmt.Errorf("%w: a key of usage %s cannot have mode %q; choose one of %q", ErrAttributes, a.Usage, byte(a.Mode), row.modes)
		case a.Exportability != Exportable && a.Exportability != NonExportable && a.Exportability != Sensitive:
			return fmt.Errorf("%w: exportability %q; choose one of %q", ErrAttributes, byte(a.Exportability), "ENS")
		}
		return nil
	}
	return fmt.Errorf("%w: key usage %q has no key here", ErrAttributes, string(a.Usage))
}
