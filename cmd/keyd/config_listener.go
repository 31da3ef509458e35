package main

import (
	"fmt"
	"slices"

	"keyd.dev/keyd/internal/credentials"
	"keyd.dev/keyd/internal/isoswitch"
	"keyd.dev/keyd/internal/profile"
)

// listenerConfig is a further listener of the switch, with a profile of its own.
type listenerConfig struct {
	Listen    string   `toml:"listen" comment:"Address and port."`
	Profile   string   `toml:"profile" comment:"What its terminals speak: a profile that keyd brings, or the path of a file with one."`
	Terminals []string `toml:"terminals,omitempty" comment:"TIDs that use its profile and no other, * and ? as wild cards; without, it is for those that no other listener names and whose key scheme the profile has; default none."`
}

// ownProfiles are the places of profiles that are files, of terminals and of hosts.
func (c *config) ownProfiles() []*string {
	var files []*string
	all := []*string{&c.Switch.Profile}
	for i := range c.Listener {
		all = append(all, &c.Listener[i].Profile)
	}
	for i := range c.Upstream {
		all = append(all, &c.Upstream[i].Profile)
	}
	for _, name := range all {
		if *name != "" && !slices.Contains(profile.Names(), *name) {
			files = append(files, name)
		}
	}
	return files
}

// switchAddrs are the addresses on which terminals are let in, in order.
func (c *config) switchAddrs() []string {
	all := []string{c.Switch.Listen}
	for _, l := range c.Listener {
		all = append(all, l.Listen)
	}
	return all
}

// listeners checks the further listeners, together with the first.
func (k *configCheck) listeners(c *config) {
	k.want(len(c.Listener) == 0 || c.Switch.Listen != "", "switch.listen", "is the first listener, and [[switch_listener]] are further ones")
	if c.Switch.Listen == "" {
		return
	}
	first, err := profile.Find(c.Switch.Profile)
	if err != nil {
		return // it is told already
	}
	all := []isoswitch.Listener{{Profile: first}}
	for i, l := range c.Listener {
		at := fmt.Sprintf("switch_listener[%d]", i)
		k.address(at+".listen", l.Listen)
		speaks, err := profile.Find(l.Profile)
		if err == nil {
			err = isoswitch.Serves(speaks)
		}
		k.want(err == nil, at+".profile", "%v", err)
		if err != nil {
			continue
		}
		for _, pattern := range l.Terminals {
			k.want(isoswitch.Rule{Terminals: []string{pattern}}.Check() == nil, at+".terminals", "%q is no pattern of a TID", pattern)
		}
		all = append(all, isoswitch.Listener{Profile: speaks, Terminals: l.Terminals})
		err = isoswitch.Distinct(all...)
		k.want(err == nil, at+".profile", "%v", err)
	}
}

// furtherListeners are those of the configuration beside the first, with the
// certificates of [switch].
func (d *daemon) furtherListeners(tls *credentials.TLS) ([]isoswitch.Listener, error) {
	var all []isoswitch.Listener
	for i, l := range d.cfg.Listener {
		speaks, err := d.admitted(fmt.Sprintf("switch_listener[%d].profile", i), l.Profile)
		if err != nil {
			return nil, err
		}
		all = append(all, isoswitch.Listener{Profile: speaks, Terminals: l.Terminals, TLS: tls.Server(), Peers: tls})
	}
	return all, nil
}

// admitted finds a profile and says what an operator should know of it.
func (d *daemon) admitted(key, nameOrFile string) (*profile.Profile, error) {
	speaks, err := profile.Find(nameOrFile)
	if err != nil {
		return nil, err
	}
	warnings, err := speaks.Admit(profile.Link{TLS: true})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", key, speaks.Name, err)
	}
	for _, w := range warnings {
		d.log.Warn("profile of terminals", "profile", speaks.Name, "warning", w)
	}
	return speaks, nil
}
