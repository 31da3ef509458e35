package isoswitch

import (
	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/profile"
)

// macWay is how the MACs of DUKPT terminals are made: by which algorithm, and by
// which key of a KSN either way.
type macWay struct {
	algorithm       custody.MACAlgorithm
	padding         custody.Padding
	request, answer custody.Variant
}

// dukptMAC is the profile's way for a scheme. W-07, mac-and-DUKPT sections 5 and 6.
func (p speech) dukptMAC(scheme Scheme) macWay {
	how := macWay{custody.MACAlg3, p.padding(scheme), custody.Request, custody.Response}
	m := p.MAC[profile.Scheme(scheme)]
	if m.Algorithm == profile.CMAC {
		how.algorithm, how.padding = custody.MACCMAC, custody.PaddingPolicy
	}
	if m.Both {
		how.request, how.answer = custody.Bidirectional, custody.Bidirectional
	}
	return how
}

// padding is that of the profile's MACs for a scheme, where their algorithm has
// none of its own.
func (p speech) padding(scheme Scheme) custody.Padding {
	if p.MAC[profile.Scheme(scheme)].Padding == 2 {
		return custody.Padding2
	}
	return custody.Padding1
}

// macName is the log's name of the algorithm for a scheme.
func (p speech) macName(scheme Scheme) audit.MACAlg {
	switch p.MAC[profile.Scheme(scheme)].Algorithm {
	case profile.CMAC:
		if scheme == TDESDUKPT {
			return audit.MACCMACTDES
		}
		return audit.MACCMACAES
	case profile.CUPECB:
		return audit.MACCUPECB
	case profile.X99, profile.CBCMAC3DES:
		return audit.MACAlg1
	case profile.X919:
		return audit.MACAlg3
	}
	if scheme == AESDUKPT { // one that is not spoken here
		return audit.MACCMACAES
	}
	return audit.MACAlg3
}
