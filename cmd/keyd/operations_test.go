package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

const (
	contentsBegin = "<!-- contents: made from the headings; KEYD_UPDATE_GOLDEN=1 go test ./cmd/keyd -run TestOperationsContents -->\n\n"
	contentsEnd   = "\n<!-- end of contents -->\n"
)

// TestOperationsContents: the table of contents of docs/OPERATIONS.md names its
// sections, in their order and with the anchors that they have on the web.
func TestOperationsContents(t *testing.T) {
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), contentsBegin)
	was, after, closed := strings.Cut(rest, contentsEnd)
	if !ok || !closed {
		t.Fatal("the two lines between which the contents stand are gone")
	}
	var made strings.Builder
	for i, m := range regexp.MustCompile(`(?m)^## (\d+)\. (.+)$`).FindAllStringSubmatch(after, -1) {
		if m[1] != fmt.Sprint(i+1) {
			t.Errorf("section %q has the number %s, want %d", m[2], m[1], i+1)
		}
		fmt.Fprintf(&made, "%s. [%s](#%s)\n", m[1], m[2], anchorOf(m[1]+". "+m[2]))
	}
	if os.Getenv("KEYD_UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile(referenceFile, []byte(before+contentsBegin+made.String()+contentsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		was = made.String()
	}
	if diff := cmp.Diff(was, made.String()); diff != "" {
		t.Errorf("the contents are not those of the headings (-file +made); KEYD_UPDATE_GOLDEN=1 writes them:\n%s", diff)
	}
}

// anchorOf is the anchor that a heading gets: lower case, words joined by
// dashes, everything else left out.
func anchorOf(heading string) string {
	heading = strings.ReplaceAll(strings.ToLower(heading), " ", "-")
	return regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(heading, "")
}

// TestOperationsNamesCommands: the table of commands in docs/OPERATIONS.md has a row
// for every command, and for those below one, their group.
func TestOperationsNamesCommands(t *testing.T) {
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(&cli{}, kong.Name(programName))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `[^|]+ \\|").FindAllString(string(text), -1)
	for _, leaf := range parser.Model.Leaves(true) {
		if leaf.Parent.DefaultCmd == leaf {
			leaf = leaf.Parent
		}
		words := strings.Fields(leaf.FullPath())[1:]
		first := regexp.MustCompile("`" + words[0] + `\b`)
		second := regexp.MustCompile("")
		if len(words) > 1 {
			second = regexp.MustCompile("[` ]" + words[1] + `\b`)
		}
		if !slices.ContainsFunc(rows, func(row string) bool { return first.MatchString(row) && second.MatchString(row) }) {
			t.Errorf("the table of commands does not name %q", strings.Join(words, " "))
		}
	}
}
