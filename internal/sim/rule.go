package sim

import (
	"errors"
	"fmt"
	"regexp"
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

	Lost        bool // the message never came: no effect, no entry, no answer
	CloseFirst  bool // so, and the connection is closed
	Garbled     bool // the answer's bytes are replaced by others
	Partial     bool // half of the answer's frame, then the connection is closed
	OtherSTAN   bool // the answer names another STAN, under a valid MAC
	OtherAmount bool // the answer names another amount, under a valid MAC
}

// prompt reports whether the answer is written once, whole, at once and as it is.
func (r Rule) prompt() bool { return r.Delay == 0 && !r.Twice && !r.Garbled && !r.Partial }

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

// ParseRule reads "SUFFIX=DO", with "reversal:" before it for rules about
// reversals. An empty suffix fits every amount. DO is what a script's step does
// too: one or more words, see [Actions].
func ParseRule(text string) (Rule, error) {
	rest, reversal := strings.CutPrefix(text, "reversal:")
	suffix, do, ok := strings.Cut(rest, "=")
	if !ok || strings.Trim(suffix, "0123456789") != "" || len(suffix) > 12 {
		return Rule{}, fmt.Errorf("sim: rule %q: want SUFFIX=ACTION, the suffix in digits of the amount", text)
	}
	r, err := parseDo(do)
	if err != nil {
		return Rule{}, fmt.Errorf("sim: rule %q: %w", text, err)
	}
	r.Reversal, r.Suffix = reversal, suffix
	return r, nil
}

// Action is a word that says what the issuer does with a message.
type Action struct {
	Word  string // as it is written, its argument in capitals
	About string
	kind  actionKind
	set   func(r *Rule) // nil: has an argument
}

// actionKind: one of each kind may stand in one rule.
type actionKind int

const (
	theCode   actionKind = iota + 1 // DE 39 of the answer
	theTime                         // when it comes
	theAnswer                       // what becomes of it
)

// Actions lists the words.
func Actions() []Action {
	return []Action{
		{"approve", "answers 00", theCode, func(r *Rule) { r.Code = "00" }},
		{"decline:CODE", "answers CODE, two characters; a reversal has no effect then", theCode, nil},
		{"delay:DURATION", "answers so much later, after the timer of the switch if longer", theTime, nil},
		{"silent", "does what is asked and answers nothing", theAnswer, func(r *Rule) { r.Silent = true }},
		{"lost", "never got the message: no effect and no answer", theAnswer, func(r *Rule) { r.Lost = true }},
		{"close", "does what is asked and closes the link instead of answering", theAnswer, func(r *Rule) { r.Close = true }},
		{"close-before", "closes the link before the message has any effect", theAnswer, func(r *Rule) { r.CloseFirst = true }},
		{"twice", "answers twice", theAnswer, func(r *Rule) { r.Twice = true }},
		{"wrong-mac", "answers with a wrong MAC", theAnswer, func(r *Rule) { r.WrongMAC = true }},
		{"garbled", "answers with a frame of the right length whose bytes mean nothing", theAnswer, func(r *Rule) { r.Garbled = true }},
		{"partial", "sends half of the answer's frame and closes the link", theAnswer, func(r *Rule) { r.Partial = true }},
		{"other-stan", "answers with another STAN, under a valid MAC", theAnswer, func(r *Rule) { r.OtherSTAN = true }},
		{"other-amount", "answers with another amount, under a valid MAC", theAnswer, func(r *Rule) { r.OtherAmount = true }},
	}
}

var codeForm = regexp.MustCompile(`^[0-9A-Z]{2}$`)

// parseDo reads words that are parted by spaces: at most one of each kind.
func parseDo(do string) (Rule, error) {
	r := Rule{Code: "00"}
	words := strings.Fields(do)
	if len(words) == 0 {
		return Rule{}, errors.New("it says nothing to do")
	}
	seen := make(map[actionKind]string)
	for _, word := range words {
		a, err := r.obey(word)
		if err != nil {
			return Rule{}, err
		}
		if other, twice := seen[a.kind]; twice {
			return Rule{}, fmt.Errorf("%q and %q do not go together", other, word)
		}
		seen[a.kind] = word
	}
	return r, nil
}

// obey makes the rule do what a word says.
func (r *Rule) obey(word string) (Action, error) {
	name, argument, has := strings.Cut(word, ":")
	var known []string
	for _, a := range Actions() {
		known = append(known, a.Word)
		own, _, takes := strings.Cut(a.Word, ":")
		if own != name {
			continue
		}
		if a.set == nil {
			return a, r.argument(name, argument)
		}
		if has != takes {
			return a, fmt.Errorf("%s takes no argument", name)
		}
		a.set(r)
		return a, nil
	}
	return Action{}, fmt.Errorf("unknown action %q; there are %s", name, strings.Join(known, ", "))
}

func (r *Rule) argument(name, argument string) error {
	if name == "decline" {
		if !codeForm.MatchString(argument) {
			return errors.New("decline needs a code of two characters, decline:51 for example")
		}
		r.Code = argument
		return nil
	}
	d, err := time.ParseDuration(argument)
	if err != nil || d < 0 {
		return errors.New("delay needs a duration, delay:3s for example")
	}
	r.Delay = d
	return nil
}

// Words say what the rule does, as a script would.
func (r Rule) Words() string {
	words := []string{"approve"}
	if r.Code != "00" {
		words = []string{"decline:" + r.Code}
	}
	if r.Delay > 0 {
		words = append(words, "delay:"+r.Delay.String())
	}
	for word, is := range map[string]bool{
		"silent": r.Silent, "lost": r.Lost, "close": r.Close, "close-before": r.CloseFirst, "twice": r.Twice,
		"wrong-mac": r.WrongMAC, "garbled": r.Garbled, "partial": r.Partial, "other-stan": r.OtherSTAN, "other-amount": r.OtherAmount,
	} {
		if is {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// effective reports whether the message reaches the issuer's book.
func (r Rule) effective() bool { return !r.Lost && !r.CloseFirst }

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
