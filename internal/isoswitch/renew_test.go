package isoswitch

import (
	"errors"
	"testing"
	"time"
)

func TestRenew(t *testing.T) {
	begin, err := Settings{Limits: Limits{MaxAmount: 1000, Currencies: []string{"978"}, Connections: 7}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := &Switch{}
	s.set.Store(newSettings("acq", begin))
	came := s.rules() // by a message of before

	bad := begin
	bad.Limits.MaxAmount = 2000
	bad.Timers.Upstream = time.Hour
	if err := s.Renew(bad); !errors.Is(err, ErrConfig) || s.rules() != came {
		t.Fatalf("timers out of order: %v, %+v", err, s.rules().Limits)
	}

	good := begin
	good.Limits.MaxAmount, good.Limits.Connections = 2000, 99
	good.Timers.MaxAge = time.Hour
	good.Limits.Velocity = Velocity{PerHour: 5, Action: Refuse}
	good.Lockout.Failures = 9
	if err := s.Renew(good); err != nil {
		t.Fatal(err)
	}
	now := s.rules()
	if now.Limits.MaxAmount != 2000 || now.policy.maxAge != time.Hour || now.policy.over != Refuse || s.lockoutRules().Failures != 9 {
		t.Errorf("renewed: %+v", now)
	}
	if now.Limits.Connections != 7 || now.policy.acquirer != "acq" {
		t.Errorf("what is settled at the start changed: %+v", now)
	}
	if came.Limits.MaxAmount != 1000 {
		t.Error("a message of before has other limits")
	}
}
