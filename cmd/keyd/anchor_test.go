package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
	"keyd.dev/keyd/internal/sandbox"
)

// TestAnchorKilled is L-62 through the front door: a daemon in its sandbox, killed
// and started again, goes on from what a required anchor has, which grows.
func TestAnchorKilled(t *testing.T) {
	k := newKillable(t)
	k.start()
	k.stop()
	kept := filepath.Join(k.base, "kept")
	if err := os.Mkdir(kept, 0o750); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(k.dir, "keyd.toml")
	appendTo(t, config, fmt.Sprintf("\n[[audit_anchor]]\nname = \"vault-a\"\ndir = %q\n", kept))
	file := filepath.Join(kept, audit.AnchorFile("audit.dev.example/n1/sec"))
	size := func() int {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0
		}
		n, err := strconv.Atoi(strings.Split(string(text), "\n")[1])
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return n
	}
	for round := range 3 {
		before := size()
		k.start()
		poll(t, "the anchor gets a checkpoint", func() bool { return size() > before })
		k.kill()
		if round == 0 {
			appendTo(t, config, "required = true\n")
		}
	}
	k.start()
	k.stop()
	if sandbox.Supported().Files && !strings.Contains(k.output(), "in the sandbox") {
		t.Error("the daemon was in no sandbox")
	}
	out, code := keyd(t, "audit", "verify", "--dir", filepath.Join(k.dir, "audit"), "--vkey", filepath.Join(k.dir, "audit.vkey"), "--since-checkpoint", file)
	if code != exitDone {
		t.Errorf("verify ended with %d: %s", code, out)
	}
	if out, _ := keyd(t, "audit", "ls", "--dir", filepath.Join(k.dir, "audit"), "--action", "sys.alarm", "--json"); strings.Count(out, `"anchor_unreachable"`) != 1 {
		t.Errorf("alarms, want that of the new anchor alone:\n%s", out)
	}
}

// TestAnchorNearTheLog: doctor tells an anchor that is on the disk of the log, and
// one that is away.
func TestAnchorNearTheLog(t *testing.T) {
	dir := t.TempDir()
	cfg := &configFile{config: config{Audit: auditConfig{Dir: dir}, Anchor: []anchorConfig{
		{Name: "near", Dir: t.TempDir()}, {Name: "away", Dir: filepath.Join(dir, "none")}, {Name: "needed", Dir: filepath.Join(dir, "none"), Required: true},
	}}}
	e := &examination{ctx: t.Context()}
	e.anchors(cfg)
	want := map[string]status{"anchor near": statusWarn, "anchor away": statusWarn, "anchor needed": statusFail}
	for _, c := range e.checks {
		if c.Status != want[c.Name] {
			t.Errorf("%s: %v, %s", c.Name, c.Status, c.Detail)
		}
		delete(want, c.Name)
	}
	if len(want) > 0 || !strings.Contains(e.checks[0].Detail, "on the file system of the log") {
		t.Errorf("%v; %+v", want, e.checks)
	}
	if names, err := os.ReadDir(cfg.Anchor[0].Dir); err != nil || len(names) > 0 {
		t.Errorf("what was left in the folder: %v, %v", names, err)
	}
}
