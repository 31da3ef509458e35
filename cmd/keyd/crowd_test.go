package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"keyd.dev/keyd/audit"
)

// records reads all records of a daemon that has ended.
func (c *crowd) records(t *testing.T, see func(action string, raw []byte)) {
	t.Helper()
	reader, err := audit.OpenReader(filepath.Join(c.k.dir, "audit"))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := reader.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		for entry, err := range reader.Records(log, 0) {
			if err != nil {
				t.Fatal(err)
			}
			var r struct{ Action string }
			if err := json.Unmarshal(entry.Raw, &r); err != nil {
				t.Fatal(err)
			}
			see(r.Action, entry.Raw)
		}
	}
}
