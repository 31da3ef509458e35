package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "keyd.dev/keyd/"

// source is one Go file outside the tests.
type source struct {
	path    string // relative to the root
	pkg     string // folder, relative to the root
	imports []string
	file    *ast.File
}

// sources parses every Go file of the project.
func sources(t *testing.T, tests bool) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || isModule(path, root)) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") != tests {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if filepath.Dir(rel) == "." {
			return nil
		}
		s := source{path: filepath.ToSlash(rel), pkg: filepath.ToSlash(filepath.Dir(rel)), file: file}
		for _, imp := range file.Imports {
			s.imports = append(s.imports, strings.Trim(imp.Path.Value, `"`))
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d files found: the walk is wrong", len(all))
	}
	return all
}

// isModule reports whether a folder below the root is a module of its own.
func isModule(path, root string) bool {
	if path == root {
		return false
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

// ours is an import of this project, without the module, or "".
func ours(path string) string {
	rest, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	return rest
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && path != "C"
}

func under(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// TestPureArithmetic is rule 1: keys, dukpt, pin and mac are arithmetic.
func TestPureArithmetic(t *testing.T) {
	forbidden := []string{"net", "os", "database", "context", "log", "syscall", "plugin"}
	for _, s := range sources(t, false) {
		room, _, _ := strings.Cut(s.pkg, "/")
		if !slices.Contains([]string{"keys", "dukpt", "pin", "mac"}, room) {
			continue
		}
		for _, imp := range s.imports {
			own := ours(imp)
			switch {
			case own == "internal/secret", own == "keys" && slices.Contains([]string{"keys/tr31", "keys/unionpay"}, s.pkg):
			case !standard(imp):
				t.Errorf("%s imports %s; package %s may import the standard library and internal/secret only", s.path, imp, s.pkg)
			default:
				for _, f := range forbidden {
					if under(imp, f) {
						t.Errorf("%s imports %s; package %s reaches nothing outside the process", s.path, imp, s.pkg)
					}
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && sel.Sel.Name == "Now" {
					t.Errorf("%s reads the clock; package %s may not", s.path, s.pkg)
				}
			}
			return true
		})
	}
}

// TestImports holds rules 2 to 7, each as a table row.
func TestImports(t *testing.T) {
	rules := []struct {
		name    string
		applies func(pkg string) bool
		allowed func(imp, own string) bool
	}{
		{
			"L-03 audit: standard library and tlog, note",
			func(pkg string) bool { return under(pkg, "audit") },
			func(imp, own string) bool {
				return standard(imp) || imp == "golang.org/x/mod/sumdb/tlog" || imp == "golang.org/x/mod/sumdb/note"
			},
		},
		{
			"only internal/hsm imports miekg/pkcs11, C and unsafe",
			func(pkg string) bool { return pkg != "internal/hsm" },
			func(imp, own string) bool {
				return imp != "github.com/miekg/pkcs11" && imp != "C" && imp != "unsafe"
			},
		},
		{
			"internal/hsm: of ours keys and secret alone",
			func(pkg string) bool { return pkg == "internal/hsm" },
			func(imp, own string) bool { return own == "" || own == "keys" || own == "internal/secret" },
		},
		{
			"custody declares what it needs of the boundary, the store, and its users",
			func(pkg string) bool { return pkg == "internal/custody" },
			func(imp, own string) bool {
				return !slices.Contains([]string{"internal/hsm", "internal/store", "internal/api", "internal/isoswitch", "internal/iso8583"}, own)
			},
		},
		{
			"ceremonies speak custody",
			func(pkg string) bool { return pkg == "internal/ceremony" },
			func(imp, own string) bool {
				return !slices.Contains([]string{"internal/hsm", "internal/store", "internal/api", "internal/isoswitch", "internal/iso8583", "pin", "mac", "dukpt"}, own)
			},
		},
		{
			"api and isoswitch speak custody",
			func(pkg string) bool { return pkg == "internal/api" || pkg == "internal/isoswitch" },
			func(imp, own string) bool {
				return !slices.Contains([]string{"internal/hsm", "pin", "mac", "dukpt", "internal/store", "internal/secret"}, own)
			},
		},
		{
			"hook speaks custody",
			func(pkg string) bool { return pkg == "internal/hook" },
			func(imp, own string) bool {
				return own == "" || slices.Contains([]string{"audit", "keys", "internal/custody"}, own)
			},
		},
		{
			"L-16 siem reads the log as any reader does",
			func(pkg string) bool { return pkg == "internal/siem" },
			func(imp, own string) bool { return own == "" || own == "audit" },
		},
		{
			"api does not import isoswitch",
			func(pkg string) bool { return pkg == "internal/api" },
			func(imp, own string) bool { return own != "internal/isoswitch" && own != "internal/iso8583" },
		},
		{
			"isoswitch does not import api",
			func(pkg string) bool { return pkg == "internal/isoswitch" },
			func(imp, own string) bool { return own != "internal/api" },
		},
		{
			"iso8583 never sees a key nor a socket",
			func(pkg string) bool { return pkg == "internal/iso8583" },
			func(imp, own string) bool { return own == "" && imp != "net" && imp != "crypto/tls" },
		},
		{
			"profiles describe: no key, no socket, no decision",
			func(pkg string) bool { return pkg == "internal/profile" || pkg == "internal/tomlfile" },
			func(imp, own string) bool {
				return (own == "" || own == "internal/iso8583" || own == "internal/tomlfile") && imp != "net" && imp != "crypto/tls"
			},
		},
		{
			"store never sees PIN blocks, MACs or the token",
			func(pkg string) bool { return pkg == "internal/store" },
			func(imp, own string) bool {
				return !slices.Contains([]string{"pin", "mac", "dukpt", "internal/hsm", "internal/secret", "internal/api"}, own)
			},
		},
		{
			"only internal/credentials/vault speaks to Vault",
			func(pkg string) bool { return !under(pkg, "internal/credentials") },
			func(imp, own string) bool { return !strings.HasPrefix(imp, "github.com/hashicorp/vault/") },
		},
		{
			"a Vault server is for tests",
			func(string) bool { return true },
			func(imp, own string) bool { return own != "internal/credentials/vaulttest" },
		},
		{
			"the search index reads the log, and nothing else of ours",
			func(pkg string) bool { return pkg == "internal/logindex" },
			func(imp, own string) bool { return standard(imp) || own == "audit" },
		},
		{
			"nobody imports the program",
			func(string) bool { return true },
			func(imp, own string) bool { return !under(own, "cmd") || own == "" },
		},
		{
			"software keys are for tests",
			func(pkg string) bool { return pkg != "internal/vectors" },
			func(imp, own string) bool { return own != "internal/softkey" },
		},
		{
			"the simulators are for the program alone",
			func(pkg string) bool { return pkg != "cmd/keyd" && pkg != "internal/sim" },
			func(imp, own string) bool { return own != "internal/sim" },
		},
		{
			"A-05 and rule 8: no math/rand",
			func(string) bool { return true },
			func(imp, own string) bool { return imp != "math/rand" && imp != "math/rand/v2" },
		},
	}
	files := sources(t, false)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			checked := 0
			for _, s := range files {
				if !rule.applies(s.pkg) {
					continue
				}
				checked++
				for _, imp := range s.imports {
					if !rule.allowed(imp, ours(imp)) {
						t.Errorf("%s imports %s", s.path, imp)
					}
				}
			}
			if checked == 0 {
				t.Error("the rule applies to no file")
			}
		})
	}
}

// TestReveal: only custody and ceremonies, the boundary that must hand values
// to the module, backups, whose library takes the file's key as bytes, and
// arithmetic may look inside a secret.
func TestReveal(t *testing.T) {
	may := []string{"internal/backup", "internal/custody", "internal/ceremony", "internal/hsm", "internal/secret", "keys", "keys/tr31", "dukpt", "pin", "mac", "internal/softkey", "internal/vectors"}
	for _, s := range sources(t, false) {
		if slices.Contains(may, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" && !isCustody(sel) {
				t.Errorf("%s looks inside a secret", s.path)
			}
			return true
		})
	}
}

// isCustody tells custody's Reveal of card data from that of a secret: it is
// called on something named custody.
func isCustody(sel *ast.SelectorExpr) bool {
	switch x := sel.X.(type) {
	case *ast.Ident:
		return strings.Contains(strings.ToLower(x.Name), "custody")
	case *ast.SelectorExpr:
		return strings.Contains(strings.ToLower(x.Sel.Name), "custody")
	}
	return false
}

// TestConstantTime (A-05.T1): check values and MACs are compared in constant
// time, so the packages that hold them call no comparison that stops early.
func TestConstantTime(t *testing.T) {
	t.Run("A-05.T1 nothing stops early", constantTime)
}

func constantTime(t *testing.T) {
	for _, s := range sources(t, false) {
		if !slices.Contains([]string{"mac", "internal/custody", "internal/hsm"}, s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if fn, ok := n.(*ast.FuncDecl); ok && fn.Name.Name == "sameBlock" {
				return false // two stored blocks, public in all their parts
			}
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "bytes" && sel.Sel.Name == "Equal" || x.Name == "strings" && sel.Sel.Name == "EqualFold") {
				t.Errorf("%s compares with %s.%s", s.path, x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}

// TestNoInit (rule 7): no init functions.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t, false) {
		for _, decl := range s.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// TestNoMarks: nothing unfinished, and no test that is quietly skipped.
func TestNoMarks(t *testing.T) {
	for _, tests := range []bool{false, true} {
		for _, s := range sources(t, tests) {
			for _, group := range s.file.Comments {
				for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
					if strings.Contains(group.Text(), mark) {
						t.Errorf("%s has a comment with %s", s.path, mark)
					}
				}
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, "Skip") && tests {
					if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b" || x.Name == "tb" || x.Name == "rt") {
						t.Errorf("%s skips a test", s.path)
					}
				}
				return true
			})
		}
	}
}

// TestErasedRegions (C-15): a call into C inside secret.Do ends the process in a
// build that erases, so that only arithmetic enters it.
func TestErasedRegions(t *testing.T) {
	pure := []string{"keys", "dukpt", "pin", "mac", "internal/secret"}
	found := 0
	for _, s := range sources(t, false) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Do" {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "secret" {
				found++
				if !slices.ContainsFunc(pure, func(p string) bool { return under(s.pkg, p) }) {
					t.Errorf("%s enters the erased region; only packages that cannot reach the token may", s.path)
				}
			}
			return true
		})
	}
	if found == 0 {
		t.Error("nothing enters the erased region: the rule applies to no file")
	}
}

// TestNoMemguard (C-16): it costs 38 µs and a locked page each, and it panics at
// the limit of locked memory.
func TestNoMemguard(t *testing.T) {
	for _, tests := range []bool{false, true} {
		for _, s := range sources(t, tests) {
			for _, imp := range s.imports {
				if strings.Contains(imp, "memguard") {
					t.Errorf("%s imports %s", s.path, imp)
				}
			}
		}
	}
	modules, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil || strings.Contains(string(modules), "memguard") {
		t.Errorf("go.mod names memguard: %v", err)
	}
}

// TestSandbox: what can take the process from itself stands in one room.
func TestSandbox(t *testing.T) {
	for _, s := range sources(t, false) {
		for _, imp := range s.imports {
			if strings.HasPrefix(imp, "github.com/landlock-lsm/") && s.pkg != "internal/sandbox" {
				t.Errorf("%s imports %s; internal/sandbox alone may", s.path, imp)
			}
		}
	}
}
