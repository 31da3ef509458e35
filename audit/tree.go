package audit

import (
	"fmt"
	"math/bits"
	"slices"
)

// tree grows a log's Merkle tree and its tiles. Files wait in pending until
// flush writes them; nothing is durable before the file system is synced.
type tree struct {
	fsys    fileSystem
	shard   Shard
	dir     string
	origin  string
	size    uint64
	covered uint64   // size of the published checkpoint
	edges   [][]Hash // of each level, the hashes of its rightmost tile that is not full
	stack   []Hash   // perfect subtrees, the largest first
	bundle  []byte   // entries of the rightmost bundle that is not full
	pending []pendingFile
	dirs    map[string]bool // made or seen
	written []string        // since the last sync
	full    []string        // partial directories whose tile is full and not yet published
}

type pendingFile struct {
	name string
	data []byte
}

func newTree(fsys fileSystem, shard Shard, origin string) *tree {
	return &tree{fsys: fsys, shard: shard, dir: shard.dir(), origin: origin, dirs: map[string]bool{}}
}

// loadTree continues a tree of the given size from its tiles.
func loadTree(fsys fileSystem, shard Shard, origin string, size uint64) (*tree, error) {
	t, err := loadTreeHashes(fsys, shard, origin, size, size)
	if err != nil {
		return nil, err
	}
	if size%tileWidth != 0 {
		src := &tiles{fsys, t.dir, size}
		entries, err := src.entries(size / tileWidth)
		if err != nil {
			return nil, fmt.Errorf("continuing %s at size %d: %w", t.origin, size, err)
		}
		for i, e := range entries {
			if leafHash(e) != t.edges[0][i] {
				return nil, corrupt("L-47", "%s:%d: entry and leaf hash differ", shard.logName(), size-uint64(len(entries)-i))
			}
			t.bundle = appendEntry(t.bundle, e)
		}
	}
	return t, nil
}

// loadTreeHashes continues a tree of the given size, without its last bundle,
// from the tiles of a tree that has grown to another size since.
func loadTreeHashes(fsys fileSystem, shard Shard, origin string, size, grown uint64) (*tree, error) {
	t := newTree(fsys, shard, origin)
	src := &tiles{fsys, t.dir, grown}
	for level := 0; tilesAt(size, level) > 0; level++ {
		t.edges = append(t.edges, nil)
		n := tilesAt(size, level)
		if n%tileWidth == 0 {
			continue
		}
		hs, err := src.hashes(level, n/tileWidth)
		if err != nil {
			return nil, fmt.Errorf("continuing %s at size %d: %w", t.origin, size, err)
		}
		t.edges[level] = hs[:n%tileWidth]
	}
	t.size = size
	t.stack = stackOf(t.edges, size)
	return t, nil
}

// stackOf returns the perfect subtrees of a tree from the edges of its tiles.
func stackOf(edges [][]Hash, size uint64) []Hash {
	var stack []Hash
	used := make([]int, len(edges))
	for bit := bits.Len64(size) - 1; bit >= 0; bit-- {
		if size>>bit&1 == 0 {
			continue
		}
		level, width := bit/tileHeight, 1<<(bit%tileHeight)
		at := used[level]
		stack = append(stack, subtree(edges[level][at:at+width]))
		used[level] += width
	}
	return stack
}

// add appends a record.
func (t *tree) add(record []byte) {
	t.bundle = appendEntry(t.bundle, record)
	t.addLeaf(leafHash(record))
	if t.size%tileWidth == 0 {
		n := t.size/tileWidth - 1
		t.queue(tilePath(bundleLevel, n, 0), t.bundle)
		t.full = append(t.full, t.dir+"/"+tilePath(bundleLevel, n, 0)+".p")
		// The next will be about as long: grown from nothing it was copied many times.
		t.bundle = make([]byte, 0, len(t.bundle)+len(t.bundle)/8)
	}
}

// addLeaf appends a leaf hash, without an entry.
func (t *tree) addLeaf(h Hash) {
	t.push(0, h)
	for n, height := t.size, 0; n&1 == 1; n >>= 1 {
		last := len(t.stack) - 1
		h = nodeHash(t.stack[last], h)
		t.stack = t.stack[:last]
		if height++; height%tileHeight == 0 {
			t.push(height/tileHeight, h)
		}
	}
	t.stack = append(t.stack, h)
	t.size++
}

// clone returns a tree that grows apart from t.
func (t *tree) clone() *tree {
	c := newTree(t.fsys, t.shard, t.origin)
	c.size, c.stack = t.size, slices.Clone(t.stack)
	for _, edge := range t.edges {
		c.edges = append(c.edges, slices.Clone(edge))
	}
	return c
}

// push adds a hash to the edge of a level and queues the tile that it fills.
func (t *tree) push(level int, h Hash) {
	for len(t.edges) <= level {
		t.edges = append(t.edges, nil)
	}
	edge := append(t.edges[level], h)
	if len(edge) < tileWidth {
		t.edges[level] = edge
		return
	}
	// size still counts the leaves before this one.
	n := (t.size+1)>>(level*tileHeight)/tileWidth - 1
	t.queue(tilePath(level, n, 0), joinHashes(edge))
	t.full = append(t.full, t.dir+"/"+tilePath(level, n, 0)+".p")
	t.edges[level] = edge[:0]
}

func joinHashes(hs []Hash) []byte {
	b := make([]byte, 0, len(hs)*hashSize)
	for _, h := range hs {
		b = append(b, h[:]...)
	}
	return b
}

func (t *tree) queue(path string, data []byte) {
	t.pending = append(t.pending, pendingFile{t.dir + "/" + path, data})
}

// root returns the root of the tree.
func (t *tree) root() Hash {
	if t.size == 0 {
		return emptyRoot
	}
	h := t.stack[len(t.stack)-1]
	for i := len(t.stack) - 2; i >= 0; i-- {
		h = nodeHash(t.stack[i], h)
	}
	return h
}

// checkpoint returns the size and root to sign.
func (t *tree) checkpoint() Checkpoint { return Checkpoint{t.origin, t.size, t.root()} }

// partials queues the tiles and the bundle that are not full, but for those that
// the published checkpoint covers: they are never written again (L-46).
func (t *tree) partials() {
	for level, edge := range t.edges {
		if len(edge) > 0 && tilesAt(t.size, level) > tilesAt(t.covered, level) {
			t.queue(tilePath(level, tilesAt(t.size, level)/tileWidth, len(edge)), joinHashes(edge))
		}
	}
	if w := int(t.size % tileWidth); w > 0 && len(t.bundle) > 0 && t.size > t.covered {
		t.queue(tilePath(bundleLevel, t.size/tileWidth, w), t.bundle)
	}
}

// flush writes what is pending. What it could not write stays pending.
func (t *tree) flush() error {
	for len(t.pending) > 0 {
		p := t.pending[0]
		if err := t.mkdirs(parent(p.name)); err != nil {
			return fmt.Errorf("writing %s: %w", p.name, err)
		}
		if err := writeFile(t.fsys, p.name, p.data); err != nil {
			return fmt.Errorf("writing %s: %w", p.name, err)
		}
		t.written = append(t.written, p.name)
		t.pending = t.pending[1:]
	}
	t.pending = nil
	return nil
}

func (t *tree) mkdirs(dir string) error {
	if dir == "." || t.dirs[dir] {
		return nil
	}
	if err := t.mkdirs(parent(dir)); err != nil {
		return err
	}
	if err := t.fsys.Mkdir(dir); err != nil {
		return err
	}
	if len(t.dirs) > 4096 {
		clear(t.dirs)
	}
	t.dirs[dir] = true
	return nil
}
