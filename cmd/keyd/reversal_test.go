package main

import (
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdReversalIn VARIABLE DIR STATE waits until a reversal is in this state, and
// sets the variable to its name: that of the newest, where there are more.
func cmdReversalIn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: reversalin VARIABLE DIR STATE")
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ts.Check(ts.Exec("keyd", "reversal", "ls", "--state", args[2], "--dev", args[1], "--as", "operator"))
		rows := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
		if len(rows) > 1 {
			name, _, _ := strings.Cut(rows[len(rows)-1], " ")
			ts.Setenv(args[0], name)
			return
		}
	}
	ts.Fatalf("no reversal was %s within a minute", args[2])
}
