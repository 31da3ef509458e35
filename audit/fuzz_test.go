package audit

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// FuzzFrame: whatever is taken for a frame is written back the same.
func FuzzFrame(f *testing.F) {
	b := appendFrame(nil, 202611, 41, []byte(`{"v":1}`), nil, nil)
	seal(b, 7, true)
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, size, ok, err := parseFrame(b)
		if !ok || err != nil {
			return
		}
		again := appendFrame(nil, fr.shard, fr.seq, fr.payload, nil, nil)
		seal(again, fr.batch, fr.last)
		if !bytes.Equal(again, b[:size]) {
			t.Errorf("%x became %x", b[:size], again)
		}
	})
}

// FuzzSegment: a scan of any bytes ends, and what it accepts it accepts again.
func FuzzSegment(f *testing.F) {
	seg := make([]byte, headerSize, 4096)
	h := segmentHeader{number: 1, firstBatch: 1}
	h.put(seg)
	seg = appendFrame(seg, 0, 0, []byte(`{"seq":0,"v":1}`), nil, nil)
	seal(seg[headerSize:], 1, true)
	f.Add(seg[:cap(seg)], make([]byte, 4096))
	f.Add(seg, []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		fsys := newSimFS()
		fsys.names["wal/"] = nil
		fsys.names[segmentName(1)] = &simFile{data: first, dirty: map[int]bool{}}
		if len(second) > 0 {
			fsys.names[segmentName(2)] = &simFile{data: second, dirty: map[int]bool{}}
		}
		n := 0
		s, err := scanWAL(fsys, func(uint64, int64, *frame) error { n++; return nil })
		if err != nil {
			return
		}
		total := uint64(0)
		for shard, next := range s.next {
			total += next - s.first[shard]
		}
		if total != uint64(n) || s.end > s.size {
			t.Errorf("%d records counted, %d visited; end %d of %d", total, n, s.end, s.size)
		}
	})
}

// FuzzRecord: what is accepted is canonical by an independent encoder.
func FuzzRecord(f *testing.F) {
	for _, file := range []string{"testdata/examples.jsonl", "testdata/actions.jsonl"} {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			f.Add([]byte(line))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		stringMember(b, "boot")
		hasAction(b, LogOpen)
		if _, err := parseRecord(b); err != nil {
			return
		}
		if again := recanonical(t, b); again != string(b) {
			t.Errorf("%q is not canonical: %q", b, again)
		}
	})
}

// FuzzScan: the scanner ends, and a PAN among other characters is found.
func FuzzScan(f *testing.F) {
	f.Add("corr-", "-7")
	f.Add("1", "2")
	f.Fuzz(func(t *testing.T, before, after string) {
		scan(before)
		if strings.ContainsAny(before+after, "0123456789 -;%") || len(before)+len(after) > 64 {
			return
		}
		if scan(before+"4111111111111111"+after) == 0 {
			t.Errorf("the PAN between %q and %q was not found", before, after)
		}
	})
}

// FuzzNote: an accepted checkpoint has one spelling.
func FuzzNote(f *testing.F) {
	f.Add([]byte(vectorCheckpoint))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeyring([]string{vectorVkey})
		if err != nil {
			t.Fatal(err)
		}
		c, err := keys.open(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, []byte(c.body()+"\n")) {
			t.Errorf("%q gives %+v", b, c)
		}
	})
}

// FuzzProof: an accepted proof proves the record of the vector.
func FuzzProof(f *testing.F) {
	f.Add([]byte(vectorProof))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := CheckProof(b, []string{vectorVkey})
		if err == nil && (p.Size != 3 || !bytes.Equal(p.Raw, treeRecord(p.Seq))) {
			t.Errorf("%q proves %d: %q", b, p.Seq, p.Raw)
		}
	})
}

// FuzzPath: an accepted path is the one that its tile has.
func FuzzPath(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/8")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, s string) {
		level, n, width, err := parseTilePath(s)
		if err == nil && tilePath(level, n, width%tileWidth) != s {
			t.Errorf("%q is tile %d of level %d, width %d", s, n, level, width)
		}
	})
}

// FuzzManifest: an accepted manifest has one spelling.
func FuzzManifest(f *testing.F) {
	m := &manifest{Format: manifestFormat, Node: "n1", Site: "example", WALID: strings.Repeat("0a", 16)}
	m.list(0)
	m.list(202611)
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseManifest(b); err == nil && !bytes.Equal(m.encode(), b) {
			t.Errorf("%q became %q", b, m.encode())
		}
	})
}

// FuzzVkey: an accepted vkey has one spelling.
func FuzzVkey(f *testing.F) {
	f.Add(vectorVkey)
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := parseVkey(s); err == nil && v.String() != s {
			t.Errorf("%q became %q", s, v)
		}
	})
}
