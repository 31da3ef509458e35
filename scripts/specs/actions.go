package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// actionList is the checklist of actions of the audit log: each has a test that
// proves that it is written, or a reason why keyd has no such act.
//
//go:embed actions.tsv
var actionList string

// actsSubtest is the subtest of cmd/keyd that looks for the records of actions in
// the log of its test. A script does so at its end.
const actsSubtest = "/L-80_acts"

// action is a line of actions.tsv.
type action struct {
	name  string
	proof name   // the test that proves it; none where there is a reason
	why   string // "none" or "next", and the reason
}

// readList reads lines of action, log, phases, groups and proof.
func readList(text string) ([]action, error) {
	var all []action
	for n, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("actions.tsv:%d: %d fields, want 5", n+1, len(f))
		}
		a := action{name: f[0]}
		if slices.ContainsFunc(all, func(o action) bool { return o.name == a.name }) {
			return nil, fmt.Errorf("actions.tsv:%d: %s stands there twice", n+1, a.name)
		}
		pkg, test, ok := strings.Cut(f[4], " ")
		switch {
		case (pkg == "none:" || pkg == "next:") && test != "":
			a.why = f[4]
		case ok && strings.HasPrefix(test, "Test"):
			a.proof = name{"keyd.dev/keyd/" + pkg, test}
			if a.proof.pkg == scriptPackage && !strings.HasPrefix(test, "TestScripts/") {
				a.proof.test += actsSubtest
			}
		default:
			return nil, fmt.Errorf("actions.tsv:%d: the proof is %q, want a package and a test, or `none: ` or `next: ` and a reason", n+1, f[4])
		}
		all = append(all, a)
	}
	return all, nil
}

// printActions prints how many actions are proved. It returns an error that names
// those whose test did not run and pass, or nil.
func printActions(all []action, results map[name]outcome, out io.Writer) error {
	var faults []error
	proved := 0
	for _, a := range all {
		switch got := results[a.proof]; {
		case a.why != "":
		case got == "pass":
			proved++
		case got == "":
			faults = append(faults, fmt.Errorf("the log's action %s: %s, which proves it, did not run", a.name, a.proof))
		default:
			faults = append(faults, fmt.Errorf("the log's action %s: %s, which proves it: %s", a.name, a.proof, got))
		}
	}
	fmt.Fprintf(out, "actions of the audit log: %d proved, %d that keyd has not, %d wrong\n", proved, len(all)-proved-len(faults), len(faults))
	return errors.Join(faults...)
}
