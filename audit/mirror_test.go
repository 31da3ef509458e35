package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// publisher publishes a log's directory; edit may change or hide (nil) a file.
type publisher struct {
	r       *Reader
	edit    func(log, path string, data []byte) ([]byte, error)
	fetched int
}

func (p *publisher) Published(_ context.Context, log string, paths []string) ([][]byte, error) {
	out := make([][]byte, len(paths))
	for i, path := range paths {
		data, err := p.r.Published(log, path)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if p.edit != nil {
			if data, err = p.edit(log, path, data); err != nil {
				return nil, err
			}
		}
		if out[i] = data; data != nil {
			p.fetched++
		}
	}
	return out, nil
}

// checkCopy verifies a copy and compares its records with those of the log.
func checkCopy(t *testing.T, dir string, of fileSystem) {
	t.Helper()
	report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
	if err != nil || !report.OK() {
		t.Fatalf("L-141 of the copy: %v, %v", err, report.Findings)
	}
	theirs, ours := &Reader{of}, &Reader{osFS(dir)}
	logs, err := theirs.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		covered, _, err := theirs.Size(log)
		if err != nil {
			t.Fatal(err)
		}
		if size, _, err := ours.Size(log); err != nil || size != covered {
			t.Fatalf("%s of the copy has %d records, %v; want %d", log, size, err, covered)
		}
		for _, seq := range []uint64{0, covered / 2, covered - 1} {
			want, err := theirs.Get(log, seq)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ours.Get(log, seq); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s:%d of the copy: %v", log, seq, err)
			}
		}
	}
}

// filesOf reads a whole directory, without what changes by itself.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMirror(t *testing.T) {
	older, log := closedLog(t, 450)

	t.Run("L-146 a copy of nothing, then of more", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "copy")
		first := &publisher{r: &Reader{older}}
		if _, err := Mirror(t.Context(), dir, first); err != nil {
			t.Fatal(err)
		}
		checkCopy(t, dir, older)
		again := &publisher{r: &Reader{older}}
		if _, err := Mirror(t.Context(), dir, again); err != nil {
			t.Fatal(err)
		}
		if logs, _ := again.r.Logs(); again.fetched > 1+len(logs) {
			t.Errorf("%d files were fetched again for a copy that is up to date", again.fetched)
		}
		next := &publisher{r: &Reader{log}}
		done, err := Mirror(t.Context(), dir, next)
		if err != nil {
			t.Fatal(err)
		}
		checkCopy(t, dir, log)
		if done[0].Had == 0 || done[0].Size <= done[0].Had {
			t.Errorf("sec grew from %d to %d", done[0].Had, done[0].Size)
		}
		whole := &publisher{r: &Reader{log}}
		if _, err := Mirror(t.Context(), filepath.Join(t.TempDir(), "whole"), whole); err != nil {
			t.Fatal(err)
		}
		if next.fetched >= whole.fetched {
			t.Errorf("%d files for what is new, %d for all", next.fetched, whole.fetched)
		}
	})

	t.Run("a run that was interrupted goes on", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "copy")
		cut := errors.New("the line is down")
		for after := 1; ; after++ {
			p := &publisher{r: &Reader{log}}
			left := after * 3
			p.edit = func(_, _ string, data []byte) ([]byte, error) {
				if left--; left < 0 {
					return nil, cut
				}
				return data, nil
			}
			_, err := Mirror(t.Context(), dir, p)
			if err == nil {
				break
			}
			if !errors.Is(err, cut) {
				t.Fatalf("round %d: %v", after, err)
			}
		}
		checkCopy(t, dir, log)
	})

	t.Run("a partial tile that is gone by now is cut from the full one", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "copy")
		stale := &publisher{r: &Reader{log}}
		before := &Reader{older}
		stale.edit = func(log, path string, data []byte) ([]byte, error) {
			if log == "sec" && path == "checkpoint" {
				return before.Published(log, path)
			}
			if strings.Contains(path, ".p/") && log == "sec" {
				return nil, nil
			}
			return data, nil
		}
		if mustSize(t, older, "sec")/tileWidth >= mustSize(t, log, "sec")/tileWidth {
			t.Fatalf("the log must have filled the tile: %d and %d records", mustSize(t, older, "sec"), mustSize(t, log, "sec"))
		}
		if _, err := Mirror(t.Context(), dir, stale); err != nil {
			t.Fatal(err)
		}
		if got, want := mustSize(t, osFS(dir), "sec"), mustSize(t, older, "sec"); got != want {
			t.Errorf("the copy of sec has %d records, want %d", got, want)
		}
		if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}}); err != nil {
			t.Fatal(err)
		}
		checkCopy(t, dir, log)
	})
}

func mustSize(t *testing.T, fsys fileSystem, log string) uint64 {
	t.Helper()
	size, _, err := (&Reader{fsys}).Size(log)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// TestMirrorRefuses: whatever a publisher changes, the copy stays as it was.
func TestMirrorRefuses(t *testing.T) {
	older, log := closedLog(t, 450)
	_, other := closedLog(t, 451)
	flip := func(data []byte) []byte {
		if len(data) == 0 {
			return data
		}
		b := bytes.Clone(data)
		b[len(b)/2] ^= 1
		return b
	}
	tests := []struct {
		name string
		from fileSystem
		edit func(log, path string, data []byte) ([]byte, error)
		want error
		rule string
	}{
		{"L-193 an older copy was restored", older, nil, ErrRollback, "L-"},
		{"L-193 another history of the same name", other, nil, ErrRollback, "L-54"},
		{"L-193 no checkpoint any more", log, func(l, path string, data []byte) ([]byte, error) {
			if l == "sec" && path == "checkpoint" {
				return nil, nil
			}
			return data, nil
		}, ErrRollback, "L-54"},
		{"L-193 a root that no tiles have", log, func(l, path string, data []byte) ([]byte, error) {
			if l == "sec" && path == "checkpoint" {
				lines := strings.SplitN(string(data), "\n", 4)
				lines[2] = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
				return []byte(strings.Join(lines, "\n")), nil
			}
			return data, nil
		}, ErrRollback, "L-54"},
		{"L-193 checkpoint of another log", log, func(l, path string, data []byte) ([]byte, error) {
			if l == "sec" && path == "checkpoint" {
				return bytes.ReplaceAll(data, []byte("/sec"), []byte("/sex")), nil
			}
			return data, nil
		}, ErrCorrupt, "L-61(c)"},
		{"no manifest", log, func(l, path string, data []byte) ([]byte, error) {
			if path == manifestName {
				return []byte(`{"logs":[{"dir":"../../etc"}]}`), nil
			}
			return data, nil
		}, ErrCorrupt, "L-61(a)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}}); err != nil {
				t.Fatal(err)
			}
			before := filesOf(t, dir)
			_, err := Mirror(t.Context(), dir, &publisher{r: &Reader{tt.from}, edit: tt.edit})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.rule) {
				t.Fatalf("%v, want %v with %s", err, tt.want, tt.rule)
			}
			after := filesOf(t, dir)
			for name := range after {
				if strings.HasPrefix(name, "/refused/") {
					delete(after, name)
				}
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the copy changed:\n%s", diff)
			}
		})
	}

	// Of a copy that is made for the first time, each kind of file with one bit changed.
	for _, kind := range []string{"tile/0/", "tile/1/", "tile/entries/"} {
		for _, partial := range []bool{false, true} {
			if kind == "tile/1/" && !partial {
				continue // a tree of this size has none
			}
			name := "L-193 a bit of a full " + kind
			if partial {
				name = "L-193 a bit of a partial " + kind
			}
			t.Run(name, func(t *testing.T) {
				changed := 0
				p := &publisher{r: &Reader{log}}
				p.edit = func(l, path string, data []byte) ([]byte, error) {
					if data != nil && strings.HasPrefix(path, kind) && strings.Contains(path, ".p/") == partial {
						changed++
						return flip(data), nil
					}
					return data, nil
				}
				dir := filepath.Join(t.TempDir(), "copy")
				_, err := Mirror(t.Context(), dir, p)
				if changed == 0 {
					t.Fatal("nothing was changed")
				}
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
					t.Fatalf("%v, want %v", err, ErrCorrupt)
				}
				if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}}); err != nil {
					t.Fatalf("afterwards, from an honest publisher: %v", err)
				}
				checkCopy(t, dir, log)
			})
		}
	}
}

// TestMirrorOfPruned: what was pruned before the copy was made is missing there
// too, is read as pruned, and needs a record that explains it.
func TestMirrorOfPruned(t *testing.T) {
	_, log := closedLog(t, 900)
	const month = "ops-2026-11"
	if size := mustSize(t, log, month); size < 2*tileWidth {
		t.Fatalf("%s has %d records, too few to prune a bundle of", month, size)
	}
	p := &publisher{r: &Reader{log}}
	p.edit = func(l, path string, data []byte) ([]byte, error) {
		switch {
		case path == manifestName:
			return bytes.Replace(data, []byte(`"log":"`+month+`","min_index":0`), []byte(`"log":"`+month+`","min_index":256`), 1), nil
		case l == month && (path == "tile/0/000" || path == "tile/entries/000"):
			return nil, nil
		}
		return data, nil
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if _, err := Mirror(t.Context(), dir, p); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(month, 255); !errors.Is(err, ErrPruned) {
		t.Errorf("L-174: a record that was pruned: %v", err)
	}
	if _, err := r.Get(month, 256); err != nil {
		t.Errorf("the first record that stays: %v", err)
	}
	report, err := Verify(dir, []string{testVkey(t)}, VerifyOptions{})
	if err != nil || report.OK() || !strings.Contains(report.Findings[0].String(), "L-174") {
		t.Errorf("L-174: without log.prune: %v, %v", err, report.Findings)
	}
}

// TestMirrorOfReallyPruned: of a month that the node pruned in earnest, under
// two persons, a copy has what it had; one that is made later verifies without
// it; and one that ends inside of it is told that only the archive can tell.
func TestMirrorOfReallyPruned(t *testing.T) {
	older, whole := closedLog(t, 600)
	_, foreign := closedLog(t, 601)
	size := mustSize(t, whole, november)
	early, at300 := november300(t, whole)
	all := []*publisher{{r: &Reader{whole}}}
	tests := []struct {
		name   string
		had    []*publisher // what the copy was made of before
		prunes []uint64     // below which seq; 0 is all
		least  uint64       // the first record that the copy has
		want   error
	}{
		{"a copy of all, then all is pruned", all, []uint64{0}, 0, nil},
		{"a copy of all, then a part is pruned", all, []uint64{300}, 0, nil},
		{"no copy, a part is pruned", nil, []uint64{300}, 256, nil},
		{"no copy, all is pruned", nil, []uint64{0}, size, nil},
		{"no copy, a part is pruned, then all", nil, []uint64{300, 0}, size, nil},
		{"a copy that ends above what is pruned", []*publisher{{r: &Reader{older}}}, []uint64{300}, 0, nil},
		{"a copy that ends inside of what is pruned", []*publisher{early}, []uint64{0}, 0, ErrPruned},
	}
	for _, tt := range tests {
		t.Run("L-173 L-174 "+tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			bring := func(from *simFS) error {
				_, err := Mirror(t.Context(), dir, &publisher{r: &Reader{from}})
				return err
			}
			for _, from := range tt.had {
				if _, err := Mirror(t.Context(), dir, from); err != nil {
					t.Fatal(err)
				}
			}
			node := whole.snapshot()
			for _, below := range tt.prunes {
				pruned(t, node, below)
			}
			if err := bring(node); !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if _, err := os.Stat(filepath.Join(dir, "refused")); err == nil {
					t.Error("the checkpoint of an honest node was kept as refused")
				}
				if got := mustSize(t, osFS(dir), november); got != at300.Size {
					t.Errorf("the copy of %s has %d records, had %d", november, got, at300.Size)
				}
				return
			}
			wantVerified(t, osFS(dir))
			r, err := OpenReader(dir)
			if err != nil {
				t.Fatal(err)
			}
			for seq := range size {
				raw, err := r.Get(november, seq)
				if seq < tt.least {
					if !errors.Is(err, ErrPruned) {
						t.Fatalf("seq %d was pruned before the copy was made: %v", seq, err)
					}
					continue
				}
				want, failed := (&Reader{whole}).Get(november, seq)
				if err != nil || failed != nil || !bytes.Equal(raw, want) {
					t.Fatalf("seq %d: %v, %v", seq, err, failed)
				}
			}
			if err := bring(node); err != nil {
				t.Fatalf("once more: %v", err)
			}
			if err := bring(foreign); !errors.Is(err, ErrRollback) {
				t.Fatalf("another history: %v", err)
			}
		})
	}
	t.Run("L-172 the archive goes on from where the copy ends", func(t *testing.T) {
		packed := newSimFS()
		if _, err := writeArchive(whole, packed, november, []string{testVkey(t)}); err != nil {
			t.Fatal(err)
		}
		since := Earlier{Log: november, Size: at300.Size, Root: at300.Root, Origin: at300.Origin}
		if report, err := verifyArchive(packed, manifestName, []string{testVkey(t)}, since); err != nil || !report.OK() {
			t.Fatal(err, report.Findings)
		}
		since.Root[0] ^= 1
		if report, err := verifyArchive(packed, manifestName, []string{testVkey(t)}, since); err != nil || report.OK() {
			t.Error("an archive of another history was proved", err)
		}
		since.Log = "ops-2026-10"
		if report, err := verifyArchive(packed, manifestName, []string{testVkey(t)}, since); err != nil || report.OK() {
			t.Error("a checkpoint of another month was let by", err)
		}
	})
}

// november300 publishes a log as it was when November had 300 records.
func november300(t *testing.T, log *simFS) (*publisher, Checkpoint) {
	t.Helper()
	cp, err := unverifiedCheckpoint(log.names["ops/2026-11/checkpoint"].data)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tlog.TreeHash(300, &tiles{fsys: log, dir: "ops/2026-11", size: cp.Size})
	if err != nil {
		t.Fatal(err)
	}
	cp.Size, cp.Root = 300, Hash(root)
	msg, err := signCheckpoint(cp, testSigner())
	if err != nil {
		t.Fatal(err)
	}
	r, size := &Reader{log}, mustSize(t, log, november)
	return &publisher{r: r, edit: func(log, path string, data []byte) ([]byte, error) {
		switch {
		case log == november && path == "checkpoint":
			return msg, nil
		case log == november && path == tilePath(1, 0, 1): // that of the month's end begins with it
			data, err := r.Published(log, tilePath(1, 0, widthAt(size, 1, 0)))
			return data[:hashSize], err
		}
		return data, nil
	}}, cp
}

// TestMirrorWithheld: a file that is not published, although nothing was pruned,
// is no verdict, and a line that is down speaks against nobody.
func TestMirrorWithheld(t *testing.T) {
	older, log := closedLog(t, 450)
	cut := errors.New("the line is down")
	for _, tt := range []struct {
		name   string
		edit   error
		want   error
		refuse bool
	}{
		{"withheld", nil, ErrNotFound, true},
		{"the line is down", cut, cut, false},
	} {
		t.Run("L-174 "+tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{older}}); err != nil {
				t.Fatal(err)
			}
			_, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}, edit: func(l, path string, data []byte) ([]byte, error) {
				if strings.HasPrefix(path, "tile/0/") {
					return nil, tt.edit
				}
				return data, nil
			}})
			if !errors.Is(err, tt.want) {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "refused")); (err == nil) != tt.refuse {
				t.Errorf("kept as refused: %v, want %v", err == nil, tt.refuse)
			}
			if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}}); err != nil {
				t.Fatalf("afterwards: %v", err)
			}
			checkCopy(t, dir, log)
		})
	}
}

// TestMirrorBindsWhatItBegan: a run that was cut off has written tiles of its
// checkpoint, so that the next one must continue that one, too.
func TestMirrorBindsWhatItBegan(t *testing.T) {
	older, log := closedLog(t, 450)
	dir := filepath.Join(t.TempDir(), "copy")
	cut := errors.New("the line is down")
	_, err := Mirror(t.Context(), dir, &publisher{r: &Reader{log}, edit: func(_, path string, data []byte) ([]byte, error) {
		if strings.HasPrefix(path, "tile/entries/") {
			return nil, cut
		}
		return data, nil
	}})
	if !errors.Is(err, cut) {
		t.Fatal(err)
	}
	if _, err := Mirror(t.Context(), dir, &publisher{r: &Reader{older}}); !errors.Is(err, ErrRollback) {
		t.Fatalf("L-54: an older log after tiles of a newer one: %v", err)
	}
}

func FuzzPublishedName(f *testing.F) {
	for _, seed := range []string{
		"tile/0/000", "tile/entries/x001/000.p/255", "tile/63/x999/x999/999", "checkpoint", "vkey", "pub.pem", "manifest.json",
		"../sec/checkpoint", "tile/0/../../../../etc/passwd", "tile/0/000.p/0", "tile/00/000", "tile/0/000.p/5/../../x", "/etc/passwd", "wal/wal-0000000000000001", "tile/0/000\x00",
	} {
		f.Add("sec", seed)
		f.Add("ops-2026-11", seed)
		f.Add("", seed)
		f.Add("../sec", seed)
	}
	f.Fuzz(func(t *testing.T, log, path string) {
		name, _, err := publishedName(log, path)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v, want %v", err, ErrFormat)
			}
			return
		}
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.Contains(name, "\x00") {
			t.Fatalf("%q %q leads to %q", log, path, name)
		}
		if log == "" {
			return
		}
		shard, err := parseShard(log)
		if err != nil || name != shard.dir()+"/"+path {
			t.Fatalf("%q %q leads to %q", log, path, name)
		}
	})
}
