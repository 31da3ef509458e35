package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"
)

// TestStartDoesNotReadTheJournal: what a daemon reads until it is ready does not
// grow with what is journalled: 30,000 originals and 1,000 reversals that wait,
// against 6,000 with as many, which lie as far apart: each in a page of its own.
// Each is the first start of a node, since a later one reads what the audit log
// kept of the sales in between. Its time does not grow either, then; what 1,000,000
// take, `keyd bench journal` measures.
func TestStartDoesNotReadTheJournal(t *testing.T) {
	small, large := firstStart(t, "6000"), firstStart(t, "30000")
	t.Logf("%.0f MB read to start with %d originals in %.0f MB, %.0f MB with %d in %.0f MB", small.Read, small.Rows, small.Database, large.Read, large.Rows, large.Database)
	if small.Read == 0 || large.Database < 25 {
		t.Fatalf("nothing was measured: %+v, %+v", small, large)
	}
	if more := large.Read - small.Read; more > large.Database/4 {
		t.Errorf("the start with the larger journal read %.0f MB more, of a database of %.0f MB", more, large.Database)
	}
	if large.Start > 30*time.Second {
		t.Errorf("it was ready after %v", large.Start)
	}
}

// firstStart is what a new node with so many originals needs to start.
func firstStart(t *testing.T, rows string) (found laden) {
	t.Helper()
	cmd := keydCommand(t.Context(), "bench", "journal", "--json", "--rows", rows,
		"--pending", "1000", "--duration", "200ms", "--dir", filepath.Join(t.TempDir(), "bench"))
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v:\n%s", err, said.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	return found
}
