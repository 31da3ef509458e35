package main

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// sizeroot FILE sets SIZE and ROOT to those of a checkpoint.
func cmdSizeRoot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sizeroot FILE")
	}
	lines := strings.Split(ts.ReadFile(args[0]), "\n")
	if len(lines) < 5 {
		ts.Fatalf("%s is no checkpoint", args[0])
	}
	ts.Setenv("SIZE", lines[1])
	ts.Setenv("ROOT", lines[2])
}

func TestParsePlace(t *testing.T) {
	tests := []struct {
		text, log string
		seq       uint64
		ok        bool
	}{
		{"sec:0", "sec", 0, true},
		{"ops-2026-11:345", "ops-2026-11", 345, true},
		{"sec", "", 0, false},
		{"sec:", "", 0, false},
		{":1", "", 0, false},
		{"sec:-1", "", 0, false},
		{"sec:01", "", 0, false},
		{"sec:+1", "", 0, false},
		{"sec:1:2", "", 0, false},
		{"sec:9007199254740992", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			log, seq, err := parsePlace(tt.text)
			if (err == nil) != tt.ok || log != tt.log || seq != tt.seq {
				t.Errorf("%q, %d, %v", log, seq, err)
			}
		})
	}
}
