package audit

import (
	"bytes"
	"context"
	"testing"
)

// TestTornTail: a process that was killed in the middle of a write leaves a frame
// that is not whole. The next start drops it, and says how many bytes (L-30, L-63).
func TestTornTail(t *testing.T) {
	fsys := newSimFS()
	l, err := Open("sim", testSigner(), simOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := appendOne(l, Ops, benchRecord()); err != nil {
		t.Fatal(err)
	}
	killed := fsys.now()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	segment := killed.names["wal/wal-0000000000000001"]
	end := (len(bytes.TrimRight(segment.data, "\x00")) + 7) / 8 * 8
	copy(segment.data[end:], "half of a frame, and no more")
	segment.kept = bytes.Clone(segment.data)

	if l, err = Open("sim", testSigner(), simOptions(killed)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := countRecords(t, killed, "sec", LogRecover); n != 1 {
		t.Errorf("L-30 L-63: %d records of a tail that was dropped, want 1", n)
	}
	for e, err := range (&Reader{killed}).Records("sec", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if hasAction(e.Raw, LogRecover) && !bytes.Contains(e.Raw, []byte(`"wal":{"dropped":`)) {
			t.Errorf("L-30: it does not say how many bytes: %s", e.Raw)
		}
	}
}
