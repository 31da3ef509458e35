package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyd.dev/keyd/internal/api"
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

// TestR20ShownReversals: what is shown of a reversal names its states, and says
// "approved" of no original that is reversed, being reversed, or unknown.
func TestR20ShownReversals(t *testing.T) {
	at := time.Date(2026, 11, 22, 9, 30, 0, 5, time.UTC)
	rest := int64(400)
	for _, original := range []string{
		"RECEIVED", "FORWARDED", "DECLINED", "UNKNOWN", "REVERSAL_PENDING", "REVERSED", "REVERSED_UNKNOWN",
		"REV_FAILED", "REV_HELD", "LOCAL_VOID", "VOIDED", "COMPLETED", "TOMBSTONE", "APPROVED",
	} {
		for _, state := range api.ReversalStates() {
			var out strings.Builder
			r := api.Reversal{
				Reversal: "kzm", State: state, Original: original, Cause: "terminal", Reason: "68", Rest: &rest, MTI: "0200",
				TID: "T0000001", STAN: "000123", Amount: 1000, Currency: "978", AnswerIs: "00", UpAnswer: "00", LateIs: "00 A1B2C3",
				Built: &at, FirstSent: &at, LastSent: &at, Answered: &at, Closed: &at, PAN: "411111******1111",
			}
			if err := showReversal(&out, r); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			if original != "APPROVED" && strings.Contains(strings.ToLower(text), "approved") {
				t.Errorf("%s of %s is shown as approved:\n%s", state, original, text)
			}
			for _, want := range []string{state, original, "all but 400", "411111******1111", "built", "sent", "answered", "closed"} {
				if !strings.Contains(text, want) {
					t.Errorf("%s of %s is shown without %q:\n%s", state, original, want, text)
				}
			}
		}
	}
	var out strings.Builder
	if err := showReversal(&out, api.Reversal{Reversal: "kzm", State: "UNREADABLE", Unreadable: true}); err != nil || strings.Contains(out.String(), "amount") {
		t.Errorf("R-16: an unreadable one is shown as %q, %v", out.String(), err)
	}
}
