package ceremony

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyd.dev/keyd/keys"
)

// Explain says in plain words what the ceremony will do.
func (s *Script) Explain() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s (%s)", s.Title, s.ID)
	line("Purpose: %s", s.Purpose)
	line("")
	for _, text := range s.what() {
		line("%s", text)
	}
	line("")
	line("These persons take part, each with an own certificate, besides the administrator who opens it:")
	for i, c := range s.Custodians {
		text := fmt.Sprintf("  %d. %s", i+1, c.Name)
		switch {
		case c.Share != 0:
			text += fmt.Sprintf(", who brings share %d", c.Share)
		case s.brings():
			text += fmt.Sprintf(", who brings component %d", i+1)
		case s.takesAway():
			text += fmt.Sprintf(", who takes %s %d away", s.part(), i+1)
		}
		if c.CheckValue != "" {
			text += ", check value " + strings.ToUpper(c.CheckValue)
		}
		if c.Recipient != "" {
			text += ", in the file " + c.File + " that only " + c.Recipient + " can open"
		}
		line("%s", text)
	}
	line("")
	line("Steps:")
	for i, text := range s.steps() {
		line("  %d. %s", i+1, text)
	}
	line("")
	line("A step may take %s, all of it %s. Whoever gives up, a wrong check value, or a daemon that stops ends it:", time.Duration(s.StepTimeout), time.Duration(s.Timeout))
	line("then everything is forgotten and nothing has changed%s.", s.after())
	line("The transcript goes to %s.json and %s.txt; a file that is there already is never overwritten.", s.Output.Transcript, s.Output.Transcript)
	line("Script SHA-256: %s", s.Hash())
	return b.String()
}

// after is what an end in the middle may leave all the same.
func (s *Script) after() string {
	if s.Kind == Export {
		return ", unless the confirmation was over: then components may have been shown, and the log says so"
	}
	return ", unless the last confirmation was given: then the log says what was done"
}

// part is the word for what a custodian holds.
func (s *Script) part() string {
	if s.shares() {
		return "share"
	}
	return "component"
}

// what says what kind of ceremony this is, and what about.
func (s *Script) what() []string {
	n := len(s.Custodians)
	switch s.Kind {
	case Import:
		return append([]string{
			fmt.Sprintf("The custodians bring %d components. Put together (XOR) they make one key, which is stored as %s.", n, s.Key.Alias),
		}, s.about()...)
	case Generate:
		return append([]string{
			fmt.Sprintf("The token's generator makes %d components. Put together (XOR) they make one new key, which is stored as %s.", n, s.Key.Alias),
			"Each custodian takes one component away. All of them together can make the key again; fewer can do nothing.",
		}, s.about()...)
	case Export:
		return []string{
			fmt.Sprintf("The key %s leaves keyd as %d components. All of them together make the key; fewer can do nothing.", s.Key.Alias, n),
			"The key stays in keyd. It must be exportable.",
			s.expectation(),
		}
	case Injection:
		return []string{
			fmt.Sprintf("For each device of the list %s the initial key under %s is made", s.Injection.List, s.Injection.BDK),
			fmt.Sprintf("and written to %s as a key block (TR-31) under %s. No key is in the clear.", s.Injection.Output, s.Injection.KEK),
		}
	case LMK:
		lines := []string{"A new token gets its local master key, under which every other key will stand."}
		if g := s.LMK.First(); g > 1 {
			lines = append(lines, fmt.Sprintf("It begins with generation %d: key blocks of earlier ones, and card data of other tokens, it cannot read.", g))
		}
		return append(lines, s.lmk()...)
	case LMKChange:
		return append([]string{
			"The token gets a new local master key beside the one in use. New keys stand under it at once;",
			"the others move when `keyd lmk rewrap` runs, and the old one ends with `keyd lmk retire`.",
		}, s.lmk()...)
	case Destroy:
		return []string{
			fmt.Sprintf("The key %s is destroyed, at once and for ever. What was enciphered under it cannot be read again.", s.Key.Alias),
			s.expectation(),
		}
	}
	if len(s.Role.Roles) == 0 {
		return []string{fmt.Sprintf("The client %s loses all its roles: it may do nothing.", s.Role.Client)}
	}
	return []string{fmt.Sprintf("The client %s gets the roles %s, in place of those that it has.", s.Role.Client, strings.Join(s.Role.Roles, ", "))}
}

func (s *Script) lmk() []string {
	n := len(s.Custodians)
	switch {
	case s.LMK.Create && s.shares():
		return []string{fmt.Sprintf("The token's generator makes it. It is split into %d shares, of which any %d make it again and fewer tell nothing.", n, s.LMK.Threshold)}
	case s.LMK.Create:
		return []string{fmt.Sprintf("The token's generator makes %d components, which all together make it.", n)}
	case s.shares():
		return []string{fmt.Sprintf("The custodians bring %d shares; %d are needed, the others must agree with them.", n, s.LMK.Threshold), s.expectation()}
	}
	return []string{fmt.Sprintf("The custodians bring %d components, which all together (XOR) make it.", n), s.expectation()}
}

// about describes a key that is to be stored.
func (s *Script) about() []string {
	a := s.attributes()
	lines := []string{fmt.Sprintf("It is a key for %s, %s, mode %c, %s.", a.Usage.Name(), a.Algorithm, a.Mode, exportWords[a.Exportability])}
	var tags []string
	for name, value := range s.Key.Policy {
		tags = append(tags, name+"="+value)
	}
	slices.Sort(tags)
	if len(tags) > 0 {
		lines = append(lines, "Its policy: "+strings.Join(tags, ", ")+".")
	}
	if s.Kind == Import {
		lines = append(lines, s.expectation())
	}
	return lines
}

var exportWords = map[keys.Exportability]string{
	keys.Exportable:    "exportable under a trusted key",
	keys.NonExportable: "never exportable",
	keys.Sensitive:     "exportable under any key",
}

func (s *Script) expectation() string {
	if want := s.expected(); want != "" {
		return fmt.Sprintf("The check value of the whole key must be %s.", want)
	}
	return "The script names no check value for the whole key: compare the one that is shown with the paper."
}

// steps says what each custodian does, in order.
func (s *Script) steps() []string {
	words := map[Stage]string{
		Joining: "Each custodian shows who he is.",
		Giving:  fmt.Sprintf("Each custodian enters his %s alone, unseen, and confirms its check value.", s.part()),
		Taking:  fmt.Sprintf("Each custodian takes his %s alone, and types its check value to prove that he has it.", s.part()),
	}
	last := fmt.Sprintf("Each custodian types %q to say that it shall happen. The last one makes it happen.", s.Object())
	if s.brings() || s.Kind == Generate || s.LMK != nil {
		last = "Each custodian compares the check value of the whole key. " + last
	}
	words[Confirming] = last
	var lines []string
	for _, stage := range s.stages() {
		lines = append(lines, words[stage])
	}
	return lines
}
