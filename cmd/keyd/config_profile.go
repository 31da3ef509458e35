package main

import (
	"fmt"
	"strings"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

// profileConfig is a kind of terminals that have a master key.
type profileConfig struct {
	Name      string   `toml:"name" comment:"Name in the registry, [a-z0-9-]." reload:"yes"`
	MasterKey string   `toml:"master_key,omitempty" comment:"Algorithm of the terminal master key: TDES_2KEY (default), TDES_3KEY, AES_128, AES_192, AES_256." reload:"yes"`
	Keys      string   `toml:"working_keys,omitempty" comment:"Algorithm of the working keys: TDES_2KEY (default) or AES_128." reload:"yes"`
	MAC       string   `toml:"mac_usage,omitempty" comment:"Usage of the MAC key: M1 (default), M3 or M6." reload:"yes"`
	MACBytes  int      `toml:"mac_length,omitempty" comment:"Length of the MAC key in bytes: 16 (default), or 8, which is single DES." reload:"yes"`
	Algorithm string   `toml:"mac_algorithm,omitempty" comment:"What the MAC key is for: x9_9, cbc_mac_3des, x9_19 or cmac, or cup_ecb with usage M1; default what usage and length say." reload:"yes"`
	Single    bool     `toml:"single_length,omitempty" comment:"Permit form 001 of field 62, in which every key is single DES; default false." reload:"yes"`
	Overlap   duration `toml:"overlap,omitempty" comment:"How long replaced working keys still verify and decipher, at most 168h; default 0." reload:"yes"`
	MaxAge    duration `toml:"max_age,omitempty" comment:"When working keys are too old and the terminal must sign in, whole seconds; 0 is never, unionpay has 48h; default 0." reload:"yes"`
	Messages  int      `toml:"max_messages,omitempty" comment:"Messages that a MAC key verifies, then the terminal must sign in: 1048576 (default), or another number." reload:"yes"`
}

// profile is the profile that a valid section describes.
func (c *profileConfig) profile() (p custody.TerminalProfile, err error) {
	p = custody.TerminalProfile{
		Name: c.Name, Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16,
		Algorithm: custody.TerminalAlgorithm(c.Algorithm), Single: c.Single, Overlap: c.Overlap.std(),
		MaxAge: c.MaxAge.std(), MaxMessages: uint64(max(c.Messages, 0)),
	}
	if c.Messages < 0 {
		return p, fmt.Errorf("terminal profile %q: max_messages is not negative", c.Name)
	}
	if c.MasterKey != "" {
		if p.Master, err = keys.ParseAlgorithm(c.MasterKey); err != nil {
			return p, err
		}
	}
	if c.Keys != "" {
		if p.Working, err = keys.ParseAlgorithm(c.Keys); err != nil {
			return p, err
		}
	}
	if c.MAC != "" {
		p.MAC = keys.Usage(c.MAC)
	}
	if c.MACBytes != 0 {
		p.MACBytes = c.MACBytes
	}
	return p, p.Check()
}

func (k *configCheck) profiles(list []profileConfig) {
	seen := make(map[string]bool)
	for i := range list {
		at := fmt.Sprintf("terminal_profile[%d]", i)
		_, err := list[i].profile()
		k.want(err == nil, at+".name", "%s", strings.TrimPrefix(fmt.Sprint(err), "custody: "))
		k.want(!seen[list[i].Name], at+".name", "two profiles are called %q", list[i].Name)
		seen[list[i].Name] = true
	}
}

// profiles are the configured profiles, which were checked.
func (c *config) profiles() []custody.TerminalProfile {
	var all []custody.TerminalProfile
	for i := range c.Profile {
		if p, err := c.Profile[i].profile(); err == nil {
			all = append(all, p)
		}
	}
	return all
}
