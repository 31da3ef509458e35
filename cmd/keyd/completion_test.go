package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// completionScript is what `keyd completion SHELL` prints, as a file.
func completionScript(t *testing.T, shell string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"completion", shell}, strings.NewReader(""), &out, &errs); code != exitDone {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	path := filepath.Join(t.TempDir(), "completion."+shell)
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// completionCases are command lines, the word at the cursor last, and what a
// shell must offer.
func completionCases() []struct {
	name string
	line []string
	want []string
} {
	return []struct {
		name string
		line []string
		want []string
	}{
		{"commands", []string{"keyd", "se"}, []string{"serve"}},
		{"commands that begin alike", []string{"keyd", "app"}, []string{"approvals", "approve"}},
		{"commands of a command", []string{"keyd", "ceremony", ""}, []string{"abort", "check", "fetch", "join", "ls", "open", "run", "verify"}},
		{"commands three deep", []string{"keyd", "key", "import", "o"}, []string{"oaep"}},
		{"flags", []string{"keyd", "serve", "--c"}, []string{"--config"}},
		{"a folder", []string{"keyd", "dev", "--dir", "fo"}, []string{"folder"}},
		{"a file", []string{"keyd", "serve", "--config", "fi"}, []string{"file.toml"}},
		{"a file as an argument", []string{"keyd", "ceremony", "check", "fi"}, []string{"file.toml"}},
		{"values", []string{"keyd", "terminal", "keys", "M0000001", "--form", "de"}, []string{"de62-001", "de62-003", "de62-004"}},
		{"values as an argument", []string{"keyd", "completion", "z"}, []string{"zsh"}},
		{"behind a flag with its value", []string{"keyd", "doctor", "--config", "x", "--j"}, []string{"--json"}},
		{"behind a switch", []string{"keyd", "doctor", "--token", "--j"}, []string{"--json"}},
		{"a value that nobody knows", []string{"keyd", "dev", "--api", ""}, nil},
		{"a value named like a command", []string{"keyd", "audit", "ls", "--action", "verify", "--outc"}, []string{"--outcome"}},
		{"an argument that nobody knows", []string{"keyd", "approve", ""}, nil},
	}
}

// completionFolder is where files and folders are completed.
func completionFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// shellAnswer runs a shell and returns its lines, sorted.
func shellAnswer(t *testing.T, dir string, argv ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "TERM=dumb")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", argv[0], err, out)
	}
	var answer []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			answer = append(answer, strings.TrimSuffix(line, "/"))
		}
	}
	slices.Sort(answer)
	return answer
}

func TestCompletionBash(t *testing.T) {
	script, dir := completionScript(t, "bash"), completionFolder(t)
	for _, test := range completionCases() {
		t.Run(test.name, func(t *testing.T) {
			// As bash itself does it: the registered function, with the words of
			// the line and the cursor in the last.
			text := fmt.Sprintf(`source %s
COMP_WORDS=(%s); COMP_CWORD=%d; COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
registered=$(complete -p keyd); registered=${registered#*-F }
"${registered%%%% *}" keyd
printf '%%s\n' "${COMPREPLY[@]}"`, quoteShell(script), quotedWords(test.line), len(test.line)-1)
			got := shellAnswer(t, dir, "bash", "--norc", "--noprofile", "-c", text)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	t.Run("--flag=value is three words for bash", func(t *testing.T) {
		text := fmt.Sprintf(`source %s; COMP_WORDS=(keyd terminal keys X --form = tr); COMP_CWORD=6; _keyd; printf '%%s\n' "${COMPREPLY[@]}"`, quoteShell(script))
		if got := shellAnswer(t, dir, "bash", "--norc", "-c", text); !slices.Equal(got, []string{"tr31"}) {
			t.Errorf("%q, want tr31", got)
		}
	})
}

func TestCompletionZsh(t *testing.T) {
	shell := otherShell(t, "zsh")
	script, dir := completionScript(t, "zsh"), completionFolder(t)
	for _, test := range completionCases() {
		if shell == "" {
			return
		}
		t.Run(test.name, func(t *testing.T) {
			// zsh's own functions work only while a line is edited; these stand
			// for them.
			text := fmt.Sprintf(`compdef() { : }
compadd() { shift; for w in "$@"; do [[ $w == ${cur}* ]] && print -r -- $w; done }
_files() { if [[ $1 == -/ ]]; then print -rl -- ${cur}*(N/); else print -rl -- ${cur}*(N); fi }
source %s
words=(%s); CURRENT=%d
_keyd; true`, quoteShell(script), quotedWords(test.line), len(test.line))
			got := shellAnswer(t, dir, shell, "-f", "-c", text)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestCompletionFish(t *testing.T) {
	shell := otherShell(t, "fish")
	script, dir := completionScript(t, "fish"), completionFolder(t)
	for _, test := range completionCases() {
		if shell == "" {
			return
		}
		t.Run(test.name, func(t *testing.T) {
			text := fmt.Sprintf("source %s; complete -C %s", quoteFish(script), quoteFish(strings.Join(test.line, " ")))
			var got []string
			for _, line := range shellAnswer(t, dir, shell, "--no-config", "-c", text) {
				word, _, _ := strings.Cut(line, "\t")
				word = strings.TrimSuffix(word, "/")
				// fish also offers what only contains the letters.
				if strings.HasPrefix(word, test.line[len(test.line)-1]) {
					got = append(got, word)
				}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// otherShell is the path of a shell that not every machine has, or "".
func otherShell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Logf("%s IS NOT INSTALLED: its completion was not tried (scripts/deps.sh test installs it)", strings.ToUpper(name))
		return ""
	}
	return path
}

func quotedWords(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		quoted = append(quoted, quoteShell(w))
	}
	return strings.Join(quoted, " ")
}

// TestCompletionIsWhole: every command and flag of the program stands in each
// script, so that one that is added is completed without a hand.
func TestCompletionIsWhole(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.Name(programName), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	places := completions(parser.Model.Node, programName)
	if len(places) < 60 {
		t.Fatalf("only %d places", len(places))
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := os.ReadFile(completionScript(t, shell))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range places {
			for _, f := range p.flags {
				want := quoteShell(p.path+" "+f.word) + ")"
				if shell == "fish" {
					want = quoteFish("__keyd_at "+fishPath(p)) + " -l " + strings.TrimPrefix(f.word, "--")
				}
				if !strings.Contains(string(text), want) {
					t.Errorf("%s: %s %s is not there", shell, p.path, f.word)
				}
			}
		}
	}
}
