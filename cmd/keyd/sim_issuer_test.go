package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/internal/api"
	"keyd.dev/keyd/internal/sim"
)

// reversalof DIR AMOUNT STATE TRIES waits until the reversal of the sale of this
// amount is in this state after so many tries.
func cmdReversalOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: reversalof DIR AMOUNT STATE TRIES[+]")
	}
	var seen api.Reversal
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ts.Check(ts.Exec("keyd", "reversal", "ls", "--state", args[2], "--json", "--dev", args[0], "--as", "operator"))
		rows := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
		for rows.More() {
			var r api.Reversal
			ts.Check(rows.Decode(&r))
			if strconv.FormatInt(r.Amount, 10) == args[1] {
				seen = r
			}
		}
		least, more := strings.CutSuffix(args[3], "+")
		n, err := strconv.Atoi(least)
		ts.Check(err)
		if seen.State == args[2] && (seen.Tries == n || more && seen.Tries > n) {
			return
		}
	}
	ts.Fatalf("the reversal of %s was not %s within a minute, or after %d tries", args[1], args[2], seen.Tries)
}

// bookhas DIR STEP waits until the issuer's book has a fault of this step.
func cmdBookHas(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: bookhas DIR STEP")
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		faults, err := sim.ReadFaults(ts.MkAbs(args[0] + "/" + devBook))
		ts.Check(err)
		for _, f := range faults {
			if f.Step == args[1] {
				return
			}
		}
	}
	ts.Fatalf("within a minute no step %q", args[1])
}

// changesdone DIR N [CODE] waits until the issuer's book has so many key changes,
// or more, that were answered with this code.
func cmdChangesDone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: changesdone DIR N [CODE]")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	n := 0
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		changes, err := sim.ReadChanges(ts.MkAbs(args[0] + "/" + devBook))
		n = 0
		for _, c := range changes {
			if len(args) == 2 || c.Answer == args[2] {
				n++
			}
		}
		if err == nil && n >= want {
			return
		}
	}
	ts.Fatalf("%d key changes within a minute, want %d", n, want)
}

// linkis DIR LINK STATE waits until the link of an upstream is in this state.
func cmdLinkIs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: linkis DIR LINK STATE")
	}
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ts.Check(ts.Exec("keyd", "upstream", "ls", "--config", args[0]+"/keyd.toml", "--json"))
		for line := range strings.Lines(ts.ReadFile("stdout")) {
			if strings.Contains(line, `"link":"`+args[1]+`"`) && strings.Contains(line, `"state":"`+args[2]+`"`) {
				return
			}
		}
	}
	ts.Fatalf("the link %s was not %s within a minute", args[1], args[2])
}
