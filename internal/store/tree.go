package store

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"slices"
)

// The register in memory: for each registered row a digest of which row it is
// and one of what it says. The entries are spread over leaves by the first bits
// of the former, each leaf has a digest over its entries, each group of leaves
// one over theirs, and the root is one over the groups. A change makes a new
// tree that shares with the old one what did not change.

const (
	leafBits   = 12
	leafCount  = 1 << leafBits
	groupCount = 64
	groupSize  = leafCount / groupCount
)

// The digests in an entry are SHA-256, cut off. Whoever would put one row in
// the place of another needs a second preimage of 160 bits.
type (
	rowID  [16]byte
	rowSum [20]byte
)

// entry is a registered row.
type entry struct {
	id  rowID
	sum rowSum
}

// leaf holds entries in the order of their ids. It is never changed.
type leaf struct {
	entries []entry
	digest  [sha256.Size]byte
}

// tree is the register at one moment. It is never changed.
type tree struct {
	leaves [leafCount]*leaf
	groups [groupCount][sha256.Size]byte
	root   [sha256.Size]byte
	size   int
}

// What the digests begin with, so that none can stand for another.
const (
	leafMark  = "keyd register 1 leaf\n"
	groupMark = "keyd register 1 group\n"
	rootMark  = "keyd register 1 root\n"
)

func newLeaf(entries []entry) *leaf {
	text := make([]byte, 0, len(leafMark)+len(entries)*(len(rowID{})+len(rowSum{})))
	text = append(text, leafMark...)
	for i := range entries {
		text = append(text, entries[i].id[:]...)
		text = append(text, entries[i].sum[:]...)
	}
	return &leaf{entries, sha256.Sum256(text)}
}

// newTree makes a tree of entries in any order, whose ids differ. It sorts them.
func newTree(entries []entry) *tree {
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.id[:], b.id[:]) })
	t := &tree{size: len(entries)}
	empty := newLeaf(nil)
	for i := range t.leaves {
		n := 0
		for n < len(entries) && entries[n].id.leaf() == i {
			n++
		}
		t.leaves[i] = empty
		if n > 0 {
			t.leaves[i] = newLeaf(slices.Clone(entries[:n]))
		}
		entries = entries[n:]
	}
	for g := range t.groups {
		t.sumGroup(g)
	}
	t.sumRoot()
	return t
}

// leaf is the number of the leaf in which the entry of an id is.
func (id rowID) leaf() int { return int(binary.BigEndian.Uint16(id[:])) >> (16 - leafBits) }

func (t *tree) sumGroup(g int) {
	text := make([]byte, 0, len(groupMark)+groupSize*sha256.Size)
	text = append(text, groupMark...)
	for _, l := range t.leaves[g*groupSize : (g+1)*groupSize] {
		text = append(text, l.digest[:]...)
	}
	t.groups[g] = sha256.Sum256(text)
}

func (t *tree) sumRoot() {
	text := make([]byte, 0, len(rootMark)+8+groupCount*sha256.Size)
	text = append(text, rootMark...)
	text = binary.BigEndian.AppendUint64(text, uint64(t.size))
	for i := range t.groups {
		text = append(text, t.groups[i][:]...)
	}
	t.root = sha256.Sum256(text)
}

// find returns what the register has of a row.
func (t *tree) find(id rowID) (rowSum, bool) {
	entries := t.leaves[id.leaf()].entries
	i, found := slices.BinarySearchFunc(entries, id, entry.compare)
	if !found {
		return rowSum{}, false
	}
	return entries[i].sum, true
}

func (e entry) compare(id rowID) int { return bytes.Compare(e.id[:], id[:]) }

// is reports whether the row is registered with just this content.
func (t *tree) is(id rowID, sum rowSum) bool {
	known, found := t.find(id)
	return found && subtle.ConstantTimeCompare(known[:], sum[:]) == 1
}

// with returns the tree after the edits: a row's new content, or nil for a row
// that goes.
func (t *tree) with(edits map[rowID]*rowSum) *tree {
	next := *t
	byLeaf := make(map[int][]rowID)
	for id := range edits {
		byLeaf[id.leaf()] = append(byLeaf[id.leaf()], id)
	}
	groups := make(map[int]bool)
	for i, ids := range byLeaf {
		old := t.leaves[i]
		next.leaves[i] = old.with(ids, edits)
		next.size += len(next.leaves[i].entries) - len(old.entries)
		groups[i/groupSize] = true
	}
	for g := range groups {
		next.sumGroup(g)
	}
	next.sumRoot()
	return &next
}

func (l *leaf) with(ids []rowID, edits map[rowID]*rowSum) *leaf {
	entries := make([]entry, 0, len(l.entries)+len(ids))
	for _, e := range l.entries {
		if _, edited := edits[e.id]; !edited {
			entries = append(entries, e)
		}
	}
	for _, id := range ids {
		if sum := edits[id]; sum != nil {
			entries = append(entries, entry{id, *sum})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.id[:], b.id[:]) })
	return newLeaf(slices.Clip(entries))
}
