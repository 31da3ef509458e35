package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTrialLeavesNoDaemon: a daemon that does not say where it answers is ended
// by the demonstration or benchmark that started it.
func TestTrialLeavesNoDaemon(t *testing.T) {
	tr := &trial{p: &program{ctx: t.Context()}, dir: t.TempDir(), output: new(said), ended: make(chan error, 1)}
	tr.daemon = keydCommand(t.Context(), "dev", "--dir", filepath.Join(tr.dir, "another"), "--no-sim")
	if err := os.Mkdir(tr.devDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tr.devDir(), "dev.json"), []byte("not whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tr.launch(); err == nil {
		t.Error("it said where it answers")
	}
	if tr.daemon.ProcessState == nil {
		t.Error("the daemon is still there")
		_ = tr.daemon.Process.Kill()
		select {
		case <-tr.ended:
		case <-time.After(trialStop):
			t.Error("and does not end")
		}
	}
}
