package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is a rule with a test that cites it; no test where there is none.
type line struct {
	rule rule
	test name
	got  outcome
}

// table is what a run of tests says of the specifications.
type table struct {
	lines  []line
	counts map[string]int // "held", "open"
	faults []string
}

// compare looks for the tests of every rule. notes are what scripts say of
// themselves: of them the name is a file's, and has no room for ids.
func compare(rules []rule, results map[name]outcome, notes map[name]string) *table {
	tests := make(map[string][]line)
	for _, n := range slices.SortedFunc(maps.Keys(results), order) {
		for _, id := range cited(function(ownName(n, results)) + "\n" + ownName(n, results) + "\n" + notes[n]) {
			tests[id] = append(tests[id], line{test: n, got: results[n]})
		}
	}
	t := &table{counts: make(map[string]int)}
	for _, r := range rules {
		t.add(r, tests[r.id])
		delete(tests, r.id)
	}
	for _, id := range slices.Sorted(maps.Keys(tests)) {
		if id[0] != 'R' { // a requirement of a later phase may have a test already
			t.fault("%s is cited by %v and stands in no table", id, tests[id][0].test)
		}
	}
	return t
}

func order(a, b name) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test)) }

// ownName is the part of a test's name that its parent has not.
func ownName(n name, results map[name]outcome) string {
	for parent := n.test; ; {
		at := strings.LastIndexByte(parent, '/')
		if at < 0 {
			return n.test
		}
		parent = parent[:at]
		if _, ran := results[name{n.pkg, parent}]; ran {
			return n.test[at+1:]
		}
	}
}

// add judges one rule by the tests that cite it.
func (t *table) add(r rule, tests []line) {
	passed, failed := 0, 0
	for _, l := range tests {
		t.lines = append(t.lines, line{r, l.test, l.got})
		switch l.got {
		case "pass":
			passed++
		case "fail":
			failed++
		}
	}
	switch {
	case failed > 0:
		t.fault("%s (%s): a test of it failed", r.id, r.title)
	case r.open != "" && passed > 0:
		t.fault("%s (%s) is marked open and has a test that passed: take the mark away, or the id out of the test's name", r.id, r.title)
	case r.open != "":
		t.counts["open"]++
	case passed == 0:
		t.fault("%s (%s): no test cites it, ran and passed", r.id, r.title)
	default:
		t.counts["held"]++
	}
	if len(tests) == 0 {
		t.lines = append(t.lines, line{rule: r})
	}
}

func (t *table) fault(format string, args ...any) {
	t.faults = append(t.faults, fmt.Sprintf(format, args...))
}

// print writes the table. It returns an error that names what is wrong, or nil.
func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range t.lines {
		switch {
		case l.test != name{}:
			fmt.Fprintf(w, "%s\t%s\t%s\n", l.rule.id, l.got, l.test)
		case l.rule.open != "":
			fmt.Fprintf(w, "%s\topen\t%s: %s\n", l.rule.id, l.rule.title, l.rule.open)
		default:
			fmt.Fprintf(w, "%s\tMISSING\t%s\n", l.rule.id, l.rule.title)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d held, %d open, %d wrong\n", t.counts["held"], t.counts["open"], len(t.faults))
	if len(t.faults) > 0 {
		return errors.New(strings.Join(t.faults, "\n       "))
	}
	return nil
}
