package sim

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/tomlfile"
)

// Drill is a run of steps with what must come of each, as for the certification
// of a terminal or a switch.
type Drill struct {
	Name  string      `toml:"name"`
	Steps []DrillStep `toml:"step"`
}

// The steps that are no orders.
const (
	drillPause   = "pause"
	drillRestart = "restart"
)

// DrillStep is one order and its expected result.
type DrillStep struct {
	Name   string   `toml:"name"`   // by which a later step refers to it; optional
	Do     string   `toml:"do"`     // a Kind, pause or restart
	Amount int64    `toml:"amount"` // minor units; of a completion or refund that of the original where it is left out
	Card   string   `toml:"card"`   // the card number; else that of the run
	PIN    *bool    `toml:"pin"`    // default true
	Chip   bool     `toml:"chip"`   // the card is read by its chip
	Of     string   `toml:"of"`     // an earlier step; of a void, a completion, a refund
	Fault  []string `toml:"fault"`  // names of Faults.Set
	Delay  string   `toml:"delay"`
	Power  string   `toml:"power"`  // the stage at which power is lost
	For    string   `toml:"for"`    // of a pause
	Expect string   `toml:"expect"` // codes, parted by blanks; or none
	Within string   `toml:"within"` // how long the answer may take
	// Reversal is what becomes of the reversal that goes before the step: codes,
	// given-up, or none where there must be none; left out: anything.
	Reversal string `toml:"reversal"`
}

// The words of an expectation beside codes.
const (
	expectNone    = "none"
	expectGivenUp = "given-up"
)

// MostDrillSteps bounds a script.
const MostDrillSteps = 10_000

var drillCode = regexp.MustCompile(`^[0-9A-Z]{2}$`)

// ParseDrill reads a script. It returns [ErrDrill] with all that is wrong, each
// on a line with file, line and key.
func ParseDrill(file string, text []byte) (*Drill, error) {
	s := new(Drill)
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, wrong(tomlfile.Complaints(file, err, reflect.TypeFor[Drill]()))
	}
	lines := tomlfile.LinesOf(text)
	var all []string
	complain := func(at, format string, args ...any) {
		where := file
		if line, ok := lines[at]; ok {
			where = fmt.Sprintf("%s:%d", file, line)
		} else if table, _, _ := strings.Cut(at, "."); lines[table] != 0 {
			where = fmt.Sprintf("%s:%d", file, lines[table])
		}
		all = append(all, fmt.Sprintf("%s: %s: %s", where, at, fmt.Sprintf(format, args...)))
	}
	if len(s.Steps) == 0 || len(s.Steps) > MostDrillSteps {
		complain("step", "%d steps; a script has 1 to %d, each a [[step]]", len(s.Steps), MostDrillSteps)
	}
	before := map[string]DrillStep{}
	for i, step := range s.Steps {
		at := fmt.Sprintf("step[%d].", i)
		step.check(before, func(key, format string, args ...any) { complain(at+key, format, args...) })
		if step.Name != "" {
			before[step.Name] = step
		}
	}
	if len(all) > 0 {
		return nil, wrong(all)
	}
	return s, nil
}

func wrong(lines []string) error {
	return fmt.Errorf("%w cannot be run:\n%s", ErrDrill, strings.Join(lines, "\n"))
}

// check complains of what cannot be right in a step.
func (s DrillStep) check(before map[string]DrillStep, complain func(key, format string, args ...any)) {
	kind := Kind(s.Do)
	order := slices.Contains(Kinds(), kind)
	if !order && s.Do != drillPause && s.Do != drillRestart {
		complain("do", "%q is nothing that a terminal does; there are %s, pause, restart", s.Do, join(Kinds()))
		return
	}
	if _, twice := before[s.Name]; twice && s.Name != "" {
		complain("name", "an earlier step is called %q", s.Name)
	}
	if kind.transaction() {
		s.checkTrade(kind, before, complain)
	}
	if s.Amount < 0 {
		complain("amount", "%d is below zero", s.Amount)
	}
	for _, name := range s.Fault {
		if err := new(Faults).Set(name); err != nil {
			complain("fault", "%s", strings.TrimPrefix(err.Error(), ErrOrder.Error()+": "))
		}
	}
	if s.Power != "" && !slices.Contains(Stages(), Stage(s.Power)) {
		complain("power", "%q is no stage; there are %s", s.Power, join(Stages()))
	}
	for key, text := range map[string]string{"delay": s.Delay, "for": s.For, "within": s.Within} {
		if d, err := time.ParseDuration(text); text != "" && (err != nil || d < 0) {
			complain(key, "%q is no duration, 1500ms for example", text)
		}
	}
	if (s.Do == drillPause) != (s.For != "") {
		complain("for", "goes with a pause, and a pause needs it")
	}
	s.checkExpected(kind, order, complain)
}

// checkTrade looks at what only transactions have.
func (s DrillStep) checkTrade(kind Kind, before map[string]DrillStep, complain func(key, format string, args ...any)) {
	switch of, known := before[s.Of]; {
	case !kind.names() && s.Of != "":
		complain("of", "a %s names no other transaction", kind)
	case kind.names() && s.Of == "":
		complain("of", "a %s needs the name of an earlier step", kind)
	case kind.names() && !known:
		complain("of", "no earlier step is called %q", s.Of)
	case kind.names() && !Kind(of.Do).transaction():
		complain("of", "step %q is no transaction", s.Of)
	}
	if !kind.names() && kind != DoBalance && s.Amount == 0 {
		complain("amount", "a %s needs one, in minor units", kind)
	}
	if kind.names() && (s.Card != "" || s.PIN != nil || s.Chip) {
		complain("card", "a %s has the card of the transaction that it names", kind)
	}
}

func (s DrillStep) checkExpected(kind Kind, order bool, complain func(key, format string, args ...any)) {
	if (kind.transaction() || kind == DoEcho || kind == DoSignIn || kind == DoSignOff) && s.Expect == "" {
		complain("expect", "say what must come: codes, or none")
	}
	if !order && (s.Expect != "" || s.Reversal != "") {
		complain("expect", "nothing comes of a %s", s.Do)
	}
	if kind == DoResume && s.Expect != "" {
		complain("expect", "of a resume only the reversal is known: say reversal")
	}
	for key, words := range map[string][]string{"expect": strings.Fields(s.Expect), "reversal": strings.Fields(s.Reversal)} {
		for _, w := range words {
			if w != expectNone && (w != expectGivenUp || key != "reversal") && !drillCode.MatchString(w) {
				complain(key, "%q is no code of two characters, nor none", w)
			}
		}
	}
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}
