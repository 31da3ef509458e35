package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/mod/sumdb/tlog"
)

// place names a tile: its level, [bundleLevel] for a bundle, number and width.
type place struct {
	level int
	n     uint64
	width int
}

func (p place) path() string { return tilePath(p.level, p.n, p.width) }

// partialPaths returns the partial tiles and the partial bundle of a tree.
func partialPaths(size uint64) []place {
	var all []place
	for level := bundleLevel; tilesAt(size, level) > 0; level++ {
		n := tilesAt(size, level) / tileWidth
		if w := widthAt(size, level, n); w > 0 {
			all = append(all, place{level, n, w})
		}
	}
	return all
}

// remoteTree is the tree of a checkpoint whose tiles are somewhere else. What it
// returns was proved to belong to the tree.
type remoteTree struct {
	m       *mirror
	log     *manifestLog
	cp      Checkpoint
	upper   map[place][]byte // tiles above level 0, and the partial one of it
	reader  tlog.HashReader
	written []string
}

func newRemoteTree(m *mirror, l *manifestLog, cp Checkpoint) *remoteTree {
	t := &remoteTree{m: m, log: l, cp: cp, upper: map[place][]byte{}}
	t.reader = tlog.TileHashReader(tlog.Tree{N: int64(cp.Size), Hash: tlog.Hash(cp.Root)}, (*remoteTiles)(t))
	return t
}

// continues proves that the tree begins with that of an earlier checkpoint.
func (t *remoteTree) continues(was Checkpoint) error {
	var root Hash
	switch {
	case was.Size == 0:
		return nil
	case was.Origin != t.cp.Origin:
		return fmt.Errorf("%w: L-66: the copy is of %s; copy %s to another folder", ErrRollback, was.Origin, t.cp.Origin)
	case t.cp.Size < was.Size:
		return fmt.Errorf("%w: L-54: size %d after %d", ErrRollback, t.cp.Size, was.Size)
	case t.cp.Size == was.Size:
		root = t.cp.Root
	default:
		h, err := tlog.TreeHash(int64(was.Size), t.reader)
		if errors.Is(err, ErrNotFound) && was.Size < t.log.MinIndex {
			return fmt.Errorf("%w: L-174: the copy ends at %d, and what is below %d was pruned", ErrPruned, was.Size, t.log.MinIndex)
		}
		if err != nil {
			return t.wrong(err)
		}
		root = Hash(h)
	}
	if root != was.Root {
		return fmt.Errorf("%w: L-54: the tree of size %d has another root at %d than the copy", ErrRollback, t.cp.Size, was.Size)
	}
	return nil
}

// wrong tells tiles that do not fit from those that did not come.
func (t *remoteTree) wrong(err error) error {
	for _, is := range []error{ErrNotFound, ErrFormat, ErrCorrupt} {
		if errors.Is(err, is) {
			return err
		}
	}
	var came *fetchError
	if errors.As(err, &came) {
		return came.err
	}
	return corrupt("L-141", "the tiles do not have the root of the checkpoint of size %d: %w", t.cp.Size, err)
}

// fetchError is a failure of the transport, as the tile reader returns it.
type fetchError struct{ err error }

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// copy writes the tiles and bundles that a tree of size had does not have, each
// level by what the one above it says.
func (t *remoteTree) copy(had uint64) error {
	top := bundleLevel
	for tilesAt(t.cp.Size, top+1) > 0 && top < maxLevel {
		top++
	}
	for level := top; level > bundleLevel; level-- {
		if err := t.each(had, level, t.hashes); err != nil {
			return err
		}
	}
	return t.each(had, bundleLevel, t.bundles)
}

// each gives the new tiles of a level to work, in batches.
func (t *remoteTree) each(had uint64, level int, work func([]place) error) error {
	var batch []place
	last := (tilesAt(t.cp.Size, level) + tileWidth - 1) / tileWidth
	for n := max(tilesAt(had, level), tilesAt(t.log.MinIndex, level)) / tileWidth; n < last; n++ {
		p := place{level, n, widthAt(t.cp.Size, level, n)}
		if t.pruned(p) {
			continue // no more than one: the last of a log that is pruned whole
		}
		if batch = append(batch, p); len(batch) == mirrorBatch || n == last-1 {
			if err := work(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if err := t.m.ctx.Err(); err != nil {
			return err
		}
	}
	if len(batch) > 0 {
		return work(batch)
	}
	return nil
}

// pruned reports whether nothing of a tile is needed for entries at or above
// the log's least index.
func (t *remoteTree) pruned(p place) bool {
	if p.level == bundleLevel {
		return p.n*tileWidth+uint64(p.width) <= t.log.MinIndex
	}
	level := p.level
	if (level+1)*tileHeight > 62 {
		return false
	}
	return (p.n+1)<<((level+1)*tileHeight) <= t.log.MinIndex
}

// hashes fetches tiles, has them proved, and writes them.
func (t *remoteTree) hashes(batch []place) error {
	var want []int64
	for _, p := range batch {
		for i := range p.width {
			want = append(want, tlog.StoredHashIndex(p.level*tileHeight, int64(p.n*tileWidth)+int64(i)))
		}
	}
	got, err := t.reader.ReadHashes(want)
	if err != nil {
		return t.wrong(err)
	}
	for _, p := range batch {
		data := make([]byte, 0, p.width*hashSize)
		for _, h := range got[:p.width] {
			data = append(data, h[:]...)
		}
		got = got[p.width:]
		if err := t.write(p, data); err != nil {
			return err
		}
	}
	return nil
}

// bundles fetches the bundles that an earlier run did not get, compares them
// with the hashes of their records, and writes them.
func (t *remoteTree) bundles(batch []place) error {
	leaves := tiles{t.m.fsys, t.log.Dir, t.cp.Size}
	var missing []place
	var want [][]Hash
	for _, p := range batch {
		hs, err := leaves.hashes(0, p.n)
		if err != nil {
			return fmt.Errorf("reading the tile of a bundle: %w", err)
		}
		have, err := readFile(t.m.fsys, t.log.Dir+"/"+p.path(), maxTileFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading the copy: %w", err)
		}
		if err != nil || checkBundle(have, hs) != nil {
			missing, want = append(missing, p), append(want, hs)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	files, err := t.get(missing)
	if err != nil {
		return err
	}
	for i, p := range missing {
		if err := checkBundle(files[i], want[i]); err != nil {
			return fmt.Errorf("%s/%s: %w", t.log.Dir, p.path(), err)
		}
		if err := t.write(p, files[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkBundle compares the records of a bundle with their hashes. Errors:
// [ErrFormat], [ErrCorrupt].
func checkBundle(data []byte, leaves []Hash) error {
	entries, err := splitBundle(data, len(leaves))
	if err != nil {
		return err
	}
	for i, e := range entries {
		if leafHash(e) != leaves[i] {
			return corrupt("L-141", "record %d of the bundle is not the one of the tree", i)
		}
	}
	return nil
}

// get fetches files of the tree. Where the partial one is gone, since a later
// tree has the full one, that is cut.
func (t *remoteTree) get(places []place) ([][]byte, error) {
	paths := make([]string, len(places))
	for i, p := range places {
		paths[i] = p.path()
	}
	files, err := t.m.fetch(t.log.Log, paths)
	if err != nil {
		return nil, &fetchError{err}
	}
	for i, p := range places {
		if files[i] != nil {
			continue
		}
		if p.width == tileWidth {
			return nil, fmt.Errorf("%w: %s %s is not published", ErrNotFound, t.log.Log, paths[i])
		}
		full, err := t.m.one(t.log.Log, tilePath(p.level, p.n, 0))
		if err != nil {
			return nil, &fetchError{err}
		}
		if files[i], err = cutTile(full, p); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// cutTile takes the beginning of a full tile or bundle.
func cutTile(full []byte, p place) ([]byte, error) {
	if p.level != bundleLevel {
		if len(full) != tileWidth*hashSize {
			return nil, fmt.Errorf("%w: tile of %d bytes", ErrFormat, len(full))
		}
		return full[:p.width*hashSize], nil
	}
	entries, err := splitBundle(full, tileWidth)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, e := range entries[:p.width] {
		b = appendEntry(b, e)
	}
	return b, nil
}

func (t *remoteTree) write(p place, data []byte) error {
	name := t.log.Dir + "/" + p.path()
	if have, err := readFile(t.m.fsys, name, maxTileFile); err == nil && bytes.Equal(have, data) {
		return nil
	}
	if err := t.m.mkdirs(parent(name)); err != nil {
		return err
	}
	if err := writeFile(t.m.fsys, name, data); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	t.written = append(t.written, name)
	return nil
}

// remoteTiles is the tree as [tlog.TileHashReader] reads it.
type remoteTiles remoteTree

// Height implements [tlog.TileReader].
func (r *remoteTiles) Height() int { return tileHeight }

// SaveTiles implements [tlog.TileReader].
func (r *remoteTiles) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles implements [tlog.TileReader].
func (r *remoteTiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	t := (*remoteTree)(r)
	out := make([][]byte, len(want))
	var missing []place
	for i, w := range want {
		p := place{w.L, uint64(w.N), w.W}
		if out[i] = t.upper[p]; out[i] == nil {
			missing = append(missing, p)
		}
	}
	for len(missing) > 0 {
		batch := missing[:min(len(missing), mirrorBatch)]
		missing = missing[len(batch):]
		files, err := t.get(batch)
		if err != nil {
			return nil, err
		}
		for i, p := range batch {
			if len(files[i]) != p.width*hashSize {
				return nil, fmt.Errorf("%w: %s has %d bytes, not %d", ErrFormat, p.path(), len(files[i]), p.width*hashSize)
			}
			t.upper[p] = files[i]
		}
	}
	for i, w := range want {
		p := place{w.L, uint64(w.N), w.W}
		out[i] = t.upper[p]
		if p.level == 0 && p.width == tileWidth {
			delete(t.upper, p) // there are many of them, each is needed once
		}
	}
	return out, nil
}
