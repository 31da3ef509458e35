package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// snapshotLog is a log of sec with a few hundred records.
func snapshotLog(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l, err := Open(dir, testSigner(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ticket, err := l.Reserve(context.Background(), Ops, 32)
		if err != nil {
			t.Fatal(err)
		}
		records := make([]Record, 32)
		for i := range records {
			records[i] = benchRecord()
		}
		_, err = ticket.Append(records...)
		ticket.Release()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestL141Snapshot: what a snapshot gives out is proved under the root, on a copy
// without a manifest too, and a tile or a record that somebody changed is not.
func TestL141Snapshot(t *testing.T) {
	dir := snapshotLog(t)
	names := func() (*Reader, string) {
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Logs()
		if err != nil {
			t.Fatal(err)
		}
		return r, all[len(all)-1]
	}
	r, month := names()
	for _, step := range []string{"node", "copy without a manifest"} {
		s, err := r.Snapshot(month)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if err := s.Signed([]string{testVkey(t)}); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		n := uint64(0)
		for e, err := range r.Records(month, 0) {
			if err == nil {
				err = s.Check(e.Seq, e.Raw)
			}
			if err != nil {
				t.Fatalf("%s: %v", step, err)
			}
			n++
		}
		if n != s.Size() || n < 640 {
			t.Errorf("%s: %d records in a log of %d", step, n, s.Size())
		}
		if err := s.Check(3, benchStatement(t, r, month, 4)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: another record: %v", step, err)
		}
		if err := s.Check(s.Size(), nil); !errors.Is(err, ErrUncovered) {
			t.Errorf("%s: behind the end: %v", step, err)
		}
		if err := os.Remove(filepath.Join(dir, manifestName)); err != nil && step == "node" {
			t.Fatal(err)
		}
	}
	for _, tile := range []string{"tile/0/000", "tile/1/000.p/2"} {
		path := filepath.Join(dir, "ops", month[len("ops-"):], filepath.FromSlash(tile))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[5] ^= 1
		if err := os.WriteFile(path, data, 0o640); err != nil {
			t.Fatal(err)
		}
		s, err := r.Snapshot(month)
		if err == nil {
			_, err = s.Hashes(0, 0)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s changed: %v", tile, err)
		}
		data[5] ^= 1
		if err := os.WriteFile(path, data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// benchStatement is the record at a place.
func benchStatement(t *testing.T, r *Reader, log string, seq uint64) []byte {
	t.Helper()
	raw, err := r.Get(log, seq)
	if err != nil {
		t.Fatal(fmt.Errorf("%s:%d: %w", log, seq, err))
	}
	return raw
}
