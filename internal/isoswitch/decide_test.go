package isoswitch

import (
	"fmt"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/internal/iso8583"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func testPolicy() policy {
	return policy{partials: []string{"00"}, lookBack: 7 * 24 * time.Hour, maxAge: 24 * time.Hour, skew: 10 * time.Minute, completion: 100}
}

// approvedSale is an original as the journal has it.
func approvedSale() *Txn {
	return &Txn{
		OID: OID{1}, MTI: "0200", Received: noon.Add(-time.Hour), Card: custody.Card{Token: "k1:card"},
		Processing: "000000", Amount: 1000, Sent: "1122110000", STAN: "000007", Condition: "00",
		TID: "T0000001", MID: "M00000000000001", Currency: "978", State: Approved,
		RRN: "000000000042", Approval: "A1B2C3", Answer: "00",
	}
}

// goodQuestion is a full reversal of approvedSale, as a request.
func goodQuestion() question {
	return question{
		full: true, names: iso8583.OriginalData{MTI: "0200", STAN: "000007", DateTime: "1122110000"},
		token: "k1:card", processing: "000000", amount: 1000, currency: "978", condition: "00",
		rrn: "000000000042", approval: "A1B2C3", content: Hash{1}, sent: noon, now: noon,
	}
}

// situation is a question with its facts, to be changed by a test case.
type situation struct {
	policy
	question
	facts
}

func goodSituation() *situation {
	return &situation{testPolicy(), goodQuestion(), facts{original: approvedSale(), left: true}}
}

func (s *situation) decide() verdict { return s.policy.decide(s.question, s.facts) }

// TestDecisionTable has every row of section 10 that the journal's part of the
// pipeline decides, with the code of the request and of the advice.
func TestDecisionTable(t *testing.T) {
	for _, c := range []struct {
		name, row       string
		request, advice string
		effect          effect
		change          func(*situation)
	}{
		{"D-07 exact repeat", "D-07", "00", "00", repeatAnswer, func(s *situation) {
			s.facts.full = answered(ByTerminal, "00")
		}},
		{"D-07 repeat of a refusal with a tombstone", "D-07", "25", "25", repeatAnswer, func(s *situation) {
			s.original.State, s.facts.full = Tombstone, answered(ByTerminal, "25")
		}},
		{"D-08 the first is still in work", "D-08", "", "00", waitForAnswer, func(s *situation) {
			s.original.State, s.facts.full = Forwarded, answered(ByTerminal, "")
		}},
		{"D-09 other amount", "D-09", "64", "94", noEffect, func(s *situation) {
			s.facts.full, s.content, s.amount = answered(ByTerminal, "00"), Hash{2}, 1001
		}},
		{"D-09 other PAN", "D-09", "14", "94", noEffect, func(s *situation) {
			s.facts.full, s.content, s.token = answered(ByTerminal, "00"), Hash{2}, "k1:other"
		}},
		{"D-09 other currency", "D-09", "94", "94", noEffect, func(s *situation) {
			s.facts.full, s.content, s.currency = answered(ByTerminal, "00"), Hash{2}, "156"
		}},
		{"D-09 other processing code", "D-09", "94", "94", noEffect, func(s *situation) {
			s.facts.full, s.content, s.processing = answered(ByTerminal, "00"), Hash{2}, "200000"
		}},
		{"D-10 not found, could still arrive", "D-10", "25", "00", addTombstone, func(s *situation) { s.original = nil }},
		{"D-10 tombstone, other identity", "D-10", "25", "00", noEffect, func(s *situation) { s.original.State = Tombstone }},
		{"D-11 not found, too old", "D-11", "25", "25", noEffect, func(s *situation) {
			s.original, s.names.DateTime = nil, "1113110000"
		}},
		{"D-11 not found, in the future", "D-11", "25", "25", noEffect, func(s *situation) {
			s.original, s.names.DateTime = nil, "1122123000"
		}},
		{"D-11 not found, no date", "D-11", "25", "25", noEffect, func(s *situation) {
			s.original, s.names.DateTime = nil, "1399999999"
		}},
		{"D-11 not found, partial", "D-11", "25", "25", noEffect, func(s *situation) {
			s.original, s.question.full, s.rest = nil, false, 1
		}},
		{"D-13 PAN differs", "D-13", "14", "14", noEffect, func(s *situation) { s.token = "k1:other" }},
		{"D-14 amount differs", "D-14", "64", "64", noEffect, func(s *situation) { s.amount++ }},
		{"D-14 currency differs", "D-14", "64", "64", noEffect, func(s *situation) { s.currency = "156" }},
		{"D-14 partial of a type that allows none", "D-14", "64", "64", noEffect, func(s *situation) {
			s.question.full, s.rest, s.partials = false, 400, nil
		}},
		{"D-15 processing code", "D-15", "25", "25", noEffect, func(s *situation) { s.processing = "000001" }},
		{"D-15 condition code", "D-15", "25", "25", noEffect, func(s *situation) { s.condition = "08" }},
		{"D-15 RRN", "D-15", "25", "25", noEffect, func(s *situation) { s.rrn = "000000000043" }},
		{"D-15 approval code", "D-15", "25", "25", noEffect, func(s *situation) { s.approval = "A1B2C4" }},
		{"D-15 type in DE 90", "D-15", "25", "25", noEffect, func(s *situation) { s.names.MTI = "0220" }},
		{"D-15 W-15 second in DE 90", "D-15", "25", "25", noEffect, func(s *situation) { s.names.DateTime = "1122110001" }},
		{"D-15 W-15 acquirer in DE 90", "D-15", "25", "25", noEffect, func(s *situation) { s.names.Acquirer = "77" }},
		{"D-15 acquirer in DE 32", "D-15", "25", "25", noEffect, func(s *situation) {
			s.question.acquirer, s.original.Acquirer = "77", "78"
		}},
		{"D-16 declined", "D-16", "12", "00", noEffect, func(s *situation) { s.original.State = Declined }},
		{"D-17 balance", "D-17", "12", "12", noEffect, func(s *situation) {
			s.processing, s.original.Processing = "310000", "310000"
		}},
		{"D-17 administrative", "D-17", "12", "12", noEffect, func(s *situation) { s.names.MTI = "0800" }},
		{"D-18 in flight", "D-18", "", "00", reverseLater, func(s *situation) { s.original.State = Forwarded }},
		{"D-19 keyd is reversing it", "D-19", "00", "00", joinRunning, func(s *situation) {
			s.original.State, s.facts.full = ReversalPending, answered(ByTimeout, "")
		}},
		{"D-19 keyd has reversed it", "D-19", "00", "00", joinRunning, func(s *situation) {
			s.original.State, s.facts.full = Reversed, answered(ByRestart, "")
		}},
		{"D-19 keyd has failed to", "D-19", "00", "00", joinRunning, func(s *situation) {
			s.original.State, s.facts.full = ReversalFailed, answered(ByUndelivered, "")
		}},
		{"D-07 after D-19", "D-07", "00", "00", repeatAnswer, func(s *situation) {
			s.original.State, s.facts.full = ReversalPending, answered(ByTimeout, "00")
		}},
		{"D-20 never left", "D-20", "00", "00", voidLocally, func(s *situation) {
			s.original.State, s.left = Forwarded, false
		}},
		{"D-21 approved", "D-21", "00", "00", reverseWhole, func(s *situation) {}},
		{"D-21 without RRN and approval code", "D-21", "00", "00", reverseWhole, func(s *situation) { s.rrn, s.approval = "", "" }},
		{"D-22 after a part", "D-22", "22", "00", noEffect, func(s *situation) { s.original.ReversedAmount = 400 }},
		{"D-22 migrated", "D-22", "22", "00", noEffect, func(s *situation) { s.original.State = Reversed }},
		{"D-23 voided", "D-23", "22", "22", noEffect, func(s *situation) { s.original.State = Voided }},
		{"D-23 refunded", "D-23", "22", "22", noEffect, func(s *situation) { s.original.Refunded = true }},
		{"D-24 completed", "D-24", "22", "22", noEffect, func(s *situation) { s.original.State = Completed }},
		{"D-18 in flight, batch closed", "D-18", "", "00", reverseLater, func(s *situation) {
			s.original.State, s.original.BatchClosed = Forwarded, true
		}},
		{"D-20 never left, batch closed", "D-20", "00", "00", voidLocally, func(s *situation) {
			s.original.State, s.original.BatchClosed, s.left = Received, true, false
		}},
		{"D-27 part of what is in flight, batch closed", "D-27", "13", "13", noEffect, func(s *situation) {
			s.question.full, s.rest, s.original.State, s.original.BatchClosed = false, 400, Forwarded, true
		}},
		{"D-26 part", "D-26", "00", "00", reversePart, func(s *situation) { s.question.full, s.rest = false, 400 }},
		{"D-26 a further part", "D-26", "00", "00", reversePart, func(s *situation) {
			s.question.full, s.rest, s.original.ReversedAmount = false, 399, 600
		}},
		{"D-27 the rest is the whole", "D-27", "13", "13", noEffect, func(s *situation) { s.question.full, s.rest = false, 1000 }},
		{"D-27 the rest is nothing", "D-27", "13", "13", noEffect, func(s *situation) { s.question.full, s.rest = false, 0 }},
		{"D-27 the rest is as before", "D-27", "13", "13", noEffect, func(s *situation) {
			s.question.full, s.rest, s.original.ReversedAmount = false, 400, 600
		}},
		{"D-27 the rest rises", "D-27", "13", "13", noEffect, func(s *situation) {
			s.question.full, s.rest, s.original.ReversedAmount = false, 600, 600
		}},
		{"D-27 part of what is reversed", "D-27", "13", "13", noEffect, func(s *situation) {
			s.question.full, s.rest, s.original.State = false, 400, ReversalPending
		}},
		{"D-27 part of what is in flight", "D-27", "13", "13", noEffect, func(s *situation) {
			s.question.full, s.rest, s.original.State = false, 400, Forwarded
		}},
		{"D-28 reversal of a reversal", "D-28", "12", "12", noEffect, func(s *situation) { s.names.MTI = "0400" }},
		{"D-23 a void is under way", "D-23", "22", "22", noEffect, func(s *situation) {
			s.live = &Txn{MTI: "0200", Processing: "200000", RefersTo: OID{1}, State: Forwarded}
		}},
		{"D-21 the void is being reversed", "D-21", "00", "00", reverseWhole, func(s *situation) {
			s.live = &Txn{MTI: "0200", Processing: "200000", RefersTo: OID{1}, State: ReversalPending}
		}},
		{"D-24 a completion is under way", "D-24", "22", "22", noEffect, func(s *situation) {
			s.live = &Txn{MTI: "0200", Processing: "000000", RefersTo: OID{1}, State: Forwarded}
		}},
		{"D-29 reversal of a void", "D-29", "00", "00", reverseWhole, func(s *situation) {
			s.processing, s.original.Processing, s.original.RefersTo = "200000", "200000", OID{7}
		}},
		{"D-14 part of a void", "D-14", "64", "64", noEffect, func(s *situation) {
			s.processing, s.original.Processing, s.original.RefersTo = "200000", "200000", OID{7}
			s.question.full, s.rest, s.partials = false, 400, []string{"20"}
		}},
		{"D-21 reversal of a completion", "D-21", "00", "00", reverseWhole, func(s *situation) { s.original.RefersTo = OID{7} }},
		{"D-35 refuse", "D-35", "58", "58", noEffect, func(s *situation) { s.tooMany, s.over = true, Refuse }},
		{"D-35 hold", "D-35", "00", "00", holdReversal, func(s *situation) { s.tooMany, s.over = true, Hold }},
		{"D-35 hold, a void", "D-35", "00", "00", holdReversal, func(s *situation) {
			s.tooMany, s.over = true, Hold
			s.processing, s.original.Processing, s.original.RefersTo = "200000", "200000", OID{7}
		}},
		{"D-35 hold, a part is refused", "D-35", "58", "58", noEffect, func(s *situation) {
			s.tooMany, s.over, s.question.full, s.rest = true, Hold, false, 400
		}},
		{"D-35 hold, in flight", "D-18", "", "00", reverseLater, func(s *situation) {
			s.tooMany, s.over, s.original.State = true, Hold, Forwarded
		}},
		{"D-35 observe", "D-21", "00", "00", reverseWhole, func(s *situation) { s.tooMany = true }},
	} {
		for _, advice := range []bool{false, true} {
			code := map[bool]string{false: c.request, true: c.advice}[advice]
			t.Run(fmt.Sprintf("%s, advice %v", c.name, advice), func(t *testing.T) {
				s := goodSituation()
				s.advice = advice
				c.change(s)
				if s.question.full {
					s.same = s.facts.full
				}
				v := s.decide()
				if v.rule != c.row || v.code != code || v.effect != c.effect {
					t.Errorf("decided %s, code %q, effect %d; want %s, %q, %d", v.rule, v.code, v.effect, c.row, code, c.effect)
				}
				if v.effect == noEffect && v.reason == 0 {
					t.Error("a refusal has no reason")
				}
				if observed := s.tooMany && s.over == ""; observed && v.alert != audit.AlertFraud {
					t.Error("D-35: the rate raised no alert")
				}
			})
		}
	}
}

// TestDecideLate: what came too late to be reversed is refused to who asks for it,
// and a case for two persons where it was done already (D-25, D-34).
func TestDecideLate(t *testing.T) {
	closed := func(s *situation) { s.original.BatchClosed = true }
	old := func(s *situation) { s.original.Received = noon.Add(-25 * time.Hour) }
	ahead := func(s *situation) { s.sent = noon.Add(11 * time.Minute) }
	for _, c := range []struct {
		name, row string
		late      func(*situation)
		advice    effect
		change    func(*situation)
	}{
		{"D-25 batch closed", "D-25", closed, holdReversal, func(*situation) {}},
		{"D-25 a void", "D-25", closed, holdReversal, func(s *situation) {
			s.processing, s.original.Processing, s.original.RefersTo = "200000", "200000", OID{7}
		}},
		{"D-25 a part", "D-25", closed, noEffect, func(s *situation) { s.question.full, s.rest = false, 400 }},
		{"D-25 reversed", "D-25", closed, noEffect, func(s *situation) { s.original.State = Reversed }},
		{"D-34 too old", "D-34", old, holdReversal, func(*situation) {}},
		{"D-34 too old, batch closed", "D-34", old, holdReversal, closed},
		{"D-34 dated in the future", "D-34", ahead, holdReversal, func(*situation) {}},
		{"D-25 above a rate", "D-25", closed, holdReversal, func(s *situation) { s.tooMany, s.over = true, Refuse }},
		{"D-34 a part", "D-34", old, noEffect, func(s *situation) { s.question.full, s.rest = false, 400 }},
		{"D-34 after a part", "D-34", old, noEffect, func(s *situation) { s.original.ReversedAmount = 400 }},
		{"D-34 declined", "D-34", old, noEffect, func(s *situation) { s.original.State = Declined }},
		{"D-34 voided", "D-34", old, noEffect, func(s *situation) { s.original.State = Voided }},
		{"D-34 refunded", "D-34", old, noEffect, func(s *situation) { s.original.Refunded = true }},
		{"D-34 in flight", "D-34", ahead, noEffect, func(s *situation) { s.original.State = Forwarded }},
		{"D-34 a void is under way", "D-34", old, noEffect, func(s *situation) {
			s.live = &Txn{MTI: "0200", Processing: "200000", RefersTo: OID{1}, State: Forwarded}
		}},
	} {
		for advice, want := range map[bool]effect{false: noEffect, true: c.advice} {
			t.Run(fmt.Sprintf("%s, advice %v", c.name, advice), func(t *testing.T) {
				s := goodSituation()
				s.advice = advice
				c.late(s)
				c.change(s)
				v := s.decide()
				if code := map[bool]string{false: "22", true: "00"}[advice]; v.rule != c.row || v.code != code || v.effect != want || v.reason == 0 {
					t.Errorf("decided %s, code %q, effect %d, reason %d; want %s, %q, %d with a reason", v.rule, v.code, v.effect, v.reason, c.row, code, want)
				}
				if held := want == holdReversal && s.tooMany; (v.alert == audit.AlertFraud) != held {
					t.Errorf("alert %v; D-35: above a rate it is told", v.alert)
				}
			})
		}
	}
}

func answered(by Cause, code string) *Reversal {
	return &Reversal{RID: RID{9}, OID: OID{1}, Cause: by, Full: true, Answer: code, Content: Hash{1}}
}

// TestStatesTimesKinds decides every state against every kind of reversal: an
// effect comes from exactly those pairs that section 2.2 lists.
func TestStatesTimesKinds(t *testing.T) {
	allowed := map[State]effect{Approved: reverseWhole, Forwarded: reverseLater, Received: reverseLater}
	for _, state := range []State{
		Received, Forwarded, Approved, Declined, Unknown, ReversalPending, Reversed, ReversedUnknown,
		ReversalFailed, ReversalHeld, LocalVoid, Voided, Completed, Tombstone,
	} {
		for _, full := range []bool{true, false} {
			for _, advice := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s full=%v advice=%v", state, full, advice), func(t *testing.T) {
					s := goodSituation()
					s.original.State, s.question.full, s.rest, s.advice = state, full, 400, advice
					want := allowed[state]
					if !full {
						want = map[State]effect{Approved: reversePart}[state]
					}
					if v := s.decide(); v.effect != want {
						t.Errorf("effect %d by %s, want %d", v.effect, v.rule, want)
					}
				})
			}
		}
	}
}

// TestOneDifference changes one attribute at a time: nothing that differs from
// the original has an effect.
func TestOneDifference(t *testing.T) {
	for name, change := range map[string]func(*question){
		"DE 2":        func(q *question) { q.token += "x" },
		"DE 3":        func(q *question) { q.processing = "009999" },
		"DE 4":        func(q *question) { q.amount-- },
		"DE 25":       func(q *question) { q.condition = "01" },
		"DE 37":       func(q *question) { q.rrn = "1" },
		"DE 38":       func(q *question) { q.approval = "1" },
		"DE 49":       func(q *question) { q.currency = "840" },
		"DE 90 MTI":   func(q *question) { q.names.MTI = "0100" },
		"DE 90 DE 7":  func(q *question) { q.names.DateTime = "1122110059" },
		"DE 90 DE 32": func(q *question) { q.names.Acquirer = "1" },
		"DE 90 DE 33": func(q *question) { q.names.Forwarder = "1" },
		"DE 95 whole": func(q *question) { q.full, q.rest = false, q.amount },
	} {
		t.Run(name, func(t *testing.T) {
			s := goodSituation()
			change(&s.question)
			if v := s.decide(); v.effect != noEffect || v.code == "00" {
				t.Errorf("%s with code %s and effect %d", v.rule, v.code, v.effect)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name     string
		kind     resultKind
		held     bool // a reversal waits (D-18)
		balance  bool
		state    State
		suppress bool
		reverse  bool
		close    bool
	}{
		{"approved", approvedResult, false, false, Approved, false, false, false},
		{"D-18 approved", approvedResult, true, false, ReversalPending, true, true, false},
		{"declined", declinedResult, false, false, Declined, false, false, false},
		{"D-18 declined", declinedResult, true, false, Declined, true, false, true},
		{"R-01 unknown", unknownResult, false, false, ReversalPending, false, true, false},
		{"D-18 unknown", unknownResult, true, false, ReversalPending, true, true, false},
		{"never left", neverLeft, false, false, Declined, false, false, false},
		{"balance unknown", unknownResult, false, true, Declined, false, false, false},
		{"balance approved", approvedResult, false, true, Approved, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := approvedSale()
			x.State, x.ReverseOnCompletion = Forwarded, c.held
			if c.balance {
				x.Processing = "310000"
			}
			s := settle(x, result{kind: c.kind, code: "68"})
			if s.state != c.state || s.suppress != c.suppress || s.reverse != c.reverse || s.close != c.close {
				t.Errorf("settled as %+v", s)
			}
		})
	}
}

func TestConfirmation(t *testing.T) {
	for _, c := range []struct {
		name, code     string
		declines       int
		closed, failed bool
		rule           string
	}{
		{"accepted", "00", 0, true, false, ""},
		{"D-30 no original", "25", 0, true, false, "D-30"},
		{"D-31 first", "12", 0, false, false, "D-31"},
		{"D-31 second", "22", 1, false, false, "D-31"},
		{"D-31 third", "22", 2, true, true, "D-31"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judgeConfirmation(&Reversal{Declines: c.declines}, c.code, 3)
			if got.closed != c.closed || got.failed != c.failed || got.rule != c.rule {
				t.Errorf("judged %+v", got)
			}
		})
	}
}
