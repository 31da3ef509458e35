package isoswitch

import (
	"errors"
	"testing"

	"keyd.dev/keyd/audit"
)

// TestLooseReversals is what becomes of a reversal with bytes that nothing is
// compared with, under a linear MAC. None has its effect by itself.
func TestLooseReversals(t *testing.T) {
	for _, c := range []struct {
		name, rule, code string
		effect           effect
		change           func(*situation)
	}{
		{"held", "D-35", "00", holdReversal, func(*situation) {}},
		{"refused", "D-35", "58", noEffect, func(s *situation) { s.unbind = Refuse }},
		{"held, an advice", "D-35", "00", holdReversal, func(s *situation) { s.advice = true }},
		{"a part cannot be held", "D-35", "58", noEffect, func(s *situation) { s.question.full, s.rest = false, 400 }},
		{"above a rate that is observed", "D-35", "00", holdReversal, func(s *situation) { s.tooMany = true }},
		{"above a rate that refuses", "D-35", "58", noEffect, func(s *situation) { s.tooMany, s.over = true, Refuse }},
		{"in flight", "D-35", "96", noEffect, func(s *situation) { s.original.State = Forwarded }},
		{"in flight, not left", "D-35", "96", noEffect, func(s *situation) { s.original.State, s.left = Received, false }},
		{"in flight, refused", "D-35", "58", noEffect, func(s *situation) { s.original.State, s.unbind = Forwarded, Refuse }},
		{"a void", "D-35", "00", holdReversal, func(s *situation) {
			s.processing, s.original.Processing, s.original.RefersTo = "200000", "200000", OID{7}
		}},
		{"late, a request", "D-25", "22", noEffect, func(s *situation) { s.original.BatchClosed = true }},
		{"late, an advice", "D-35", "00", holdReversal, func(s *situation) { s.original.BatchClosed, s.advice = true, true }},
		{"late, an advice, refused", "D-35", "58", noEffect, func(s *situation) {
			s.original.BatchClosed, s.advice, s.unbind = true, true, Refuse
		}},
		{"late, an advice above a rate that refuses", "D-35", "58", noEffect, func(s *situation) {
			s.original.BatchClosed, s.advice, s.tooMany, s.over = true, true, true, Refuse
		}},
		{"late, an advice of a part", "D-25", "00", noEffect, func(s *situation) {
			s.original.BatchClosed, s.advice, s.question.full, s.rest = true, true, false, 400
		}},
		{"declined", "D-16", "12", noEffect, func(s *situation) { s.original.State = Declined }},
		{"another amount", "D-14", "64", noEffect, func(s *situation) { s.amount++ }},
	} {
		t.Run("A-08 "+c.name, func(t *testing.T) {
			s := goodSituation()
			s.loose = true
			c.change(s)
			v := s.decide()
			if v.rule != c.rule || v.code != c.code || v.effect != c.effect {
				t.Errorf("decided %s, code %q, effect %d; want %s, %q, %d", v.rule, v.code, v.effect, c.rule, c.code, c.effect)
			}
			if v.rule == "D-35" && (v.reason != audit.ReasonMACPolicy || v.alert != audit.AlertSecurity) {
				t.Errorf("reason %v, alert %v", v.reason, v.alert)
			}
		})
	}
}

// TestNoWayThrough: no setting lets such a reversal go on by itself.
func TestNoWayThrough(t *testing.T) {
	for action, ok := range map[VelocityAction]bool{Hold: true, Refuse: true, Observe: false, "none": false} {
		if err := action.Check(); ok != (err == nil) || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", action, err)
		}
		_, err := Limits{MaxAmount: 1, Currencies: []string{"156"}, Unchecked: action}.withDefaults()
		if ok != (err == nil) {
			t.Errorf("limits with %q: %v", action, err)
		}
	}
}
