package isoswitch

import (
	"fmt"
	"slices"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/keys"
)

// hostSpeech is what a host speaks: how its MACs are made under the zone MAC key,
// both ways, and which of its codes approve.
type hostSpeech struct {
	dialect   *iso8583.Dialect
	algorithm custody.MACAlgorithm
	padding   custody.Padding
	bytes     int // of the MAC that a message carries
	macName   audit.MACAlg
	usage     keys.Usage // of the zone MAC key
	approvals []string   // nil: those of the terminal's profile
}

// ascii87Host is a host without a profile. W-08.
func ascii87Host(d *iso8583.Dialect) hostSpeech {
	return hostSpeech{
		dialect: d, algorithm: custody.MACAlg3, padding: custody.Padding1, bytes: 8, macName: audit.MACAlg3, usage: keys.UsageMACAlg3,
	}
}

// HostMAC is how a profile's messages to a host are sealed: as those of terminals
// with a master key, whose keys are shared as a zone's are, else as those of
// terminals with TDES DUKPT.
func HostMAC(p *profile.Profile) profile.MAC {
	if m, ok := p.MAC[profile.Master]; ok {
		return m
	}
	return p.MAC[profile.TDESDUKPT]
}

// speechOfHost is that of a profile which [ServesHost] has admitted.
func speechOfHost(p *profile.Profile) hostSpeech {
	m := HostMAC(p)
	h := hostSpeech{dialect: p.Dialect, padding: custody.Padding1, bytes: m.Bytes, approvals: p.Codes.Approvals}
	if m.Padding == 2 {
		h.padding = custody.Padding2
	}
	switch m.Algorithm {
	case profile.X919:
		h.algorithm, h.macName, h.usage = custody.MACAlg3, audit.MACAlg3, keys.UsageMACAlg3
	case profile.CBCMAC3DES:
		h.algorithm, h.macName, h.usage = custody.MACAlg1, audit.MACAlg1, keys.UsageMACAlg1
	case profile.CMAC:
		h.algorithm, h.padding, h.macName, h.usage = custody.MACCMAC, custody.PaddingPolicy, audit.MACCMACTDES, keys.UsageCMAC
	}
	return h
}

// What keyd sends a host, and needs of its answers. W-08.
var hostMessages = []struct {
	types              []iso8583.MTI
	always, may, needs []int
}{
	{
		[]iso8583.MTI{iso8583.AuthorizationRequest, iso8583.FinancialRequest, iso8583.FinancialAdvice},
		[]int{2, 3, 4, 7, 11, 12, 13, 22, 25, 37, 41, 42, 49}, []int{14, 32, 35, 52, 55, 90}, []int{3, 4, 7, 11, 39, 41, 42, 49},
	},
	{
		[]iso8583.MTI{iso8583.ReversalAdvice, iso8583.ReversalAdviceRepeat},
		[]int{2, 3, 4, 7, 11, 12, 13, 22, 25, 37, 39, 41, 42, 49, 90}, []int{14, 32, 38, 95}, []int{3, 4, 7, 11, 39, 41, 42, 49},
	},
	{[]iso8583.MTI{iso8583.NetworkRequest}, []int{7, 11, 41, 42, 70}, nil, []int{7, 11, 39, 41, 42, 70}},
}

// ServesHost returns [ErrConfig] for a profile in which keyd could not speak to a
// host: some message could not be built, or some answer not be matched.
func ServesHost(p *profile.Profile) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: profile %s for an upstream: %s", ErrConfig, p.Name, fmt.Sprintf(format, args...))
	}
	if p.Original != profile.ByDE90 {
		return refuse("it names originals by batch, and keyd names them to hosts by DE 90")
	}
	switch m := HostMAC(p); m.Algorithm {
	case profile.X919, profile.CBCMAC3DES, profile.CMAC:
	case "":
		return refuse("it has neither [mac.tmk] nor [mac.tdes-dukpt], which say how its MACs are made")
	default:
		return refuse("no MACs under a zone key by %s; x9_19, cbc_mac_3des and cmac are", m.Algorithm)
	}
	spec := p.Dialect.Spec()
	for _, want := range hostMessages {
		for _, mti := range want.types {
			at := slices.IndexFunc(spec.Messages, func(m iso8583.MessageSpec) bool { return slices.Contains(m.Types, mti) })
			if at < 0 {
				return refuse("no message has type %s, which keyd sends", mti)
			}
			m := spec.Messages[at]
			if m.NoMAC {
				return refuse("message %s has no MAC", m.Name)
			}
			if what := misfit(spec, m, want.always, want.may, want.needs); what != "" {
				return refuse("message %s: %s", m.Name, what)
			}
		}
	}
	return nil
}

// misfit says why a message is not what keyd sends, or answers not what it needs.
func misfit(spec iso8583.Spec, m iso8583.MessageSpec, always, may, needs []int) string {
	for _, de := range slices.Concat(always, may) {
		terminal := slices.ContainsFunc(spec.Fields, func(f iso8583.FieldSpec) bool { return f.DE == de && f.Terminal })
		if terminal || !slices.Contains(m.Must, de) && !slices.Contains(m.May, de) {
			return fmt.Sprintf("keyd sends field %d, which it may not have", de)
		}
	}
	for _, de := range m.Must {
		if !slices.Contains(always, de) {
			return fmt.Sprintf("it must have field %d, which keyd does not always send", de)
		}
	}
	for _, de := range needs {
		if !slices.Contains(m.AnswerMust, de) {
			return fmt.Sprintf("answers need not have field %d, by which keyd knows them", de)
		}
	}
	return ""
}

// changesKeys reports whether an 0800 of the profile can bring a zone key.
func changesKeys(d *iso8583.Dialect) bool {
	return slices.ContainsFunc(d.Spec().Messages, func(m iso8583.MessageSpec) bool {
		has := func(de int) bool { return slices.Contains(m.Must, de) || slices.Contains(m.May, de) }
		return slices.Contains(m.Types, iso8583.NetworkRequest) && has(48) && has(53)
	})
}

// checkSpeech refuses an upstream whose profile does not do, or whose head is not
// as long as the profile's.
func (u Upstream) checkSpeech() error {
	if u.Profile == nil {
		if len(u.Head) > 0 {
			return fmt.Errorf("%w: upstream %s: ascii87 has nothing before the MTI", ErrConfig, u.Name)
		}
		return nil
	}
	if err := ServesHost(u.Profile); err != nil {
		return err
	}
	head := u.Profile.Dialect.Spec().Head
	if n := head.TPDU + head.ANI + head.Header; len(u.Head) > 0 && len(u.Head) != n {
		return fmt.Errorf("%w: upstream %s: %d bytes before the MTI, profile %s has %d", ErrConfig, u.Name, len(u.Head), u.Profile.Name, n)
	}
	if u.ExchangeKey != (custody.Ref{}) && !changesKeys(u.Profile.Dialect) {
		return fmt.Errorf("%w: upstream %s: the 0800 of profile %s has no fields 48 and 53, in which zone keys are changed", ErrConfig, u.Name, u.Profile.Name)
	}
	return nil
}

// build begins a message to the host.
func (h *host) build(mti iso8583.MTI) *iso8583.Builder {
	b := h.dialect.Build(mti, iso8583.SideUpstream)
	if len(h.cfg.Head) > 0 {
		b.Head(h.cfg.Head)
	}
	return b
}

// verdict is what a host's code says, and the code that the terminal is told: the
// host's own, unless the terminal's profile takes it for the contrary.
func (h *host) verdict(code string, terminal speech) (approved bool, told string) {
	if h.approvals == nil {
		return terminal.approves(code), code
	}
	approved = slices.Contains(h.approvals, code)
	switch {
	case approved == terminal.approves(code):
		return approved, code
	case approved:
		return true, codeApproved
	}
	return false, codeNotHonoured
}

// codeNotHonoured: the host declined by a code that the terminal would take for an
// approval.
const codeNotHonoured = "05"
