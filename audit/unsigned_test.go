package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBeforeFirstCheckpoint is L-61(c): a power cut between the key that is left
// beside a log and its first checkpoint is no damage; a first checkpoint that is
// gone is. The PEM that a cut came before is left at the next start.
func TestBeforeFirstCheckpoint(t *testing.T) {
	inBubble(t, "L-61(c)", func(t *testing.T) {
		fsys := newSimFS()
		open := func() *Log {
			t.Helper()
			l, err := Open("sim", testSigner(), simOptions(fsys))
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		look := func() (s *simFS, rules []string) {
			t.Helper()
			s = fsys.now()
			return s, failedRules(t, s)
		}
		cut := errors.New("cut")
		fsys.fault = func(_, name string) error {
			if strings.Contains(name, "sec/checkpoint") {
				return cut
			}
			return nil
		}
		l := open()
		time.Sleep(time.Second)
		s, rules := look()
		if s.names["sec/vkey"] == nil || s.names["sec/checkpoint"] != nil {
			t.Fatalf("the cut is not where it should be: %v", s.files())
		}
		if len(rules) > 0 {
			t.Errorf("before the first checkpoint: verify names %v", rules)
		}
		fsys.mu.Lock()
		fsys.fault = nil
		fsys.mu.Unlock()
		time.Sleep(time.Second)
		if s, rules = look(); len(rules) > 0 {
			t.Errorf("after the first checkpoint: verify names %v", rules)
		}
		delete(s.names, "sec/checkpoint")
		if rules := failedRules(t, s); !slices.Contains(rules, "L-61(c)") {
			t.Errorf("the first checkpoint is gone: verify names %v", rules)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		pem := string(fsys.names["sec/pub.pem"].data)
		delete(fsys.names, "sec/pub.pem")
		l = open()
		if s, _ := look(); s.names["sec/pub.pem"] == nil || string(s.names["sec/pub.pem"].data) != pem {
			t.Error("the key as PEM was not left again")
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	})
}

// failedRules returns the rules that verify names.
func failedRules(t *testing.T, fsys *simFS) (rules []string) {
	t.Helper()
	report, err := verify(fsys, "sim", []string{testVkey(t)}, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range slices.Concat(report.Findings, report.Undecided) {
		rules = append(rules, f.Rule)
	}
	return rules
}
