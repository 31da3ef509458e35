package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCited(t *testing.T) {
	for _, c := range []struct {
		name string
		text string
		want []string
	}{
		{"one", "D-04_wrong_MAC", []string{"D-04"}},
		{"several", "W-01_D-01_R-08_messages", []string{"D-01", "R-08"}},
		{"twice", "D-04_and_D-04", []string{"D-04"}},
		{"test of an attack", "A-11.T2_A-11.T3_lock-out", []string{"A-11.T2", "A-11.T3"}},
		{"an attack without a test", "A-26_nothing_in_log", nil},
		{"invariant", "I-5_what_was_answered", []string{"I-5"}},
		{"other names", "AES-128_SHA-256_BSD-04", nil},
		{"longer number", "D-041_R-0800_I-10_A-01.T12", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, cited(c.text)); diff != "" {
				t.Errorf("cited (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFunction(t *testing.T) {
	for name, want := range map[string]string{
		"TestA12T2": "A-12.T2", "TestA12T2SignIn": "A-12.T2", "TestR50EveryColumn": "R-50", "TestD04": "D-04", "TestI6": "I-6",
		"TestA12": "", "TestR5": "R-5", "TestRetry": "", "TestD041": "", "TestR50every": "", "BestD04": "",
	} {
		if got := function(name); got != want {
			t.Errorf("%s cites %q, want %q", name, got, want)
		}
	}
}

// events are results of a run, as `go test -json` writes them.
func events(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		action, test, _ := strings.Cut(l, " ")
		b.WriteString(`{"Action":"` + action + `","Package":"keyd.dev/keyd/p","Test":"` + test + `"}` + "\n")
	}
	return b.String()
}

func TestCompare(t *testing.T) {
	const list = "D-01\tfirst\nD-02\tsecond\nA-01.T1\tthird\topen: no such dialect yet\n"
	for _, c := range []struct {
		name   string
		events []string
		fault  string // part of the error; empty for none
	}{
		{"all there", []string{"pass T/D-01_x", "pass T/D-02", "pass T"}, ""},
		{"one test for two", []string{"pass T/D-01_D-02_x", "pass T"}, ""},
		{"one missing", []string{"pass T/D-01_x", "pass T"}, "D-02 (second): no test"},
		{"one skipped", []string{"pass T/D-01_x", "skip T/D-02"}, "D-02 (second): no test"},
		{"one failed beside one that passed", []string{"pass T/D-01", "pass T/D-02_a", "fail T/D-02_b"}, "D-02 (second): a test of it failed"},
		{"once passed and once failed", []string{"pass T/D-01", "pass T/D-02", "fail T/D-02"}, "D-02 (second): a test of it failed"},
		{"the parent's name is not the child's", []string{"pass T/D-01", "fail T/D-02", "pass T/D-02/case"}, "D-02 (second): a test of it failed"},
		{"an id in a name with a slash", []string{"pass T", "pass T/D-01_a/b", "pass T/D-02"}, ""},
		{"an open one that is built", []string{"pass T/D-01", "pass T/D-02", "pass T/A-01.T1"}, "A-01.T1 (third) is marked open"},
		{"an open one that fails", []string{"pass T/D-01", "pass T/D-02", "fail T/A-01.T1"}, "A-01.T1 (third): a test of it failed"},
		{"an id of no table", []string{"pass T/D-01", "pass T/D-02", "pass T/D-99"}, "D-99 is cited"},
		{"a requirement of a later phase", []string{"pass T/D-01", "pass T/D-02", "pass T/R-99"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := readIDs(list)
			if err != nil {
				t.Fatal(err)
			}
			results, err := readResults(strings.NewReader(events(c.events...)))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err = compare(rules, results, nil).print(&out)
			if (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("judged %v, want %q\n%s", err, c.fault, out.String())
			}
			if !strings.Contains(out.String(), "A-01.T1") {
				t.Errorf("an open id is not printed:\n%s", out.String())
			}
		})
	}
}

func TestListRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no title", "D-01\n", "ids.tsv:1"},
		{"no id", "# x\nfoo\tbar\n", "ids.tsv:2"},
		{"more than an id", "D-01 x\tbar\n", "ids.tsv:1"},
		{"reason without its word", "D-01\tbar\tlater\n", "ids.tsv:1"},
		{"open without a reason", "D-01\tbar\topen: \n", "ids.tsv:1"},
		{"twice", "D-01\tbar\nD-01\tbaz\n", "ids.tsv:2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := readIDs(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("read with %v, want an error at %s", err, c.want)
			}
		})
	}
	if _, err := readIDs(idList); err != nil {
		t.Errorf("the list itself: %v", err)
	}
}

// TestScripts: the comments of a script cite, its commands and files do not.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	script := "# D-01 what it shows\nexec keyd D-02\n  # not at the left edge: D-03\n-- file --\n# D-04\n"
	if err := os.WriteFile(filepath.Join(dir, "shown.txtar"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	notes, err := readScripts(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[name]string{{scriptPackage, "TestScripts/shown"}: "# D-01 what it shows\n"}
	if diff := cmp.Diff(want, notes, cmp.AllowUnexported(name{})); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	rules := []rule{{id: "D-01", title: "first"}}
	passed := map[name]outcome{{scriptPackage, "TestScripts/shown"}: "pass"}
	if err := compare(rules, passed, notes).print(io.Discard); err != nil {
		t.Errorf("what a script says is not counted: %v", err)
	}
	if _, err := readScripts(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder without scripts was taken")
	}
}

// TestPrinter: a test that passed says nothing, one that failed or never ended
// what it said, and results alone are kept.
func TestPrinter(t *testing.T) {
	const stream = `{"Action":"output","Package":"p","Test":"TestGood","Output":"secret of the good\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":1.5}
{"Action":"output","Package":"p","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    bad_test.go:7: why it is bad\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"what a daemon said\n"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    testing.go:9: race detected during execution of test\n"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestStuck","Output":"panic: timed out\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t2s\n"}
{"Action":"fail","Package":"p"}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: no\n"}
go: a line of the tool
`
	var out, kept strings.Builder
	p := printer{out: &out, said: make(map[name][]string)}
	if err := p.follow(strings.NewReader(stream), &kept); err != nil {
		t.Fatal(err)
	}
	p.sum()
	want := "    bad_test.go:7: why it is bad\nwhat a daemon said\n    testing.go:9: race detected during execution of test\nFAIL\tp\t2s\npanic: timed out\nq.go:1: no\ngo: a line of the tool\n" +
		"what failed, and why:\np TestBad\n    bad_test.go:7: why it is bad\n    testing.go:9: race detected during execution of test\np TestStuck\npanic: timed out\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	results, err := readResults(strings.NewReader(kept.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[name]outcome{{"p", "TestGood"}: "pass", {"p", "TestBad"}: "fail"}, results, cmp.AllowUnexported(name{})); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

// TestRunsTests runs this package's own tests as `make test` runs all.
func TestRunsTests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tests.json")
	var out strings.Builder
	args := []string{"test", "--to", file, "--", "go", "test", "-json", "-run", "^TestCited$", "."}
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if got := out.String(); !strings.HasPrefix(got, "ok") || strings.Contains(got, "TestCited") {
		t.Errorf("printed:\n%s", got)
	}
	t.Chdir(filepath.Join("..", ".."))
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(file, future, future); err != nil {
		t.Fatal(err)
	}
	err := report(file, &out)
	if err == nil || !strings.Contains(err.Error(), "D-36") {
		t.Errorf("a run of one test was judged %v", err)
	}
	if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := report(file, &out); err == nil || !strings.Contains(err.Error(), "is older than") {
		t.Errorf("old results were judged %v", err)
	}
	if err := run(t.Context(), []string{"report"}, &out); err == nil {
		t.Error("half a command line was taken")
	}
}
