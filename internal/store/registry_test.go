package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyd.dev/keyd/internal/custody"
	"keyd.dev/keyd/keys"
)

func someID(c string) keys.ID { return keys.ID(strings.Repeat(c, 32)) }

// aMasterTerminal has every member of its scheme.
func aMasterTerminal(n int) custody.Terminal {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	return custody.Terminal{
		TID: fmt.Sprintf("M%07d", n), MID: "M00000000000001", Scheme: custody.SchemeMaster, MACBytes: 8,
		Status: custody.Suspended, Reason: "reported stolen", Since: at, Added: at.Add(-time.Hour), Most: 5000,
		Profile: "unionpay", Master: someID("m"),
		Keys:     custody.TerminalKeys{Version: 3, PIN: someID("p"), MAC: someID("a"), Data: someID("d"), Made: at},
		Previous: custody.TerminalKeys{Version: 2, PIN: someID("q"), MAC: someID("b"), Made: at.Add(-time.Minute)},
		Retires:  at.Add(time.Minute),
	}
}

// change runs one change that must go through.
func change(t *testing.T, db *DB, fn func(custody.TerminalChange) error) {
	t.Helper()
	if err := db.ChangeRegistry(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// TestRegistry keeps everything that is known of a terminal.
func TestRegistry(t *testing.T) {
	db := open(t)
	dukpt := entryOf(aTerminal(1))
	all := []custody.Terminal{aMasterTerminal(1), aMasterTerminal(2), dukpt}
	change(t, db, func(ch custody.TerminalChange) error {
		return errors.Join(ch.AddTerminal(all[0]), ch.AddTerminal(all[1]), ch.AddTerminal(all[2]))
	})
	all[1].Status, all[1].Reason, all[1].Previous, all[1].Retires = custody.InService, "", custody.TerminalKeys{}, time.Time{}
	change(t, db, func(ch custody.TerminalChange) error { return ch.SetTerminal(all[1]) })
	got, err := db.Registry(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	of, err := db.RegisteredOf(t.Context(), []string{"M0000002", "M0000009"})
	if err != nil || len(of) != 1 || of["M0000002"].Profile != "unionpay" {
		t.Errorf("%+v, %v", of, err)
	}
	seen, err := db.Terminal(t.Context(), "M0000001")
	if err != nil || !seen.Disabled || seen.Most != 5000 || seen.Scheme != "tmk" || seen.PINKey != someID("p") || seen.MACKey != someID("a") {
		t.Errorf("the switch sees %+v, %v", seen, err)
	}
	if _, err := db.Registered(t.Context(), "M0000009"); !errors.Is(err, custody.ErrNoTerminal) {
		t.Errorf("%v, want %v", err, custody.ErrNoTerminal)
	}
}

// TestRegistryRefuses: nothing of a change with one bad entry is kept.
func TestRegistryRefuses(t *testing.T) {
	db := open(t)
	change(t, db, func(ch custody.TerminalChange) error {
		return errors.Join(ch.AddTerminal(entryOf(aTerminal(1))), ch.AddTerminal(aMasterTerminal(1)))
	})
	other := aTerminal(1)
	other.TID = "T0000009"
	noMaster, withBDK := aMasterTerminal(3), aMasterTerminal(3)
	noMaster.Master, withBDK.BDK = "", "alias/bdk"
	for name, test := range map[string]struct {
		entry custody.Terminal
		want  error
	}{
		"TID taken":         {aMasterTerminal(1), custody.ErrTerminalTaken},
		"device taken":      {entryOf(other), custody.ErrTerminalTaken},
		"no master key":     {noMaster, nil},
		"BDK beside master": {withBDK, nil},
	} {
		err := db.ChangeRegistry(t.Context(), func(ch custody.TerminalChange) error {
			return errors.Join(ch.AddTerminal(aMasterTerminal(2)), ch.AddTerminal(test.entry))
		})
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if _, err := db.Registered(t.Context(), "M0000002"); !errors.Is(err, custody.ErrNoTerminal) {
			t.Errorf("%s: the entry before it: %v", name, err)
		}
	}
}

// TestPrints: the value of a master key is one terminal's for ever. A-04.
func TestPrints(t *testing.T) {
	db := open(t)
	print := [16]byte{1, 2, 3}
	change(t, db, func(ch custody.TerminalChange) error {
		_, err := ch.AddPrint(print, "M0000001", someID("m"))
		return err
	})
	err := db.ChangeRegistry(t.Context(), func(ch custody.TerminalChange) error {
		owner, err := ch.AddPrint(print, "M0000002", someID("n"))
		if owner != "M0000001" {
			t.Errorf("the print is said to be of %q", owner)
		}
		return err
	})
	if !errors.Is(err, custody.ErrTerminalTaken) {
		t.Errorf("%v, want %v", err, custody.ErrTerminalTaken)
	}
	for _, statement := range []string{"DELETE FROM terminal_print", "UPDATE terminal_print SET tid = 'M0000002'"} {
		err := db.update(t.Context(), func(s *session) error { _, err := s.exec(statement); return err })
		if !errors.Is(err, ErrRule) {
			t.Errorf("%s: %v, want %v", statement, err, ErrRule)
		}
	}
}
