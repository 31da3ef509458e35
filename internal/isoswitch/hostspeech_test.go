package isoswitch

import (
	"errors"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/profile"
	"keyd.dev/keyd/keys"
)

// hostProfile is a user's profile with ascii87 as its base.
func hostProfile(t *testing.T, base, rest string) *profile.Profile {
	t.Helper()
	p, err := profile.Parse("own.toml", []byte("name = \"own\"\nbase = \""+base+"\"\nabout = \"a host\"\n"+rest))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestServesHost: in which profiles keyd can speak to a host.
func TestServesHost(t *testing.T) {
	const (
		financial = "\n[[message]]\nname = \"financial\"\ntypes = [\"0100\", \"0200\", \"0220\"]\n"
		reversal  = "\n[[message]]\nname = \"reversal\"\n"
	)
	for _, tt := range []struct {
		name, base, rest string
		want             string // part of the refusal; "": it does
	}{
		{"ascii87 itself", "ascii87", "", ""},
		{"packed, by CMAC", "ascii87", "wire = \"bcd\"\nmak_length = 16\n[mac]\nformat = \"raw_8\"\n[mac.tmk]\nalgorithm = \"cmac\"\n", ""},
		{"by batch", "unionpay", "", "it names originals by batch"},
		{"single DES", "ascii87", "mak_length = 8\n[mac.tmk]\nalgorithm = \"x9_9\"\n", "no MACs under a zone key by x9_9"},
		{"no 0100", "ascii87", strings.Replace(financial, "\"0100\", ", "", 1) + "must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49]\nmay = [14, 32, 35, 37, 52, 55, 62, 63, 90]\nanswer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [32, 38, 55, 62]\n", "no message has type 0100"},
		{"no PIN", "ascii87", financial + "must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49]\nmay = [14, 32, 35, 37, 55, 62, 63, 90]\nanswer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [32, 38, 55, 62]\n", "message financial: keyd sends field 52, which it may not have"},
		{"more than keyd sends", "ascii87", financial + "must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 35, 41, 42, 49]\nmay = [14, 32, 37, 52, 55, 62, 63, 90]\nanswer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [32, 38, 55, 62]\n", "message financial: it must have field 35"},
		{"answers without the amount", "ascii87", financial + "must = [2, 3, 4, 7, 11, 12, 13, 22, 25, 41, 42, 49]\nmay = [14, 32, 35, 37, 52, 55, 62, 63, 90]\nanswer_must = [2, 3, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [4, 32, 38, 55, 62]\n", "answers need not have field 4"},
		{"no 0421", "ascii87", reversal + "types = [\"0400\", \"0401\", \"0420\"]\nmust = [2, 3, 4, 7, 11, 12, 13, 22, 25, 39, 41, 42, 49, 90]\nmay = [14, 32, 37, 38, 55, 62, 95]\nanswer_must = [2, 3, 4, 7, 11, 12, 13, 37, 39, 41, 42, 49]\nanswer_may = [32, 38, 55, 62]\n", "no message has type 0421"},
		{"an 0800 without a MAC", "ascii87", "\n[[message]]\nname = \"network\"\ntypes = [\"0800\"]\nmac = \"none\"\nmust = [7, 11, 41, 42, 70]\nmay = [62]\nanswer_must = [7, 11, 39, 41, 42, 70]\nanswer_may = [37, 62]\n", "message network has no MAC"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := ServesHost(hostProfile(t, tt.base, tt.rest))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestHostSpeech: how messages are sealed, by which key.
func TestHostSpeech(t *testing.T) {
	for _, tt := range []struct {
		name, rest string
		algorithm  custody.MACAlgorithm
		padding    custody.Padding
		bytes      int
		usage      keys.Usage
		log        audit.MACAlg
	}{
		{"as terminals with TDES DUKPT", "", custody.MACAlg3, custody.Padding1, 8, keys.UsageMACAlg3, audit.MACAlg3},
		{"padding 2", "mak_length = 16\n[mac.tmk]\nalgorithm = \"x9_19\"\npadding = 2\n", custody.MACAlg3, custody.Padding2, 8, keys.UsageMACAlg3, audit.MACAlg3},
		{"CBC-MAC, four bytes", "mak_length = 16\nwire = \"bcd\"\n[mac]\nformat = \"raw_4\"\n[mac.tmk]\nalgorithm = \"cbc_mac_3des\"\n", custody.MACAlg1, custody.Padding1, 4, keys.UsageMACAlg1, audit.MACAlg1},
		{"CMAC", "mak_length = 16\n[mac.tmk]\nalgorithm = \"cmac\"\n", custody.MACCMAC, custody.PaddingPolicy, 8, keys.UsageCMAC, audit.MACCMACTDES},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := speechOfHost(hostProfile(t, "ascii87", tt.rest))
			if h.algorithm != tt.algorithm || h.padding != tt.padding || h.bytes != tt.bytes || h.usage != tt.usage || h.macName != tt.log {
				t.Errorf("%+v", h)
			}
		})
	}
}

// TestHostVerdict: a host's code says what its own profile says, and no terminal
// takes a decline for an approval.
func TestHostVerdict(t *testing.T) {
	own := func(list string) *profile.Profile { return hostProfile(t, "ascii87", "approval_codes = ["+list+"]\n") }
	host, terminal := &host{hostSpeech: speechOfHost(own(`"00", "10"`))}, speech{own(`"00", "11"`)}
	for _, tt := range []struct {
		code     string
		approved bool
		told     string
	}{
		{"00", true, "00"}, {"10", true, "00"}, {"11", false, "05"}, {"51", false, "51"},
	} {
		if approved, told := host.verdict(tt.code, terminal); approved != tt.approved || told != tt.told {
			t.Errorf("%s: %v, %s; want %v, %s", tt.code, approved, told, tt.approved, tt.told)
		}
	}
}
