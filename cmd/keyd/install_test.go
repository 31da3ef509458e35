//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall: `make install` puts everything in its place, with the rights that
// it needs, and the unit names the program where it is.
func TestInstall(t *testing.T) {
	root := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "scripts/install.sh", programAs(t, "keyd"))
	cmd.Dir = rootDir
	cmd.Env = append(os.Environ(), "DESTDIR="+root, "PREFIX=/opt/keyd")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, want := range map[string]struct {
		mode os.FileMode
		text string
	}{
		"/opt/keyd/bin/keyd":                                  {0o755, ""},
		"/usr/lib/systemd/system/keyd.service":                {0o644, "\nExecStart=/opt/keyd/bin/keyd serve "},
		"/usr/lib/sysusers.d/keyd.conf":                       {0o644, "\nu keyd "},
		"/usr/lib/tmpfiles.d/keyd.conf":                       {0o644, "/var/lib/keyd/audit"},
		"/opt/keyd/share/bash-completion/completions/keyd":    {0o644, "complete -F _keyd keyd"},
		"/opt/keyd/share/zsh/vendor-completions/_keyd":        {0o644, "#compdef keyd"},
		"/opt/keyd/share/fish/vendor_completions.d/keyd.fish": {0o644, "complete -c keyd"},
		"/opt/keyd/share/doc/keyd/OPERATIONS.md":              {0o644, "# Operations"},
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode().Perm() != want.mode {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want.mode)
		}
		if want.text == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil || !strings.Contains(string(text), want.text) {
			t.Errorf("%s lacks %q: %v", path, want.text, err)
		}
	}
}

// TestSystemdFiles: systemd's own tools take the user and the folders.
func TestSystemdFiles(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(rootDir, "deploy", "systemd")
	for _, argv := range [][]string{
		{"systemd-sysusers", "--root=" + root, filepath.Join(dir, "keyd.sysusers")},
		{"systemd-tmpfiles", "--root=" + root, "--create", filepath.Join(dir, "keyd.tmpfiles")},
	} {
		if argv[0] == "systemd-tmpfiles" && os.Getuid() != 0 {
			t.Logf("NOT TESTED: giving folders to another user is for root")
			continue
		}
		path, err := filepath.Abs(argv[len(argv)-1])
		if err != nil {
			t.Fatal(err)
		}
		argv[len(argv)-1] = path
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", argv[0], err, out)
		}
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc", "passwd"))
	if err != nil || !strings.Contains(string(passwd), "keyd:x:") || !strings.Contains(string(passwd), ":/var/lib/keyd:") {
		t.Errorf("no user: %v\n%s", err, passwd)
	}
	if os.Getuid() == 0 {
		if info, err := os.Stat(filepath.Join(root, "var", "lib", "keyd", "audit")); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the log's folder: %v", err)
		}
	}
}
