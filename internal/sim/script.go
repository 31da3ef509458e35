package sim

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"keyd.dev/keyd/internal/tomlfile"
)

// Script is what an issuer does wrong on purpose, step by step. It is read from
// a file of TOML and does not change; who plays it is the [Issuer].
type Script struct {
	Seed  uint64 // of the chances
	Steps []Step
	// Plain: what no step fits is approved; else the rules of `keyd dev` hold.
	Plain   bool
	Changes []KeyChange // of zone keys, those first in time first
}

// Step says which messages it fits, when, and what the issuer does with them.
// Empty parts fit all.
type Step struct {
	Name    string
	MTI     []string // four digits; the last may be x for any
	Amount  string   // suffix of DE 4
	STAN    string   // suffix of DE 11, as keyd sends it
	BIN     string   // prefix of DE 2
	TID     string   // DE 41
	Reason  string   // DE 39 of a reversal
	Network string   // DE 70 of an 0800

	Skip   int  // so many that fit go by first
	Times  int  // then so many are met; 0 is all
	Each   bool // both are counted for each message and its repeats, by DE 7 and 11
	Chance int  // in 10,000, of one that is not skipped; 10,000 is always
	From   time.Duration
	Until  time.Duration // since the issuer began; 0 is no end

	Do Rule
}

// certainty is a Chance of always.
const certainty = 10_000

// scriptFile is the file as it is written.
type scriptFile struct {
	Seed      uint64     `toml:"seed"`
	Otherwise string     `toml:"otherwise"`
	Steps     []stepFile `toml:"step"`
	Changes   []keyFile  `toml:"key_change"`
}

type keyFile struct {
	At  string `toml:"at"`
	Key string `toml:"key"`
	Do  string `toml:"do"`
}

type stepFile struct {
	Name    string   `toml:"name"`
	MTI     []string `toml:"mti"`
	Amount  string   `toml:"amount"`
	STAN    string   `toml:"stan"`
	BIN     string   `toml:"bin"`
	TID     string   `toml:"tid"`
	Reason  string   `toml:"reason"`
	Network string   `toml:"network"`
	Skip    int      `toml:"skip"`
	Times   int      `toml:"times"`
	Each    bool     `toml:"each"`
	Chance  *float64 `toml:"chance"`
	From    string   `toml:"from"`
	Until   string   `toml:"until"`
	Do      string   `toml:"do"`
}

// RefusedScript lists all that is wrong with a script, each as "file:line: key:
// what".
type RefusedScript struct{ Lines []string }

func (e *RefusedScript) Error() string {
	return "sim: the script is refused:\n  " + strings.Join(e.Lines, "\n  ")
}

// ReadScript reads a script. What is wrong with it is a [RefusedScript].
func ReadScript(path string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("sim: script: %w", err)
	}
	return ParseScript(path, text)
}

// ParseScript reads the text of a script; name is for what is wrong with it.
func ParseScript(name string, text []byte) (*Script, error) {
	var f scriptFile
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return nil, &RefusedScript{tomlfile.Complaints(name, err, reflect.TypeFor[scriptFile]())}
	}
	c := &scriptCheck{name: name, lines: tomlfile.LinesOf(text)}
	c.want(slices.Contains([]string{"", "dev", "approve"}, f.Otherwise), "otherwise", `%q is neither "dev", the rules of keyd dev, nor "approve"`, f.Otherwise)
	c.want(len(f.Steps)+len(f.Changes) > 0, "step", "there is none; a script has one [[step]] or [[key_change]] or more")
	s := &Script{Seed: f.Seed, Plain: f.Otherwise == "approve"}
	names := make(map[string]bool)
	for i, step := range f.Steps {
		if step.Name == "" {
			step.Name = fmt.Sprintf("step-%d", i+1)
		}
		at := fmt.Sprintf("step[%d]", i)
		c.want(!names[step.Name], at+".name", "%q stands twice", step.Name)
		names[step.Name] = true
		s.Steps = append(s.Steps, c.step(at, step))
	}
	for i, change := range f.Changes {
		s.Changes = append(s.Changes, c.change(fmt.Sprintf("key_change[%d]", i), change))
	}
	c.want(slices.IsSortedFunc(s.Changes, func(a, b KeyChange) int { return cmp.Compare(a.At, b.At) }), "key_change", "they are not in the order of their times")
	if len(c.found) > 0 {
		return nil, &RefusedScript{c.found}
	}
	return s, nil
}

// scriptCheck collects what is wrong.
type scriptCheck struct {
	name  string
	lines tomlfile.Lines
	found []string
}

func (c *scriptCheck) want(ok bool, key, format string, args ...any) {
	if !ok {
		c.found = append(c.found, fmt.Sprintf("%s:%d: %s: %s", c.name, c.lines.Of(key), key, fmt.Sprintf(format, args...)))
	}
}

var (
	stepName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	mtiForm  = regexp.MustCompile(`^0[1248][0-9][0-9x]$`)
)

func (c *scriptCheck) step(at string, f stepFile) Step {
	s := Step{
		Name: f.Name, MTI: f.MTI, Amount: f.Amount, STAN: f.STAN, BIN: f.BIN, TID: f.TID, Reason: f.Reason, Network: f.Network,
		Skip: f.Skip, Times: f.Times, Each: f.Each, Chance: certainty,
	}
	c.want(stepName.MatchString(f.Name), at+".name", "%q is not 1 to 32 of a-z, 0-9 and -", f.Name)
	for _, mti := range f.MTI {
		c.want(mtiForm.MatchString(mti), at+".mti", "%q is no type that a switch sends, 0200, 042x or 0800 for example", mti)
	}
	c.digits(at+".amount", f.Amount, 1, 12)
	c.digits(at+".stan", f.STAN, 1, 6)
	c.digits(at+".bin", f.BIN, 1, 8)
	c.digits(at+".network", f.Network, 3, 3)
	c.want(f.TID == "" || len(f.TID) == 8, at+".tid", "%q has not 8 characters", f.TID)
	c.want(f.Reason == "" || len(f.Reason) == 2, at+".reason", "%q has not 2 characters", f.Reason)
	c.want(f.Skip >= 0, at+".skip", "is negative")
	c.want(f.Times >= 0, at+".times", "is negative; without it a step never ends")
	c.want(!f.Each || f.Skip > 0 || f.Times > 0, at+".each", "counts nothing without skip or times")
	if f.Chance != nil {
		c.want(*f.Chance > 0 && *f.Chance <= 1, at+".chance", "%v is not above 0 and at most 1", *f.Chance)
		s.Chance = int(math.Round(*f.Chance * certainty))
		c.want(s.Chance > 0, at+".chance", "%v is less than 1 in 10,000", *f.Chance)
	}
	s.From, s.Until = c.time(at+".from", f.From), c.time(at+".until", f.Until)
	c.want(s.Until == 0 || s.Until > s.From, at+".until", "%v is not after %v", s.Until, s.From)
	c.does(at, f, &s)
	return s
}

func (c *scriptCheck) change(at string, f keyFile) KeyChange {
	if f.Do == "" {
		f.Do = "good"
	}
	var words []string
	for _, w := range KeyChangeWords() {
		words = append(words, w[0])
	}
	c.want(slices.Contains(words, f.Do), at+".do", "unknown action %q; there are %s", f.Do, strings.Join(words, ", "))
	c.want(f.Key == zoneMAC || f.Key == zonePIN, at+".key", `%q is neither "mac" nor "pin"`, f.Key)
	return KeyChange{At: c.time(at+".at", f.At), Key: f.Key, Do: f.Do}
}

// does reads what the step does, and refuses what its messages cannot have.
func (c *scriptCheck) does(at string, f stepFile, s *Step) {
	if f.Do == "" {
		c.want(false, at+".do", "is missing: what the issuer does, %q for example", "silent")
		return
	}
	var err error
	if s.Do, err = parseDo(f.Do); err != nil {
		c.want(false, at+".do", "%v", err)
	}
	network := f.Network != "" || slices.ContainsFunc(f.MTI, func(m string) bool { return strings.HasPrefix(m, "08") })
	c.want(!network || !s.Do.OtherAmount, at+".do", "other-amount: an 0800 has no amount")
	c.want(!network || f.Amount == "" && f.BIN == "" && f.Reason == "", at, "an 0800 has no amount, BIN or reason: the step fits nothing")
}

func (c *scriptCheck) digits(key, text string, least, most int) {
	ok := strings.Trim(text, "0123456789") == "" && len(text) >= least && len(text) <= most
	c.want(text == "" || ok, key, "%q is not %d to %d digits", text, least, most)
}

func (c *scriptCheck) time(key, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	c.want(err == nil && d >= 0, key, "%q is no time since the start, 90s or 5m for example", text)
	return d
}
