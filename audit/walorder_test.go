package audit

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// madeFrame is a frame of a segment that a test makes.
type madeFrame struct {
	shard Shard
	seq   uint64
	batch uint64
	last  bool
}

// madeSegment is a whole segment with valid check sums, whatever its frames say.
func madeSegment(h segmentHeader, frames []madeFrame) []byte {
	seg := make([]byte, headerSize, 4096)
	h.put(seg)
	for _, f := range frames {
		at := len(seg)
		seg = appendFrame(seg, f.shard, f.seq, []byte(`{"v":1}`), nil, nil)
		seal(seg[at:], f.batch, f.last)
	}
	return seg[:cap(seg)]
}

// TestWALOrder: what the write-ahead log says of its own order must be so. Each
// frame here has a good check sum, so that nothing but the order speaks against it.
func TestWALOrder(t *testing.T) {
	first := segmentHeader{number: 1, firstBatch: 1}
	good := []madeFrame{{0, 0, 1, false}, {202611, 0, 1, true}, {0, 1, 2, true}, {202611, 1, 3, true}}
	with := func(i int, change func(*madeFrame)) []madeFrame {
		all := append([]madeFrame(nil), good...)
		change(&all[i])
		return all
	}
	for _, tt := range []struct {
		name   string
		header segmentHeader
		frames []madeFrame
		rule   string
	}{
		{"L-27 in order", first, good, ""},
		{"L-27 a seq is left out", first, with(2, func(f *madeFrame) { f.seq = 2 }), "L-27"},
		{"L-27 a seq comes twice", first, with(3, func(f *madeFrame) { f.seq = 0 }), "L-27"},
		{"L-27 a month of before", first, with(3, func(f *madeFrame) { f.shard = 202610; f.seq = 0 }), "L-27"},
		{"L-27 a batch is left out", first, with(3, func(f *madeFrame) { f.batch = 4 }), "L-2"},
		{"L-27 a batch that did not end", first, with(1, func(f *madeFrame) { f.last = false }), "L-2"},
		{"L-24 another number", segmentHeader{number: 2, firstBatch: 1}, good, "L-24"},
		{"L-24 segment 1 does not begin the log", segmentHeader{number: 1, firstBatch: 2}, good, "L-24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := newSimFS()
			fsys.names["wal/"] = nil
			fsys.names[segmentName(1)] = &simFile{data: madeSegment(tt.header, tt.frames), dirty: map[int]bool{}}
			n := 0
			_, err := scanWAL(fsys, func(uint64, int64, *frame) error { n++; return nil })
			switch {
			case tt.rule == "" && (err != nil || n != len(good)):
				t.Errorf("%d frames, %v", n, err)
			case tt.rule != "" && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), tt.rule)):
				t.Errorf("%v, want %s", err, tt.rule)
			}
		})
	}
}

// TestBatchesInSegments is L-25: no batch stands in two segments.
func TestBatchesInSegments(t *testing.T) {
	_, log := closedLog(t, 400)
	where, segments := map[uint64]uint64{}, map[uint64]bool{}
	_, err := scanWAL(log, func(seg uint64, _ int64, f *frame) error {
		if at, ok := where[f.batch]; ok && at != seg {
			t.Errorf("L-25: batch %d stands in segments %d and %d", f.batch, at, seg)
		}
		where[f.batch], segments[seg] = seg, true
		return nil
	})
	if err != nil || len(segments) < 2 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
}

// TestLeafHashesAtStart is L-47: a leaf of a full tile that is not that of the
// record in the write-ahead log refuses the start.
func TestLeafHashesAtStart(t *testing.T) {
	_, log := closedLog(t, 400)
	sizes := map[Shard]uint64{}
	for _, name := range []string{"sec", november, "ops-2026-12"} {
		shard, err := parseShard(name)
		if err != nil {
			t.Fatal(err)
		}
		sizes[shard] = mustSize(t, log, name)
	}
	var bad string
	var at int
	_, err := scanWAL(log, func(_ uint64, _ int64, f *frame) error {
		if n := f.seq / tileWidth; (n+1)*tileWidth <= sizes[f.shard] && bad == "" {
			bad, at = f.shard.dir()+"/"+tilePath(0, n, 0), int(f.seq%tileWidth)*hashSize
		}
		return nil
	})
	if err != nil || bad == "" {
		t.Fatalf("no record of a full tile is in the write-ahead log: %v", err)
	}
	log.names[bad].data = flipAt(at)(append([]byte(nil), log.names[bad].data...))
	l, err := reopened(t, log)
	if err == nil {
		_ = l.Close(t.Context())
	}
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "L-47") {
		t.Errorf("L-47 %s: %v", bad, err)
	}
}

// TestPageCacheOnly is L-31: after a sync that failed, records are in the page
// cache and marked clean, so that no later sync writes them. A start that finds
// them writes them again before a checkpoint covers them; else a power cut would
// leave a checkpoint of records that are on no disk.
func TestPageCacheOnly(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	fsys.mu.Lock()
	fsys.fault = func(op, name string) error {
		if op == "fdatasync" && strings.HasPrefix(name, "wal/wal-") {
			return syscall.EIO
		}
		return nil
	}
	fsys.mu.Unlock()
	if _, err := appendOne(l, Ops, benchRecord()); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Append over a failed sync: %v", err)
	}
	killed := fsys.now() // the process is gone, the page cache is not
	if !slices.ContainsFunc(slices.Collect(maps.Values(killed.names)), func(f *simFile) bool { return f != nil && len(f.gone) > 0 }) {
		t.Fatal("the failed sync left nothing in the page cache alone")
	}
	l, err = Open("sim", testSigner(), simOptions(killed))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	sizes := map[string]uint64{}
	for _, name := range []string{"sec", month(t, killed)} {
		sizes[name] = mustSize(t, killed, name)
	}
	for seed := range 8 {
		r := prng(seed + 1)
		survivor := killed.crash(&r)
		for name, size := range sizes {
			if got := mustSize(t, survivor, name); got != size {
				t.Fatalf("%s has a checkpoint of size %d, had %d", name, got, size)
			}
		}
		wantVerified(t, survivor)
		l, err := Open("sim", testSigner(), simOptions(survivor))
		if err != nil {
			t.Fatalf("L-31: a checkpoint covered records that were on no disk: %v", err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// month is the newest month of a log.
func month(t *testing.T, fsys *simFS) string {
	t.Helper()
	logs, err := (&Reader{fsys}).Logs()
	if err != nil || len(logs) < 2 {
		t.Fatal(logs, err)
	}
	return logs[len(logs)-1]
}
