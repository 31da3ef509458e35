package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditRules: each rule of the audit log names tests that exist, and a test
// that failed or did not run is told.
func TestAuditRules(t *testing.T) {
	rules, err := readRules(auditRules)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[name]outcome)
	for _, r := range rules {
		for _, p := range r.proofs {
			passed[p] = "pass"
			if !exists(t, p) {
				t.Errorf("%s: there is no %s", r.id, p)
			}
		}
	}
	if err := printRules(rules, passed, io.Discard); err != nil {
		t.Error(err)
	}
	first := rules[0].proofs[0]
	for got, want := range map[outcome]string{"": "did not run", "fail": "fail", "skip": "skip"} {
		passed[first] = got
		if err := printRules(rules, passed, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s with %q: %v", first, got, err)
		}
	}
	for _, text := range []string{"L-01\tx", "X-01\tx\taudit TestLive", "L-01\tx\tlater", "L-01\tx\tnext: ", "L-01\tx\taudit TestLive,TestKill more", "L-01\tx\taudit TestLive\nL-01\tx\taudit TestLive"} {
		if _, err := readRules(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// exists looks for a test in the source.
func exists(t *testing.T, n name) bool {
	t.Helper()
	dir := filepath.Join("..", "..", filepath.FromSlash(strings.TrimPrefix(n.pkg, "keyd.dev/keyd/")))
	if script, ok := strings.CutPrefix(n.test, "TestScripts/"); ok {
		_, err := os.Stat(filepath.Join(dir, "testdata", "script", script+".txtar"))
		return err == nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), fmt.Sprintf("\nfunc %s(t *testing.T)", n.test)) {
			return true
		}
	}
	return false
}
