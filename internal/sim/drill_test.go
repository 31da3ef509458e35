package sim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseDrill: what is wrong is said with file, line and key, all of it.
func TestParseDrill(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no steps", `name = "empty"`, "f.toml: step: 0 steps"},
		{"unknown key", "[[step]]\ndo = \"sale\"\namont = 1\n", `f.toml:3: unknown key "step.amont"; did you mean "amount"?`},
		{"no TOML", "[[step\n", "f.toml:1:"},
		{"unknown deed", "[[step]]\ndo = \"steal\"\n", `f.toml:2: step[0].do: "steal" is nothing that a terminal does; there are sale, preauth,`},
		{"no amount", "[[step]]\ndo = \"sale\"\nexpect = \"00\"\n", "f.toml:1: step[0].amount: a sale needs one"},
		{"no expectation", "[[step]]\ndo = \"echo\"\n", "f.toml:1: step[0].expect: say what must come"},
		{"bad expectation", "[[step]]\ndo = \"echo\"\nexpect = \"ok\"\n", `f.toml:3: step[0].expect: "ok" is no code`},
		{"given-up of an answer", "[[step]]\ndo = \"echo\"\nexpect = \"given-up\"\n", `f.toml:3: step[0].expect: "given-up" is no code`},
		{"bad reversal", "[[step]]\ndo = \"resume\"\nreversal = \"0\"\n", `f.toml:3: step[0].reversal: "0" is no code`},
		{"expectation of a resume", "[[step]]\ndo = \"resume\"\nexpect = \"00\"\n", "f.toml:3: step[0].expect: of a resume only the reversal is known"},
		{"unknown fault", "[[step]]\ndo = \"echo\"\nexpect = \"none\"\nfault = [\"explode\"]\n", `f.toml:4: step[0].fault: no fault "explode"; there are answer-mac, bad-mac, card-gone, cut, garble, lose-answer, replay`},
		{"unknown stage", "[[step]]\ndo = \"echo\"\nexpect = \"none\"\npower = \"never\"\n", `f.toml:4: step[0].power: "never" is no stage; there are write, send,`},
		{"bad delay", "[[step]]\ndo = \"echo\"\nexpect = \"00\"\ndelay = \"soon\"\n", `f.toml:4: step[0].delay: "soon" is no duration`},
		{"bad limit", "[[step]]\ndo = \"echo\"\nexpect = \"00\"\nwithin = \"fast\"\n", `f.toml:4: step[0].within: "fast" is no duration`},
		{"negative delay", "[[step]]\ndo = \"echo\"\nexpect = \"00\"\ndelay = \"-1s\"\n", `f.toml:4: step[0].delay: "-1s" is no duration`},
		{"pause without time", "[[step]]\ndo = \"pause\"\n", "f.toml:1: step[0].for: goes with a pause"},
		{"time without pause", "[[step]]\ndo = \"resume\"\nfor = \"1s\"\n", "f.toml:3: step[0].for: goes with a pause"},
		{"expectation of a pause", "[[step]]\ndo = \"pause\"\nfor = \"1s\"\nexpect = \"00\"\n", "f.toml:4: step[0].expect: nothing comes of a pause"},
		{"void of nothing", "[[step]]\ndo = \"void\"\nexpect = \"00\"\n", "f.toml:1: step[0].of: a void needs the name of an earlier step"},
		{"void of a later step", "[[step]]\ndo = \"void\"\nof = \"s\"\nexpect = \"00\"\n[[step]]\nname = \"s\"\ndo = \"sale\"\namount = 1\nexpect = \"00\"\n", `f.toml:3: step[0].of: no earlier step is called "s"`},
		{"void of an echo", "[[step]]\nname = \"s\"\ndo = \"echo\"\nexpect = \"00\"\n[[step]]\ndo = \"void\"\nof = \"s\"\nexpect = \"00\"\n", `f.toml:7: step[1].of: step "s" is no transaction`},
		{"sale of something", "[[step]]\ndo = \"sale\"\namount = 1\nof = \"s\"\nexpect = \"00\"\n", "f.toml:4: step[0].of: a sale names no other transaction"},
		{"card of a void", "[[step]]\nname = \"s\"\ndo = \"sale\"\namount = 1\nexpect = \"00\"\n[[step]]\ndo = \"void\"\nof = \"s\"\ncard = \"4111111111111111\"\nexpect = \"00\"\n", "f.toml:9: step[1].card: a void has the card of the transaction that it names"},
		{"a name twice", "[[step]]\nname = \"s\"\ndo = \"echo\"\nexpect = \"00\"\n[[step]]\nname = \"s\"\ndo = \"echo\"\nexpect = \"00\"\n", `f.toml:6: step[1].name: an earlier step is called "s"`},
		{"negative amount", "[[step]]\ndo = \"sale\"\namount = -1\nexpect = \"00\"\n", "f.toml:3: step[0].amount: -1 is below zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseDrill("f.toml", []byte(tt.text))
			if !errors.Is(err, ErrDrill) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v\nmust say %s", err, tt.want)
			}
		})
	}
	_, err := ParseDrill("f.toml", []byte("[[step]]\ndo = \"echo\"\n[[step]]\ndo = \"steal\"\n"))
	if err == nil || strings.Count(err.Error(), "f.toml:") != 2 {
		t.Errorf("two faults, told as %v", err)
	}
}

// TestDrillGuide: the script of the guide can be run as it stands there.
func TestDrillGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/SIMULATORS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```toml\n# terminal-run.toml\n")
	script, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("docs/SIMULATORS.md has no terminal-run.toml")
	}
	drill, err := ParseDrill("terminal-run.toml", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	h, dir := newHost(t), t.TempDir()
	var bad []DrillReport
	failed, err := drill.Run(t.Context(), h.drill(t, dir, &bad))
	if err != nil || failed != 0 {
		t.Errorf("%d failed, %v: %+v", failed, err, bad)
	}
}

// drill is what a script runs with at the host; bad takes the steps that failed.
func (h *host) drill(t *testing.T, dir string, bad *[]DrillReport) DrillConfig {
	return DrillConfig{
		Open: func() (*Device, error) { return h.device(t, dir, patient), nil },
		Card: Card{PAN: "6224242900000113", PIN: testPINOfTrials},
		Report: func(r DrillReport) {
			if !r.OK {
				*bad = append(*bad, r)
			}
		},
	}
}

// TestDrillFails: a step whose result is another is told, and the run goes on.
func TestDrillFails(t *testing.T) {
	drill, err := ParseDrill("f.toml", []byte(`
[[step]]
name = "declined"
do = "sale"
amount = 100
expect = "00"
[[step]]
do = "void"
of = "declined"
expect = "00"
[[step]]
do = "sale"
amount = 100
expect = "00"
[[step]]
do = "resume"
reversal = "00"
[[step]]
do = "sale"
amount = 100
expect = "51"
[[step]]
do = "sale"
amount = 100
power = "send"
expect = "none"
[[step]]
do = "restart"
[[step]]
do = "resume"
reversal = "none"
[[step]]
do = "echo"
within = "1ns"
expect = "00"
[[step]]
do = "balance"
card = "4111111111111111"
pin = false
expect = "00 51"
reversal = "none"
`))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.script("0200", "51", "00", "51!")
	var bad []DrillReport
	cfg := h.drill(t, filepath.Join(t.TempDir(), "pos"), &bad)
	cfg.Known = func(pan string) error {
		if strings.HasPrefix(pan, "4") {
			return errors.New("no card for trials")
		}
		return nil
	}
	failed, err := drill.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, r := range bad {
		if strings.HasPrefix(r.Why, "the answer took ") {
			r.Why = "took"
		}
		told = append(told, r.Why)
	}
	want := []string{
		"DE 39 is 51, must be 00", `step "declined" was not approved`, "the reversal before it ended with none, must end with 00",
		"the answer has a wrong MAC", "the reversal before it ended with 00, must end with none", "took", "no card for trials",
	}
	if diff := cmp.Diff(want, told); diff != "" || failed != len(want) {
		t.Errorf("%d failed (-want +got):\n%s", failed, diff)
	}
}

// FuzzParseDrill: a script comes from outside.
func FuzzParseDrill(f *testing.F) {
	f.Add([]byte("[[step]]\ndo = \"sale\"\namount = 1\nexpect = \"00\"\n"))
	f.Add([]byte("[[step]]\nname = \"a\"\ndo = \"void\"\nof = \"a\"\nfault = [\"cut\"]\npower = \"send\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDrill("f.toml", text)
		if (err == nil) == (d == nil) {
			t.Errorf("script and error %v", err)
		}
	})
}
