package custody

import (
	"fmt"
	"slices"
	"strings"

	"keyd.dev/keyd/keys"
)

// The policy tags of a key (section 9 of the API). They are part of its block,
// under its MAC.
const (
	tagPrefix       = "keyd:"
	TagMACPadding   = "keyd:mac-padding"
	TagMACAlgorithm = "keyd:mac-algorithm"
	TagMACMinBytes  = "keyd:mac-min-bytes"
	TagISO4PAN      = "keyd:iso4-pan"
	TagKSNGuard     = "keyd:ksn-guard"
	TagCustody      = "keyd:custody"
	TagPINFormat    = "keyd:pin-format"
)

// Values of policy tags that the code looks for.
const (
	guardMonotonic    = "monotonic"         // of TagKSNGuard
	algorithmUnionPay = "KEYD_UNIONPAY_ECB" // of TagMACAlgorithm
)

// policyValues lists what each policy tag may say, as far as it is honoured.
var policyValues = map[string][]string{
	TagMACPadding:   {"none", "1", "2"},
	TagMACMinBytes:  {"2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"},
	TagISO4PAN:      {"full", "rightmost12"},
	TagKSNGuard:     {"off", guardMonotonic},
	TagMACAlgorithm: {algorithmUnionPay},
	TagCustody:      {"any", "token"},
	TagPINFormat:    {"eci2", "eci3", "visa2", "visa3"},
}

// splitTags divides tags into the policy and the rest. It returns [ErrRequest]
// for a policy tag that keyd does not know or cannot honour: a policy that was
// taken and ignored would be worse than none. legacy are the PIN block formats
// of before ISO 9564 that this installation permits.
func splitTags(tags map[string]string, legacy []string) (policy, rest map[string]string, err error) {
	policy, rest = make(map[string]string), make(map[string]string)
	for name, value := range tags {
		switch {
		case strings.HasPrefix(name, "aws:"):
			return nil, nil, fmt.Errorf("%w: tag names beginning with aws: are reserved", ErrRequest)
		case !strings.HasPrefix(name, tagPrefix):
			rest[name] = value
		case !policyValue(name, value):
			return nil, nil, fmt.Errorf("%w: unknown policy tag or value: %s", ErrRequest, knownTag(name))
		case name == TagPINFormat && !slices.Contains(legacy, value):
			return nil, nil, fmt.Errorf("%w: the configuration permits no PIN blocks of this legacy format", ErrRequest)
		default:
			policy[name] = value
		}
	}
	return policy, rest, checkPeriod(policy)
}

// suits refuses a policy that a key of these attributes could not honour. It
// returns [ErrRequest].
func suits(policy map[string]string, a keys.Attributes) error {
	switch {
	case policy[TagKSNGuard] == guardMonotonic && a.Usage != keys.UsageBDK:
		return fmt.Errorf("%w: %s is for base derivation keys", ErrRequest, TagKSNGuard)
	case policy[TagMACAlgorithm] == algorithmUnionPay && unionPayKey(a) != nil:
		return fmt.Errorf("%w: %s %s is for double-length keys of usage M0 or M1", ErrRequest, TagMACAlgorithm, algorithmUnionPay)
	}
	return nil
}

// policyValue reports whether the policy tag may have the value.
func policyValue(name, value string) bool {
	if form, ok := policyForms[name]; ok {
		return form(value)
	}
	return slices.Contains(policyValues[name], value)
}

// knownTag keeps what a caller sent out of the error unless it is one of ours.
func knownTag(name string) string {
	if _, ok := policyValues[name]; ok || policyForms[name] != nil {
		return name
	}
	return "a name beginning with " + tagPrefix
}

// inUse refuses a key that is not enabled or not in the state to be used.
func inUse(k KeyRecord) error {
	switch {
	case k.State == DeleteComplete:
		return fmt.Errorf("%w: the key was deleted", ErrNoKey)
	case k.State != CreateComplete:
		return fmt.Errorf("%w: its state is %s", ErrKeyState, k.State)
	case !k.Enabled:
		return fmt.Errorf("%w: its use is stopped", ErrKeyState)
	}
	return nil
}
