package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of `go test -json`, see `go doc test2json`.
type event struct {
	Action      string
	Package     string `json:",omitempty"`
	Test        string `json:",omitempty"`
	Output      string `json:",omitempty"`
	ImportPath  string `json:",omitempty"` // of a build that failed
	FailedBuild string `json:",omitempty"`
}

// ends reports whether the event is the result of a test.
func (e event) ends() bool {
	return e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip")
}

// name is that of a test in the whole module.
type name struct{ pkg, test string }

func (n name) String() string { return strings.TrimPrefix(n.pkg, "keyd.dev/keyd/") + " " + n.test }

// outcome is "pass", "fail" or "skip". One test may run more than once, on each
// module for example: then the worst counts.
type outcome string

func (o outcome) worse(than outcome) bool {
	return than == "" || o == "fail" || o == "skip" && than == "pass"
}

// readResults returns how each test ended.
func readResults(r io.Reader) (map[name]outcome, error) {
	results := make(map[name]outcome)
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d is none of `go test -json`: %w", n, err)
		}
		if k := (name{e.Package, e.Test}); e.ends() && outcome(e.Action).worse(results[k]) {
			results[k] = outcome(e.Action)
		}
	}
	if len(results) == 0 {
		return nil, errors.New("no test ran")
	}
	return results, nil
}
