package logindex

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"keyd.dev/keyd/audit"
)

// A block is 65,536 records, the 256 bundles under one tile of level 1. Its file
// may stop before the last bundle, while the log grows, and begin after the
// first, where records were pruned. Integers are little-endian:
//
//	 0   8  magic, KEYDIDX1
//	 8   4  number of the block
//	12   2  first bundle, 0 to 255
//	14   2  bundle after the last, 1 to 256
//	16   1  width w of the directory: 2^w pages
//	17   7  zero
//	24   8  length of the file
//	32  32  what ties it to the tiles: see [bindingOf]
//	64      of each bundle, the earliest and the latest time, 8 bytes each,
//	        in microseconds since 1970
//	        directory: where each page begins, and where the last ends, 4 bytes
//	        each, counted from the first page
//	        CRC-32C of all before, 4 bytes
//	        pages: entries, then a CRC-32C of binding, number and entries
//
// The top w bits of a term's fingerprint choose the page. An entry is the
// distance to the fingerprint before it (to the lowest one of the page), twice,
// plus one where several records have the term. One record is 2 bytes, its place
// in the file's range. Several are their number, the length of what follows, and
// either the distances between their places or a bit for each record of the
// range, whichever is shorter; the length tells them apart.
const (
	blockMagic   = "KEYDIDX1"
	bundleSize   = 256 // records
	blockBundles = 256
	blockSize    = bundleSize * blockBundles
	fixedHead    = 64
	mostWidth    = 12
	mostFile     = 1 << 30
	pageEntries  = 256 // about that many entries to a page
)

func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// span is a time from the earliest to the latest, microseconds since 1970.
type span struct{ from, to int64 }

// head is what stands before the pages.
type head struct {
	block       uint32
	first, end  int // bundles
	width       int
	length      int64
	binding     [32]byte
	times       []span
	directory   []uint32
	pagesBehind int64 // the offset of the first page
}

// headSize is the length of all before the pages.
func headSize(bundles, width int) int64 {
	return fixedHead + int64(bundles)*16 + (int64(1)<<width+1)*4 + 4
}

// records is how many records the file covers.
func (h *head) records() int { return (h.end - h.first) * bundleSize }

// bindingOf ties a file to a log and to the tiles: SHA-256 of the log's name, the
// block, the range and the hashes of its bundles, which the tree is made of.
func bindingOf(log string, block uint32, first, end int, bundles []audit.Hash) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%d\n%d\n%d\n", log, block, first, end)
	for _, b := range bundles {
		h.Write(b[:])
	}
	return [32]byte(h.Sum(nil))
}

// encode writes the head.
func (h *head) encode() []byte {
	b := make([]byte, fixedHead, h.pagesBehind)
	copy(b, blockMagic)
	binary.LittleEndian.PutUint32(b[8:], h.block)
	binary.LittleEndian.PutUint16(b[12:], uint16(h.first))
	binary.LittleEndian.PutUint16(b[14:], uint16(h.end))
	b[16] = byte(h.width)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.length))
	copy(b[32:], h.binding[:])
	for _, s := range h.times {
		b = binary.LittleEndian.AppendUint64(b, uint64(s.from))
		b = binary.LittleEndian.AppendUint64(b, uint64(s.to))
	}
	for _, at := range h.directory {
		b = binary.LittleEndian.AppendUint32(b, at)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable()))
}

// parseHead reads the head of a file of the given length. The error is [ErrFormat].
func parseHead(f io.ReaderAt, length int64) (*head, error) {
	fixed := make([]byte, fixedHead)
	if _, err := f.ReadAt(fixed, 0); err != nil {
		return nil, fmt.Errorf("%w: reading the head: %w", ErrFormat, err)
	}
	h := &head{
		block: binary.LittleEndian.Uint32(fixed[8:]), first: int(binary.LittleEndian.Uint16(fixed[12:])),
		end: int(binary.LittleEndian.Uint16(fixed[14:])), width: int(fixed[16]),
		length: int64(binary.LittleEndian.Uint64(fixed[24:])), binding: [32]byte(fixed[32:]),
	}
	if string(fixed[:8]) != blockMagic || h.first >= h.end || h.end > blockBundles || h.width > mostWidth || h.length != length || length > mostFile {
		return nil, fmt.Errorf("%w: the head makes no sense", ErrFormat)
	}
	h.pagesBehind = headSize(h.end-h.first, h.width)
	if h.pagesBehind > length {
		return nil, fmt.Errorf("%w: the file ends in its head", ErrFormat)
	}
	all := make([]byte, h.pagesBehind)
	if _, err := f.ReadAt(all, 0); err != nil {
		return nil, fmt.Errorf("%w: reading the head: %w", ErrFormat, err)
	}
	if sum := len(all) - 4; crc32.Checksum(all[:sum], crcTable()) != binary.LittleEndian.Uint32(all[sum:]) {
		return nil, fmt.Errorf("%w: the head does not have its check sum", ErrFormat)
	}
	return h, h.lists(all[fixedHead : len(all)-4])
}

// lists reads the times and the directory.
func (h *head) lists(b []byte) error {
	for range h.end - h.first {
		h.times = append(h.times, span{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))})
		b = b[16:]
	}
	for ; len(b) >= 4; b = b[4:] {
		at := binary.LittleEndian.Uint32(b)
		if n := len(h.directory); n > 0 && at < h.directory[n-1]+4 || n == 0 && at != 0 {
			return fmt.Errorf("%w: the pages are out of order", ErrFormat)
		}
		h.directory = append(h.directory, at)
	}
	if last := h.directory[len(h.directory)-1]; h.pagesBehind+int64(last) != h.length {
		return fmt.Errorf("%w: the pages do not fill the file", ErrFormat)
	}
	return nil
}

// within reports whether a record of the block may be of a time, given the
// times of its bundle.
func (s span) meets(from, to int64) bool { return s.to >= from && s.from < to }

// block is a file that is open.
type block struct {
	head
	file io.ReaderAt
}

// pageOf is the number of the page that holds a fingerprint.
func (h *head) pageOf(fp uint32) int { return int(uint64(fp) >> (32 - h.width)) }

// lowest is the lowest fingerprint of a page.
func (h *head) lowest(page int) uint32 { return uint32(uint64(page) << (32 - h.width)) }

// sum is the check sum of a page's entries.
func (h *head) sum(page int, entries []byte) uint32 {
	crc := crc32.Update(0, crcTable(), h.binding[:])
	crc = crc32.Update(crc, crcTable(), binary.LittleEndian.AppendUint32(nil, uint32(page)))
	return crc32.Update(crc, crcTable(), entries)
}

// page reads the entries of a page. The error is [ErrFormat].
func (b *block) page(n int) ([]byte, error) {
	from, to := b.directory[n], b.directory[n+1]
	data := make([]byte, to-from)
	if _, err := b.file.ReadAt(data, b.pagesBehind+int64(from)); err != nil {
		return nil, fmt.Errorf("%w: reading page %d: %w", ErrFormat, n, err)
	}
	entries := data[:len(data)-4]
	if b.sum(n, entries) != binary.LittleEndian.Uint32(data[len(entries):]) {
		return nil, fmt.Errorf("%w: page %d does not have its check sum", ErrFormat, n)
	}
	return entries, nil
}

// postings returns the places of the records that may have a term, in order. The
// error is [ErrFormat].
func (b *block) postings(fp uint32) ([]uint16, error) {
	n := b.pageOf(fp)
	entries, err := b.page(n)
	if err != nil {
		return nil, err
	}
	at := uint64(b.lowest(n))
	for len(entries) > 0 {
		e, rest, err := nextEntry(entries)
		if err != nil {
			return nil, err
		}
		if at += e.step; at > uint64(fp) {
			return nil, nil
		}
		if at == uint64(fp) {
			return e.places(b.records())
		}
		entries = rest
	}
	return nil, nil
}

// entry is a term in a page.
type entry struct {
	step  uint64 // from the fingerprint before
	count uint64
	list  []byte // 2 bytes for one place, else distances or bits
}

// nextEntry takes an entry off a page. The error is [ErrFormat].
func nextEntry(b []byte) (e entry, rest []byte, err error) {
	step, n := binary.Uvarint(b)
	if n <= 0 || step > 1<<33 {
		return e, nil, cutOff()
	}
	b = b[n:]
	e.step, e.count = step>>1, 1
	size := uint64(2)
	if step&1 == 1 {
		if e.count, n = binary.Uvarint(b); n <= 0 || e.count < 2 || e.count > blockSize {
			return e, nil, cutOff()
		}
		b = b[n:]
		if size, n = binary.Uvarint(b); n <= 0 || size > blockSize/8 {
			return e, nil, cutOff()
		}
		b = b[n:]
	}
	if size > uint64(len(b)) {
		return e, nil, cutOff()
	}
	e.list = b[:size]
	return e, b[size:], nil
}

func cutOff() error { return fmt.Errorf("%w: an entry is cut off", ErrFormat) }

// places unpacks an entry of a file that covers that many records. The error is
// [ErrFormat].
func (e *entry) places(records int) ([]uint16, error) {
	out := make([]uint16, 0, e.count)
	switch {
	case e.count == 1:
		out = append(out, binary.LittleEndian.Uint16(e.list))
	case len(e.list) == records/8:
		for i, bits := range e.list {
			for ; bits != 0; bits &= bits - 1 {
				out = append(out, uint16(i*8+trailing(bits)))
			}
		}
	default:
		at := uint64(0)
		for b := e.list; len(b) > 0; {
			step, n := binary.Uvarint(b)
			if at += step; n <= 0 || step > blockSize || at >= blockSize || len(out) > 0 && step == 0 {
				return nil, fmt.Errorf("%w: a list of places is malformed", ErrFormat)
			}
			out = append(out, uint16(at))
			b = b[n:]
		}
	}
	if uint64(len(out)) != e.count || int(out[len(out)-1]) >= records {
		return nil, fmt.Errorf("%w: a list has %d places, not %d of %d records", ErrFormat, len(out), e.count, records)
	}
	return out, nil
}
