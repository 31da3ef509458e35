package sim

import (
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/iso8583"
)

// Rule says what the issuer does with messages whose amount ends in Suffix.
type Rule struct {
	Reversal bool   // for 0400 to 0421; else for 0100, 0200, 0220
	Suffix   string // of DE 4; "" fits all
	Code     string // DE 39
	Silent   bool   // no answer
	WrongMAC bool
	Delay    time.Duration
	Close    bool // the connection is closed instead of an answer
	Twice    bool // the answer comes a second time
}

// DefaultRules are those of `keyd dev` (W-14).
func DefaultRules() []Rule {
	rules := []Rule{
		{Suffix: "99", Code: "00", Silent: true},
		{Suffix: "97", Code: "00", WrongMAC: true},
		{Suffix: "95", Code: "00", Delay: 3 * time.Second},
	}
	for digit := 1; digit < 10; digit += 2 {
		rules = append(rules, Rule{Suffix: fmt.Sprint(digit), Code: "51"})
	}
	return rules
}

// ParseRule reads "SUFFIX=ACTION", with "reversal:" before it for rules about
// reversals. Actions are approve, decline:CODE, silent, wrong-mac,
// delay:DURATION, twice and close. An empty suffix fits every amount.
func ParseRule(text string) (Rule, error) {
	rest, reversal := strings.CutPrefix(text, "reversal:")
	suffix, action, ok := strings.Cut(rest, "=")
	if !ok || strings.Trim(suffix, "0123456789") != "" || len(suffix) > 12 {
		return Rule{}, fmt.Errorf("sim: rule %q: want SUFFIX=ACTION, the suffix in digits of the amount", text)
	}
	r := Rule{Reversal: reversal, Suffix: suffix, Code: "00"}
	name, argument, _ := strings.Cut(action, ":")
	switch name {
	case "approve":
	case "decline":
		if len(argument) != 2 {
			return Rule{}, fmt.Errorf("sim: rule %q: decline needs a code of two characters, decline:51 for example", text)
		}
		r.Code = argument
	case "silent":
		r.Silent = true
	case "wrong-mac":
		r.WrongMAC = true
	case "close":
		r.Close = true
	case "twice":
		r.Twice = true
	case "delay":
		d, err := time.ParseDuration(argument)
		if err != nil || d < 0 {
			return Rule{}, fmt.Errorf("sim: rule %q: delay needs a duration, delay:3s for example", text)
		}
		r.Delay = d
	default:
		return Rule{}, fmt.Errorf("sim: rule %q: unknown action %q; there are approve, decline:CODE, silent, wrong-mac, delay:DURATION, twice and close", text, name)
	}
	return r, nil
}

// ruleFor is the first rule that fits; without one the issuer approves.
func ruleFor(rules []Rule, m *iso8583.Message) Rule {
	reversal := m.MTI().Class() == '4'
	for _, r := range rules {
		if r.Reversal == reversal && strings.HasSuffix(m.Text(4), r.Suffix) {
			return r
		}
	}
	return Rule{Reversal: reversal, Code: "00"}
}
