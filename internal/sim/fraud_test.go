package sim

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFraudCatalogue: the catalogue has every test of every attack that the list of
// normative ids has, and each is either run or says why not and which test has it.
func TestFraudCatalogue(t *testing.T) {
	text, err := os.ReadFile("../../scripts/specs/ids.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	want := regexp.MustCompile(`(?m)^A-\d\d\.T\d`).FindAllString(string(text), -1)
	for _, test := range FraudTests() {
		got = append(got, test.Test)
		if test.Title == "" || test.Stops == "" || (test.Run == nil) == (test.Covered == "") {
			t.Errorf("%s: title %q, stops %q, covered %q, run %v", test.Test, test.Title, test.Stops, test.Covered, test.Run != nil)
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	slices.Sort(want)
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Errorf("the catalogue lacks %s", id)
		}
	}
	for _, id := range got {
		if !slices.Contains(want, id) {
			t.Errorf("%s is in no list", id)
		}
	}
	if len(want) < 60 || strings.Join(got, " ") == "" {
		t.Fatalf("only %d ids found", len(want))
	}
}

// TestFraudLinearStops A-08.T2: what refuses a forgery under a linear MAC is a
// comparison. No answer is none, nor is the MAC where the key is the terminal's own.
func TestFraudLinearStops(t *testing.T) {
	for _, c := range []struct {
		seen     string
		terminal bool // the forgery names another terminal
		want     bool
	}{
		{"03", false, true}, {"25", false, true}, {"64", false, true}, {"13", false, true}, {"12", false, true}, {"58", false, true},
		{"A0", false, false}, {"97", false, false}, {"96", false, false}, {"91", false, false}, {seenClosed, false, false}, {seenSilent, false, false},
		{"A0", true, true}, {"97", true, true}, {"03", true, true}, {"96", true, false}, {seenClosed, true, false}, {seenSilent, true, false},
	} {
		err := among("a forgery", c.seen, linearForgery{terminal: c.terminal}.stops())
		if (err == nil) != c.want {
			t.Errorf("%s, another terminal %v: %v", c.seen, c.terminal, err)
		}
	}
}

// TestFraudParts A-22.T1: only a switch that says so reverses nothing in part. One
// that cannot do anything at present has not refused the attack.
func TestFraudParts(t *testing.T) {
	for _, c := range []struct {
		code        string
		takes, fail bool
	}{
		{"00", true, false},
		{"64", false, false}, {"13", false, false}, {"12", false, false},
		{"91", false, true}, {"68", false, true}, {"96", false, true}, {"63", false, true}, {"58", false, true}, {"25", false, true}, {"", false, true},
	} {
		takes, err := takesParts(c.code)
		if takes != c.takes || (err != nil) != c.fail {
			t.Errorf("%q: takes parts %v, error %v", c.code, takes, err)
		}
	}
}
