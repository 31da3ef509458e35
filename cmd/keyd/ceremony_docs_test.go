package main

import (
	"os"
	"strings"
	"testing"
)

// TestCeremonyDocs: every command of docs/CEREMONIES.md stands in the script
// that runs them, and every script in it as it is there.
func TestCeremonyDocs(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	script := read("testdata/script/ceremony_docs.txtar")
	script = strings.NewReplacer("${ID}", "ID", "$ID", "ID").Replace(script)
	commands := 0
	for part := range strings.SplitSeq(read("../../docs/CEREMONIES.md"), "```") {
		if text, ok := strings.CutPrefix(part, "toml\n"); ok && !strings.Contains(script, text) {
			t.Errorf("no script of the test is\n%s", text)
		}
		for line := range strings.Lines(part) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "keyd ") {
				continue
			}
			commands++
			if !strings.Contains(script, "exec "+line+"\n") && !strings.Contains(script, "run "+line+"\n") {
				t.Errorf("not run: %s", line)
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands found", commands)
	}
}
