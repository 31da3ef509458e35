package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// walScan is what a scan of the write-ahead log found.
type walScan struct {
	size    int64 // of a segment; 0 when there is none
	walID   [16]byte
	oldest  uint64 // oldest segment; 0 when there is none
	last    uint64 // last used segment; 0 when none is
	end     int64  // its valid length
	crc     uint32 // of its last frame
	batch   uint64 // number of the last good batch, 0 when there is none
	torn    bool   // the last used segment must not be continued
	dropped int64  // bytes of its torn tail
	foul    uint64 // segment after the last used one that is not all zero; 0 when none
	spares  []uint64
	ops     Shard            // newest shard of ops that has frames
	first   map[Shard]uint64 // first seq of each shard in the WAL
	next    map[Shard]uint64 // seq after the last of each shard
	tails   []walTail        // what stands behind the valid part of the segments before
}

// walTail is what was dropped at the end of a segment that is not the last.
type walTail struct {
	seg          uint64
	end, dropped int64
}

// corrupt makes an [ErrCorrupt] that names the rule.
func corrupt(rule, format string, args ...any) error {
	return fmt.Errorf("%w: %s: "+format, append([]any{ErrCorrupt, rule}, args...)...)
}

// scanWAL reads the write-ahead log and gives each of its records to visit,
// whose frame is valid during the call. It changes nothing.
func scanWAL(fsys fileSystem, visit func(seg uint64, off int64, f *frame) error) (*walScan, error) {
	s := &walScan{first: map[Shard]uint64{}, next: map[Shard]uint64{}}
	segs, err := listSegments(fsys)
	if err != nil || len(segs) == 0 {
		return s, err
	}
	headers, err := s.headers(fsys, segs)
	if err != nil {
		return s, err
	}
	var buf []byte
	for i, n := range segs {
		if buf, err = readInto(fsys, segmentName(n), buf, s.size); err != nil {
			return s, corrupt("L-28", "segment %d cannot be read: %w", n, err)
		}
		c := segmentScan{walScan: s, n: n, data: buf, visit: visit}
		switch {
		case i+1 < len(headers):
			err = c.whole(&headers[i], &headers[i+1])
		case i < len(headers):
			err = c.finish(&headers[i])
		default:
			err = s.spare(n, buf)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// headers reads the headers of the used segments, which are the first ones.
func (s *walScan) headers(fsys fileSystem, segs []uint64) ([]segmentHeader, error) {
	s.oldest = segs[0]
	var used []segmentHeader
	for i, n := range segs {
		if n != segs[0]+uint64(i) {
			return nil, corrupt("L-28", "segment %d is missing", segs[0]+uint64(i))
		}
		b, size, err := readHead(fsys, segmentName(n))
		if err != nil {
			return nil, corrupt("L-28", "segment %d cannot be read: %w", n, err)
		}
		if i == 0 {
			s.size = size
		}
		if size != s.size || size < headerSize || size > maxSegmentSize {
			return nil, corrupt("L-23", "segment %d has %d bytes, the first one %d", n, size, s.size)
		}
		h, ok := parseSegmentHeader(b)
		switch {
		case !ok:
			continue
		case len(used) < i:
			return nil, corrupt("L-29", "segment %d is used, segment %d before it is not", n, segs[len(used)])
		case h.number != n:
			return nil, corrupt("L-24", "segment %d carries number %d", n, h.number)
		case i > 0 && h.walID != s.walID:
			return nil, corrupt("L-28", "segment %d belongs to another log", n)
		case n == 1 && (h.prevLen != 0 || h.prevCRC != 0 || h.firstBatch != 1):
			return nil, corrupt("L-24", "segment 1 names a segment before it")
		}
		if i == 0 {
			s.walID, s.batch = h.walID, h.firstBatch-1
		}
		s.last = n
		used = append(used, h)
	}
	return used, nil
}

// readHead returns the first 64 bytes of a file, or as many as there are, and
// its size.
func readHead(fsys fileSystem, name string) ([]byte, int64, error) {
	f, err := fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	b := make([]byte, min(size, headerSize))
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, 0, err
	}
	return b, size, nil
}

// readInto reads a file of the given size, into buf when that is large enough.
func readInto(fsys fileSystem, name string, buf []byte, size int64) ([]byte, error) {
	f, err := fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if n, err := f.ReadAt(buf, 0); err != nil && (err != io.EOF || int64(n) < size) {
		return buf, err
	}
	return buf, nil
}

// listSegments returns the numbers of the segments, in order.
func listSegments(fsys fileSystem) ([]uint64, error) {
	names, err := fsys.ReadDir("wal")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing segments: %w", err)
	}
	var segs []uint64
	for _, name := range names {
		if n, ok := parseSegmentName(name); ok {
			segs = append(segs, n)
			continue
		}
		if !strings.HasSuffix(name, ".tmp") && !strings.Contains(name, ".torn") {
			return nil, corrupt("L-23", "unknown file wal/%s", name)
		}
	}
	return segs, nil
}

// spare looks at a segment without a valid header. Only the one right behind
// the last used segment may hold anything: a batch that did not become durable.
func (s *walScan) spare(n uint64, data []byte) error {
	s.spares = append(s.spares, n)
	if isZero(data) {
		return nil
	}
	if s.last == 0 && n != 1 || s.last != 0 && n != s.last+1 {
		return corrupt("L-30", "spare segment %d is not empty", n)
	}
	s.foul = n
	s.dropped += trailing(data)
	return searchFrames(data, 0, n, s.batch+1)
}

// segmentScan is the scan of one used segment.
type segmentScan struct {
	*walScan
	n     uint64
	data  []byte
	visit func(seg uint64, off int64, f *frame) error
}

// whole scans a segment that is not the last: its frames end exactly where the
// next header says.
func (c *segmentScan) whole(h, next *segmentHeader) error {
	if next.prevLen < headerSize || next.prevLen > uint64(len(c.data)) {
		return corrupt("L-28", "segment %d claims %d bytes of segment %d", next.number, next.prevLen, c.n)
	}
	end, _, crc, err := c.frames(h, c.data[:next.prevLen])
	switch {
	case err != nil:
		return err
	case end != int64(next.prevLen):
		return corrupt("L-28", "segment %d: no valid frame at offset %d", c.n, end)
	case crc != next.prevCRC:
		return corrupt("L-28", "segment %d: last frame is not the one that segment %d names", c.n, next.number)
	}
	if n := trailing(c.data[end:]); n > 0 {
		c.tails = append(c.tails, walTail{c.n, end, n})
	}
	return nil
}

// finish scans the last used segment, whose end nobody wrote down.
func (c *segmentScan) finish(h *segmentHeader) error {
	s := c.walScan
	end, open, crc, err := c.frames(h, c.data)
	if err != nil {
		return err
	}
	s.end, s.crc = end, crc
	s.dropped = trailing(c.data[end:])
	s.torn = open || s.dropped > 0
	allowed := s.batch + 1
	if open {
		allowed = s.batch
	}
	return searchFrames(c.data, end, c.n, allowed)
}

// frames visits frames until the first offset without a valid one. It returns
// that offset, whether the last batch lacks its end, and the last frame's CRC.
func (c *segmentScan) frames(h *segmentHeader, data []byte) (end int64, open bool, crc uint32, err error) {
	s := c.walScan
	end = headerSize
	if h.firstBatch != s.batch+1 {
		return end, false, 0, corrupt("L-27", "segment %d begins with batch %d, not %d", c.n, h.firstBatch, s.batch+1)
	}
	for {
		f, size, ok, err := parseFrame(data[end:])
		if err != nil {
			return end, open, crc, fmt.Errorf("segment %d, offset %d: %w", c.n, end, err)
		}
		if !ok {
			return end, open, crc, nil
		}
		want := s.batch
		if !open {
			want++
		}
		if f.batch != want {
			return end, open, crc, corrupt("L-27", "segment %d, offset %d: batch %d where %d belongs", c.n, end, f.batch, want)
		}
		if err := s.order(&f, c.n, end); err != nil {
			return end, open, crc, err
		}
		if c.visit != nil {
			if err := c.visit(c.n, end, &f); err != nil {
				return end, open, crc, err
			}
		}
		s.batch, open, crc = f.batch, !f.last, f.crc
		end += int64(size)
	}
}

// order checks that seq grows by one in each shard and that no older shard
// comes back.
func (s *walScan) order(f *frame, seg uint64, off int64) error {
	if f.shard != 0 {
		if f.shard < s.ops {
			return corrupt("L-27", "segment %d, offset %d: %s after %s", seg, off, f.shard.logName(), s.ops.logName())
		}
		s.ops = f.shard
	}
	want, seen := s.next[f.shard]
	if !seen {
		s.first[f.shard] = f.seq
	} else if f.seq != want {
		return corrupt("L-27", "segment %d, offset %d: %s:%d where %d belongs", seg, off, f.shard.logName(), f.seq, want)
	}
	s.next[f.shard] = f.seq + 1
	return nil
}

// trailing returns how many bytes there are up to the last one that is not zero.
func trailing(b []byte) int64 {
	n := len(b)
	for n >= 4096 && isZero(b[n-4096:n]) {
		n -= 4096
	}
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return int64(n)
}

// searchFrames looks at each aligned offset for a valid frame of a batch other
// than the one that may lie there torn: durable data was damaged then.
func searchFrames(data []byte, from int64, seg, allowed uint64) error {
	for at := from; at+frameHeader <= int64(len(data)); at += frameAlign {
		if binary.LittleEndian.Uint64(data[at:]) == 0 {
			continue
		}
		f, _, ok, err := parseFrame(data[at:])
		if err != nil {
			return fmt.Errorf("segment %d, offset %d: %w", seg, at, err)
		}
		if ok && f.batch != allowed {
			return corrupt("L-29", "segment %d: no valid frame at offset %d, but batch %d at offset %d", seg, from, f.batch, at)
		}
	}
	return nil
}
