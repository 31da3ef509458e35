package audit

import (
	"go/ast"
	goparser "go/parser"
	gotoken "go/token"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports is L-03: the standard library and two packages of x/mod.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"keyd.dev/keyd/audit", "golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog"}
	for _, path := range strings.Fields(string(out)) {
		// tlog brings two small packages of the same module along.
		if !slices.Contains(allowed, path) && !strings.HasPrefix(path, "golang.org/x/mod/internal/") && path != "golang.org/x/mod/module" && path != "golang.org/x/mod/semver" {
			t.Errorf("L-03: %s is imported", path)
		}
	}
	sum, err := os.ReadFile("../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sum), "transparency-dev/tessera") {
		t.Error("L-03: Tessera is in go.sum")
	}
}

// TestClosedEncoder is L-73: the files that write records use no map, no any,
// no reflection and no formatting.
func TestClosedEncoder(t *testing.T) {
	files := []string{"record.go", "encode.go", "members.go", "text.go", "scan.go", "valid.go"}
	for _, name := range files {
		fset := gotoken.NewFileSet()
		f, err := goparser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range f.Imports {
			switch imp.Path.Value {
			case `"encoding/json"`, `"reflect"`, `"text/template"`:
				t.Errorf("L-73: %s imports %s", name, imp.Path.Value)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.MapType, *ast.InterfaceType:
				t.Errorf("L-73: %v: %T", fset.Position(n.Pos()), n)
			case *ast.Ident:
				if n.Name == "any" && name != "encode.go" || n.Name == "error" && name == "members.go" {
					t.Errorf("L-73: %v: %s", fset.Position(n.Pos()), n.Name)
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "fmt" && n.Sel.Name != "Errorf" {
					t.Errorf("L-73: %v: fmt.%s", fset.Position(n.Pos()), n.Sel.Name)
				}
			case *ast.BasicLit:
				if n.Kind == gotoken.STRING && strings.Contains(n.Value, "%v") && name != "encode.go" {
					t.Errorf("L-73: %v: %s", fset.Position(n.Pos()), n.Value)
				}
			}
			return true
		})
	}
}

// TestNoDegradedMode is L-65 and L-137: no option starts a log whose check
// failed or works without one.
func TestNoDegradedMode(t *testing.T) {
	f, err := goparser.ParseFile(gotoken.NewFileSet(), "options.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.Field)
		if !ok {
			return true
		}
		for _, id := range s.Names {
			for _, word := range []string{"disable", "skip", "force", "besteffort", "ignore", "degraded", "unsafe", "optional"} {
				if strings.Contains(strings.ToLower(id.Name), word) {
					t.Errorf("L-137: option %s", id.Name)
				}
			}
		}
		return true
	})
}
