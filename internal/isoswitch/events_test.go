package isoswitch

import "testing"

// TestOutcome: what operators are told of a terminal's reversal, by the effect
// of its row and the answer.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		name   string
		effect effect
		code   string
		want   Outcome
	}{
		{"D-21 the whole sale", reverseWhole, "00", Honoured},
		{"D-26 a part", reversePart, "00", Honoured},
		{"D-18 in flight, then approved", reverseLater, "00", Honoured},
		{"D-18 in flight, then declined", reverseLater, "12", Refused},
		{"D-19 keyd is at it", joinRunning, "00", Honoured},
		{"D-20 it never left", voidLocally, "00", Honoured},
		{"D-07 the stored answer", repeatAnswer, "00", Repeated},
		{"D-07 the stored refusal", repeatAnswer, "12", Repeated},
		{"D-08 in work", waitForAnswer, "00", Repeated},
		{"D-22 by another RID", noEffect, "00", Repeated},
		{"D-10 no original", addTombstone, "25", Unmatched},
		{"D-10 no original, an advice", addTombstone, "00", Unmatched},
		{"D-04 a wrong MAC", noEffect, "63", Refused},
	} {
		if got := outcome(c.effect, c.code); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
