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
	Single    bool     `toml:"single_length,omitempty" comment:"Permit form 001 of field 62, in which every key is single DES; default false." reload:"yes"`
	Overlap   duration `toml:"overlap,omitempty" comment:"How long replaced working keys still verify and decipher, at most 168h; default 0." reload:"yes"`
}

// profile is the profile that a valid section describes.
func (c *profileConfig) profile() (p custody.TerminalProfile, err error) {
	p = custody.TerminalProfile{
		Name: c.Name, Master: keys.TDES2, Working: keys.TDES2, MAC: keys.UsageMACAlg1, MACBytes: 16,
		Single: c.Single, Overlap: c.Overlap.std(),
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
