//go:build linux && !race

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

// mostIdleKiB is what an idle daemon may keep in memory. The race detector
// multiplies it, so that this file is not for its builds. Two thirds of it are
// code of the test binary, which is larger than that of the program.
const mostIdleKiB = 72 << 10

func TestIdleDaemonIsSmall(t *testing.T) {
	dir := t.TempDir()
	// TestMain makes the test binary behave as the command that it is called by.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "keyd")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link, "dev", "--dir", filepath.Join(dir, "d"))
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
