//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mostIdleKiB is what an idle daemon may keep in memory.
const mostIdleKiB = 60 << 10

// TestIdleDaemonIsSmall measures the program as it is built for use: the test
// binary is larger, and the race detector multiplies what it keeps.
func TestIdleDaemonIsSmall(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(t.TempDir(), "keyd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	cmd := exec.Command(program, "dev", "--dir", filepath.Join(dir, "d"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	poll(t, "dev.json", func() bool {
		_, err := os.Stat(filepath.Join(dir, "d", "dev.json"))
		return err == nil
	})
	time.Sleep(2 * time.Second) // idle is what is measured
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	resident := 0
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscanf(rest, "%d kB", &resident); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d KiB resident", resident)
	if resident == 0 || resident > mostIdleKiB {
		t.Errorf("%d KiB resident, want at most %d", resident, mostIdleKiB)
	}
}
