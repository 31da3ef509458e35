package main

import (
	"fmt"
	"strings"
	_ "time/tzdata" // the sandbox keeps the machine's own out of reach at a reload

	"keyd.dev/keyd/internal/isoswitch"
)

// ruleConfig is a rule at the door for some terminals or merchants.
type ruleConfig struct {
	Name       string   `toml:"name" comment:"Name of the rule." reload:"yes"`
	Terminals  []string `toml:"terminals,omitempty" comment:"TIDs that it is for; * and ? are wild cards; default all of them." reload:"yes"`
	Merchants  []string `toml:"merchants,omitempty" comment:"MIDs that it is for; * and ? are wild cards; default all of them." reload:"yes"`
	MaxAmount  int64    `toml:"max_amount,omitempty" comment:"Most that one sale may be, minor units; default no limit." reload:"yes"`
	Hours      []string `toml:"hours,omitempty" comment:"Times of the day at which sales are taken; default no limit." reload:"yes"`
	Types      []string `toml:"processing_codes,omitempty" comment:"First two digits of DE 3 that are taken; default all of them." reload:"yes"`
	EntryModes []string `toml:"entry_modes,omitempty" comment:"DE 22 that are taken; default all of them." reload:"yes"`
}

// doorOf is what a request must keep to.
func (c *config) doorOf() isoswitch.Door {
	s := &c.Switch
	d := isoswitch.Door{
		Zone: s.TimeZone, Hours: s.Hours, Cutover: s.Cutover, Types: s.Types, EntryModes: s.EntryModes,
		RefuseSkew: s.RefuseSkew, CheckDigit: s.CheckDigit,
	}
	for _, r := range c.Rule {
		d.Rules = append(d.Rules, isoswitch.Rule{
			Name: r.Name, Terminals: r.Terminals, Merchants: r.Merchants, MaxAmount: r.MaxAmount,
			Hours: r.Hours, Types: r.Types, EntryModes: r.EntryModes,
		})
	}
	return d
}

// velocity limits reversals.
func (s *switchConfig) velocity() isoswitch.Velocity {
	return isoswitch.Velocity{
		PerHour: s.ReversalRate, Merchant: s.MerchantRate, Card: s.CardRate, Cash: s.CashRate,
		CashReasons: s.CashReasons, Action: isoswitch.VelocityAction(s.RateAction),
	}
}

func (s *switchConfig) quarantine() isoswitch.Quarantine {
	return isoswitch.Quarantine{After: s.SuspectAfter, Action: isoswitch.QuarantineAction(s.SuspectAction)}
}

// door checks the rules at the door, each key for itself.
func (k *configCheck) door(c *config) {
	s := &c.Switch
	for key, d := range map[string]isoswitch.Door{
		"switch.time_zone": {Zone: s.TimeZone}, "switch.hours": {Hours: s.Hours}, "switch.cutover": {Cutover: s.Cutover},
		"switch.processing_codes": {Types: s.Types}, "switch.entry_modes": {EntryModes: s.EntryModes},
	} {
		err := d.Check()
		k.want(err == nil, key, "%s", inWords(err))
	}
	err := s.velocity().Check()
	k.want(err == nil, "switch.reversal_rate_action", "%s", inWords(err))
	err = isoswitch.VelocityAction(s.Unchecked).Check()
	k.want(err == nil, "switch.linear_unchecked", "%s", inWords(err))
	err = s.quarantine().Check()
	k.want(err == nil, "switch.suspect_action", "%s", inWords(err))
	k.between("switch.suspect_reversals", s.SuspectAfter, 0, 1_000_000)
	k.between("switch.completion_percent", s.Completion, 1, 200)
	seen := make(map[string]bool)
	for i, r := range c.Rule {
		at := fmt.Sprintf("switch_rule[%d]", i)
		k.want(clientName.MatchString(r.Name), at+".name", "needs a name of letters, digits and ._:/@+-")
		k.want(!seen[r.Name], at+".name", "%q stands twice", r.Name)
		seen[r.Name] = true
		for key, one := range map[string]isoswitch.Rule{
			"terminals": {Terminals: r.Terminals}, "merchants": {Merchants: r.Merchants}, "max_amount": {MaxAmount: r.MaxAmount},
			"hours": {Hours: r.Hours}, "processing_codes": {Types: r.Types}, "entry_modes": {EntryModes: r.EntryModes},
		} {
			err := one.Check()
			k.want(err == nil, at+"."+key, "%s", inWords(err))
		}
	}
}

// inWords is an error of the switch without the name of its package.
func inWords(err error) string {
	return strings.TrimPrefix(fmt.Sprint(err), isoswitch.ErrConfig.Error()+": ")
}
