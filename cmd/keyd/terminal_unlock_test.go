package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"keyd.dev/keyd/internal/sim"
)

// TestUnlockTerminal: a terminal that wrong MACs have locked on its connection is
// heard again when an operator says so, by name in the log (A-11.T2, W-19).
func TestUnlockTerminal(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir)
	defer r.stop()
	fixed, err := r.dev.terminal(fraudVictim)
	if err != nil {
		t.Fatal(err)
	}
	term, err := sim.NewTerminal(sim.TerminalConfig{TID: fixed.TID, MID: fixed.MID, BDK: r.dev.TestKeys[fixed.BDK], KSN: fixed.KSN}, 0)
	if err != nil {
		t.Fatal(err)
	}
	link, err := sim.Dial(t.Context(), r.dev.SwitchAddr, r.tls("terminal"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	ask := func(forged bool) string {
		t.Helper()
		sent, err := term.Sale(1000, sim.Card{PAN: testCards()[0]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if forged {
			copy(sent.Raw[len(sent.Raw)-16:], "0123456789ABCDEF")
		}
		raw, err := link.Exchange(sent.Raw)
		if err != nil {
			t.Fatal(err)
		}
		m, err := term.Answer(sent, raw)
		if m == nil {
			t.Fatal(err)
		}
		return m.Text(39)
	}
	for range 5 {
		if code := ask(true); code != "63" {
			t.Fatalf("a guessed MAC: %s", code)
		}
	}
	if code := ask(false); code != "63" {
		t.Fatalf("a good message of a locked terminal: %s, want 63", code)
	}
	keyd := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader(""), &out, &out); code != want {
			t.Errorf("keyd %s: %d, want %d\n%s", strings.Join(args, " "), code, want, &out)
		}
		return out.String()
	}
	if said := keyd(exitFailed, "terminal", "unlock", "T9999999", "--config", r.dev.Config); !strings.Contains(said, "no terminal") {
		t.Errorf("an unknown terminal: %s", said)
	}
	keyd(exitUsage, "terminal", "unlock", "T1", "--config", r.dev.Config)
	if said := keyd(exitDone, "terminal", "unlock", fraudVictim, "--config", r.dev.Config); !strings.Contains(said, "unlocked on 1 connections") {
		t.Errorf("unlocking: %s", said)
	}
	if code := ask(false); code != "00" {
		t.Errorf("after it: %s, want 00", code)
	}
	if said := keyd(exitDone, "audit", "ls", "--config", r.dev.Config, "--action", "auth.unlock", "--json"); !strings.Contains(said, `"uid:`) || !strings.Contains(said, fraudVictim) || strings.Contains(said, "scrub") {
		t.Errorf("the log has it as %s", said)
	}
	actsIn(t, r.dev.AuditDir)
}
