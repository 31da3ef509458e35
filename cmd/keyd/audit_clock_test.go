package main

import (
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAuditClock is L-195 on the daemon: the kernel says now that its clock is
// synchronised and now that it is not, and each change is in the log. The clock
// itself cannot be set for one process alone: audit's TestClock does the steps.
func TestAuditClock(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("this test needs strace: %v", err)
	}
	var now syscall.Timex
	if _, err := syscall.Adjtimex(&now); err != nil {
		t.Fatal(err)
	}
	// What every second answer of the kernel becomes: the other state than that of
	// this machine (status of struct timex, adjtimex(2)).
	answer := make([]byte, 44)
	const unsynchronised = 0x40
	if now.Status&unsynchronised == 0 {
		answer[40] = unsynchronised
	}
	k := newKillable(t)
	k.under = []string{strace, "-D", "-f", "-q", "-e", "trace=adjtimex", "-e", "inject=adjtimex:poke_exit=@arg1=" + hex.EncodeToString(answer) + ":when=2+2", "-o", filepath.Join(t.TempDir(), "trace")}
	k.start()
	k.await("both changes are in the log", 2*time.Minute, func() bool {
		out, err := keydCommand(t.Context(), "audit", "ls", "--dir", filepath.Join(k.dir, "audit"), "--log", "sec", "--action", "sys.time", "--limit", "0", "--json").Output()
		return err == nil && strings.Contains(string(out), `"code":"clock_synchronised"`) && strings.Contains(string(out), `"code":"clock_unsynchronised"`)
	})
	said := k.output()
	for _, code := range []string{"clock_synchronised", "clock_unsynchronised"} {
		if !strings.Contains(said, `"code":"`+code+`"`) {
			t.Errorf("L-195: no alarm %s on standard error", code)
		}
	}
	k.stop()
}
