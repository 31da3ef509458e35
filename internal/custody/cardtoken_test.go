package custody_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/custody"
)

const (
	queriedCard = "4111111111111111"
	maskedCard  = "411111******1111"
)

// TestL105CardToken: a token leaves with a second person's consent alone, and
// nobody learns it before, from whatever is shown or recorded.
func TestL105CardToken(t *testing.T) {
	o := newOffice(t)
	eve := o.someone(t, "eve", "not the body: it holds the card")
	want, err := o.log.PAN([]byte(queriedCard))
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.CardTokens(t.Context(), eve, "t", []byte(queriedCard))
	ref := custody.PendingRef(err)
	if got != nil || ref == "" {
		t.Fatalf("first round: %v, %v", got, err)
	}
	list, err := o.Approvals(t.Context(), eve, "t", true)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d requests, %v", len(list), err)
	}
	if list[0].Object != "card "+maskedCard || strings.Contains(list[0].Object, want.Token()) {
		t.Errorf("the request is about %q", list[0].Object)
	}
	if list[0].Request == eve.Request {
		t.Error("L-95: the request is known by a plain hash of a body with the card in it")
	}
	if _, err := o.CardTokens(t.Context(), eve, "t", []byte("5500000000000004")); custody.PendingRef(err) == ref || custody.PendingRef(err) == "" {
		t.Errorf("another card: %v", err)
	}
	if _, err := o.Approve(t.Context(), eve, "t", ref); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("an auditor approves: %v", err)
	}
	if _, err := o.Approve(t.Context(), o.someone(t, "anna", "approve"), "t", ref); err != nil {
		t.Fatal(err)
	}
	got, err = o.CardTokens(t.Context(), eve, "t", []byte(queriedCard))
	if err != nil || len(got) != 1 || got[0] != want.Token() {
		t.Fatalf("second round: %v, %v", got, err)
	}
	if _, err := o.CardTokens(t.Context(), eve, "t", []byte(queriedCard)); custody.PendingRef(err) == "" {
		t.Errorf("the consent was good twice: %v", err)
	}
	for _, digits := range []string{"", "4111111", "41111111111111111111", "4111x11111111111"} {
		if _, err := o.CardTokens(t.Context(), eve, "t", []byte(digits)); !errors.Is(err, custody.ErrRequest) || strings.Contains(err.Error(), "4111") {
			t.Errorf("%d characters: %v", len(digits), err)
		}
	}
	for _, name := range []string{"anna", "ops", "app", "c1"} {
		if _, err := o.CardTokens(t.Context(), o.someone(t, name, "x"), "t", []byte(queriedCard)); !errors.Is(err, custody.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	released := false
	for _, r := range o.records(t, "sec") {
		if strings.Contains(r, queriedCard) || strings.Contains(r, `"scrub"`) {
			t.Fatalf("L-90: %s", r)
		}
		if !strings.Contains(r, want.Token()) {
			continue
		}
		if released || !strings.Contains(r, `"action":"log.token"`) || !strings.Contains(r, `"filter":"pan_tok=`+want.Token()+`"`) {
			t.Errorf("the token stands in %s", r)
		}
		released = true
	}
	if !released {
		t.Error("L-105: no log.token")
	}
}

// TestL105PolicyOff: the second person is needed where the node does not ask for
// one otherwise.
func TestL105PolicyOff(t *testing.T) {
	o := newOffice(t, func(c *custody.Config) { c.DualControl.On = false })
	if _, err := o.CardTokens(t.Context(), o.someone(t, "eve", "x"), "t", []byte(queriedCard)); custody.PendingRef(err) == "" {
		t.Errorf("%v", err)
	}
}

// TestL105Limit: 60 within an hour, those of before a restart included.
func TestL105Limit(t *testing.T) {
	var o *office
	asked := 0
	o = newOffice(t, func(c *custody.Config) {
		c.CardTokensSince = func(since time.Time) (times []time.Time, err error) {
			asked++
			for range 59 {
				times = append(times, since.Add(time.Minute))
			}
			return append(times, since.Add(-time.Second)), nil
		}
	})
	eve, anna := o.someone(t, "eve", "x"), o.someone(t, "anna", "y")
	agreed := func(card string) error {
		_, err := o.CardTokens(t.Context(), eve, "t", []byte(card))
		if ref := custody.PendingRef(err); ref != "" {
			if _, err = o.Approve(t.Context(), anna, "t", ref); err == nil {
				_, err = o.CardTokens(t.Context(), eve, "t", []byte(card))
			}
		}
		return err
	}
	if err := agreed("4111111111111111"); err != nil {
		t.Fatalf("the 60th: %v", err)
	}
	if err := agreed("5500000000000004"); !errors.Is(err, custody.ErrTooMany) {
		t.Fatalf("the 61st: %v", err)
	}
	o.clock.pass(2 * time.Minute)
	if err := agreed("5500000000000004"); err != nil {
		t.Fatalf("after those of before an hour: %v", err)
	}
	if asked != 1 {
		t.Errorf("the log was counted %d times", asked)
	}
	limited := 0
	for _, r := range o.records(t, "sec") {
		if strings.Contains(r, `"action":"log.token"`) && strings.Contains(r, `"outcome":"refused"`) {
			limited++
		}
	}
	if limited != 1 {
		t.Errorf("%d refusals for the number are in the log", limited)
	}
}

// TestL180Reading: a reading is recorded before it opens, is one certificate's,
// and ends.
func TestL180Reading(t *testing.T) {
	o := newOffice(t)
	eve := o.someone(t, "eve", "x")
	eve.Cert = strings.Repeat("a", 64)
	r, err := o.OpenReading(t.Context(), eve, "t", custody.LogQuery{Command: audit.QueryFind, Filter: "pan_tok=k1:gv0DR9eyf1tnkhAjMPpPKQ", Log: "sec"})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Read(t.Context(), eve, "t", r.ID); err != nil {
		t.Fatal(err)
	}
	other := eve
	other.Cert = strings.Repeat("b", 64)
	if err := o.Read(t.Context(), other, "t", r.ID); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("another certificate: %v", err)
	}
	if err := o.Read(t.Context(), o.someone(t, "anna", "x"), "t", r.ID); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("an administrator: %v", err)
	}
	if _, err := o.OpenReading(t.Context(), o.someone(t, "ops", "x"), "t", custody.LogQuery{Command: audit.QueryList}); !errors.Is(err, custody.ErrDenied) {
		t.Errorf("an operator: %v", err)
	}
	if _, err := o.OpenReading(t.Context(), eve, "t", custody.LogQuery{Command: audit.QueryToken}); !errors.Is(err, custody.ErrRequest) {
		t.Errorf("a command that reads nothing: %v", err)
	}
	for range 40 {
		if _, err := o.OpenReading(t.Context(), eve, "t", custody.LogQuery{Command: audit.QueryList}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Read(t.Context(), eve, "t", r.ID); !errors.Is(err, custody.ErrNoReading) {
		t.Errorf("the oldest of too many: %v", err)
	}
	last, err := o.OpenReading(t.Context(), eve, "t", custody.LogQuery{Command: audit.QueryVerify})
	if err != nil {
		t.Fatal(err)
	}
	o.clock.pass(10 * time.Minute)
	if err := o.Read(t.Context(), eve, "t", last.ID); !errors.Is(err, custody.ErrNoReading) {
		t.Errorf("after its end: %v", err)
	}
	if err := o.log.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got, err := o.OpenReading(t.Context(), eve, "t", custody.LogQuery{Command: audit.QueryList}); !errors.Is(err, custody.ErrUnavailable) || got.ID != "" {
		t.Errorf("L-199: a log that takes no record: %+v, %v", got, err)
	}
}
