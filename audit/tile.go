package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// The shape of tiles: 256 hashes or entries each.
const (
	tileWidth  = 256
	tileHeight = 8
	maxLevel   = 63
	hashSize   = 32
)

// tileNumber writes N in base 1000 as three-digit groups; all but the last get
// the prefix x.
func tileNumber(n uint64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

// parseTileNumber is the inverse of [tileNumber]. The error is [ErrFormat].
func parseTileNumber(s string) (uint64, error) {
	var n uint64
	for i := 0; ; {
		rest := s[i:]
		more := len(rest) > 0 && rest[0] == 'x'
		if more {
			rest = rest[1:]
			i++
		}
		if len(rest) < 3 || !all(rest[:3], classDigit, 3, 3) || n > 1<<50 {
			break
		}
		d, _ := strconv.ParseUint(rest[:3], 10, 64)
		n = n*1000 + d
		i += 3
		if !more && i == len(s) && tileNumber(n) == s {
			return n, nil
		}
		if !more || i >= len(s) || s[i] != '/' {
			break
		}
		i++
	}
	return 0, fmt.Errorf("%w: tile number %q", ErrFormat, s)
}

// bundleLevel stands for the entries in the place of a level.
const bundleLevel = -1

// tilePath returns a tile's path in its log's directory. A width of 0 stands
// for a full tile.
func tilePath(level int, n uint64, width int) string {
	l := "entries"
	if level != bundleLevel {
		l = strconv.Itoa(level)
	}
	p := "tile/" + l + "/" + tileNumber(n)
	if width > 0 && width < tileWidth {
		p += ".p/" + strconv.Itoa(width)
	}
	return p
}

// parseTilePath is the inverse of [tilePath]. The error is [ErrFormat].
func parseTilePath(path string) (level int, n uint64, width int, err error) {
	bad := func() (int, uint64, int, error) {
		return 0, 0, 0, fmt.Errorf("%w: tile path %q", ErrFormat, path)
	}
	rest, ok := cutPrefix(path, "tile/")
	if !ok {
		return bad()
	}
	i := 0
	for i < len(rest) && rest[i] != '/' {
		i++
	}
	if i == len(rest) {
		return bad()
	}
	if l := rest[:i]; l == "entries" {
		level = bundleLevel
	} else if level, err = strconv.Atoi(l); err != nil || level < 0 || level > maxLevel || strconv.Itoa(level) != l {
		return bad()
	}
	number := rest[i+1:]
	width = tileWidth
	for j := 0; j+3 < len(number); j++ {
		if number[j:j+3] == ".p/" {
			w := number[j+3:]
			if width, err = strconv.Atoi(w); err != nil || width < 1 || width >= tileWidth || strconv.Itoa(width) != w {
				return bad()
			}
			number = number[:j]
			break
		}
	}
	if n, err = parseTileNumber(number); err != nil {
		return bad()
	}
	return level, n, width, nil
}

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || s[:len(prefix)] != prefix {
		return s, false
	}
	return s[len(prefix):], true
}

// tilesAt returns how many hashes level has in a tree of the given size.
func tilesAt(size uint64, level int) uint64 {
	if level == bundleLevel {
		return size
	}
	if level*tileHeight > 63 {
		return 0
	}
	return size >> (level * tileHeight)
}

// widthAt returns the width that tile n of a level has in a tree of the given
// size: 256 when it is full, 0 when it is not there.
func widthAt(size uint64, level int, n uint64) int {
	have := tilesAt(size, level)
	if n >= have/tileWidth+1 || n*tileWidth >= have {
		return 0
	}
	return int(min(tileWidth, have-n*tileWidth))
}

// appendEntry adds a record to a bundle.
func appendEntry(b, record []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(record)))
	return append(b, record...)
}

// splitBundle returns the entries of a bundle that must hold exactly n. The
// error is [ErrFormat].
func splitBundle(b []byte, n int) ([][]byte, error) {
	entries := make([][]byte, 0, n)
	for len(b) > 0 {
		if len(entries) == n {
			return nil, fmt.Errorf("%w: bundle has %d bytes after its %d entries", ErrFormat, len(b), n)
		}
		if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
			return nil, fmt.Errorf("%w: bundle is cut short in entry %d", ErrFormat, len(entries))
		}
		size := int(binary.BigEndian.Uint16(b))
		entries = append(entries, b[2:2+size:2+size])
		b = b[2+size:]
	}
	if len(entries) != n {
		return nil, fmt.Errorf("%w: bundle has %d entries, not %d", ErrFormat, len(entries), n)
	}
	return entries, nil
}

// splitHashes returns the hashes of a tile that must hold exactly n. The error
// is [ErrFormat].
func splitHashes(b []byte, n int) ([]Hash, error) {
	if len(b) != n*hashSize {
		return nil, fmt.Errorf("%w: tile has %d bytes, not %d", ErrFormat, len(b), n*hashSize)
	}
	hs := make([]Hash, n)
	for i := range hs {
		hs[i] = Hash(b[i*hashSize:])
	}
	return hs, nil
}

// tiles reads the tiles of a log as they are in a tree of a given size.
type tiles struct {
	fsys fileSystem
	dir  string // of the log
	size uint64
}

const maxTileFile = tileWidth * (2 + maxPayload)

// read returns a tile's bytes and the number of elements that belong to the
// tree. Where the partial file is gone the full one, which a later tree made,
// takes its place. A missing tile is fs.ErrNotExist.
func (t *tiles) read(level int, n uint64) (data []byte, width int, full bool, err error) {
	width = widthAt(t.size, level, n)
	if width == 0 {
		return nil, 0, false, fmt.Errorf("tile %d of level %d: %w", n, level, fs.ErrNotExist)
	}
	data, err = readFile(t.fsys, t.dir+"/"+tilePath(level, n, width), maxTileFile)
	if err == nil || width == tileWidth || !errors.Is(err, fs.ErrNotExist) {
		return data, width, width == tileWidth, err
	}
	data, err = readFile(t.fsys, t.dir+"/"+tilePath(level, n, 0), maxTileFile)
	return data, width, true, err
}

// hashes returns the hashes of a tile.
func (t *tiles) hashes(level int, n uint64) ([]Hash, error) {
	data, width, full, err := t.read(level, n)
	if err != nil {
		return nil, err
	}
	if full && width < tileWidth && len(data) == tileWidth*hashSize {
		data = data[:width*hashSize]
	}
	hs, err := splitHashes(data, width)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", t.dir, tilePath(level, n, width), err)
	}
	return hs, nil
}

// entries returns the records of a bundle.
func (t *tiles) entries(n uint64) ([][]byte, error) {
	data, width, full, err := t.read(bundleLevel, n)
	if err != nil {
		return nil, err
	}
	have := width
	if full {
		have = tileWidth
	}
	es, err := splitBundle(data, have)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", t.dir, tilePath(bundleLevel, n, width), err)
	}
	return es[:width], nil
}

// ReadHashes implements [tlog.HashReader].
func (t *tiles) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		// The hash covers 2^level leaves; in its tile it covers 2^(level%8)
		// hashes from first on.
		in := level % tileHeight
		first := uint64(n) << in
		hs, err := t.hashes(level/tileHeight, first/tileWidth)
		if err != nil {
			return nil, err
		}
		at := first % tileWidth
		if at+1<<in > uint64(len(hs)) {
			return nil, fmt.Errorf("%w: tile %d of level %d is too narrow", ErrFormat, first/tileWidth, level/tileHeight)
		}
		out[i] = tlog.Hash(subtree(hs[at : at+1<<in]))
	}
	return out, nil
}

// subtree returns the root over a power of two of hashes.
func subtree(hs []Hash) Hash {
	if len(hs) == 1 {
		return hs[0]
	}
	half := len(hs) / 2
	return nodeHash(subtree(hs[:half]), subtree(hs[half:]))
}

// root returns the root of the tree as its tiles give it.
func (t *tiles) root() (Hash, error) { return t.rootAt(t.size) }

// rootAt returns the root that the tree had at a size that is not above its own.
func (t *tiles) rootAt(size uint64) (Hash, error) {
	if size == 0 {
		return emptyRoot, nil
	}
	h, err := tlog.TreeHash(int64(size), t)
	return Hash(h), err
}
