package main

import (
	"io"
	"strings"
	"testing"
)

// TestActions: an action without a proof that ran and passed fails the report.
func TestActions(t *testing.T) {
	const list = "# a comment\nkey.create\tsec\tI+O\tK A\tcmd/keyd TestScripts/keylife\n" +
		"hsm.lost\tsec\tO\tH\tcmd/keyd TestTokenStory\nlog.poisoned\tsec\tO\tL\taudit TestPoison\n" +
		"hsm.tamper\tsec\tO\tH\tnone: PKCS#11 has no sign of it\n"
	results := func() map[name]outcome {
		return map[name]outcome{
			{scriptPackage, "TestScripts/keylife"}:          "pass",
			{scriptPackage, "TestTokenStory"}:               "pass",
			{scriptPackage, "TestTokenStory" + actsSubtest}: "pass",
			{"keyd.dev/keyd/audit", "TestPoison"}:           "pass",
		}
	}
	for title, test := range map[string]struct {
		list   string
		change func(map[name]outcome)
		want   string
	}{
		"L-80 all proved":                           {list, func(map[name]outcome) {}, ""},
		"L-80 a script that failed":                 {list, func(r map[name]outcome) { r[name{scriptPackage, "TestScripts/keylife"}] = "fail" }, "key.create"},
		"L-80 a test that did not run":              {list, func(r map[name]outcome) { delete(r, name{"keyd.dev/keyd/audit", "TestPoison"}) }, "log.poisoned"},
		"L-80 a test that does not look for it":     {list, func(r map[name]outcome) { delete(r, name{scriptPackage, "TestTokenStory" + actsSubtest}) }, "hsm.lost"},
		"L-80 neither proof nor reason":             {"key.create\tsec\tO\tK\tTBD\n", nil, "the proof is"},
		"L-80 a reason that says nothing":           {"key.create\tsec\tO\tK\tnone: \n", nil, "the proof is"},
		"L-80 twice":                                {list + list, nil, "twice"},
		"L-80 a line that is cut":                   {"key.create\tsec\n", nil, "want 5"},
		"L-80 the list of this repository is sound": {actionList, nil, "did not run"},
	} {
		t.Run(title, func(t *testing.T) {
			all, err := readList(test.list)
			if err == nil {
				got := results()
				if test.change != nil {
					test.change(got)
				}
				err = printActions(all, got, io.Discard)
			}
			if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
