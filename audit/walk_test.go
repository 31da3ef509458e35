package audit

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWalkWindows: what no checkpoint covers is found whole where it is longer than
// what is read of a segment at once, and up to where the frames end where the last
// is torn.
func TestWalkWindows(t *testing.T) {
	dir, o := t.TempDir(), testOptions()
	o.CheckpointInterval = time.Hour
	l, err := Open(dir, testSigner(), o)
	if err != nil {
		t.Fatal(err)
	}
	places := longTail(t, l)
	want := make([]uint64, len(places))
	for i, p := range places {
		want[i] = p.Seq
	}
	if diff := cmp.Diff(want, tailOf(t, dir, places[0])); diff != "" {
		t.Errorf("a live log (-want +got):\n%s", diff)
	}
	torn := t.TempDir()
	if err := os.CopyFS(torn, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(torn, segmentName(1)), 2*walkWindow+headerSize-1); err != nil {
		t.Fatal(err)
	}
	got := tailOf(t, torn, places[0])
	if n := len(got); n < 2*walkWindow/1000 || n >= len(want) || cmp.Diff(want[:n], got) != "" {
		t.Errorf("a torn copy has %d of %d records", n, len(want))
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// longTail appends more than two windows hold.
func longTail(t *testing.T, l *Log) (places []Pos) {
	t.Helper()
	for size := 0; size < 3*walkWindow; {
		ticket, err := l.Reserve(context.Background(), Ops, 32)
		if err != nil {
			t.Fatal(err)
		}
		records := make([]Record, 32)
		for i := range records {
			records[i] = benchRecord()
		}
		at, err := ticket.Append(records...)
		ticket.Release()
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, at...)
		size += 32 * 400 // a record has 400 to 1,000 bytes
	}
	return places
}

// tailOf is what a reader finds from a place on, which no checkpoint covers.
func tailOf(t *testing.T, dir string, from Pos) (seqs []uint64) {
	t.Helper()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.Records(from.Shard.logName(), from.Seq) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Covered {
			t.Fatalf("%s:%d is under a checkpoint", e.Log, e.Seq)
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs
}
