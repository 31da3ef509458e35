package profile

import (
	"slices"
	"strings"

	"keyd.dev/keyd/internal/iso8583"
)

// Profile is a profile that was checked. It is immutable, and safe for concurrent
// use.
type Profile struct {
	Name    string
	About   string
	Source  string // the file, or "built in"
	Text    []byte // the file as it was read
	Dialect *iso8583.Dialect
	MAC     map[Scheme]MAC // of each key scheme that its terminals may have
	MAKSize int            // length of a terminal's MAC key in bytes, 8 or 16; 0 without Master

	Original Original // how a reversal names its original
	Rules    Rules
	Codes    Codes
}

// Scheme is how the keys of a terminal are managed.
type Scheme string

// The schemes, as the registry of terminals writes them.
const (
	TDESDUKPT Scheme = "tdes-dukpt" // ANSI X9.24-1
	AESDUKPT  Scheme = "aes-dukpt"  // ANSI X9.24-3
	Master    Scheme = "tmk"        // a terminal master key, and working keys under it
)

// Algorithm is how a MAC is made. U-53, mac-and-DUKPT section 3.
type Algorithm string

// The algorithms.
const (
	CUPECB     Algorithm = "cup_ecb"      // UnionPay's, linear before the encryption: legacy (U-56)
	X99        Algorithm = "x9_9"         // ISO 9797-1 algorithm 1, DES
	X919       Algorithm = "x9_19"        // ISO 9797-1 algorithm 3
	CBCMAC3DES Algorithm = "cbc_mac_3des" // ISO 9797-1 algorithm 1, two-key TDES
	CMAC       Algorithm = "cmac"         // NIST SP 800-38B, with the cipher of the key
)

// MAC is how the MACs of one key scheme are made. What they cover is always all
// from the MTI to the last byte before the MAC field (M-02).
type MAC struct {
	Algorithm Algorithm
	// Padding is 1, zero bytes to a whole block, or 2, a byte 80 before them;
	// ISO 9797-1. CMAC and UnionPay's have their own.
	Padding int
	// Both: one DUKPT key makes requests' MACs and answers'. Of TDES DUKPT that is
	// edition 2004. Else each way has its own.
	Both bool
	// Bytes is how many bytes of the MAC the message carries: 8 or 4.
	Bytes int
}

// Original is how a reversal names its original. Reversals section 4.1.
type Original string

// The ways.
const (
	ByDE90  Original = "de90"  // MTI, STAN and DE 7 of the original
	ByBatch Original = "batch" // DE 11, DE 60.2 and the class that DE 60.1 says
)

// Rules are what a profile demands of reversals.
type Rules struct {
	DE3 string // of every reversal; empty: that of the original
	// DE61Always: a reversal repeats DE 61 also where the original has none of its
	// own (U-65).
	DE61Always bool
	Reasons    []string // known values of DE 39 of a reversal; none: any (U-59)
	// Reason is that of a reversal without DE 39; empty where each must have one.
	Reason string
	Types  []Type // what is reversed; none: what moves money
}

// Type is a type of transaction. Empty parts fit any.
type Type struct {
	MTI  string `toml:"mti,omitempty"`
	DE3  string `toml:"de3,omitempty"`
	DE25 string `toml:"de25,omitempty"`
	DE60 string `toml:"de60,omitempty"` // DE 60.1
}

// Reversible reports whether a transaction with these MTI, DE 3, DE 25 and DE 60.1
// may be reversed; and false for known when the profile has no list.
func (r Rules) Reversible(t Type) (may, known bool) {
	fits := func(want, have string) bool { return want == "" || want == have }
	return slices.ContainsFunc(r.Types, func(l Type) bool {
		return fits(l.MTI, t.MTI) && fits(l.DE3, t.DE3) && fits(l.DE25, t.DE25) && fits(l.DE60, t.DE60)
	}), len(r.Types) > 0
}

// KnownReason reports whether a reversal's DE 39 is one that the profile lists.
func (r Rules) KnownReason(reason string) bool {
	return len(r.Reasons) == 0 || slices.Contains(r.Reasons, reason)
}

// Codes are the values of DE 39 that the profile's terminals are answered with.
type Codes struct {
	MACError     string   // D-03, D-04, D-06
	Timeout      string   // no answer from upstream in time
	BadUpstream  string   // upstream's answer is not authentic
	Approvals    []string // of upstream's answers; 00 is one
	BareRefusals bool     // a refusal for which there is no key goes without a MAC; else the connection ends
	requestByRow map[string]string
	adviceByRow  map[string]string
}

// Row returns the code that a row of the decision table has in this profile, and
// whether it has one of its own.
func (c Codes) Row(row string, advice bool) (code string, own bool) {
	if advice {
		code, own = c.adviceByRow[row]
		return code, own
	}
	code, own = c.requestByRow[row]
	return code, own
}

// Link is what a profile's messages travel on.
type Link struct {
	TLS     bool // with certificates on both sides
	Private bool // a line that nobody else reaches, the operator says
}

// Admit reports why the profile may not be used on a link; and, when it may, what
// an operator should know before. The UnionPay MAC lets everyone who can change a
// message on the way forge another: it needs a link on which nobody can.
func (p *Profile) Admit(l Link) (warnings []string, err error) {
	for _, scheme := range p.Schemes() {
		m := p.MAC[scheme]
		if m.Both {
			warnings = append(warnings, "requests and answers of "+string(scheme)+" terminals have their MACs under one key, so that the message type alone tells them apart; variant = \"split\" is to be preferred")
		}
		if m.Algorithm != CUPECB {
			continue
		}
		if !l.TLS && !l.Private {
			return nil, ErrLink
		}
		warnings = append(warnings, "its MAC, cup_ecb, is linear before the encryption, so that who can change messages on the way can forge them; each field of a reversal is compared with the original and the registry, one with field 55 is held for two persons or refused (switch.linear_unchecked), and x9_19 or cmac is to be preferred")
	}
	return warnings, nil
}

// Schemes lists the key schemes of the profile's terminals.
func (p *Profile) Schemes() []Scheme {
	var all []Scheme
	for _, s := range []Scheme{TDESDUKPT, AESDUKPT, Master} {
		if _, ok := p.MAC[s]; ok {
			all = append(all, s)
		}
	}
	return all
}

// String names the profile and where it is from.
func (p *Profile) String() string { return strings.Join([]string{p.Name, p.Source}, ", ") }
