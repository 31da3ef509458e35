package sandbox

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMode(t *testing.T) {
	for word, want := range map[string]Mode{"off": Off, "best_effort": BestEffort, "strict": Strict, "": "", "on": "", "Strict": "", "best-effort": ""} {
		got, err := ParseMode(word)
		if got != want || errors.Is(err, ErrMode) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", word, got, err, want)
		}
	}
}

func TestStateOf(t *testing.T) {
	for abi, want := range []string{"nothing", "nothing", "files", "files", "files, ports", "files, ports, device calls", "files, ports, device calls, signals", "files, ports, device calls, signals"} {
		if got := stateOf(abi); got.String() != want || got.ABI != abi {
			t.Errorf("C-17 Landlock %d: %q, want %q", abi, got, want)
		}
	}
}

// TestOldKernels: what Enter does where the kernel has too little. None of
// these cases takes anything from the test's own process.
func TestOldKernels(t *testing.T) {
	for _, test := range []struct {
		name string
		mode Mode
		abi  int
		want State
		err  error
	}{
		{"C-17 no Landlock, best effort", BestEffort, 0, State{}, nil},
		{"C-17 no Landlock, strict", Strict, 0, State{}, ErrUnsupported},
		{"C-17 Landlock 1, best effort", BestEffort, 1, State{ABI: 1}, nil},
		{"C-17 Landlock 1, strict", Strict, 1, State{}, ErrUnsupported},
		{"C-17 Landlock 3 holds no ports, strict", Strict, 3, State{}, ErrUnsupported},
		{"off", Off, 7, State{}, nil},
		{"no mode", "", 7, State{}, ErrMode},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := enter(Config{Mode: test.mode, Write: []string{t.TempDir()}}, stateOf(test.abi))
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestWhatIsWrittenMustBeThere(t *testing.T) {
	if _, err := (Config{Write: []string{t.TempDir() + "/none"}}).rules(); err == nil {
		t.Error("a data folder that is not there was passed over")
	}
	rules, err := (Config{Read: []string{t.TempDir() + "/none", "/"}, Bind: []uint16{1}, Connect: []uint16{2}}).rules()
	if err != nil || len(rules) != 3 {
		t.Errorf("%d rules, %v; want 3", len(rules), err)
	}
}
