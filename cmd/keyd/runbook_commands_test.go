package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRunbookCommands is R-25: each command that the runbook tells operators to
// run is run by a script or by a test.
func TestRunbookCommands(t *testing.T) {
	entries, _ := runbook(t)
	var tested strings.Builder
	for _, pattern := range []string{filepath.Join("testdata", "script", "*.txtar"), "*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tested.Write(text)
		}
	}
	commands := make(map[string]bool)
	quoted := regexp.MustCompile("`keyd ([a-z]+(?: [a-z]+)?)[^`\n]*`")
	for _, entry := range entries {
		for _, m := range quoted.FindAllStringSubmatch(entry, -1) {
			commands[m[1]] = true
		}
	}
	if len(commands) < 8 {
		t.Fatalf("only %d commands found in the runbook: the pattern is wrong", len(commands))
	}
	for command := range commands {
		t.Run("R-25 R-64 keyd "+command, func(t *testing.T) {
			byScript := regexp.MustCompile(`(?m)^!? ?exec keyd ` + command + `\b`)
			byTest := `"` + strings.ReplaceAll(command, " ", `", "`) + `"`
			if !byScript.MatchString(tested.String()) && !strings.Contains(tested.String(), byTest) {
				t.Error("no script and no test runs it")
			}
		})
	}
}
