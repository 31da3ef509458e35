package sim

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// flushes is a disk that notes what is made durable, below a folder.
type flushes struct {
	under string
	seen  []string
}

func (f *flushes) disk(t *testing.T) disk {
	return disk{func(file *os.File) error {
		name, err := filepath.Rel(f.under, file.Name())
		if err != nil {
			t.Error(err)
		}
		f.seen = append(f.seen, name)
		return file.Sync()
	}}
}

// took returns what was flushed since it was last asked.
func (f *flushes) took() []string {
	defer func() { f.seen = nil }()
	return f.seen
}

// TestFolderIsDurable: a power loss takes neither the folder, whose name stands in
// the one above, nor what a terminal wrote (U-57).
func TestFolderIsDurable(t *testing.T) {
	f := &flushes{under: t.TempDir()}
	path := filepath.Join(f.under, "shop", "till")
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, f.took()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	for _, what := range []struct {
		name string
		want []string
	}{
		{"made with the folder above", []string{"shop", "."}},
		{"there: who made it may have lost the power before", []string{"shop"}},
	} {
		dir, err := openFolder(path, f.disk(t))
		if err != nil {
			t.Fatal(err)
		}
		check(what.name, what.want...)
		if err := dir.save(new(State)); err != nil {
			t.Fatal(err)
		}
		check("the state", "shop/till/terminal.json.new", "shop/till")
		if err := dir.print(Slip{STAN: "000001"}); err != nil {
			t.Fatal(err)
		}
		check("a slip, before the state forgets it", "shop/till/slips.jsonl")
		if err := dir.reprint(Slip{STAN: "000001"}); err != nil {
			t.Fatal(err)
		}
		check("a slip that a killed process wrote", "shop/till/slips.jsonl")
		if err := dir.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInheritIsDurable: the counters that an earlier version kept are never lost
// between two folders.
func TestInheritIsDurable(t *testing.T) {
	f := &flushes{under: t.TempDir()}
	old, path := filepath.Join(f.under, "till.json"), filepath.Join(f.under, "till")
	if err := os.WriteFile(old, []byte(`{"stan":6}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{{".", "till", "."}, nil} {
		if err := f.disk(t).inherit(old, path); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.took()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got, err := ReadState(path); err != nil || got.STAN != 6 {
		t.Errorf("%+v, %v", got, err)
	}
}
