package ceremony

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

var (
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,47}$`)
	nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)
)

// The bounds of a ceremony.
const (
	leastCustodians = 2
	mostCustodians  = 16
	mostPurpose     = 256
)

// check lists what is wrong with a script.
func (s *Script) check() []string {
	var wrong []string
	bad := func(key, format string, args ...any) {
		wrong = append(wrong, key+": "+fmt.Sprintf(format, args...))
	}
	if !idForm.MatchString(s.ID) {
		bad("id", "need 1 to 48 of a-z, 0-9 and -")
	}
	if !printable(s.Title, 100) {
		bad("title", "need 1 to 100 printable ASCII characters")
	}
	if !printable(s.Purpose, mostPurpose) {
		bad("purpose", "need 1 to %d printable ASCII characters", mostPurpose)
	}
	if d := time.Duration(s.StepTimeout); d < time.Second || d > longest {
		bad("step_timeout", "need 1s to %s", longest)
	}
	if d := time.Duration(s.Timeout); d < time.Duration(s.StepTimeout) || d > longest {
		bad("timeout", "need at least step_timeout and at most %s", longest)
	}
	s.checkParts(bad)
	s.checkCustodians(bad)
	if s.Output.Transcript == "" || strings.HasSuffix(s.Output.Transcript, ".json") || strings.HasSuffix(s.Output.Transcript, ".txt") || strings.HasSuffix(s.Output.Transcript, string(filepath.Separator)) {
		bad("output.transcript", "need a path without .json or .txt; both are written")
	}
	return wrong
}

// checkParts looks at what the kind needs, and refuses what it has no use for.
func (s *Script) checkParts(bad func(key, format string, args ...any)) {
	needs := map[Kind]string{
		Import: "key", Generate: "key", Export: "key", Destroy: "key",
		Injection: "injection", LMK: "lmk", LMKChange: "lmk", RoleChange: "role",
	}
	need, known := needs[s.Kind]
	if !known {
		bad("kind", "%q is none of import, generate, export, injection, lmk, lmk-change, destroy, role-change", s.Kind)
		return
	}
	for part, there := range map[string]bool{"key": s.Key != nil, "lmk": s.LMK != nil, "injection": s.Injection != nil, "role": s.Role != nil} {
		switch {
		case part == need && !there:
			bad(part, "a ceremony of kind %s needs [%s]", s.Kind, part)
			return
		case part != need && there:
			bad(part, "a ceremony of kind %s has no [%s]", s.Kind, part)
		}
	}
	switch need {
	case "key":
		s.checkKey(bad)
	case "lmk":
		s.checkLMK(bad)
	case "injection":
		i := s.Injection
		for key, alias := range map[string]string{"injection.bdk": i.BDK, "injection.kek": i.KEK} {
			if !custody.ValidAlias(alias) {
				bad(key, "%q is not an alias; they begin with alias/", alias)
			}
		}
		if i.List == "" || i.Output == "" || i.List == i.Output {
			bad("injection", "need list and output, two files")
		}
	case "role":
		if !nameForm.MatchString(s.Role.Client) {
			bad("role.client", "need the name of a client")
		}
		for _, role := range s.Role.Roles {
			if !contains(custody.Roles(), custody.Role(role)) {
				bad("role.roles", "%q is no role; choose of %v", role, custody.Roles())
			}
		}
	}
}

func contains(roles []custody.Role, role custody.Role) bool {
	for _, r := range roles {
		if r == role {
			return true
		}
	}
	return false
}

func (s *Script) checkKey(bad func(key, format string, args ...any)) {
	k := s.Key
	if !custody.ValidAlias(k.Alias) {
		bad("key.alias", "%q is not an alias; they begin with alias/", k.Alias)
	}
	if k.CheckValue != "" {
		if _, err := keys.ParseKCV(k.CheckValue); err != nil {
			bad("key.check_value", "need 6 hexadecimal digits")
		}
	}
	if s.Kind == Export || s.Kind == Destroy {
		if k.Usage+k.Algorithm+k.Mode+k.Exportability+k.CheckMethod != "" || len(k.Policy) > 0 {
			bad("key", "the key of a ceremony of kind %s is there already: name its alias and, if you like, its check_value", s.Kind)
		}
		return
	}
	usage, err := keys.ParseUsage(k.Usage)
	if err != nil {
		bad("key.usage", "%v", err)
		return
	}
	algorithm, err := keys.ParseAlgorithm(k.Algorithm)
	if err != nil {
		bad("key.algorithm", "%v", err)
		return
	}
	if len(k.Mode) != 1 || len(k.Exportability) != 1 {
		bad("key", "need mode (one letter of BEDCGVXN) and exportability (E, N or S)")
		return
	}
	a := keys.Attributes{Usage: usage, Algorithm: algorithm, Mode: keys.Mode(k.Mode[0]), Exportability: keys.Exportability(k.Exportability[0])}
	if err := a.Validate(); err != nil {
		bad("key", "%v", err)
	}
	if k.CheckMethod == "" {
		return
	}
	if m, err := keys.ParseCheckMethod(k.CheckMethod); err != nil || !algorithm.CheckableBy(m) {
		bad("key.check_method", "%q is no method for %s", k.CheckMethod, algorithm)
	}
}

func (s *Script) checkLMK(bad func(key, format string, args ...any)) {
	m := s.LMK
	if m.Source != "components" && m.Source != "shares" {
		bad("lmk.source", "need components or shares")
	}
	if m.CheckValue != "" {
		if _, err := keys.ParseKCV(m.CheckValue); err != nil {
			bad("lmk.check_value", "need 6 hexadecimal digits")
		}
	}
	if m.Create && m.CheckValue != "" {
		bad("lmk.check_value", "a key that is not made yet has none")
	}
	if s.Kind == LMKChange && m.Generation != 0 {
		bad("lmk.generation", "follows from the token, whose newest one it comes after")
	}
	n := len(s.Custodians)
	switch {
	case m.Source != "shares" && m.Threshold != 0:
		bad("lmk.threshold", "only shares have one")
	case m.Source == "shares" && (m.Threshold < 2 || m.Threshold > n):
		bad("lmk.threshold", "need 2 to the number of custodians, %d", n)
	}
}

func (s *Script) checkCustodians(bad func(key, format string, args ...any)) {
	if n := len(s.Custodians); n < leastCustodians || n > mostCustodians {
		bad("custodian", "%d named; need %d to %d", n, leastCustodians, mostCustodians)
	}
	names, indices := make(map[string]bool), make(map[int]bool)
	for i, c := range s.Custodians {
		at := fmt.Sprintf("custodian %d", i+1)
		if !nameForm.MatchString(c.Name) {
			bad(at, "need the name of a client")
		}
		if names[c.Name] {
			bad(at, "%s is named twice", c.Name)
		}
		names[c.Name] = true
		if c.CheckValue != "" {
			if _, err := keys.ParseKCV(c.CheckValue); err != nil {
				bad(at, "check_value: need 6 hexadecimal digits")
			}
			if !s.brings() || s.shares() {
				bad(at, "check_value: only a component that is brought has one")
			}
		}
		if c.Recipient != "" {
			if _, err := parseRecipient(c.Recipient); err != nil {
				bad(at, "recipient: %v", err)
			}
			if !s.takesAway() {
				bad(at, "recipient: a ceremony of kind %s gives nothing to take away", s.Kind)
			}
		}
		switch {
		case c.File != "" && !filepath.IsLocal(c.File):
			bad(at, "file: need a path below the folder in which the command runs")
		case s.takesAway() && (c.File == "") != (c.Recipient == ""):
			bad(at, "file and recipient go together")
		case c.File != "" && !s.takesAway() && !s.brings():
			bad(at, "file: a ceremony of kind %s has no components", s.Kind)
		}
		switch {
		case s.shares() && s.brings() && (c.Share < 1 || c.Share > 255 || indices[c.Share]):
			bad(at, "share: need the index of its share, 1 to 255, another for each")
		case c.Share != 0 && !(s.shares() && s.brings()):
			bad(at, "share: only shares that are brought have an index here")
		}
		indices[c.Share] = true
		s.checkBags(c, func(format string, args ...any) { bad(at, format, args...) })
	}
}

// checkBags looks at the numbers of one custodian's bags.
func (s *Script) checkBags(c CustodianPart, bad func(format string, args ...any)) {
	for _, bag := range []struct {
		key, number string
		fits        bool
	}{{"bag_out", c.BagOut, s.brings()}, {"bag_in", c.BagIn, s.brings() || s.takesAway()}} {
		switch {
		case bag.number == "":
		case !bagNumber.MatchString(bag.number):
			bad("%s: need 1 to 12 letters, digits and hyphens", bag.key)
		case !bag.fits:
			bad("%s: a ceremony of kind %s has no such component", bag.key, s.Kind)
		}
	}
}

// parseRecipient reads an age recipient, native or of a plugin.
func parseRecipient(text string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(text, "age1pq1"):
		return age.ParseHybridRecipient(text)
	case strings.HasPrefix(text, "age1") && strings.Count(text, "1") > 1:
		if r, err := age.ParseX25519Recipient(text); err == nil {
			return r, nil
		}
		return plugin.NewRecipient(text, pluginUI())
	}
	return age.ParseX25519Recipient(text)
}

func printable(text string, most int) bool {
	if text == "" || len(text) > most {
		return false
	}
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return false
		}
	}
	return true
}
