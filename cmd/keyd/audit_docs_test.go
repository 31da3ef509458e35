package main

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
)

// TestAuditDocs: docs/AUDIT.md names every action and every member of a record,
// says with the claims what they do not hold for (L-02), and every block of its
// commands stands in a script that runs them.
func TestAuditDocs(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	doc := read("../../docs/AUDIT.md")
	script := read("testdata/script/audit_docs.txtar") + read("testdata/script/audit_remote_pruned.txtar")
	blocks := 0
	for part := range strings.SplitSeq(doc, "```") {
		if text, ok := strings.CutPrefix(part, "sh\n"); ok {
			blocks++
			if !strings.Contains(script, ".sh --\n"+text) {
				t.Errorf("no script runs\n%s", text)
			}
		}
	}
	if blocks < 5 {
		t.Errorf("only %d blocks of commands found", blocks)
	}
	for a := audit.Action(1); a.String() != "?"; a++ {
		if !strings.Contains(doc, "\n| `"+a.String()+"` |") {
			t.Errorf("L-80 the action %v is not explained", a)
		}
	}
	for _, member := range members(t, read("../../audit/testdata/actions.jsonl")) {
		if !strings.Contains(doc, "`"+member+"`") {
			t.Errorf("L-73 the member %s is not explained", member)
		}
	}
	_, claims, _ := strings.Cut(doc, "## 1. ")
	claims, _, _ = strings.Cut(claims, "\n## ")
	for _, limit := range []string{"last second", "did not write", "second history", "time", "disk that lies", "very last batch"} {
		if !strings.Contains(claims, limit) {
			t.Errorf("L-02 L-32 section 1 does not say: %s", limit)
		}
	}
}

// members are the members of records, as the table of the documentation names
// them: those of an object behind a dot, those of an array's elements too.
func members(t *testing.T, records string) []string {
	t.Helper()
	found := make(map[string]bool)
	for line := range strings.Lines(records) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		membersOf("", record, found)
	}
	return slices.Sorted(maps.Keys(found))
}

func membersOf(path string, value any, found map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			membersOf(strings.TrimPrefix(path+"."+name, "."), member, found)
		}
	case []any:
		for _, element := range v {
			membersOf(path, element, found)
		}
	default:
		found[path] = true
	}
}
