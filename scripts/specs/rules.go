package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// auditRules are the rules of the audit log: each has tests that hold it, or a
// reason why none can.
//
//go:embed rules.tsv
var auditRules string

// auditRule is a line of rules.tsv.
type auditRule struct {
	id     string
	proofs []name // the tests that hold it; none where there is a reason
	why    string // "next" or "measured", and the reason
}

// readRules reads lines of id, title and proofs.
func readRules(text string) ([]auditRule, error) {
	var all []auditRule
	for n, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 3 || !strings.HasPrefix(f[0], "L-") || f[1] == "" {
			return nil, fmt.Errorf("rules.tsv:%d: want an id L-…, a title and what holds it, with tabs between", n+1)
		}
		if slices.ContainsFunc(all, func(o auditRule) bool { return o.id == f[0] }) {
			return nil, fmt.Errorf("rules.tsv:%d: %s stands there twice", n+1, f[0])
		}
		r, err := readProofs(f[0], f[2])
		if err != nil {
			return nil, fmt.Errorf("rules.tsv:%d: %w", n+1, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func readProofs(id, text string) (auditRule, error) {
	kind, why, _ := strings.Cut(text, ": ")
	if (kind == "next" || kind == "measured") && why != "" {
		return auditRule{id: id, why: text}, nil
	}
	r := auditRule{id: id}
	for proof := range strings.SplitSeq(text, "; ") {
		pkg, test, ok := strings.Cut(proof, " ")
		if !ok || !strings.HasPrefix(test, "Test") || strings.Contains(test, " ") {
			return r, fmt.Errorf("%q is no package and test, nor `next: ` or `measured: ` and a reason", proof)
		}
		r.proofs = append(r.proofs, name{"keyd.dev/keyd/" + pkg, test})
	}
	return r, nil
}

// printRules prints how many rules are held. It returns an error that names the
// tests that did not run and pass, or nil.
func printRules(all []auditRule, results map[name]outcome, out io.Writer) error {
	var faults []error
	held, later, measured := 0, 0, 0
	for _, r := range all {
		switch {
		case strings.HasPrefix(r.why, "next"):
			later++
			continue
		case r.why != "":
			measured++
			continue
		}
		wrong := len(faults)
		for _, p := range r.proofs {
			switch got := results[p]; got {
			case "pass":
			case "":
				faults = append(faults, fmt.Errorf("%s: %s, which holds it, did not run", r.id, p))
			default:
				faults = append(faults, fmt.Errorf("%s: %s, which holds it: %s", r.id, p, got))
			}
		}
		if len(faults) == wrong {
			held++
		}
	}
	fmt.Fprintf(out, "rules of the audit log: %d held, %d measured by make bench-audit, %d for later, %d tests wrong\n", held, measured, later, len(faults))
	return errors.Join(faults...)
}
