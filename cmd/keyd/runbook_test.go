package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runbook is section 7 of docs/OPERATIONS.md: the text of the entry of each
// anchor, and the lines of the operator's log that it names.
func runbook(t *testing.T) (entries map[string]string, lines map[string]bool) {
	t.Helper()
	text := readText(t, operationsDoc)
	from, to := strings.Index(text, "\n## 7. "), strings.Index(text, "\n## 8. ")
	if from < 0 || to < from {
		t.Fatal("docs/OPERATIONS.md has no section 7 before section 8")
	}
	entries, lines = make(map[string]string), make(map[string]bool)
	anchor := regexp.MustCompile(`<a id="(\w+)"></a>`)
	for section := range strings.SplitSeq(text[from:to], "\n### ") {
		head, _, _ := strings.Cut(section, "\n")
		for _, m := range anchor.FindAllStringSubmatch(head, -1) {
			if entries[m[1]] != "" {
				t.Errorf("anchor %s stands twice", m[1])
			}
			entries[m[1]] = section
		}
		for _, m := range quotedRun.FindAllStringSubmatch(section, -1) {
			lines[m[1]] = true
		}
	}
	return entries, lines
}

// TestRunbook: each alarm in the source and each alert has an entry that says
// what it means, how to see it, what to do and when to escalate; no entry is of
// something that is gone.
func TestRunbook(t *testing.T) {
	entries, lines := runbook(t)
	want := make(map[string]bool)
	source := parsed(t)
	codes := alarmCodes(t, source)
	for code := range codes {
		want[code] = true
	}
	for _, r := range alertRules(t) {
		want[r.name] = true
		if _, at, _ := strings.Cut(r.runbook, "docs/OPERATIONS.md#"); at != r.name && at != "{{ $labels.code }}" {
			t.Errorf("%s points to %s, not to its entry", r.name, r.runbook)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(entries))); diff != "" {
		t.Errorf("anchors of the runbook (-alarms and alerts +entries):\n%s", diff)
	}
	for name, entry := range entries {
		for _, part := range []string{"- **Means.** ", "- **See.** ", "- **Do.** ", "- **Escalate.** "} {
			if !strings.Contains(entry, part) {
				t.Errorf("the entry of %s lacks %s", name, part)
			}
		}
	}
	counted := make(map[string]bool)
	for code := range alarmLevels() {
		counted[code] = true
	}
	if diff := cmp.Diff(codes, counted); diff != "" {
		t.Errorf("alarmLevels (-source +table):\n%s", diff)
	}
	for _, line := range errorLines(source) {
		if !lines[line] {
			t.Errorf("the operator's log can have the line %q, and the runbook does not name it", line)
		}
	}
}

// sourceFile is a file of the program.
type sourceFile struct {
	path   string
	syntax *ast.File
}

// parsed reads the source of what a daemon is made of.
func parsed(t *testing.T) []sourceFile {
	t.Helper()
	var all []sourceFile
	for _, root := range []string{".", "../../internal", "../../audit"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "sim"):
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			all = append(all, sourceFile{path, f})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// alarmCodes collects the codes of all alarms: the literals in composite
// literals of type Alarm, the constants that stand there, and what a suffix
// makes of the codes of limit notices.
func alarmCodes(t *testing.T, source []sourceFile) map[string]bool {
	t.Helper()
	constants, notices := make(map[string]string), make(map[string]bool)
	for _, f := range source {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if len(n.Names) == 1 && len(n.Values) == 1 {
					if text, ok := literal(n.Values[0]); ok {
						constants[n.Names[0].Name] = text
					}
				}
			case *ast.CompositeLit:
				if typeName(n.Type) == "limitNotice" {
					code, _ := literal(member(n, "code", 2))
					notices[code] = true
				}
			}
			return true
		})
	}
	codes := make(map[string]bool)
	add := func(where string, e ast.Expr) {
		if text, ok := literal(e); ok {
			codes[text] = true
			return
		}
		switch e := e.(type) {
		case *ast.Ident:
			if text := constants[e.Name]; text != "" {
				codes[text] = true
			} // else a parameter: its callers pass the constants below
			return
		case *ast.BinaryExpr:
			if suffix, ok := literal(e.Y); ok {
				for notice := range notices {
					codes[notice+suffix] = true
				}
				return
			}
		}
		t.Errorf("%s: the code of an alarm is neither a text nor a constant", where)
	}
	for _, f := range source {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if typeName(n.Type) == "Alarm" && len(n.Elts) > 0 {
					add(f.path, member(n, "Code", 0))
				}
			case *ast.ValueSpec: // constants of codes that parameters carry
				for _, name := range n.Names {
					if text := constants[name.Name]; strings.HasPrefix(name.Name, "alarm") && text != "" {
						codes[text] = true
					}
				}
			}
			return true
		})
	}
	return codes
}

// member is an element of a composite literal, by its key or its place.
func member(n *ast.CompositeLit, key string, place int) ast.Expr {
	for i, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == key {
				return kv.Value
			}
		} else if i == place {
			return e
		}
	}
	return nil
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func literal(e ast.Expr) (string, bool) {
	b, ok := e.(*ast.BasicLit)
	if !ok || b.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(b.Value)
	return text, err == nil
}

// errorLines are the messages of the operator's log of level ERROR.
func errorLines(source []sourceFile) []string {
	found := make(map[string]bool)
	for _, f := range source {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || method.Sel.Name != "Error" || !strings.EqualFold(typeName(method.X), "log") {
				return true
			}
			if text, ok := literal(call.Args[0]); ok {
				found[text] = true
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}
