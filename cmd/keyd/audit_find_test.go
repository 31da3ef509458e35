package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// story FILE wants the table on standard output to have these actions, in this
// order.
func cmdStory(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: story FILE")
	}
	var got []string
	inTable := false
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		switch words := strings.Fields(line); {
		case strings.HasPrefix(line, "TIME "):
			inTable = true
		case inTable && len(words) > 3:
			got = append(got, words[3])
		}
	}
	if diff := cmp.Diff(strings.Fields(ts.ReadFile(args[0])), got); diff != "" {
		ts.Fatalf("the story (-want +got):\n%s", diff)
	}
}

// keyof VARIABLE sets a variable to the first key of the first record on standard
// output, lines of `keyd audit find --json`.
func cmdKeyOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keyof VARIABLE")
	}
	line, _, _ := strings.Cut(ts.ReadFile("stdout"), "\n")
	var row struct {
		Record struct {
			Keys []foundKey `json:"keys"`
		} `json:"record"`
	}
	ts.Check(json.Unmarshal([]byte(line), &row))
	if len(row.Record.Keys) == 0 {
		ts.Fatalf("no key in %s", line)
	}
	ts.Setenv(args[0], row.Record.Keys[0].ID)
}

func TestKeyTrackForms(t *testing.T) {
	const id = "kz0pttxlkb7rsqrm7hth9cs1ft7tqruo"
	tests := []struct{ name, key, alias, id string }{
		{"alias", "alias/shop/mac", "alias/shop/mac", ""},
		{"id", id, "", id},
		{"short form", "key/" + id, "", id},
		{"ARN of a key", "arn:aws:payment-cryptography:xx-keyd-1:000000000000:key/" + id, "", id},
		{"ARN of an alias", "arn:aws:payment-cryptography:xx-keyd-1:000000000000:alias/shop/mac", "alias/shop/mac", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			track, err := newKeyTrack(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			if track.alias != tt.alias || tt.id != "" && !track.ids[tt.id] {
				t.Errorf("alias %q, keys %v", track.alias, track.ids)
			}
		})
	}
	for _, bad := range []string{"", "key/", "Shop", "arn:aws", "key/../x"} {
		if _, err := newKeyTrack(bad); err == nil {
			t.Errorf("%q was taken for a key", bad)
		}
	}
}

func TestNamesWholeParts(t *testing.T) {
	tests := []struct {
		object, part string
		want         bool
	}{
		{"terminal/T0000001", "terminal/T0000001", true},
		{"terminal/T0000001", "T0000001", true},
		{"terminal/T00000011", "terminal/T0000001", false},
		{"CreateKey/4FGDS86TZ5/a-new-key", "4FGDS86TZ5", true},
		{"CreateKey/4FGDS86TZ5/a-new-key", "a-new", false},
	}
	for _, tt := range tests {
		if got := names(tt.object, tt.part); got != tt.want {
			t.Errorf("names(%q, %q) = %v", tt.object, tt.part, got)
		}
	}
}
