package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyd.dev/keyd/audit"
)

// TestOneByteOfAnyFile is L-42 and L-193: a byte changed in any file below the folder of a
// node's log is found; in the index, which is derived from the records, it is made
// good by the next search, which finds what it found before.
func TestOneByteOfAnyFile(t *testing.T) {
	dir := t.TempDir()
	r := startDev(t, dir, "--no-sim")
	for range 260 { // so that there are a full bundle and full tiles
		cfg, err := loadConfig(r.dev.Config)
		if err != nil {
			t.Fatal(err)
		}
		if err := callLocal(t.Context(), cfg.Ops.Socket, "/audit/read", auditRead{Command: audit.QueryList, Rows: 1}); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	log := r.dev.AuditDir
	key, err := os.ReadFile(r.dev.AuditVkey)
	if err != nil {
		t.Fatal(err)
	}
	vkeys := strings.Fields(string(key))
	whole := func() bool {
		report, err := audit.Verify(log, vkeys, audit.VerifyOptions{})
		return err == nil && report.OK()
	}
	search := func() string {
		var out, said bytes.Buffer
		args := []string{"audit", "find", "--dir", log, "--action", "key.*", "--limit", "0", "--json"}
		if code := run(t.Context(), args, strings.NewReader(""), &out, &said); code != exitDone {
			t.Errorf("find: exit code %d, %s", code, &said)
		}
		return out.String()
	}
	var said bytes.Buffer
	if code := run(t.Context(), []string{"audit", "index", "--dir", log}, strings.NewReader(""), &said, &said); code != exitDone {
		t.Fatalf("index: exit code %d, %s", code, &said)
	}
	want := search()
	if !whole() || want == "" {
		t.Fatal("the log is good and has keys, but that is not what is seen")
	}
	kinds := map[string]int{}
	err = filepath.WalkDir(log, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(log, path)
		if err != nil {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil || len(good) == 0 {
			return err // the lock, in which nothing stands
		}
		kinds[strings.Split(name, "/")[0]]++
		for _, at := range []int{0, len(good) / 2, len(good) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			if err := os.WriteFile(path, bad, 0o640); err != nil {
				return err
			}
			if strings.HasPrefix(name, "index/") {
				if got := search(); got != want {
					t.Errorf("%s, byte %d of %d changed: a search finds something else", name, at, len(good))
				}
			} else if whole() {
				t.Errorf("%s, byte %d of %d changed: not found", name, at, len(good))
			}
			if err := os.WriteFile(path, good, 0o640); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"manifest.json", "sec", "state", "wal", "index"} {
		if kinds[kind] == 0 {
			t.Errorf("no file of %s was changed", kind)
		}
	}
	if err := os.WriteFile(filepath.Join(log, "lock"), []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if whole() {
		t.Error("a byte in the lock: not found")
	}
}
