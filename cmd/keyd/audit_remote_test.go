package main

import (
	"io"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/audit"
)

// TestL180FollowElsewhere: a command that goes on brings its copy up to date, and
// has a reading that ended recorded and opened anew.
func TestL180FollowElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	r := startDev(t, dir, "--no-sim")
	defer r.stop()
	p := &program{ctx: t.Context(), stderr: io.Discard, stdout: io.Discard}
	follower := auditDoor{Dev: dir, As: "auditor", Mirror: filepath.Join(t.TempDir(), "copy")}
	copied, err := follower.open(p, auditRead{Command: audit.QueryList, Filter: "action=log.*"})
	if err != nil {
		t.Fatal(err)
	}
	size := func() uint64 {
		reader, err := audit.OpenReader(copied)
		if err != nil {
			t.Fatal(err)
		}
		covered, _, err := reader.Size("sec")
		if err != nil {
			t.Fatal(err)
		}
		return covered
	}
	first, began := size(), follower.remote.seq
	if first <= began {
		t.Fatalf("the copy ends at %d, before the record of its own reading, %d", first, began)
	}
	follower.remote.reading = "AAAAAAAAAAAAAAAAAAAAAAAAAA"
	poll(t, "the record of a later reading", func() bool {
		if err := follower.refresh(p.ctx); err != nil {
			t.Fatal(err)
		}
		return size() > follower.remote.seq && follower.remote.seq > began
	})
}
