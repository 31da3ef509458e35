package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// scriptPackage is where the scripts run, each as a subtest of TestScripts.
const scriptPackage = "keyd.dev/keyd/cmd/keyd"

// readScripts returns the comments of each script, by the name of its test.
func readScripts(dir string) (map[name]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scripts in %s: run it from the root of the repository", dir)
	}
	notes := make(map[name]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		test := "TestScripts/" + strings.TrimSuffix(filepath.Base(file), ".txtar")
		notes[name{scriptPackage, test}] = comments(string(text))
	}
	return notes, nil
}

// comments are the lines of a script that begin with #, without the files that
// it carries behind itself.
func comments(script string) string {
	var found strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "-- ") {
			break
		}
		if strings.HasPrefix(line, "#") {
			found.WriteString(line)
		}
	}
	return found.String()
}
