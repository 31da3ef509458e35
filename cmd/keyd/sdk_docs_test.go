package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyd.dev/keyd/internal/api"
)

// docBlock is the code of docs/API.md behind the comment that names it.
func docBlock(t *testing.T, text, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "<!-- tested: "+name+" -->\n```")
	if !ok {
		t.Fatalf("docs/API.md has no tested code %s", name)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	code, _, _ := strings.Cut(rest, "\n```\n")
	return code + "\n"
}

// devMAC is what the programs of docs/API.md print against `keyd dev`: the MAC
// of a published key.
const devMAC = "3BF647997E9FAFC4"

// TestSDKDocs runs the Go program that docs/API.md shows, against keyd and
// against something that has another region.
func TestSDKDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/API.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "clients.go"), filepath.Join(dir, "clients")
	if err := os.WriteFile(source, []byte(docBlock(t, string(text), "clients.go")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("building the program of docs/API.md: %v\n%s", err, out)
	}
	k := newKillable(t)
	k.start()
	try := func(url string) (string, error) {
		dev := k.dev.Load()
		out, err := exec.CommandContext(t.Context(), program, url, dev.CACert, dev.Clients["switch"].Cert, dev.Clients["switch"].Key).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := try(k.dev.Load().APIURL); err != nil || out != devMAC {
		t.Errorf("the program: %v, %q", err, out)
	}
	var exit *exec.ExitError
	if out, err := try(""); !errors.As(err, &exit) || !strings.Contains(out, "no endpoint") {
		t.Errorf("without an endpoint: %v, %q", err, out)
	}
	k.stop()
	k.edit("region", `"xx-other-1"`)
	k.start()
	if out, err := try(k.dev.Load().APIURL); !errors.As(err, &exit) || !strings.Contains(out, "is not keyd's") {
		t.Errorf("against another region: %v, %q", err, out)
	}
	k.stop()
}

// TestDocsNameOperations: docs/API.md says of every operation what it does here.
func TestDocsNameOperations(t *testing.T) {
	text, err := os.ReadFile("../../docs/API.md")
	if err != nil {
		t.Fatal(err)
	}
	_, operations, _ := strings.Cut(string(text), "\n## 3. Who may do what\n")
	for _, op := range api.Operations() {
		if !strings.Contains(operations, "`"+op.Name+"`") {
			t.Errorf("docs/API.md does not name `%s`", op.Name)
		}
	}
	for _, name := range api.Unserved() {
		if !strings.Contains(operations, "`"+name+"`") {
			t.Errorf("docs/API.md does not say that `%s` is not served", name)
		}
	}
}
